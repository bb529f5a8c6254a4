"""The one bootstrap: percentile intervals over crossed draws of items and seeds, paired wherever both are shared.

What is no plain mean of items (claims, cosines of batches) draws its members by `shares` and `item_means` too.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mule_lib.paper import METRICS, overall

# The sets whose kinds of answers are compared with the retrained reference's.
KIND_SETS = ("forget", "attack", "general", "neighbor_open")
Values = Mapping[str, Sequence]  # of items by metric, 0 to 1, each [items] or [seeds, items]


class Interval(NamedTuple):
    """A mean with the ends of its bootstrap interval; `n` items, `seeds` training seeds."""

    estimate: float
    low: float
    high: float
    n: int
    seeds: int


def shares(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """Draw n members with replacement: the share of each in every resample, [resamples, n]; rows sum to 1."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n) / n


def counts(rng: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """Draws as `shares`, but whole numbers by a stream of their own: sums of 0 and 1 stay exact, and so do ties."""
    return rng.multinomial(n, np.full(n, 1 / n), resamples)


def item_means(values: np.ndarray, resamples: int, rng: np.random.Generator, draw=shares) -> np.ndarray:
    """Resampled means [resamples, k] of k series over the same items [k, items]: one draw of items for all of them.

    With `draw=counts` they are sums.
    """
    items = values.shape[1]
    # Some million draws at a time: MMLU has 14,042 items.
    chunk = max(1, 4_000_000 // items)
    starts = range(0, resamples, chunk)
    return np.concatenate([draw(rng, min(chunk, resamples - start), items) @ values.T for start in starts])


def percentiles(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Ends of the percentile interval of resampled values; resamples that are NaN (undefined) do not count."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(values, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the mean of `values` [items] or [seeds, items] with its 95 % percentile interval.

    All seeds answer the same items, so seeds and items are drawn independently of each other and crossed; drawing new
    items within each seed would average the difficulty of the items away. One seed leaves the variance between seeds
    out. The same `seed` gives the same interval. Raises `ValueError` for no values or NaN.
    """
    table = _table(values)
    rng = np.random.default_rng(seed)
    means = _crossed(table, shares(rng, resamples, table.shape[0]), rng)
    return Interval(float(table.mean()), *percentiles(means), table.shape[1], table.shape[0])


def bootstrap_difference(values, base, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the mean of `values - base` with its interval, paired: the same items (and seeds) on both sides.

    `base` [items] may face `values` [seeds, items]. Raises `ValueError` for different items.
    """
    left, right = _table(values), _table(base)
    if left.shape[1] != right.shape[1] or right.shape[0] not in (1, left.shape[0]):
        raise ValueError(f"values have shape {left.shape}, base {right.shape}; paired items are needed")
    return bootstrap_interval(left - right, resamples=resamples, seed=seed)


def bootstrap_overall(base: Values, row: Values, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Return Overall Performance in the paper's points with its interval.

    Items of different metrics are different sets and drawn independently; within a metric, base and row share the
    drawn items; seeds are drawn once for all metrics.
    """
    zero = dict.fromkeys(METRICS, 0.0)
    tables = [
        100 * overall(zero, {**zero, metric: 1.0}) * (_table(row[metric]) - _table(base[metric])) for metric in METRICS
    ]
    seeds = {len(table) for table in tables}
    if len(seeds) != 1:
        raise ValueError(f"metrics have different numbers of seeds: {sorted(seeds)}")
    rng = np.random.default_rng(seed)
    seed_shares = shares(rng, resamples, *seeds)
    draws = sum(_crossed(table, seed_shares, rng) for table in tables)
    estimate = sum(float(table.mean()) for table in tables)
    return Interval(estimate, *percentiles(draws), sum(table.shape[1] for table in tables), *seeds)


def bootstrap_gold_distance(
    gold: Mapping[str, str], rows: Sequence[Mapping[str, str]], *, resamples: int = 2000, seed: int = 0
) -> Interval:  # fmt: skip
    """Return how differently a row answers from the retrained reference: a distance of kinds, 0 to 100 points.

    `gold` and each seed of `rows` hold, by set, a letter per item for its kind. The distance of a set is the total
    variation between the shares of kinds; the mean over sets is returned. A resampled distance cannot be negative, so
    near zero the interval lies above the estimate's truth: read it as "at most".
    """
    names = [name for name in KIND_SETS if name in gold and all(name in row for row in rows)]
    if not names:
        raise ValueError(f"kinds: none of {', '.join(KIND_SETS)} was answered by both sides")
    seed_shares = shares(np.random.default_rng(seed), resamples, len(rows))
    estimate, draws, items = 0.0, np.zeros(resamples), 0
    for place, name in enumerate(names):
        theirs, ours = np.array([list(gold[name])]), np.array([list(row[name]) for row in rows])
        items += theirs.size
        for kind in sorted({*theirs.flat, *ours.flat}):
            table = (ours == kind).astype(float) - (theirs == kind)
            estimate += abs(table.mean()) / 2
            # The same generator for every kind of a set: its items are drawn once.
            draws += np.abs(_crossed(table, seed_shares, np.random.default_rng([seed, place]))) / 2
    scale = 100 / len(names)
    return Interval(scale * estimate, *percentiles(scale * draws), items, len(rows))


def _table(values) -> np.ndarray:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"values have shape {np.shape(values)}, should be [items] or [seeds, items] and not empty")
    if not np.isfinite(table).all():
        raise ValueError("values hold a NaN or an infinity")
    return table


def _crossed(table: np.ndarray, seed_shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (item_means(table, len(seed_shares), rng) * seed_shares).sum(1)
