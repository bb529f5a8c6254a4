"""The committed reference: complete, small, and what a fresh run gives within the stated tolerances."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from run_folders import write_run, write_runs

from mule_lib import reference
from mule_lib.paper import METRICS
from mule_lib.report import results

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "outputs" / "reference"


def test_the_reference_has_every_artifact_with_its_columns():
    tables, figures = KEPT / "tables", KEPT / "figures"
    columns = ["benchmark", "row", "metric", "reported", "measured", "low", "high", "n", "seeds"]
    for name in ("table1", "table2", "table3"):
        assert list(pd.read_csv(tables / f"{name}.csv").columns)[: len(columns)] == columns
        assert all((tables / f"{name}.{kind}").is_file() for kind in ("md", "tex", "html"))
    claims = pd.read_csv(tables / "claims.csv")
    assert {"id", "claim", "where", "reported", "measured", "low", "high", "verdict"} <= set(claims.columns)
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}
    for name in ("figure2", "figure3"):
        assert all((figures / f"{name}.{kind}").is_file() for kind in ("png", "pdf", "csv", "txt"))
    assert (KEPT / "report.html").is_file()
    assert sum(file.stat().st_size for file in KEPT.rglob("*") if reference._is_kept(file, KEPT)) < 12_000_000


def test_the_tables_are_those_of_the_runs_listed_beside_them():
    """Means over seeds of runs.csv are the measured numbers of the tables, in points."""
    runs = pd.DataFrame(reference.read_runs(KEPT)).astype(dict.fromkeys(METRICS, float))
    means = runs.groupby(["benchmark", "row"])[list(METRICS)].mean()
    for name in ("table1", "table2", "table3"):
        table = pd.read_csv(KEPT / "tables" / f"{name}.csv").dropna(subset=["measured"])
        table = table[table["metric"].isin(METRICS)]
        assert len(table) >= 15
        for line in table.itertuples():
            assert means.loc[(line.benchmark, line.row), line.metric] == pytest.approx(line.measured, abs=0.06)


def test_the_trained_rows_of_table_1_have_five_seeds_on_both_benchmarks():
    runs = pd.DataFrame(reference.read_runs(KEPT))
    counts = runs.groupby(["benchmark", "row"]).size()
    for benchmark in ("books", "cyber"):
        for row in ("ga", "simnpo", "flat", "sft", "ngdiff", "mollm", "duet", "mule"):
            assert counts[benchmark, row] == 5


@pytest.mark.slow
@pytest.mark.parametrize("row", ["base", "mule"])
def test_a_fresh_run_is_the_reference_s_within_tolerance(row, tmp_path):
    out = tmp_path / "runs" / "books" / row / "seed-0"
    notebook, params = (
        ROOT / "notebooks" / "04_training.ipynb",
        ROOT / "params" / "04_training" / "fable" / f"{row}.yaml",
    )
    command = [sys.executable, "-m", "mule_lib.cli", "run", str(notebook), "-f", str(params), "-p", f"out_dir={out}"]
    done = subprocess.run([*command, "-o", str(tmp_path / "executed.ipynb"), "--threads", "1"], cwd=ROOT)
    assert done.returncode == 0
    assert reference.differences(results.load_runs(tmp_path), KEPT) == (1, [])


def test_only_small_files_of_an_ended_suite_are_kept(tmp_path):
    suite, kept = write_runs(tmp_path / "suite", rows=("base", "mule"), seeds=2), tmp_path / "kept"
    with pytest.raises(reference.NoReferenceError, match=r"no report\.html"):
        reference.keep(suite, kept)
    (suite / "report.html").write_text("<p>")
    (suite / "tables").mkdir(exist_ok=True)
    (suite / "tables" / "table1.csv").write_text("a\n")
    (suite / "tables" / "samples.jsonl").write_text("{}\n")
    (suite / "executed").mkdir()
    (suite / "executed" / "one.csv").write_text("a\n")
    kept.mkdir()
    (kept / "old.csv").write_text("a\n")
    reference.keep(suite, kept)
    assert {file.name for file in kept.rglob("*.*")} == {"report.html", "table1.csv", "runs.csv"}
    runs = results.load_runs(suite)
    assert reference.differences(runs, kept) == (len(runs), [])


def test_a_run_beyond_its_tolerance_is_named(tmp_path):
    suite = write_runs(tmp_path / "suite", rows=("base",), benchmarks=("books",), seeds=1)
    (suite / "report.html").write_text("<p>")
    reference.keep(suite, tmp_path / "kept")
    write_run(tmp_path / "fresh", "books", "base", 0, points=(60, 92, 98, 97, 80))
    compared, found = reference.differences(results.load_runs(tmp_path / "fresh"), tmp_path / "kept")
    assert compared == 1
    assert any(line.startswith("books/base/seed-0: forget is") for line in found)
    with pytest.raises(reference.NoReferenceError, match=r"runs\.csv"):
        reference.read_runs(tmp_path)
