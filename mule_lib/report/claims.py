"""Verdicts on the paper's claims: evidence with paired resamples, tests of comparisons, one error rate per claim.

A claim *holds* when the whole 95 % interval lies on the claimed side of a stated threshold, *fails* when all of it lies
on the other side, and is *undecided* otherwise, or when a run is missing, which is then named. A claim of several
comparisons is judged by their least favourable margin, with intervals widened (Bonferroni) to cover together at 95 %.
There is no correction over the claims: of thirty verdicts, one or two may be wrong by chance.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from mule_lib.data.distance import main_lines
from mule_lib.evaluate.intervals import counts, item_means, percentiles
from mule_lib.paper import LOWER_IS_BETTER, METRICS, REPORTED, base_row
from mule_lib.report.names import benchmark_name, listed, number

# The tables of the paper and the benchmark that each is tried on: the Fable counterparts unless said otherwise.
FABLE = {"table1": "books", "table2": "books", "table3": "cyber"}
MIN_ITEMS = 30  # fewer make a percentile interval too narrow to carry a verdict
MIN_TIMED_SEEDS = 3  # wall times vary from run to run
# The gains behind each objective (Section 5.1) and behind Overall Performance.
GAINS = {"overall": METRICS, "obj1": ("forget", "general"), "obj2": ("neighbor",), "obj3": ("asr",)}
# The pilot study's numbers: the files that hold them and what they are called.
PILOT = {
    "cosine": ("figures/figure2.csv", "cosine between objectives"),
    "gain": ("02_gradient_cosine/changes.csv", "gain in cosine between objectives"),
    "distance": ("01_data/*/distances.csv", "distance between objectives"),
}


class NotMeasuredError(LookupError):
    """A number that a claim needs is not there; the message says which and why."""


class PilotError(ValueError):
    """A file of the pilot study cannot be used; the message names it and what it lacks."""


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


class Threshold(NamedTuple):
    """A stated bound with its word, its unit and the reason for its value."""

    word: str
    value: float
    unit: str
    reason: str


class Comparison(NamedTuple):
    """A measure, a method of `Evidence` with its arguments, that a claim puts above or below a threshold."""

    what: str
    table: str
    measure: str
    arguments: Mapping[str, Any]
    side: Literal["above", "below"]
    threshold: Threshold

    @property
    def bound(self) -> str:
        """The threshold as a condition, such as `> 80`."""
        return f"{'>' if self.side == 'above' else '<'} {self.threshold.value:g}"

    def margin(self, estimate: Estimate) -> Estimate:
        """How far beyond the threshold, positive on the claimed side."""
        value, low, high = (end - self.threshold.value for end in estimate.ends)
        return Estimate(value, low, high) if self.side == "above" else Estimate(-value, -high, -low)

    def read(self, evidence: "Evidence") -> Estimate:
        """The measure with its interval; raises NotMeasuredError."""
        return getattr(evidence, self.measure)(self.table, **self.arguments)


@dataclass(frozen=True)
class Claim:
    """One claim with a test, in every tuple of which some comparison has to hold, or with why nothing measures it."""

    id: str
    claim: str
    where: str
    reported: str
    test: tuple[tuple[Comparison, ...], ...] = ()
    not_measured: str = ""


# Evidence -------------------------------------------------------------------------------------------------------------


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
        """Refusals, times, cosines and distances, of which the paper prints none."""
        raise NotMeasuredError(f"not printed for {table}")

    refusals = time = cosine = rise = fall = not_printed

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
        if row not in rows:
            raise NotMeasuredError(f"not printed: {row} in {table}")
        return Estimate(*[rows[row][metric]] * 3)


class Measured(Evidence):
    """Evidence of run folders: all rows of a benchmark answer the same drawn items, rows of the same seeds share them.

    Rows of different seeds are compared by their means over all seeds that they have. With few seeds a percentile
    interval is somewhat too narrow: of three, a resample has on average two thirds of their variance. `benchmarks` says
    which benchmark stands for which table; `pilot` comes from `load_pilot`. What is missing raises NotMeasuredError.
    """

    def __init__(
        self, runs: Iterable, pilot: Mapping[tuple, Estimate], *, benchmarks: Mapping[str, str] = FABLE,
        resamples: int = 10_000, seed: int = 0,
    ):  # fmt: skip
        self.benchmarks, self.pilot, self.resamples, self.seed = benchmarks, pilot, resamples, seed
        self.runs: dict[str, dict[str, list]] = {}
        for run in sorted(runs, key=lambda run: run.seed):
            self.runs.setdefault(run.benchmark, {}).setdefault(run.row, []).append(run)
        self._drawn: dict[tuple[str, str], dict[str, Estimate]] = {}

    def points(self, table: str, metric: str, row: str) -> Estimate:
        """One of the five metrics."""
        benchmark, _ = self._runs_of(table, row)
        if (benchmark, metric) not in self._drawn:
            self._drawn[benchmark, metric] = self._draw(benchmark, metric)
        estimate = self._drawn[benchmark, metric][row]
        if (n := sum(estimate.items.values())) < MIN_ITEMS:
            raise NotMeasuredError(f"{benchmark}/{metric} has {n} items; {MIN_ITEMS} are needed for a verdict")
        return estimate

    def refusals(self, table: str, row: str) -> Estimate:
        """Refusals of neighbour questions beyond those of the base row, in points.

        Runs keep this rate and not its items, so both are drawn from the Jeffreys posterior of one seed's items; a rate
        is the mean over the seeds.
        """
        return combine(np.subtract, *(self._refusals(*self._runs_of(table, name), name) for name in (row, "base")))

    def time(self, table: str, row: str, rival: str) -> Estimate:
        """Time of a training step in those of a rival, over seeds; the teacher's answers, made once, are not in it."""
        return combine(np.divide, *(self._seconds(*self._runs_of(table, name), name) for name in (row, rival)))

    def cosine(self, table: str, data_format: str, pair: Sequence[str]) -> Estimate:
        """Cosine between the gradients of two objectives with raw or standardized data."""
        return self._studied("cosine", table, data_format, pair)

    def rise(self, table: str, pair: Sequence[str]) -> Estimate:
        """How much standardization raises that cosine, paired batch by batch."""
        return self._studied("gain", table, "", pair)

    def fall(self, table: str, pair: Sequence[str]) -> Estimate:
        """How much standardization lowers the proxy A-distance (0 to 2) of two corpora, drawn independently."""
        raw, ours = (self._studied("distance", table, name, pair) for name in ("raw", "standardized"))
        fall, down = raw.value - ours.value, np.hypot(raw.value - raw.low, ours.high - ours.value)
        return Estimate(fall, fall - down, fall + np.hypot(raw.high - raw.value, ours.value - ours.low))

    def _studied(self, quantity: str, table: str, data_format: str, pair: Sequence[str]) -> Estimate:
        name, key = PILOT[quantity][1], (quantity, self.benchmarks[table], data_format, frozenset(pair))
        if quantity not in {known for known, *_ in self.pilot}:
            raise NotMeasuredError(f"the pilot study ({name}) was not run")
        if key not in self.pilot:
            raise NotMeasuredError(f"not measured: {', '.join(filter(None, (name, *key[1:3])))}")
        return self.pilot[key]

    def _runs_of(self, table: str, row: str) -> tuple[str, list]:
        benchmark = self.benchmarks[table]
        if not self.runs.get(benchmark, {}).get(row):
            raise NotMeasuredError(f"not run: {benchmark}/{row}")
        return benchmark, self.runs[benchmark][row]

    def _draw(self, benchmark: str, metric: str) -> dict[str, Estimate]:
        rows = self.runs[benchmark]
        values = {row: np.asarray([run.values[metric] for run in runs], float) for row, runs in rows.items()}
        stacked, rng = np.concatenate(list(values.values())), self._rng(benchmark + metric)
        means = item_means(stacked, self.resamples, rng, draw=counts) / stacked.shape[1]
        estimates, column = {}, 0
        for row, table in values.items():
            by_seed, column = means[:, column : column + len(table)], column + len(table)
            draws = 100 * (by_seed * self._seed_shares(benchmark, rows[row])).sum(1)
            items = {f"{benchmark}/{metric}": table.shape[1]}
            estimates[row] = Estimate(100 * table.mean(), *percentiles(draws), draws, items, _seeds(rows[row]))
        return estimates

    def _refusals(self, benchmark: str, runs: list, row: str) -> Estimate:
        rates = [run.details.get("neighbor", {}).get("refusal") for run in runs]
        if None in rates:
            raise NotMeasuredError(f"{benchmark}/{row} has no details.neighbor.refusal")
        n, rate, rng = len(runs[0].values["neighbor"]), np.mean(rates), self._rng(f"{benchmark}/{row}/refusal")
        draws = 100 * rng.beta(n * rate + 0.5, n * (1 - rate) + 0.5, self.resamples)
        return Estimate(100 * rate, *percentiles(draws), draws, {f"{benchmark}/neighbor": n}, _seeds(runs))

    def _seconds(self, benchmark: str, runs: list, row: str) -> Estimate:
        times = [run.timing.get("train_seconds", 0) / run.timing["steps"] for run in runs if run.timing.get("steps")]
        if len(times) < MIN_TIMED_SEEDS:
            raise NotMeasuredError(f"{benchmark}/{row} was timed with {len(times)} seeds; {MIN_TIMED_SEEDS} are needed")
        draws = self._seed_shares(benchmark, runs) @ times
        return Estimate(np.mean(times), *percentiles(draws), draws, {}, len(times))

    def _seed_shares(self, benchmark: str, runs: list) -> np.ndarray:
        # Keyed by the seeds themselves: rows trained with the same seeds are drawn together, metric by metric too.
        rng = self._rng(f"{benchmark}/{[run.seed for run in runs]}")
        return counts(rng, self.resamples, len(runs)) / len(runs)

    def _rng(self, key: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(key.encode())])


def _seeds(runs: Sequence) -> int | None:
    # A row that trains nothing has one seed by nature; it says nothing about the seeds of the others.
    return len(runs) if runs[0].timing.get("steps") else None


def load_pilot(suite: Path) -> dict[tuple[str, str, str, frozenset[str]], Estimate]:
    """What notebooks 01 and 02 left in a suite, by quantity, benchmark, data format and pair of objectives.

    Numbers of several steps become their mean with the outermost ends: the paper says "early stages" and names no step,
    so a claim has to stand at each of them. Raises PilotError for a file without the columns that it should have.
    """
    pilot = {}
    for quantity, (pattern, _) in PILOT.items():
        for file in sorted(suite.glob(pattern)):
            table = pd.read_csv(file)
            keys = ["benchmark", "objective_a", "objective_b"] + ["format"] * (quantity != "gain")
            if lacking := [name for name in (*keys, quantity, "low", "high") if name not in table]:
                raise PilotError(f"{file}: lacks the columns {', '.join(lacking)}; run its notebook again")
            table = main_lines(table) if quantity == "distance" else table
            for key, lines in table.groupby(keys):
                benchmark, first, second, data_format = (*key, "")[:4]
                ends = lines[quantity].mean(), lines["low"].min(), lines["high"].max()
                pilot[quantity, benchmark, data_format, frozenset({first, second})] = Estimate(*map(float, ends))
    return pilot


# Verdicts -------------------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """A comparison on our runs and on the paper's tables with their margins; `missing` says what our runs lack."""

    comparison: Comparison
    ours: Estimate | None
    printed: Estimate | None
    missing: str

    @property
    def margin(self) -> Estimate | None:
        """How far our estimate lies beyond the threshold."""
        return self.ours and self.comparison.margin(self.ours)

    @property
    def reported_meets(self) -> str:
        """Whether what the paper prints meets the threshold: yes, no, or not printed."""
        return _meets([[self]])


@dataclass(frozen=True)
class Judged:
    """A claim with its test as read, alternatives together, its verdict, and the benchmarks that it was read on.

    `missing` is what could not be read; without any, `margin` is the whole test's and `decisive` the comparison that
    the verdict hangs on, with the least to spare.
    """

    claim: Claim
    readings: Sequence[Sequence[Reading]]
    benchmarks: Mapping[str, str]
    missing: Sequence[str]
    verdict: str = "undecided"
    margin: Estimate | None = None
    decisive: Reading | None = None

    @property
    def reported_meets(self) -> str:
        """Whether the paper's printed numbers meet the same thresholds: yes, no, or not printed."""
        return _meets(self.readings)

    @property
    def behind(self) -> str:
        """What the verdict rests on and how the comparisons came out, or what is missing."""
        every = [*chain(*self.readings)]
        verdicts = Counter(one.margin.verdict for one in every if not one.missing)
        some = " (some are alternatives)" * any(len(part) > 1 for part in self.readings)
        tally = listed([f"{n} {word}" for word, n in verdicts.items()])
        others = f" Of {len(every)} comparisons{some}, {tally}." if verdicts and len(every) > 1 else ""
        if self.missing:
            return f"{'; '.join(self.missing)}.{others}"
        n, seeds = sum(self.decisive.ours.items.values()), self.decisive.ours.seeds
        parts = [benchmark_name(self.benchmarks[self.decisive.comparison.table])] + [f"{n} items"] * (n > 0)
        parts += [f"{seeds} seeds" if seeds > 1 else "1 seed, so without the spread between seeds"] if seeds else []
        return f"({', '.join(parts)}).{others}"

    @property
    def measured(self) -> str:
        """The deciding number with its interval, unit and condition; "–" when something is missing."""
        if self.missing:
            return "–"
        value, low, high = (number(end, 1 if abs(end) >= 10 else 2) for end in self.decisive.ours.ends)
        unit = self.decisive.comparison.threshold.unit
        shown = "" if unit in ("cosine", "distance") else f" {unit}"
        return f"{value} [{low}, {high}]{shown}, should be {self.decisive.comparison.bound}"

    @property
    def explanation(self) -> str:
        """One line with the numbers behind the verdict, or with what is missing."""
        what = f"{self.decisive.comparison.what} is {self.measured} " if self.decisive else ""
        return f"{self.verdict}: {what}{self.behind}"


def judge(claim: Claim, evidence: Measured) -> Judged:
    """A claim with its verdict. All intervals of its test together cover at 95 % (Bonferroni), and so does the least
    (greatest) of their low and high ends for the least (greatest) true margin, however the rivals depend on each other.
    """
    level = 1 - 0.05 / max(1, sum(map(len, claim.test)))
    readings = [[_read(comparison, evidence, level) for comparison in part] for part in claim.test]
    missing = list(dict.fromkeys(filter(None, (claim.not_measured, *(one.missing for one in chain(*readings))))))
    if missing:
        return Judged(claim, readings, evidence.benchmarks, missing)
    parts = [_least([[one.margin for one in part]]) for part in readings]
    margin = _least([[part] for part in parts])
    verdict = margin.verdict
    place = int(np.argmin([one.high if verdict == "fails" else one.low for one in parts]))
    end = "low" if parts[place].verdict == "holds" else "high"
    decisive = max(readings[place], key=lambda one: getattr(one.margin, end))
    return Judged(claim, readings, evidence.benchmarks, missing, verdict, margin, decisive)


def _read(comparison: Comparison, evidence: Measured, level: float) -> Reading:
    printed = None
    with suppress(NotMeasuredError):
        printed = comparison.read(Reported())
    try:
        return Reading(comparison, comparison.read(evidence).at(level), printed, "")
    except NotMeasuredError as error:
        return Reading(comparison, None, printed, error.args[0])


def _least(margins: Sequence[Sequence[Estimate]]) -> Estimate:
    # The least over parts that all have to hold, the greatest over alternatives, end by end.
    return Estimate(*np.min([np.max([one.ends for one in part], axis=0) for part in margins], axis=0).tolist())


def _meets(readings: Sequence[Sequence[Reading]]) -> str:
    margins = [[one.comparison.margin(one.printed) for one in part if one.printed] for part in readings]
    printed = [part for part in margins if part]
    return ("yes" if _least(printed).value > 0 else "no") if printed else "not printed"
