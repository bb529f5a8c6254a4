"""Run folders: whole or not at all, never over another run's, reused only where all agrees."""

import os
import platform
import subprocess
import sys

import pytest

from mule_lib.data import files
from mule_lib.run_folder import (
    RunFolderError,
    check_free,
    is_reusable,
    read_identity,
    remove_drafts,
    written_whole,
)

TOLD = {"params": {"steps": 40, "seed": 0}, "code": {"mule_lib/a.py": "1"}}


def _write(folder, told=TOLD):
    with written_whole(folder) as draft:
        files.write_json(draft / "metrics.json", {"metrics": {}})
        files.write_json(draft / "provenance.json", {"identity": told})


def test_a_run_is_reused_only_if_all_agrees(tmp_path):
    """Same identity: reused and free to write; any difference: neither, and the difference is named."""
    folder = tmp_path / "seed-0"
    assert not is_reusable(folder, TOLD)
    check_free(folder, TOLD)
    _write(folder)
    assert is_reusable(folder, TOLD)
    check_free(folder, TOLD)
    other = {"params": {"steps": 41, "seed": 0}, "code": {"mule_lib/a.py": "2"}}
    assert not is_reusable(folder, other)
    with pytest.raises(RunFolderError, match=r"steps 40 \(now 41\), code.mule_lib/a.py; choose another") as error:
        check_free(folder, other)
    assert "\n" not in str(error.value)
    check_free(folder, other, overwrite=True)


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    """A folder with other files is refused, also with permission to overwrite."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match="is no run"):
            check_free(tmp_path / "thesis", TOLD, overwrite=overwrite)


def test_a_run_without_its_metrics_is_free(tmp_path):
    """What lost its result may be written again."""
    _write(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert read_identity(tmp_path / "run") is None
    check_free(tmp_path / "run", {"params": {}})


def test_an_error_leaves_the_old_run(tmp_path):
    """Nothing of the new one is seen, and no draft stays."""
    _write(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "run") as draft:
        files.write_json(draft / "metrics.json", {"new": True})
        raise ZeroDivisionError
    assert is_reusable(tmp_path / "run", TOLD)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_new_run_replaces_the_old_one_whole(tmp_path):
    """Files that only the old run had are gone."""
    _write(tmp_path / "run")
    (tmp_path / "run" / "old.csv").write_text("1")
    _write(tmp_path / "run", {"params": {}})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.json", "provenance.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_drafts_of_killed_processes_are_removed(tmp_path):
    """Those of dead processes of this machine go; of living ones and of other machines they stay."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    node, names = platform.node(), {}
    for owner in (f"@{node}.{dead.stdout.strip()}", f"@{node}.{os.getpid()}", f"@else{node}.{dead.stdout.strip()}"):
        names[owner] = tmp_path / "books" / f".seed-0{owner}.draft"
        names[owner].mkdir(parents=True)
    remove_drafts(tmp_path)
    assert [path.exists() for path in names.values()] == [False, True, True]


def test_a_kill_while_writing_leaves_no_part(tmp_path):
    """A process killed in the middle of writing leaves nothing under the run's own name."""
    code = (
        "import os, signal; from pathlib import Path; from mule_lib.run_folder import written_whole\n"
        f"with written_whole(Path({str(tmp_path / 'run')!r})) as draft:\n"
        "    (draft / 'metrics.json').write_text('{}')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not (tmp_path / "run").exists()
    remove_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []
