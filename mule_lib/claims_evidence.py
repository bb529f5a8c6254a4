"""What a claim is tested on: paired bootstrap draws of every row and metric, ours and the paper's printed ones.

A `Sample` carries its estimate and its resamples side by side, so that a difference, a ratio or a sum is one arithmetic
expression and its interval is paired by construction.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mule_lib.paper import LOWER_IS_BETTER, METRICS, REPORTED, base_row

# The tables of the paper and the benchmark that each is tried on: the Fable counterparts unless said otherwise.
FABLE = {"table1": "books", "table2": "books", "table3": "cyber"}
# Below this many items a percentile interval is too narrow to carry a verdict.
MIN_ITEMS = 30
# Wall times vary from run to run; fewer seeds give no interval worth the name.
MIN_TIMED_SEEDS = 3
SIGN = {metric: -1 if metric in LOWER_IS_BETTER else 1 for metric in METRICS}
# The gains behind each objective (Section 5.1) and behind Overall Performance.
GAINS = {"overall": METRICS, "obj1": ("forget", "general"), "obj2": ("neighbor",), "obj3": ("asr",)}


class NotMeasuredError(LookupError):
    """A number that a claim needs is not there; the message says which and why."""


class Run(Protocol):
    """What is read of a run (`results.RunResult`): values in 0 to 1 per metric and item, rates in `details`."""

    benchmark: str
    row: str
    seed: int
    values: Mapping[str, Sequence[float]]
    details: Mapping[str, Mapping[str, Any]]
    timing: Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """An estimate (`draws[0]`) with its resamples (`draws[1:]`), the items behind it and the fewest training seeds."""

    draws: np.ndarray
    items: Mapping[str, int] = field(default_factory=dict)
    seeds: int | None = None

    @property
    def estimate(self) -> float:
        return float(self.draws[0])

    @property
    def n(self) -> int:
        """Items behind the number, those of one set counted once."""
        return sum(self.items.values())

    def interval(self, level: float) -> tuple[float, float]:
        """Percentile ends at `level`; the estimate itself where there are no resamples."""
        body = self.draws[1:] if len(self.draws) > 1 else self.draws
        low, high = np.quantile(body, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def __add__(self, other: "Sample") -> "Sample":
        return combine(np.add, self, other)

    def __sub__(self, other: "Sample") -> "Sample":
        return combine(np.subtract, self, other)

    def __rmul__(self, factor: float) -> "Sample":
        return Sample(factor * self.draws, self.items, self.seeds)


def combine(operation: Callable, left: Sample, right: Sample) -> Sample:
    """A function of two samples, draw by draw; the seeds are the fewer of the two."""
    seeds = [sample.seeds for sample in (left, right) if sample.seeds is not None]
    draws = operation(left.draws, right.draws)
    return Sample(draws, {**left.items, **right.items}, min(seeds) if seeds else None)


def share_removed(base: Sample, row: Sample) -> Sample:
    """How much of the base row's value is gone, in percent. Raises NotMeasuredError where the base has nothing."""
    if (base.draws <= 0).any():
        raise NotMeasuredError("the base model scores 0: there is nothing to remove")
    return combine(lambda b, r: 100 * (1 - r / b), base, row)


def from_interval(estimate: float, low: float, high: float, *, resamples: int, key: str, seed: int = 0) -> Sample:
    """Draws of a number that is known by its 95 % interval alone: two half normals that meet at the estimate.

    Their 2.5 and 97.5 percentiles are `low` and `high`. Numbers of different keys are drawn independently, which for
    numbers of the same batches widens a difference rather than narrows it.
    """
    normal = _rng(seed, key).standard_normal(resamples)
    width = np.where(normal < 0, estimate - low, high - estimate) / 1.959964
    return Sample(np.concatenate([[estimate], estimate + normal * width]))


class Measured:
    """Evidence of run folders: all rows of a benchmark answer the same drawn items, rows of the same seeds share them.

    Rows of different seeds are compared by their means over all seeds that they have. With few seeds a percentile
    interval is somewhat too narrow: of three, a resample has on average two thirds of their variance.
    `runs` are `results.RunResult`s; `benchmarks` says which benchmark stands for which table of the paper; `pilot` is
    a `claims_pilot.Pilot`. Every read raises NotMeasuredError naming what is missing.
    """

    def __init__(
        self,
        runs: Iterable[Run],
        *,
        benchmarks: Mapping[str, str] = FABLE,
        pilot=None,
        resamples: int = 10_000,
        seed: int = 0,
    ):
        self.benchmarks, self.pilot, self.resamples, self.seed = benchmarks, pilot, resamples, seed
        self.runs: dict[str, dict[str, list[Run]]] = {}
        for run in sorted(runs, key=lambda run: run.seed):
            self.runs.setdefault(run.benchmark, {}).setdefault(run.row, []).append(run)
        self._drawn: dict[tuple[str, str], dict[str, Sample]] = {}

    def metric(self, table: str, row: str, metric: str) -> Sample:
        """One of the five metrics in points, or the gains over the base row named in `GAINS`."""
        if metric in GAINS:
            total = None
            for part in GAINS[metric]:
                gain = SIGN[part] * (self.metric(table, row, part) - self.metric(table, "base", part))
                total = gain if total is None else total + gain
            return total
        benchmark = self.benchmarks[table]
        self._of(benchmark, row)
        if (benchmark, metric) not in self._drawn:
            self._drawn[benchmark, metric] = self._draw(benchmark, metric)
        sample = self._drawn[benchmark, metric][row]
        if sample.n < MIN_ITEMS:
            raise NotMeasuredError(f"{benchmark}/{metric} has {sample.n} items; {MIN_ITEMS} are needed for a verdict")
        return sample

    def refusals(self, table: str, row: str) -> Sample:
        """Refusals among the answers to neighbour questions, in points.

        The runs keep this rate and not its items, so it is drawn from the Jeffreys posterior of one seed's items; the
        rate is the mean over the seeds.
        """
        benchmark = self.benchmarks[table]
        runs = self._of(benchmark, row)
        rates = [run.details.get("neighbor", {}).get("refusal") for run in runs]
        if None in rates:
            raise NotMeasuredError(f"{benchmark}/{row} has no details.neighbor.refusal")
        n, rate = len(runs[0].values["neighbor"]), float(np.mean(rates))
        drawn = _rng(self.seed, f"{benchmark}/{row}/refusal").beta(n * rate + 0.5, n * (1 - rate) + 0.5, self.resamples)
        return Sample(100 * np.concatenate([[rate], drawn]), {f"{benchmark}/neighbor": n}, _seeds(runs))

    def seconds_per_step(self, table: str, row: str) -> Sample:
        """Training time of a step in seconds over seeds; the teacher's answers, made once, are not in it."""
        benchmark = self.benchmarks[table]
        runs = self._of(benchmark, row)
        times = [run.timing.get("train_seconds", 0) / run.timing["steps"] for run in runs if run.timing.get("steps")]
        if len(times) < MIN_TIMED_SEEDS:
            raise NotMeasuredError(f"{benchmark}/{row} was timed with {len(times)} seeds; {MIN_TIMED_SEEDS} are needed")
        weights = self._seed_weights(benchmark, [run.seed for run in runs])
        return Sample(weights @ np.asarray(times), {}, len(times))

    def cosine(self, table: str, form: str, pair: tuple[str, str]) -> Sample:
        """Cosine between the gradients of two objectives with data in `form` (raw or standardized)."""
        return self._piloted("cosine", table, form, pair)

    def gain(self, table: str, pair: tuple[str, str]) -> Sample:
        """How much standardization raises that cosine."""
        return self._piloted("gain", table, pair)

    def distance(self, table: str, form: str, pair: tuple[str, str]) -> Sample:
        """Proxy A-distance (0 to 2) between the corpora of two objectives with data in `form`."""
        return self._piloted("distance", table, form, pair)

    def _piloted(self, what: str, table: str, *which) -> Sample:
        if self.pilot is None:
            raise NotMeasuredError("the pilot study (notebooks 01 and 02) was not run")
        benchmark = self.benchmarks[table]
        ends = getattr(self.pilot, what)(benchmark, *which)
        key = f"{what}/{benchmark}/{which}"
        return from_interval(*ends, resamples=self.resamples, key=key, seed=self.seed)

    def _of(self, benchmark: str, row: str) -> list[Run]:
        if not self.runs.get(benchmark, {}).get(row):
            raise NotMeasuredError(f"not run: {benchmark}/{row}")
        return self.runs[benchmark][row]

    def _draw(self, benchmark: str, metric: str) -> dict[str, Sample]:
        rows = self.runs[benchmark]
        tables = {row: np.asarray([run.values[metric] for run in runs], np.float64) for row, runs in rows.items()}
        sizes = {table.shape[1] for table in tables.values()}
        if len(sizes) != 1 or not all(np.isfinite(table).all() for table in tables.values()):
            shapes = ", ".join(f"{row} {table.shape[1]}" for row, table in tables.items())
            raise ValueError(f"{benchmark}/{metric}: rows should share their items, without NaN; items are {shapes}")
        (n,) = sizes
        means = _item_means(np.concatenate(list(tables.values())), self.resamples, _rng(self.seed, benchmark + metric))
        samples, column = {}, 0
        for row, runs in rows.items():
            by_seed = means[:, column : column + len(runs)]
            column += len(runs)
            weights = self._seed_weights(benchmark, [run.seed for run in runs])
            draws = 100 * (by_seed * weights).sum(1)
            samples[row] = Sample(draws, {f"{benchmark}/{metric}": n}, _seeds(runs))
        return samples

    def _seed_weights(self, benchmark: str, seeds: Sequence[int]) -> np.ndarray:
        # Keyed by the seeds themselves: rows trained with the same seeds are drawn together, metric by metric too.
        drawn = _rng(self.seed, f"{benchmark}/{list(seeds)}").multinomial(
            len(seeds), [1 / len(seeds)] * len(seeds), self.resamples
        )
        return np.vstack([np.ones(len(seeds)), drawn]) / len(seeds)


class Reported:
    """Evidence of the paper's printed tables: estimates without intervals, and nothing that is not printed."""

    def metric(self, table: str, row: str, metric: str) -> Sample:
        """A printed metric, or a sum of gains over the table's base row."""
        rows = {**REPORTED[table], "base": base_row(table)}
        if row not in rows:
            raise NotMeasuredError(f"not printed: {row} in {table}")
        if metric in GAINS:
            value = sum(SIGN[part] * (rows[row][part] - rows["base"][part]) for part in GAINS[metric])
            return Sample(np.asarray([round(value, 6)]))
        return Sample(np.asarray([rows[row][metric]]))

    def refusals(self, table: str, row: str) -> Sample:
        raise NotMeasuredError("not printed: refusals")

    def seconds_per_step(self, table: str, row: str) -> Sample:
        raise NotMeasuredError("not printed: time")

    def cosine(self, table: str, form: str, pair: tuple[str, str]) -> Sample:
        raise NotMeasuredError("not printed: cosines stand in Figure 2 as colours, in our copy not at all")

    def gain(self, table: str, pair: tuple[str, str]) -> Sample:
        raise NotMeasuredError("not printed: gains in cosine, but for the 92.29 % between Obj1 and Obj2")

    def distance(self, table: str, form: str, pair: tuple[str, str]) -> Sample:
        raise NotMeasuredError("not printed: distances between corpora")


def _seeds(runs: Sequence[Run]) -> int | None:
    # A row that trains nothing has one seed by nature; it says nothing about the seeds of the others.
    return len(runs) if runs[0].timing.get("steps") else None


def _rng(seed: int, key: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(key.encode())])


def _item_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means [1 + resamples, rows] of values [rows, items] over items drawn for all rows alike; the true means first."""
    n = values.shape[1]
    parts, chunk = [values.mean(1)[None]], max(1, 4_000_000 // n)  # some million draws at a time: MMLU has 14,042 items
    for start in range(0, resamples, chunk):
        drawn = rng.multinomial(n, np.full(n, 1 / n), min(chunk, resamples - start))
        parts.append(drawn @ values.T / n)
    return np.concatenate(parts)
