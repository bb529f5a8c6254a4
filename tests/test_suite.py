"""Suites: what they run, what they refuse, and the graph of files that Snakemake makes of them."""

import re
import subprocess
import sys

import pytest

from mule_lib import reproduce, suite
from mule_lib.params import ROOT, ParameterError, RunGroup

FABLE = ROOT / "params" / "suite" / "fable.yaml"


def test_the_embedded_suite_has_the_rows_of_every_table():
    """Both benchmarks, all printed rows, five seeds where something is trained, one where nothing is."""
    from mule_lib.paper import REPORTED

    found = suite.runs(suite.read(FABLE))
    seeds: dict[tuple[str, str], int] = {}
    for run in found:
        seeds[run.benchmark, run.row] = seeds.get((run.benchmark, run.row), 0) + 1
    once = {"base", "upper_bound", "ensemble_teacher", "gold"}
    for table, benchmark in (("table1", "books"), ("table2", "books"), ("table3", "cyber")):
        for row in REPORTED[table]:
            assert seeds[benchmark, row] == (1 if row in once else 5), (benchmark, row)
    assert len(found) == len({(run.benchmark, run.row, run.seed) for run in found})
    assert all((ROOT / run.params).is_file() for run in found)


def test_rows_find_their_teacher_by_their_options():
    """One file per steering and thought; rows of other teachers or of none do not wait for it."""
    by_row = {run.row: run.teacher for run in suite.runs(suite.read(FABLE, seeds=1))}
    assert by_row["mule"] == by_row["mule_k1"] == "oracle-cot"
    assert by_row["duet"] == by_row["mule_ensemble"] == "ensemble-cot"
    assert by_row["mule_no_cot"] == "oracle"
    # Raw formats are what the student reads; its teacher reads questions.
    assert by_row["mule_no_standardization"] == "oracle-cot"
    assert by_row["sft"] is by_row["upper_bound"] is None


def test_seeds_are_capped():
    """`--seeds` only ever lowers, seed 0 comes first, and only seed 0 is measured beyond the paper."""
    chosen = suite.read(FABLE, seeds=2)
    found = suite.runs(chosen)
    assert {run.seed for run in found} == {0, 1} and found[0].seed == 0
    assert {run.seed for run in found if run.beyond} == {0}
    assert {run.row for run in found if run.beyond} == {row for group in chosen.beyond for row in group.rows}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seedz": 1}, "unknown parameter 'seedz'; did you mean 'seeds'?"),
        ({"seeds": 0}, "seeds = 0: Input should be greater"),
        ({"params": "fabel"}, "params = 'fabel': did you mean 'fable'?"),
        ({"name": "a/b"}, "name = 'a/b': String should match"),
        ({"runs": [{"rows": ["mul"], "benchmarks": ["books"]}]}, "row 'mul' has no file"),
        ({"runs": [{"rows": ["mule"], "benchmarks": ["boks"]}]}, "'boks': did you mean 'books'?"),
        ({"runs": [{"rows": ["mule"], "benchmark": ["books"]}]}, "did you mean 'benchmarks'?"),
        ({"runs": [{"rows": ["mule"], "benchmarks": ["rwku"]}]}, "prepare it by mule prepare rwku"),
        ({"beyond": [{"rows": ["mule_k1"], "benchmarks": ["cyber"]}]}, "'mule_k1' on 'cyber' is not among the runs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_suites_are_refused_by_name(changed, message):
    """One line with the key and the nearest name, before Snakemake starts."""
    with pytest.raises(ParameterError) as error:
        suite.read(FABLE, **changed)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_reproduce_refuses_what_is_not_there(tmp_path):
    """A missing suite file and a missing profile are named with what there is."""
    with pytest.raises(ParameterError, match=r"no such params file; did you mean fable.yaml\?"):
        reproduce.reproduce(FABLE.with_name("fabel.yaml"))
    with pytest.raises(ParameterError, match=r"profiles/slrum: no config.yaml there; choose from .*profiles/slurm"):
        reproduce.reproduce(FABLE, profile=reproduce.Path("profiles/slrum"))


@pytest.mark.slow
def test_the_graph_is_whole():
    """Snakemake finds a rule for every file: a dry run plans all runs, their data and teachers, tables and report."""
    command = [sys.executable, "-m", "mule_lib.cli", "reproduce", "--name", "never-run", "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert int(jobs["training"]) == len(suite.runs(suite.read(FABLE)))
    assert jobs["data"] == "2" and jobs["teacher"] == "5" and jobs["report"] == jobs["claims"] == "1"
    assert not (ROOT / "outputs" / "never-run").exists()


def test_a_prepared_benchmark_is_read_from_its_folder(tmp_path):
    """Notebook 01 depends on the files that are there, none for Fable; a teacher is shared by all benchmarks or not."""
    folder = tmp_path / "muse"
    folder.mkdir()
    for name in ("train.jsonl", "raw.jsonl", "replies.jsonl"):
        (folder / name).write_text("")
    group = {"rows": ["mule"], "benchmarks": ["muse_books", "books"]}
    chosen = suite.Suite(name="x", params="paper", runs=[group], data={"muse_books": str(folder)})
    assert suite.prepared_files(chosen, "muse_books") == [str(folder / "train.jsonl"), str(folder / "raw.jsonl")]
    assert suite.prepared_files(chosen, "books") == []
    assert suite.all_have_teacher(chosen, "oracle-cot")
    other = RunGroup(rows=["base", "sft"], benchmarks=["cyber"])
    assert not suite.all_have_teacher(chosen.model_copy(update={"runs": [*chosen.runs, other]}), "oracle-cot")
