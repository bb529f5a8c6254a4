"""What a claim is judged from: numbers of runs and of the pilot study with paired resamples, and the printed tables."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from mule_lib.data.distance import main_lines
from mule_lib.evaluate.intervals import counts, item_means, percentiles
from mule_lib.evaluate.result import ResultError
from mule_lib.paper import LOWER_IS_BETTER, METRICS, REPORTED, base_row

# The tables of the paper and the benchmark that each is tried on: the Fable counterparts unless said otherwise.
FABLE = {"table1": "books", "table2": "books", "table3": "cyber"}
MIN_ITEMS = 30  # fewer make a percentile interval too narrow to carry a verdict
MIN_TIMED_SEEDS = 3  # wall times vary from run to run
# The gains behind each objective (Section 5.1) and behind Overall Performance.
GAINS = {"overall": METRICS, "obj1": ("forget", "general"), "obj2": ("neighbor",), "obj3": ("asr",)}
# The sets on which a student's kinds of answers are compared with its teacher's.
AGREED = ("forget", "attack", "general")
PRINTED_AS = {"asr_readable": "asr"}  # the printed number that stands for one of ours
# The pilot study's numbers: the files that hold them and what they are called.
PILOT = {
    "cosine": ("02_gradient_cosine/cosines.csv", "cosine between objectives"),
    "gain": ("02_gradient_cosine/changes.csv", "gain in cosine between objectives"),
    "distance": ("01_data/*/distances.csv", "distance between objectives"),
}


class NotMeasuredError(LookupError):
    """A number that a claim needs is not there; the message says which and why."""


class Studied(NamedTuple):
    """A quantity of `PILOT` between two objectives; a gain has no data format, a distance no step."""

    quantity: str
    benchmark: str
    data_format: str
    step: int | None
    pair: frozenset[str]


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval, and its resamples where there are any.

    `items` counts items by evaluation set; `seeds` is the fewest training seeds, None where nothing trains.
    """

    value: float
    low: float
    high: float
    draws: np.ndarray | None = None
    items: Mapping[str, int] = field(default_factory=dict)
    seeds: int | None = None

    def at(self, level: float) -> "Estimate":
        """The same at another level than 95 %; without resamples the half widths grow as a normal's."""
        if self.draws is not None:
            low, high = percentiles(self.draws, level)
        else:
            wider = NormalDist().inv_cdf((1 + level) / 2) / NormalDist().inv_cdf(0.975)
            low, high = (self.value + wider * (end - self.value) for end in (self.low, self.high))
        return replace(self, low=low, high=high)

    @property
    def ends(self) -> tuple[float, float, float]:
        """Value, low and high."""
        return self.value, self.low, self.high

    @property
    def verdict(self) -> Literal["holds", "undecided", "fails"]:
        """What a margin says: *holds* with the whole interval above zero, *fails* with all of it below."""
        return "holds" if self.low > 0 else "fails" if self.high < 0 else "undecided"


def combine(function: Callable[..., Any], *parts: Estimate) -> Estimate:
    """A function of estimates, resample by resample and so paired; printed numbers are exact and have no resamples."""
    value = float(function(*(part.value for part in parts)))
    items = {name: n for part in parts for name, n in part.items.items()}
    seeds = min((part.seeds for part in parts if part.seeds is not None), default=None)
    if any(part.draws is None for part in parts):
        return Estimate(value, value, value, None, items, seeds)
    draws = function(*(part.draws for part in parts))
    return Estimate(value, *percentiles(draws), draws, items, seeds)


class Evidence:
    """The measures of comparisons; a source gives the `points` of a metric or raises NotMeasuredError."""

    def not_printed(self, table: str, **_) -> Estimate:
        """Kinds of answers, operations, times, cosines and distances, of which the paper prints none."""
        raise NotMeasuredError(f"not printed for {table}")

    agreement = operations = time = cosine = rise = fall = not_printed

    def value(self, table: str, metric: str, row: str) -> Estimate:
        """A metric in points, or the sum of gains over the base row that `GAINS` names."""
        if metric not in GAINS:
            return self.points(table, metric, row)
        signs = [-1 if part in LOWER_IS_BETTER else 1 for part in GAINS[metric]]
        values = [self.points(table, part, name) for name in (row, "base") for part in GAINS[metric]]
        return combine(lambda *v: sum(s * (r - b) for s, r, b in zip(signs, v, v[len(signs) :], strict=False)), *values)

    def gap(self, table: str, metric: str, row: str, rival: str) -> Estimate:
        """How far a row stands above a rival."""
        return combine(np.subtract, self.value(table, metric, row), self.value(table, metric, rival))

    def near(self, table: str, metric: str, row: str, rival: str) -> Estimate:
        """How far a row stands above four fifths of a rival."""
        both = self.value(table, metric, row), self.value(table, metric, rival)
        return combine(lambda left, right: left - 0.8 * right, *both)

    def lost(self, table: str, metric: str, row: str) -> Estimate:
        """How far a row falls below the base row."""
        return self.gap(table, metric, "base", row)

    def removed(self, table: str, metric: str, row: str) -> Estimate:
        """How much of the base row's value is gone, in percent."""
        base, ours = self.points(table, metric, "base"), self.points(table, metric, row)
        if np.min(base.value if base.draws is None else base.draws) <= 0:
            raise NotMeasuredError("the base model scores 0: there is nothing to remove")
        return combine(lambda before, after: 100 * (1 - after / before), base, ours)


class Reported(Evidence):
    """Evidence of the paper's printed tables: numbers without intervals, and nothing that is not printed."""

    def points(self, table: str, metric: str, row: str) -> Estimate:
        """A printed metric."""
        rows = {**REPORTED[table], "base": base_row(table)}
        printed = rows.get(row, {}).get(PRINTED_AS.get(metric, metric))
        if printed is None:
            raise NotMeasuredError(f"not printed: {metric} of {row} in {table}")
        return Estimate(*[printed] * 3)


class Measured(Evidence):
    """Evidence of run folders: all rows of a benchmark answer the same drawn items, rows of the same seeds share them.

    Rows of different seeds are compared by their means over all seeds that they have. With few seeds a percentile
    interval is somewhat too narrow: of three, a resample has on average two thirds of their variance. `benchmarks` says
    which benchmark stands for which table; `pilot` comes from `load_pilot`. What is missing raises NotMeasuredError.
    """

    def __init__(
        self, runs: Iterable, pilot: Mapping[Studied, Estimate], *, benchmarks: Mapping[str, str] = FABLE,
        resamples: int = 10_000, seed: int = 0,
    ):  # fmt: skip
        self.benchmarks, self.pilot, self.resamples, self.seed = benchmarks, pilot, resamples, seed
        self.runs: dict[str, dict[str, list]] = {}
        for run in sorted(runs, key=lambda run: run.seed):
            self.runs.setdefault(run.benchmark, {}).setdefault(run.row, []).append(run)
        self._drawn: dict[tuple[str, str], dict[str, Estimate]] = {}

    def points(self, table: str, metric: str, row: str) -> Estimate:
        """A metric that all runs of the row have."""
        benchmark, runs = self._runs_of(table, row)
        if any(metric not in run.values for run in runs):
            raise NotMeasuredError(f"not measured: {metric} of {benchmark}/{row}")
        if (benchmark, metric) not in self._drawn:
            self._drawn[benchmark, metric] = self._draw(benchmark, metric)
        estimate = self._drawn[benchmark, metric][row]
        if (n := sum(estimate.items.values())) < MIN_ITEMS:
            raise NotMeasuredError(f"{benchmark}/{metric} has {n} items; {MIN_ITEMS} are needed for a verdict")
        return estimate

    def agreement(self, table: str, answers: str, row: str, rival: str) -> Estimate:
        """Share of a set's items, in percent, that a row answers by the same kind of answer as a rival that trains not.

        Both may be wrong alike: what is compared is right, refused, plausible, wrong kind or broken.
        """
        benchmark, runs = self._runs_of(table, row)
        theirs = self._runs_of(table, rival)[1][0].kinds.get(answers)
        if not theirs or any(answers not in run.kinds for run in runs):
            raise NotMeasuredError(f"not measured: kinds of answers of {benchmark}/{row} or {rival} to {answers}")
        same = [[a == b for a, b in zip(run.kinds[answers], theirs, strict=True)] for run in runs]
        return self._estimates(benchmark, f"kinds/{answers}", {row: np.asarray(same, float)})[row]

    def operations(self, table: str, row: str, rival: str) -> Estimate:
        """Floating-point operations of a training step (`timing.step_flops`) in those of a rival, over seeds."""
        return combine(np.divide, *(self._per_step(table, name, "step_flops", 1) for name in (row, rival)))

    def time(self, table: str, row: str, rival: str) -> Estimate:
        """Time of a training step in those of a rival, over seeds; the teacher's answers, made once, are not in it."""
        return combine(
            np.divide, *(self._per_step(table, name, "train_seconds", MIN_TIMED_SEEDS) for name in (row, rival))
        )

    def cosine(self, table: str, data_format: str, step: int, pair: Sequence[str]) -> Estimate:
        """Cosine between the gradients of two objectives with raw or standardized data after some steps of training."""
        return self._studied("cosine", table, data_format, pair, step)

    def rise(self, table: str, step: int, pair: Sequence[str]) -> Estimate:
        """How much standardization raises that cosine, paired batch by batch."""
        return self._studied("gain", table, "", pair, step)

    def fall(self, table: str, pair: Sequence[str]) -> Estimate:
        """How much standardization lowers the proxy A-distance (0 to 2) of two corpora, drawn independently."""
        raw, ours = (self._studied("distance", table, name, pair) for name in ("raw", "standardized"))
        fall, down = raw.value - ours.value, np.hypot(raw.value - raw.low, ours.high - ours.value)
        return Estimate(fall, fall - down, fall + np.hypot(raw.high - raw.value, ours.value - ours.low))

    def _studied(
        self, quantity: str, table: str, data_format: str, pair: Sequence[str], step: int | None = None
    ) -> Estimate:
        name, key = PILOT[quantity][1], Studied(quantity, self.benchmarks[table], data_format, step, frozenset(pair))
        if quantity not in {known.quantity for known in self.pilot}:
            raise NotMeasuredError(f"the pilot study ({name}) was not run")
        if key not in self.pilot:
            at = "" if step is None else f"step {step}"
            raise NotMeasuredError(f"not measured: {', '.join(filter(None, (name, key.benchmark, data_format, at)))}")
        return self.pilot[key]

    def _runs_of(self, table: str, row: str) -> tuple[str, list]:
        benchmark = self.benchmarks[table]
        if not self.runs.get(benchmark, {}).get(row):
            raise NotMeasuredError(f"not run: {benchmark}/{row}")
        return benchmark, self.runs[benchmark][row]

    def _draw(self, benchmark: str, metric: str) -> dict[str, Estimate]:
        values = {
            row: np.asarray([run.values[metric] for run in runs], float)
            for row, runs in self.runs[benchmark].items()
            if all(metric in run.values for run in runs)
        }
        return self._estimates(benchmark, metric, values)

    def _estimates(self, benchmark: str, metric: str, values: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
        """Rows' means of values [seeds, items], in points, over one draw of the items that all of them answered."""
        rows, rng = self.runs[benchmark], self._rng(benchmark + metric)
        stacked = np.concatenate(list(values.values()))
        means = item_means(stacked, self.resamples, rng, draw=counts) / stacked.shape[1]
        estimates, column = {}, 0
        for row, table in values.items():
            by_seed, column = means[:, column : column + len(table)], column + len(table)
            draws = 100 * (by_seed * self._seed_shares(benchmark, rows[row])).sum(1)
            items = {f"{benchmark}/{metric}": table.shape[1]}
            estimates[row] = Estimate(100 * table.mean(), *percentiles(draws), draws, items, _seeds(rows[row]))
        return estimates

    def _per_step(self, table: str, row: str, what: str, needed: int) -> Estimate:
        benchmark, runs = self._runs_of(table, row)
        found = [run.timing[what] for run in runs if run.timing.get(what)]
        if len(found) < max(needed, len(runs)):
            raise NotMeasuredError(
                f"not measured: {what} of {benchmark}/{row} ({len(found)} seeds, {needed} are needed)"
            )
        if what == "train_seconds":
            found = [seconds / run.timing["steps"] for seconds, run in zip(found, runs, strict=True)]
        draws = self._seed_shares(benchmark, runs) @ found
        return Estimate(np.mean(found), *percentiles(draws), draws, {}, len(found))

    def _seed_shares(self, benchmark: str, runs: list) -> np.ndarray:
        # Keyed by the seeds themselves: rows trained with the same seeds are drawn together, metric by metric too.
        rng = self._rng(f"{benchmark}/{[run.seed for run in runs]}")
        return counts(rng, self.resamples, len(runs)) / len(runs)

    def _rng(self, key: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(key.encode())])


def _seeds(runs: Sequence) -> int | None:
    # A row that trains nothing has one seed by nature; it says nothing about the seeds of the others.
    return len(runs) if runs[0].timing.get("steps") else None


def load_pilot(suite: Path) -> dict[Studied, Estimate]:
    """What notebooks 01 and 02 left in a suite. Raises ResultError for a file that lacks a column."""
    pilot = {}
    for quantity, (pattern, _) in PILOT.items():
        for file in sorted(suite.glob(pattern)):
            table = pd.read_csv(file)
            keys = ["benchmark", "objective_a", "objective_b"]
            keys += ["format"] * (quantity != "gain") + ["step"] * (quantity != "distance")
            if lacking := [name for name in (*keys, quantity, "low", "high") if name not in table]:
                raise ResultError(f"{file}: lacks the columns {', '.join(lacking)}; run its notebook again")
            table = main_lines(table) if quantity == "distance" else table
            for line in table.to_dict("records"):
                form, step = line.get("format", "") if quantity != "gain" else "", line.get("step")
                place = frozenset({line["objective_a"], line["objective_b"]})
                key = Studied(quantity, line["benchmark"], form, None if quantity == "distance" else int(step), place)
                pilot[key] = Estimate(*(float(line[name]) for name in (quantity, "low", "high")))
    return pilot
