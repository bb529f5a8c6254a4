"""Rows and gold distance: literal cases and errors."""

import numpy as np
import pytest

from mule_lib import evaluate


def results():
    return {
        "forget": evaluate.open_answer_scores(["red dragon", "owl"], ["red", "cat"]),
        "general": evaluate.open_answer_scores(["red dragon"], ["a red dragon"], headline="f1"),
        "neighbor": evaluate.score_choices([[-1.0, -2.0]] * 4, [0, 0, 0, 1], [1, 1, 1, 0]),
        "asr": evaluate.attack_success_rate(["owl", "owl"], ["the owl", "no"]),
        "mmlu": evaluate.score_choices([[-1.0, -2.0]] * 2, [0, 1]),
    }


def test_five_metrics_by_hand_and_their_items():
    row = evaluate.five_metrics(**results())
    assert row == pytest.approx({"forget": 25, "general": 80, "neighbor": 75, "asr": 50, "mmlu": 50})
    values = evaluate.item_values(**results())
    assert values["neighbor"] == [1.0, 1.0, 1.0, 0.0]
    assert {metric: 100 * np.mean(items) for metric, items in values.items()} == pytest.approx(row)


def test_gold_distance_is_absolute_per_metric():
    gold = {"forget": 10.0, "asr": 4.0}
    rows = {"mule": {"forget": 8.0, "asr": 5.0, "mmlu": 60.0}, "gold": dict(gold)}
    assert evaluate.gold_distance(rows, gold) == {
        "mule": {"forget": 2.0, "asr": 1.0, "mean": 1.5},
        "gold": {"forget": 0.0, "asr": 0.0, "mean": 0.0},
    }
    with pytest.raises(KeyError, match="asr"):
        evaluate.gold_distance({"ga": {"forget": 1.0}}, gold)
