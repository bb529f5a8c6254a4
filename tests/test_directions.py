"""Verdicts on the direction of each row against the base."""

import numpy as np
import pytest
from run_folders import POINTS, write_runs

from mule_lib import results
from mule_lib.directions import EXPECTED, directions, finding, shown, table
from mule_lib.methods import METHODS

BASE = {"forget": np.ones(200), "asr": np.ones(200), "general": np.ones(200), "neighbor": np.ones(200)}
BASE["mmlu"] = np.tile([1.0, 0.0], 100)


def row(**means):
    """Item values of three seeds whose means are the base's, or the given ones."""
    return {
        metric: np.stack([np.arange(200) < 200 * means[metric]] * 3).astype(float) if metric in means else [base] * 3
        for metric, base in BASE.items()
    }


def verdicts(name, **means):
    return {(d.row, d.metric): d.verdict for d in directions({name: row(**means)}, BASE)}


def test_forgetting_without_loss_is_as_claimed():
    found = verdicts("mule", forget=0.1, asr=0.2)
    assert set(found.values()) == {"as claimed"}
    assert {metric for _, metric in found} == {"forget", "asr", "general", "neighbor", "mmlu"}


def test_a_row_that_does_not_forget_or_loses_general_is_told_so():
    found = verdicts("ngdiff", general=0.5, asr=0.3)
    assert found["ngdiff", "forget"] == found["ngdiff", "general"] == "not as claimed"
    assert found["ngdiff", "asr"] == "as claimed"


def test_a_loss_around_the_bound_is_undecided():
    assert verdicts("mule", general=0.95)["mule", "general"] == "undecided"


def test_the_change_is_in_points_with_its_interval():
    (found,) = directions({"ga": row(forget=0.25)}, BASE)
    assert found.change == pytest.approx(-75) and found.low < -75 < found.high < 0


def test_every_trained_row_has_an_expectation():
    assert set(EXPECTED) == {name for name, method in METHODS.items() if method.terms}


def test_the_table_reads_run_folders_and_marks_what_is_not_as_claimed(tmp_path):
    write_runs(tmp_path, rows=tuple(POINTS))
    runs = results.load_runs(tmp_path)
    benchmark = runs[0].benchmark
    found = table(runs, benchmark)
    trained = {run.row for run in runs if run.benchmark == benchmark} & set(EXPECTED)
    assert trained and set(found["row"]) == trained
    readable = shown(found)
    assert len(readable) == len(trained)
    marks = readable.map(lambda cell: "not as claimed" in cell).to_numpy().sum()
    assert marks == (found["verdict"] == "not as claimed").sum()
    assert f"of {len(found)} directions" in finding(found)
    empty = table([run for run in runs if run.row != "base"], benchmark)
    assert empty.empty and "No trained row" in finding(empty) and shown(empty).empty
