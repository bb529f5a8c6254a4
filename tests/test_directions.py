"""Verdicts on the direction of each row against the base."""

import numpy as np
import pytest

from mule_lib.directions import EXPECTED, directions
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
