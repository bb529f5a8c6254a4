"""Runs: everything that numbers depend on is in the identity and nothing else; folders are whole and never replaced."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from mule_lib import methods
from mule_lib.data import files, load_benchmark, save
from mule_lib.data.items import SETS
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.params import METHOD_OPTIONS, ROOT, TableNotebook, Training
from mule_lib.suite import RunFolderError, notebook, open_run
from mule_lib.suite import identity as identities
from mule_lib.suite.identity import changed_values, code_hashes, fingerprint, identity, model_hash
from mule_lib.suite.notebook import NotebookError, run_notebook
from mule_lib.suite.runs import (
    NOTEBOOK,
    check_free,
    is_reusable,
    read_identity,
    set_aside,
    shared_teacher_answers,
    written_whole,
)  # fmt: skip
from mule_lib.training import Settings

HELD = {"params": {"steps": 40, "seed": 0}, "code": {"mule_lib/a.py": "1"}}


def print_of(seed=0, **changed):
    return fingerprint(identity(NOTEBOOK, Training(**changed), seed=seed))


# Identity


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1}, {"steps": 41}, {"learning_rate": 0.002}, {"options": {"top_k": 11}}, {"benchmark": "cyber"},
        {"model": "gold"}, {"row": "mule_again"}, {"beyond": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_the_identity(changed):
    assert print_of(**changed) != print_of()


def test_place_permission_and_defaults_spelt_out_do_not():
    """Where a result goes, whether it may replace another, which seeds go with it, an option at its default."""
    assert print_of(out_dir="/elsewhere", overwrite=True, seeds=[0, 1]) == print_of()
    assert print_of(options={"top_k": METHOD_OPTIONS["mule"]().top_k}) == print_of()
    # Only the first seed is measured beyond the paper.
    assert print_of(beyond=True, seeds=[0, 1], seed=1) == print_of(seeds=[0, 1], seed=1)


def test_data_counts_by_content(tmp_path):
    """The same records in another folder are the same run; a changed record is not; tables beside them do not count."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "evaluation").mkdir(parents=True)
        (folder / "train.jsonl").write_text("{}\n")
        (folder / "evaluation" / "forget.jsonl").write_text("{}\n")
    (other / "table.csv").write_text("numbers about the data\n")
    assert print_of(data_dir=str(one)) == print_of(data_dir=str(other)) != print_of()
    (other / "evaluation" / "forget.jsonl").write_text("{} \n")
    assert print_of(data_dir=str(one)) != print_of(data_dir=str(other))


def test_code_prompts_and_packages_count(monkeypatch):
    """Rooms that make numbers are in, rooms that check, read and start are not; a version is another run."""
    before = identity(NOTEBOOK, Training(), seed=0)
    rooms = {name.split("/")[1] for name in before["code"] if name.startswith("mule_lib/")}
    assert {"prompts.py", "data", "models", "training", "evaluate"} <= rooms
    assert not {"params", "report", "suite"} & rooms
    assert {"methods.METHODS[mule]", "methods.BIDIRECTIONAL_TOPK", "losses.bidirectional_topk"} <= set(before["code"])
    assert not {"methods.METHODS[ga]", "losses.npo"} & set(before["code"])
    assert before["prompts"].keys() == {"fable.yaml"} and json.dumps(before)
    monkeypatch.setattr(identities, "version", lambda name: "0.0")
    after = identity(NOTEBOOK, Training(), seed=0)
    assert {name.split(".")[0] for name, *_ in changed_values(before, after)} == {"packages"}


def test_models_count_by_their_files(tmp_path):
    """The embedded models differ; a folder's hash follows its weights and not its name; hub models go by revision."""
    assert model_hash("base") != model_hash("gold")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    assert model_hash(str(tmp_path / "one")) == model_hash(str(tmp_path / "other"))
    (tmp_path / "other" / "model.safetensors").write_bytes(b"Weights")
    assert model_hash(str(tmp_path / "one")) != model_hash(str(tmp_path / "other"))
    assert model_hash("no-one/nothing", "abc") == "no-one/nothing@abc"


def measured(method):
    """What training and evaluation return, made up."""
    done = {"seconds": 1.0, "steps": 2, "step_flops": 1e9, "obedience": [], "log": [{"loss": 1.0}]}
    trained = SimpleNamespace(method=methods.get(method), settings=Settings(), **done)
    values = {metric: [1.0, 0.0] for metric in METRICS}
    points = dict.fromkeys(METRICS, 50.0)
    return trained, SimpleNamespace(
        metrics=points, values=values, n=dict.fromkeys(METRICS, 2), details={"forget": {"items": []}}, samples=[],
        kinds={},
    )  # fmt: skip


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library that identities are taken of; `edit` replaces text in one of its files."""
    home = tmp_path / "mule_lib"
    shutil.copytree(ROOT / "mule_lib", home, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    monkeypatch.setattr(identities, "LIBRARY", home)

    def edit(name, old, new):
        text = (home / name).read_text("utf-8")
        assert old in text
        (home / name).write_text(text.replace(old, new, 1), "utf-8")

    return edit


def test_adding_a_method_repeats_no_finished_run(library, tmp_path):
    """One finished run of every method; a new loss and a new entry leave all valid, a changed loss only its own."""
    given = {name: Training(method=name, row=name, out_dir=str(tmp_path / "runs" / name)) for name in METHOD_OPTIONS}
    for name, p in given.items():
        run = open_run(p)
        assert run.pending == (0,)
        run.write(0, *measured(name), evaluate_seconds=1.0)

    def repeated():
        return {name for name, p in given.items() if open_run(p.model_copy(update={"overwrite": True})).pending}

    assert repeated() == set()
    library("losses.py", "def duet(", "def mine(logits):\n    return logits.sum()\n\n\ndef duet(")
    library(
        "methods.py",
        "METHODS: dict",
        "def _mine(answer, o):\n    return losses.mine(answer.logits, 0)\n\n\nMETHODS: dict",
    )
    library("methods.py", '    "mule": Method(', '    "mine": Method("Mine", (_forget(_mine),)),\n    "mule": Method(')
    assert repeated() == set()
    library("methods.py", "def _mine(", "# Words do not count.\ndef _mine(")
    library("report/__init__.py", '"""', '"""Neither does a room that reads. ')
    assert repeated() == set()
    library("methods.py", '"MULE", _distil(BIDIRECTIONAL_TOPK)', '"MULE", _distil(DUET)')
    assert repeated() == {"mule"}
    library("losses.py", "def duet(", "@torch.no_grad()\ndef duet(")
    assert repeated() == {"mule", "duet", "mule_duet_loss"}
    before = code_hashes("ga")
    library("data/fable/fable.yaml", "\n", "\n# Another world.\n")
    assert changed_values(before, code_hashes("ga"))[0][0] == "mule_lib/data/fable/fable.yaml"
    library("prompts.py", 'DATE = "', 'DATE = "x')
    assert repeated() == set(given)


def test_one_run_folder_for_each_seed(tmp_path):
    """Seeds whose folder agrees are skipped, others are pending; another run is refused by name."""
    p = Training(seeds=[0, 1], out_dir=str(tmp_path / "mule"))
    run = open_run(p)
    assert run.pending == (0, 1) and run.checkpoints(0) is None
    result = run.write(0, *measured("mule"), evaluate_seconds=1.0)
    assert result.identity == fingerprint(read_identity(run.seed_folder(0)))
    assert open_run(p).pending == (1,)
    run.write(1, *measured("mule"), evaluate_seconds=1.0)
    assert [r.seed for r in open_run(p).results()] == [0, 1] and open_run(p).pending == ()
    assert json.loads((run.seed_folder(1) / "params.json").read_text())["seeds"] == [1]
    with pytest.raises(RunFolderError, match=r"seed-0 holds another run, it differs in steps 40 \(now 41\);"):
        open_run(p.model_copy(update={"steps": 41}))


# Folders


def write(folder, held=HELD):
    with written_whole(folder) as draft:
        files.write_json(draft / "metrics.json", {"metrics": {}})
        files.write_json(draft / "provenance.json", {"identity": held})


def test_a_run_is_reused_only_if_all_agrees(tmp_path):
    """Same identity: reused and free to write; any difference: neither, and the difference is named."""
    folder, other = tmp_path / "seed-0", {"params": {"steps": 41, "seed": 0}, "code": {"mule_lib/a.py": "2"}}
    check_free(folder, HELD)
    write(folder)
    check_free(folder, HELD)
    assert is_reusable(folder, HELD) and not is_reusable(folder, other)
    with pytest.raises(
        RunFolderError, match=r"steps 40 \(now 41\), code.mule_lib/a.py; choose another out_dir, or [^\n]+$"
    ):
        check_free(folder, other)
    check_free(folder, other, overwrite=True)
    (folder / "metrics.json").unlink()  # what lost its result may be written again
    assert read_identity(folder) is None
    check_free(folder, other)


def test_a_run_is_replaced_whole(tmp_path):
    """Files that only the old one had go with it; no draft stays."""
    write(tmp_path / "run")
    (tmp_path / "run" / "old.csv").write_text("1")
    write(tmp_path / "run", {"params": {}})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.json", "provenance.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("fits", range(5))
def test_a_full_disk_loses_nothing_that_was_whole(tmp_path, monkeypatch, fits):
    """Whichever file no longer fits: the run that was there stays as it was, and no part of the new one."""
    run, written, write_text = open_run(Training(out_dir=str(tmp_path), overwrite=True)), [], Path.write_text

    def full(file, text, **more):
        written.append(write_text(file, text if len(written) < fits else text[:9], **more))
        if len(written) > fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run.write(0, *measured("mule"), evaluate_seconds=1.0)
    before = {file: file.read_bytes() for file in (tmp_path / "seed-0").iterdir()}
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device"):
        run.write(0, *measured("mule"), evaluate_seconds=2.0)
    assert {file: file.read_bytes() for file in tmp_path.glob("*/*")} == before and len([*tmp_path.iterdir()]) == 1


def test_a_kill_while_writing_leaves_no_part(tmp_path):
    """Nothing under the run's own name, and a draft that the next start of a suite removes."""
    (tmp_path / "runs").mkdir()
    code = (
        "import os, signal; from pathlib import Path; from mule_lib.suite.runs import written_whole\n"
        f"with written_whole(Path({str(tmp_path / 'runs' / 'one')!r})) as draft:\n"
        "    (draft / 'metrics.json').write_text('{}')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert [path.suffix for path in (tmp_path / "runs").iterdir()] == [".draft"]
    assert set_aside(tmp_path, []) == [] and not list((tmp_path / "runs").iterdir())


# Notebook 04


@pytest.mark.slow
def test_notebook_04_writes_runs_that_are_reused(tmp_path, monkeypatch):
    """Two seeds in one kernel, two steps each: every file; then reuse without a kernel, refusal, and setting aside.

    The steered base's answers are asked once; what else of files of teacher answers is refused: tests/test_teacher.py.
    """
    for name in ("OPENAI_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, "sk-planted-and-never-shown")
    few, teacher, data = tmp_path / "data", tmp_path / "oracle-cot.jsonl", load_benchmark("books")
    sets = replace(data.sets, **{name: getattr(data.sets, name)[:6] for name in SETS})
    save(few, replace(data, records=data.records[:12], validation=[], sets=sets))
    asked = [shared_teacher_answers(Training(data_dir=str(few)), teacher, ask=True)[1] for _ in range(2)]
    assert asked == [True, False]
    out = tmp_path / "runs" / "books" / "mule"
    given = {"data_dir": str(few), "teacher_file": str(teacher), "steps": 2, "train_batch_size": 6, "batch_size": 64}
    given |= {"out_dir": str(out), "seeds": [0, 1]}
    assert run_notebook(NOTEBOOK, tmp_path / "executed.ipynb", overrides=given, threads=1)
    for seed in (0, 1):
        folder = out / f"seed-{seed}"
        assert sorted(file.name for file in folder.iterdir()) == [
            *("metrics.json", "params.json", "provenance.json", "samples.jsonl", "values.json")
        ]
        run, source = RunResult.read(folder), json.loads((folder / "provenance.json").read_text())
        assert (run.row, run.label, run.seed, run.timing["steps"]) == ("mule", "MULE", seed, 2)
        assert run.identity == source["fingerprint"] and run.obedience and "1 threads" in source["arithmetic"]
        assert source["identity"]["data"]["train.jsonl"] and source["params"]["batch_size"] == 64
        assert len(run.log) == 2
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"sk-planted" in file.read_bytes()]
    executed = nbformat.read(tmp_path / "executed.ipynb", as_version=4)
    shown = [output for cell in executed.cells for output in cell.get("outputs", [])]
    (curve,) = [output for output in shown if "image/png" in output.get("data", {})]
    assert "the loss" in curve["metadata"]["image/png"]["alt"]

    os.utime(out / "seed-0" / "metrics.json", (1, 1))
    assert not run_notebook(NOTEBOOK, tmp_path / "none.ipynb", overrides={**given, "overwrite": True})
    assert not (tmp_path / "none.ipynb").exists() and (out / "seed-0" / "metrics.json").stat().st_mtime > 1
    with pytest.raises(RunFolderError, match=r"differs in steps 2 \(now 3\)"):
        run_notebook(NOTEBOOK, tmp_path / "none.ipynb", overrides={**given, "steps": 3})

    assert set_aside(tmp_path, []) == []  # nobody asks for them, but they are what the same run would give today
    file = out / "seed-0" / "provenance.json"
    source = json.loads(file.read_text())
    file.write_text(json.dumps({**source, "identity": {**source["identity"], "code": {}}}))
    assert set_aside(tmp_path, [out / "seed-0"]) == []
    assert set_aside(tmp_path, []) == [tmp_path / "stale" / "books" / "mule" / "seed-0"]
    assert not (out / "seed-0").exists() and (out / "seed-1").exists()


def made_notebook(path, *cells):
    head = nbformat.v4.new_code_cell('name: str = "x"\nmore: dict = {}', metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[head, *(nbformat.v4.new_code_cell(cell) for cell in cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)


def test_a_failing_cell_is_named_and_kept(tmp_path, capsys):
    """The error names cell, error and executed copy; the copy holds the traceback; threads are limited inside."""
    body = 'import os\nprint("threads", os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], more)'
    made_notebook(tmp_path / "bad.ipynb", body, "1 / 0")
    notebook.limit_threads(1)
    with pytest.raises(NotebookError, match=r"bad.ipynb, cell \d: ZeroDivisionError: division by zero; executed copy:"):
        notebook.execute(tmp_path / "bad.ipynb", tmp_path / "done.ipynb", TableNotebook(benchmark="cyber"))
    kept = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    outputs = [output for cell in kept.cells for output in cell.get("outputs", [])]
    assert any(output.get("ename") == "ZeroDivisionError" for output in outputs)
    assert any("threads 1 1 {'benchmark': 'cyber'}" in output.get("text", "") for output in outputs)
    assert "1 / 0" in capsys.readouterr().err


def test_a_dead_kernel_is_named(tmp_path):
    """A kernel that is killed, as for lack of memory, is an error with the likely reason."""
    made_notebook(tmp_path / "dead.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookError, match=r"dead\.ipynb: the kernel died, most often for lack of memory"):
        notebook.execute(tmp_path / "dead.ipynb", tmp_path / "done.ipynb", TableNotebook())
