"""The one bootstrap: literal cases, coverage, invariances and errors."""

import numpy as np
import pytest

from mule_lib import paper
from mule_lib.evaluate import intervals


def test_interval_of_a_constant_is_a_point():
    assert intervals.bootstrap_interval([0.5] * 20) == pytest.approx((0.5, 0.5, 0.5, 20, 1))


def test_interval_of_a_share_agrees_with_the_binomial():
    interval = intervals.bootstrap_interval([1] * 60 + [0] * 140, resamples=5000)
    half = 1.96 * (0.3 * 0.7 / 200) ** 0.5
    assert interval.estimate == pytest.approx(0.3)
    assert interval.low == pytest.approx(0.3 - half, abs=0.006)
    assert interval.high == pytest.approx(0.3 + half, abs=0.006)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        interval = intervals.bootstrap_interval(rng.normal(size=60), resamples=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_interval_is_seeded_and_ignores_the_global_generator():
    values = np.linspace(0, 1, 37)
    first = intervals.bootstrap_interval(values, seed=3)
    np.random.seed(0)
    assert intervals.bootstrap_interval(values, seed=3) == first
    assert intervals.bootstrap_interval(values, seed=4) != first


def test_seeds_that_differ_widen_the_interval():
    items = [0.0, 1.0] * 50
    same = intervals.bootstrap_interval([items] * 3)
    assert (same.n, same.seeds) == (100, 3)
    one = intervals.bootstrap_interval(items)
    assert same.high - same.low == pytest.approx(one.high - one.low, abs=0.03)
    apart = intervals.bootstrap_interval([[0.0] * 100, [0.5] * 100, [1.0] * 100])
    assert apart.estimate == pytest.approx(0.5)
    assert (apart.low, apart.high) == pytest.approx((0.0, 1.0))


def test_many_items_are_drawn_in_parts():
    values = np.arange(3000) % 2
    interval = intervals.bootstrap_interval([values, values], resamples=3000)
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.5 / 3000**0.5, abs=0.002)
    assert interval.n == 3000


def test_differences_are_paired():
    base = np.linspace(0, 1, 50)
    assert intervals.bootstrap_difference(base + 0.1, base) == pytest.approx((0.1, 0.1, 0.1, 50, 1))
    assert intervals.bootstrap_difference([base + 0.1, base + 0.1], base).seeds == 2
    with pytest.raises(ValueError, match="paired items are needed"):
        intervals.bootstrap_difference([1, 0], [1, 0, 1])


def test_overall_with_its_interval_agrees_with_the_formula():
    rng = np.random.default_rng(0)
    base = {metric: rng.integers(0, 2, size=40 + k) for k, metric in enumerate(paper.METRICS)}
    row = {metric: rng.integers(0, 2, size=40 + k) for k, metric in enumerate(paper.METRICS)}
    interval = intervals.bootstrap_overall(base, row)
    points = ({metric: 100 * side[metric].mean() for metric in paper.METRICS} for side in (base, row))
    assert interval.estimate == pytest.approx(paper.overall(*points), abs=1e-5)
    assert interval.low < interval.estimate < interval.high
    assert interval.n == 210
    assert intervals.bootstrap_overall(base, base)[:3] == (0, 0, 0)


def test_overall_draws_seeds_once_for_all_metrics():
    base = dict.fromkeys(paper.METRICS, np.zeros(10))
    low_and_high = {metric: np.array([[0.0] * 10, [1.0] * 10]) for metric in paper.METRICS}
    signs = {metric: -1 if metric in paper.LOWER_IS_BETTER else 1 for metric in paper.METRICS}
    interval = intervals.bootstrap_overall(base, low_and_high)
    assert interval.estimate == 50 * sum(signs.values())
    assert (interval.low, interval.high) == pytest.approx((0, 100 * sum(signs.values())))
    with pytest.raises(ValueError, match=r"different numbers of seeds: \[1, 2\]"):
        intervals.bootstrap_overall(base, {**low_and_high, "mmlu": np.zeros(10)})


@pytest.mark.parametrize(
    ("values", "message"), [([], "not empty"), ([1.0, float("nan")], "NaN"), ([[[1.0]]], r"\[seeds, items\]")]
)
def test_intervals_refuse(values, message):
    with pytest.raises(ValueError, match=message):
        intervals.bootstrap_interval(values)


def test_series_over_the_same_items_are_drawn_together():
    """Means by hand, shares that sum to one, and a difference of paired series without spread."""
    draws = intervals.shares(np.random.default_rng(0), 50, 7)
    assert draws.shape == (50, 7) and np.allclose(draws.sum(1), 1)
    values = np.arange(7.0) / 7
    means = intervals.item_means(np.stack([values, values + 0.25]), 50, np.random.default_rng(0))
    assert np.allclose(means[:, 0], draws @ values)
    assert intervals.percentiles(means[:, 1] - means[:, 0], 0.9) == pytest.approx((0.25, 0.25))
    assert intervals.percentiles(np.array([np.nan, 1.0, 1.0])) == (1, 1)
