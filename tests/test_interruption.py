"""Interrupted at any moment: no process stays behind, and the same command ends where an unbroken run does.

`MULE_KILLS=20 pytest tests/test_interruption.py` kills a small suite that often, in about ten minutes on two cores.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from mule_lib import data
from mule_lib.data.items import SETS
from mule_lib.params import ROOT

KILLS = int(os.environ.get("MULE_KILLS", 0))
# Of one start: how long it took, where, when, and in which process.
OF_THE_START = ("seconds", "train_seconds", "evaluate_seconds", "git")
PLANTED = "sk-planted-and-never-shown"


def gone(processes: list[psutil.Process], seconds: float = 5) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_nothing_outlives_a_killed_driver(how):
    """A driver, a shell, a job that has just begun, and what the job started in a session of its own."""
    sleeps = "import subprocess, time; subprocess.Popen(['sleep', '99'], start_new_session=True); time.sleep(99)"
    job = f"from mule_lib.suite import graph; graph.end_with_driver(); {sleeps}"
    command = ["bash", "-c", f'{sys.executable} -c "{job}"; true']
    code = "from mule_lib.suite import cli, graph; "
    code += f"cli.COMMANDS['drive'] = (lambda: graph.drive({command!r}), '', {{}}); cli.main()"
    driver = subprocess.Popen([sys.executable, "-c", code, "drive"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        begun, tree = time.time(), []
        while len(tree) < 3 and time.time() < begun + 60:
            time.sleep(0.05)
            tree = psutil.Process(driver.pid).children(recursive=True)
        assert len(tree) == 3
        assert {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}.items() <= tree[-1].environ().items()
        driver.send_signal(signal.Signals[how])
        assert gone(tree), [process.cmdline() for process in tree if process.is_running()]
        said = "" if how == "SIGKILL" else "mule drive: interrupted; the same command goes on from here\n"
        assert driver.communicate(timeout=5)[1].removeprefix("Terminated\n") == said
    finally:
        driver.kill()


class SmallSuite:
    """A copy of the repository with a suite of two rows, four steps and six items a set, on Fable."""

    def __init__(self, home: Path):
        self.home, self.out = home, home / "outputs" / "tiny"
        for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
            if not name.startswith(("outputs/", "tests/", "docs/")):
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, home / name)
        books = data.load_benchmark("books")
        sets = {name: getattr(books.sets, name)[:6] for name in SETS}
        sets = replace(books.sets, benchmark="muse_books", **sets)
        data.save(home / "few", replace(books, records=books.records[:12], validation=[], sets=sets))
        group = {"rows": ["sft", "mule"], "benchmarks": ["muse_books"]}
        self.write("suite", name="tiny", params="tiny", runs=[group], data={"muse_books": "few"})
        rows = {"sft": {}, "mule": {}}
        self.write("04_training", rows=rows, defaults={"steps": 4, "train_batch_size": 6, "save_every": 1})
        self.write("05_main_results")

    def write(self, folder: str, **values) -> None:
        (self.home / "params" / folder / "tiny.yaml").write_text(yaml.safe_dump(values))

    def start(self) -> subprocess.Popen:
        command = "reproduce --suite params/suite/tiny.yaml --cores 2 -- outputs/tiny/tables/table1.csv"
        with (self.home / "log.txt").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "mule_lib.suite.cli", *command.split()],
                **{"cwd": self.home, "stdout": log, "stderr": log},
                env=os.environ | {"PYTHONPATH": str(self.home), "OPENAI_API_KEY": PLANTED, "HF_TOKEN": PLANTED},
            )

    def files(self) -> dict[str, str]:
        """The text of each table and file of a run, but for what is of one start; of checkpoints their names alone."""
        found = [file for file in (*self.out.glob("tables/*"), *self.out.glob("runs/**/*")) if file.is_file()]
        names = {file.relative_to(self.out).as_posix(): file for file in found}
        return {name: "" if "/." in name else self.text(file) for name, file in names.items()}

    def text(self, file: Path) -> str:
        keep = lambda pairs: {name: value for name, value in pairs if name not in OF_THE_START}  # noqa: E731
        return (
            json.dumps(json.loads(file.read_text(), object_pairs_hook=keep))
            if file.suffix == ".json"
            else file.read_text()
        )


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="MULE_KILLS=20 kills a small suite twenty times, in about ten minutes")
def test_a_suite_that_is_killed_again_and_again_ends_as_an_unbroken_one(tmp_path):
    """SIGKILL to the driver, to a kernel, to all; SIGTERM; Ctrl-C. No process is left after 5 s, no file differs."""
    suite, rng, begun = SmallSuite(tmp_path), random.Random(0), time.time()
    assert suite.start().wait() == 0, (tmp_path / "log.txt").read_text()
    whole, length = suite.files(), time.time() - begun
    assert len([name for name in whole if name.endswith("metrics.json")]) == 2 and "tables/table1.csv" in whole
    done = 0
    while done < KILLS:
        shutil.rmtree(suite.out)
        shutil.rmtree(tmp_path / ".snakemake")
        finished = False
        while not finished:
            driver = suite.start()
            try:
                driver.wait(rng.uniform(0, 0.4 * length) if done < KILLS else None)
                finished = True
                assert driver.returncode == 0, (tmp_path / "log.txt").read_text()[-3000:]
                continue
            except subprocess.TimeoutExpired:
                tree = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
            how = ("driver", "kernel", "all", signal.SIGTERM, signal.SIGINT)[done % 5]
            kernels = [process for process in tree if "ipykernel_launcher" in process.cmdline()]
            if isinstance(how, signal.Signals):
                driver.send_signal(how)
            for process in {"driver": tree[:1], "kernel": kernels[:1], "all": tree}.get(how, []):
                process.kill()
            if how == "kernel":  # the suite goes on without that step, and fails at its end
                assert gone(kernels[:1]) and (driver.wait() != 0 or not kernels)
                finished = not kernels
            assert gone(tree), (how, [process.cmdline() for process in tree if process.is_running()])
            done += 1
            print(f"{done}: {how}, {len(tree)} processes, {len(suite.files())} files", flush=True)
        assert suite.files() == whole
    held = [file for file in tmp_path.rglob("*") if file.is_file() and PLANTED.encode() in file.read_bytes()]
    assert not held and not list(suite.out.rglob(".*.draft"))
