"""Intervals, rows and gold distance: literal cases, coverage, invariances and errors."""

import numpy as np
import pytest

from mule_lib import evaluate, paper


def test_interval_of_a_constant_is_a_point():
    assert evaluate.bootstrap_interval([0.5] * 20) == pytest.approx((0.5, 0.5, 0.5, 20, 1))


def test_interval_of_a_share_agrees_with_the_binomial():
    interval = evaluate.bootstrap_interval([1] * 60 + [0] * 140, resamples=5000)
    half = 1.96 * (0.3 * 0.7 / 200) ** 0.5
    assert interval.estimate == pytest.approx(0.3)
    assert interval.low == pytest.approx(0.3 - half, abs=0.006)
    assert interval.high == pytest.approx(0.3 + half, abs=0.006)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        interval = evaluate.bootstrap_interval(rng.normal(size=60), resamples=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_interval_is_seeded_and_ignores_the_global_generator():
    values = np.linspace(0, 1, 37)
    first = evaluate.bootstrap_interval(values, seed=3)
    np.random.seed(0)
    assert evaluate.bootstrap_interval(values, seed=3) == first
    assert evaluate.bootstrap_interval(values, seed=4) != first


def test_a_narrower_level_gives_a_narrower_interval():
    wide, narrow = (evaluate.bootstrap_interval([0, 1] * 20, level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_seeds_that_differ_widen_the_interval():
    items = [0.0, 1.0] * 50
    same = evaluate.bootstrap_interval([items] * 3)
    assert (same.n, same.seeds) == (100, 3)
    one = evaluate.bootstrap_interval(items)
    assert same.high - same.low == pytest.approx(one.high - one.low, abs=0.03)
    apart = evaluate.bootstrap_interval([[0.0] * 100, [0.5] * 100, [1.0] * 100])
    assert apart.estimate == pytest.approx(0.5)
    assert (apart.low, apart.high) == pytest.approx((0.0, 1.0))


def test_many_items_are_drawn_in_parts():
    values = np.arange(3000) % 2
    interval = evaluate.bootstrap_interval([values, values], resamples=3000)
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.5 / 3000**0.5, abs=0.002)
    assert interval.n == 3000


def test_differences_are_paired():
    base = np.linspace(0, 1, 50)
    assert evaluate.bootstrap_difference(base + 0.1, base) == pytest.approx((0.1, 0.1, 0.1, 50, 1))
    assert evaluate.bootstrap_difference([base + 0.1, base + 0.1], base).seeds == 2
    with pytest.raises(ValueError, match="paired items are needed"):
        evaluate.bootstrap_difference([1, 0], [1, 0, 1])


def test_overall_with_its_interval_agrees_with_the_formula():
    rng = np.random.default_rng(0)
    base = {metric: rng.integers(0, 2, size=40 + k) for k, metric in enumerate(paper.METRICS)}
    row = {metric: rng.integers(0, 2, size=40 + k) for k, metric in enumerate(paper.METRICS)}
    interval = evaluate.bootstrap_overall(base, row)
    points = ({metric: 100 * side[metric].mean() for metric in paper.METRICS} for side in (base, row))
    assert interval.estimate == pytest.approx(paper.overall(*points), abs=1e-5)
    assert interval.low < interval.estimate < interval.high
    assert interval.n == 210
    assert evaluate.bootstrap_overall(base, base)[:3] == (0, 0, 0)


def test_overall_draws_seeds_once_for_all_metrics():
    base = dict.fromkeys(paper.METRICS, np.zeros(10))
    low_and_high = {metric: np.array([[0.0] * 10, [1.0] * 10]) for metric in paper.METRICS}
    signs = {metric: -1 if metric in paper.LOWER_IS_BETTER else 1 for metric in paper.METRICS}
    interval = evaluate.bootstrap_overall(base, low_and_high)
    assert interval.estimate == 50 * sum(signs.values())
    assert (interval.low, interval.high) == pytest.approx((0, 100 * sum(signs.values())))
    with pytest.raises(ValueError, match=r"different numbers of seeds: \[1, 2\]"):
        evaluate.bootstrap_overall(base, {**low_and_high, "mmlu": np.zeros(10)})


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        ([], {}, "not empty"),
        ([1.0, float("nan")], {}, "NaN"),
        ([[[1.0]]], {}, r"\[seeds, items\]"),
        ([1.0], {"level": 1.0}, "level is 1.0"),
    ],
)
def test_intervals_refuse(values, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate.bootstrap_interval(values, **changes)


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
