"""Notebook 04 from end to end on a few records: its run folder, reuse, refusal, and what a failing cell leaves."""

import json
import os
import sys
from dataclasses import replace

import nbformat
import pytest

from mule_lib import run, run_folder
from mule_lib.data import load, save
from mule_lib.paper import METRICS
from mule_lib.params import ROOT, ParameterError, Table, Training
from mule_lib.run import NotebookError, run_notebook
from mule_lib.run_folder import RunFolderError
from mule_lib.stale_runs import set_aside
from mule_lib.training import TeacherFileError
from mule_lib.training_run import load_data, taught, write_teacher

NOTEBOOK = ROOT / "notebooks" / "04_training.ipynb"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Fable-Books cut to twelve training records and six items a set, in a folder as notebook 01 writes it."""
    folder = tmp_path_factory.mktemp("data")
    data = load("books")
    names = ("forget", "general", "neighbor", "attack", "mmlu", "controls")
    sets = replace(data.sets, **{name: getattr(data.sets, name)[:6] for name in names})
    save(folder, replace(data, records=data.records[:12], validation=[], sets=sets))
    return folder


@pytest.fixture(scope="module")
def teacher(few, tmp_path_factory):
    """What the steered base says to the twelve records."""
    file = tmp_path_factory.mktemp("teachers") / "oracle-cot.jsonl"
    assert write_teacher(file, Training(data_dir=str(few))) == (12, "written")
    return file


def test_a_teacher_file_is_reused_and_refused(few, teacher):
    """Written once; the same data takes it as it is, other data is refused and, on demand, replaced."""
    p = Training(data_dir=str(few), teacher_file=str(teacher))
    assert write_teacher(teacher, p) == (12, "reused")
    assert [target.id for target in taught(p, load_data(p))] == [record.id for record in load_data(p).records]
    whole = Training(teacher_file=str(teacher))
    with pytest.raises(TeacherFileError, match="made with other records"):
        taught(whole, load_data(whole))
    with pytest.raises(TeacherFileError, match="made with other records"):
        write_teacher(teacher, whole)
    with pytest.raises(TeacherFileError, match="sft with these options keeps no teacher's answers"):
        write_teacher(teacher, Training(method="sft"))


@pytest.mark.slow
def test_notebook_03_writes_a_run_that_is_reused(few, teacher, tmp_path):
    """One row, trained for two steps: every file of the layout; then reuse without a kernel, and refusal by name."""
    out = tmp_path / "runs" / "books" / "mule" / "seed-0"
    given = {"data_dir": str(few), "teacher_file": str(teacher), "steps": 2, "train_batch_size": 6}
    given |= {"out_dir": str(out)}
    ran = run_notebook(NOTEBOOK, tmp_path / "executed.ipynb", overrides=given, threads=1)
    assert not ran.reused
    assert sorted(file.name for file in out.iterdir()) == [
        *("metrics.json", "params.json", "provenance.json", "samples.jsonl", "values.json"),
    ]
    told = {name: json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "values", "provenance")}
    for metric in METRICS:
        mean = 100 * sum(told["values"][metric]) / len(told["values"][metric])
        assert told["metrics"]["metrics"][metric] == pytest.approx(mean)
    assert (told["metrics"]["row"], told["metrics"]["label"], told["metrics"]["timing"]["steps"]) == ("mule", "MULE", 2)
    assert told["metrics"]["identity"] == told["provenance"]["fingerprint"]
    assert told["provenance"]["identity"]["data"]["train.jsonl"] and told["provenance"]["params"]["steps"] == 2
    assert len(told["metrics"]["log"]) == 2
    assert told["metrics"]["obedience"]
    executed = nbformat.read(tmp_path / "executed.ipynb", as_version=4)
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    (curve,) = [output for output in shown if "image/png" in output.get("data", {})]
    assert "the loss" in curve["metadata"]["image/png"]["alt"]

    before = (out / "metrics.json").read_text()
    os.utime(out / "metrics.json", (1, 1))
    again = run_notebook(NOTEBOOK, tmp_path / "none.ipynb", overrides={**given, "overwrite": True})
    assert again.reused and not (tmp_path / "none.ipynb").exists()
    assert (out / "metrics.json").read_text() == before and (out / "metrics.json").stat().st_mtime > 1
    with pytest.raises(RunFolderError, match=r"differs in steps 2 \(now 3\)"):
        run_notebook(NOTEBOOK, tmp_path / "none.ipynb", overrides={**given, "steps": 3})

    assert set_aside(tmp_path, []) == []  # nobody asks for it, but it is what the same run would give today
    source = {**told["provenance"], "identity": {**told["provenance"]["identity"], "code": {}}}
    (out / "provenance.json").write_text(json.dumps(source))
    assert set_aside(tmp_path, [out]) == []
    assert set_aside(tmp_path, []) == [tmp_path / "stale" / "books" / "mule" / "seed-0"] and not out.exists()


def _notebook(path, *cells):
    head = nbformat.v4.new_code_cell('name: str = "x"', metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[head, *(nbformat.v4.new_code_cell(cell) for cell in cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)


def test_a_failing_cell_is_named_and_kept(tmp_path, capsys):
    """The error names cell, error and executed copy; the copy holds the traceback; threads are limited inside."""
    body = 'import os\nprint("threads", os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"])'
    _notebook(tmp_path / "bad.ipynb", body, "1 / 0")
    run.limit_threads(1)
    with pytest.raises(NotebookError, match=r"bad.ipynb, cell \d: ZeroDivisionError: division by zero; executed copy:"):
        run._execute(tmp_path / "bad.ipynb", tmp_path / "done.ipynb", Table())
    kept = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    outputs = [output for cell in kept.cells for output in cell.get("outputs", [])]
    assert any(output.get("ename") == "ZeroDivisionError" for output in outputs)
    assert any("threads 1 1" in output.get("text", "") for output in outputs)
    assert "1 / 0" in capsys.readouterr().err


def test_a_dead_kernel_is_said(tmp_path):
    """A kernel that is killed, as for lack of memory, is an error with the likely reason."""
    _notebook(tmp_path / "dead.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookError, match=r"dead\.ipynb: the kernel died, most often for lack of memory"):
        run._execute(tmp_path / "dead.ipynb", tmp_path / "done.ipynb", Table())


def test_a_folder_of_another_thing_is_refused_before_the_kernel(tmp_path):
    """An out_dir with other files, or a run without this notebook's identity, is refused in one line."""
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(RunFolderError, match="exists and is no run"):
        run_notebook(NOTEBOOK, tmp_path / "none.ipynb", overrides={"out_dir": str(tmp_path), "overwrite": True})
    assert not run_folder.is_reusable(tmp_path, {})


def test_a_run_that_asks_for_tasks_without_the_package_is_refused(monkeypatch):
    """With the parameter's name and the command, before anything is loaded."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ParameterError, match=r"harness_tasks: .*pip install lm-eval==0\.4\.13"):
        run._check_tasks(["mmlu"])
