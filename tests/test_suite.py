"""Suites: what they run, what they refuse, the graph of files that Snakemake makes of them, and its start."""

import subprocess
import sys
from collections import Counter

import filelock
import pytest
import yaml

from mule_lib import params
from mule_lib.methods import METHODS
from mule_lib.params import METHOD_OPTIONS, ROOT, ParameterError
from mule_lib.suite import graph
from mule_lib.suite.graph import RunGroup, Suite

FABLE = ROOT / "params" / "suite" / "fable.yaml"
PAPER = ("paper", "paper_full")


def test_the_embedded_suite_has_the_rows_of_every_table():
    """Both benchmarks, all printed rows, five seeds where something is trained, one where nothing is."""
    from mule_lib.paper import REPORTED

    seeds = {(job.benchmark, job.row): job.seeds for job in graph.jobs(graph.read_suite(FABLE))}
    once = {"base", "upper_bound", "ensemble_teacher", "gold"}
    for table, benchmark in (("table1", "books"), ("table2", "books"), ("table3", "cyber")):
        for row in REPORTED[table]:
            assert seeds[benchmark, row] == ((0,) if row in once else (0, 1, 2, 3, 4)), (benchmark, row)
    assert len(seeds) == len(graph.jobs(graph.read_suite(FABLE)))


def test_rows_find_their_teacher_by_their_options():
    """One file per steering and thought; rows of other teachers or of none do not wait for it."""
    by_row = {job.row: job.teacher for job in graph.jobs(graph.read_suite(FABLE, seeds=1))}
    assert by_row["mule"] == by_row["mule_k1"] == "oracle-cot"
    assert by_row["duet"] == by_row["mule_ensemble"] == "ensemble-cot"
    assert by_row["mule_no_cot"] == "oracle"
    # Raw formats are what the student reads; its teacher reads questions.
    assert by_row["mule_no_standardization"] == "oracle-cot"
    assert by_row["sft"] is by_row["upper_bound"] is None


def test_seeds_are_capped_and_shared_out():
    """`--seeds` only ever lowers; a job carries all seeds or `seeds_per_job`; only the first is measured further."""
    suite = graph.read_suite(FABLE, seeds=3)
    assert Counter(job.seeds for job in graph.jobs(suite) if job.row == "mule") == {(0, 1, 2): 2}
    shared = graph.jobs(graph.read_suite(FABLE, seeds=3, seeds_per_job=2))
    assert [job.seeds for job in shared if (job.row, job.benchmark) == ("mule", "books")] == [(0, 1), (2,)]
    assert {job.row for job in shared if job.beyond} == {row for group in suite.beyond for row in group.rows}
    assert all(job.seeds[0] == 0 for job in shared if job.beyond)
    assert shared[0].folders(suite)[0].as_posix() == "outputs/fable/runs/books/base/seed-0"


@pytest.mark.parametrize("scale", PAPER)
def test_the_paper_s_rows_are_of_one_pinned_model(scale):
    """Every method and row of the suite, the same model and commit, the methods' own rates, LoRA where it is said."""
    file = ROOT / "params" / "04_training" / f"{scale}.yaml"
    rows = params.read_yaml(file)["rows"]
    suite = yaml.safe_load((ROOT / "params" / "suite" / "paper.yaml").read_text("utf-8"))
    assert set(rows) >= set(METHOD_OPTIONS) | {row for group in suite["runs"] for row in group["rows"]}
    for row in rows:
        p = params.read_parameters("04_training", file, {"row": row})
        assert p.model == "meta-llama/Llama-3.2-3B-Instruct" and len(p.revision) == 40
        assert p.precision == "bf16" and p.choice_style == "letters"
        assert p.learning_rate == 0 and p.steps == 0 and p.activation_checkpointing
        by_rule = METHODS[p.method].rule is not None
        assert p.lora_rank == (16 if scale == "paper" or by_rule else 0)


def test_rows_of_two_models_share_no_teacher(tmp_path, monkeypatch):
    """The teacher takes its first row's parameters; two rows with one teacher and different models are refused."""
    group = {"benchmarks": ["books"], "seeds": 1}
    suite = Suite(name="x", params="fable", runs=[{"rows": ["sft", "mule", "mule_k1"], **group}])
    assert graph.teacher_row(suite, "books", "oracle-cot") == "mule"
    folder = tmp_path / "params" / "04_training"
    folder.mkdir(parents=True)
    (folder / "mixed.yaml").write_text("rows:\n  mule: {}\n  mule_k1: {method: mule, model: gold}\n", "utf-8")
    monkeypatch.setattr(graph, "ROOT", tmp_path)
    with pytest.raises(ParameterError, match=r"rows that share a teacher differ in model.*\(base, gold\)"):
        graph.check_suite({"name": "x", "params": "mixed", "runs": [{"rows": ["mule", "mule_k1"], **group}]})


def test_a_prepared_benchmark_is_read_from_its_folder(tmp_path):
    """Notebook 01 depends on the files that are there, none for Fable; a teacher is shared by all benchmarks or not."""
    folder = tmp_path / "muse"
    folder.mkdir()
    for name in ("train.jsonl", "raw.jsonl", "replies.jsonl"):
        (folder / name).write_text("")
    group = {"rows": ["mule"], "benchmarks": ["muse_books", "books"]}
    suite = Suite(name="x", params="paper", runs=[group], data={"muse_books": str(folder)})
    assert graph.prepared_files(suite, "muse_books") == [str(folder / "train.jsonl"), str(folder / "raw.jsonl")]
    assert graph.prepared_files(suite, "books") == []
    assert graph.all_have_teacher(suite, "oracle-cot")
    other = RunGroup(rows=["base", "sft"], benchmarks=["cyber"])
    assert not graph.all_have_teacher(suite.model_copy(update={"runs": [*suite.runs, other]}), "oracle-cot")


# The start


def test_a_second_start_beside_a_running_one_is_refused():
    out = ROOT / "outputs" / "held-by-a-test"
    out.mkdir(parents=True)
    try:
        refused = pytest.raises(ParameterError, match="held-by-a-test: another `mule reproduce` is at work there")
        with filelock.FileLock(out / ".lock"), refused:
            graph.reproduce(FABLE, name=out.name)
    finally:
        (out / ".lock").unlink()
        out.rmdir()


@pytest.mark.slow
def test_the_graph_is_whole():
    """Snakemake finds a rule for every file: a dry run plans all jobs, their data, teachers and the report."""
    command = [sys.executable, "-m", "mule_lib.suite.cli", "reproduce", "--name", "never-run", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for job in graph.jobs(graph.read_suite(FABLE)):
        assert f"training_{job.benchmark}_{job.row}_0 " in done.stdout
    for step, times in (("data", 2), ("teacher", 5), ("claims", 1), ("report", 1)):
        assert [step, str(times)] in [line.split() for line in done.stdout.splitlines()], step
    assert not (ROOT / "outputs" / "never-run").exists()


def test_a_failed_step_is_named_in_its_own_words(tmp_path):
    """The last line of every log that ends in a refusal of `mule`, of logs written since the start."""
    (tmp_path / "04_training-books-ga-0.txt").write_text("working\nmule run: 04_training.ipynb, cell 3: KeyError\n")
    (tmp_path / "report.txt").write_text("outputs/x/report.html\n")
    assert graph.failures(tmp_path, 0) == ["04_training-books-ga-0: mule run: 04_training.ipynb, cell 3: KeyError"]
    assert graph.failures(tmp_path, (tmp_path / "report.txt").stat().st_mtime + 5) == []


def test_only_the_row_and_its_code_start_a_job(monkeypatch):
    """Another row's parameters or method do not enter what Snakemake compares; a job's own do."""
    suite = graph.read_suite(FABLE, seeds=1)
    mule, ga = (next(job for job in graph.jobs(suite) if job.row == row) for row in ("mule", "ga"))
    before = graph.code_behind(suite, mule), graph.code_behind(suite, ga)
    changed = graph.row_of("fable", "ga").model_copy(update={"steps": 3})
    original = graph.row_of
    monkeypatch.setattr(graph, "row_of", lambda scale, row: changed if row == "ga" else original(scale, row))
    assert graph.code_behind(suite, mule) == before[0] and graph.code_behind(suite, ga) != before[1]


def test_jobs_run_on_one_thread_with_this_python():
    environment = graph.environment()
    assert {environment[name] for name in graph.THREADS} == {"1"}
    assert ".snakemake" not in environment["HF_HOME"]
    assert environment["PATH"].startswith(str(graph.Path(sys.executable).parent))
