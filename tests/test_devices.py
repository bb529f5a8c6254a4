"""GPUs are handed out one per job, by locks that die with their process; no GPU is needed to test it."""

import os
import subprocess
import sys
import threading

import pytest

from mule_lib import devices
from mule_lib.devices import NAMES, one_gpu, visible


def test_two_jobs_get_two_gpus_and_a_third_waits(tmp_path, monkeypatch):
    """Each sees one GPU; the third gets the first that is let go; the environment is as before."""
    monkeypatch.setenv(NAMES, "4,7")
    got = []

    def third():
        with one_gpu(["4", "7"], folder=tmp_path, wait=0.01) as name:
            got.append(name)

    with one_gpu(folder=tmp_path) as first:
        assert (first, os.environ[NAMES]) == ("4", "4")
        with one_gpu(["4", "7"], folder=tmp_path) as second:
            assert (second, os.environ[NAMES]) == ("7", "7")
            waiting = threading.Thread(target=third)
            waiting.start()
            waiting.join(0.1)
            assert waiting.is_alive() and not got
        waiting.join(5)
        assert got == ["7"]
    assert os.environ[NAMES] == "4,7"


def test_a_dead_process_holds_nothing(tmp_path):
    """The lock of a killed job is free at once."""
    code = (
        "import os, signal; from pathlib import Path; from mule_lib.devices import one_gpu\n"
        f"with one_gpu(['0', '1'], folder=Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with one_gpu(["0", "1"], folder=tmp_path) as name:
        assert name == "0"


@pytest.mark.parametrize(("names", "shown"), [([], None), (["3"], "3")])
def test_nothing_is_held_where_there_is_no_choice(names, shown, tmp_path, monkeypatch):
    """One GPU or none: no lock file, no change."""
    monkeypatch.delenv(NAMES, raising=False)
    with one_gpu(names, folder=tmp_path) as name:
        assert name == shown and NAMES not in os.environ
    assert not list(tmp_path.iterdir())


def test_visible_gpus_come_from_the_environment_or_the_driver(tmp_path, monkeypatch):
    """The variable wins; without it the driver's list counts; without a driver there is none."""
    monkeypatch.setenv(NAMES, "1,3")
    assert visible() == ["1", "3"]
    monkeypatch.setenv(NAMES, "-1")
    assert visible() == []
    monkeypatch.delenv(NAMES)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: x)'\necho 'GPU 1: NVIDIA A (UUID: y)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible() == ["0", "1"]
    tool.unlink()
    assert devices.visible() == []
