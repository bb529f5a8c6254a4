"""Verdicts on the paper's claims: comparisons with thresholds, each verdict with one error rate.

A claim *holds* when the whole 95 % interval lies on the claimed side of a stated threshold, *fails* when all of it lies
on the other side, and is *undecided* otherwise, or when a run is missing, which is then named. A claim of several
comparisons is judged by their least favourable margin. To *hold* it needs each comparison's own 95 % interval, since
all have to pass (an intersection-union test); the ends that it could *fail* by, one being enough, and those of
alternatives are widened (Bonferroni). There is no correction over the claims: of thirty verdicts, one or two may be
wrong by chance.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np

from mule_lib.report.evidence import Estimate, Evidence, Measured, NotMeasuredError, Reported
from mule_lib.report.names import benchmark_name, listed, number

# A true distance of so many half widths from a threshold is told apart in four of five studies: (1.96 + 0.84) / 1.96.
TOLD_APART = 1.43


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
        return f"{'>' if self.side == 'above' else '≤'} {self.threshold.value:g}"

    def meets(self, printed: Estimate) -> bool:
        """Whether a printed number is on the claimed side; what loses just as much as is kept is kept."""
        beyond = round(printed.value - self.threshold.value, 6)
        return beyond > 0 if self.side == "above" else beyond <= 0

    def margin(self, estimate: Estimate) -> Estimate:
        """How far beyond the threshold, positive on the claimed side."""
        value, low, high = (end - self.threshold.value for end in estimate.ends)
        return Estimate(value, low, high) if self.side == "above" else Estimate(-value, -high, -low)

    def read(self, evidence: Evidence) -> Estimate:
        """The measure with its interval; raises NotMeasuredError."""
        return getattr(evidence, self.measure)(self.table, **self.arguments)


@dataclass(frozen=True)
class Claim:
    """One claim with a test, in every tuple of which some comparison has to hold, or with why nothing measures it.

    `beside` is shown with the verdict and has no part in it.
    """

    id: str
    short: str
    claim: str
    where: str
    reported: str
    test: tuple[tuple[Comparison, ...], ...] = ()
    not_measured: str = ""
    beside: tuple[Comparison, ...] = ()

    @property
    def section(self) -> str:
        """The section that it is read in: the first with a number of two parts, such as 5.2 or A.1, else the first."""
        found = re.findall(r"(?:Section|Appendix) ([A\d][.\d]*)", self.where)
        return next((one for one in found if "." in one), found[0])


# Verdicts -------------------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """A comparison on our runs and on the paper's tables with their margins; `missing` says what our runs lack.

    The end of `ours` by which the claim could fail is widened for the other comparisons, the end by which it holds for
    alternatives alone.
    """

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
    beside: Sequence[Reading] = ()

    @property
    def told_apart(self) -> float | None:
        """Where a verdict is open: the distance from the threshold that four of five such studies would tell apart."""
        if self.decisive is None or self.verdict != "undecided":
            return None
        return TOLD_APART * (self.decisive.ours.high - self.decisive.ours.low) / 2

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
        others += "".join(
            f" Beside the verdict: {one.comparison.what}, {number(one.ours.value, 2)} on "
            f"{benchmark_name(self.benchmarks[one.comparison.table])}."
            for one in self.beside
            if one.ours
        )
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
        apart = (
            f"; {number(self.told_apart, 1 if self.told_apart >= 10 else 2)} beyond it would be told apart"
            if self.told_apart
            else ""
        )
        return f"{value} [{low}, {high}]{shown}, should be {self.decisive.comparison.bound}{apart}"

    @property
    def explanation(self) -> str:
        """One line with the numbers behind the verdict, or with what is missing."""
        what = f"{self.decisive.comparison.what} is {self.measured} " if self.decisive else ""
        return f"{self.verdict}: {what}{self.behind}"


def judge(claim: Claim, evidence: Measured) -> Judged:
    """A claim with its verdict, wrong either way in at most one of twenty studies, however its numbers hang together.

    *holds* takes every part of the test at 95 %, with alternatives widened among themselves; *fails* takes one part,
    all of whose alternatives fail, widened by the number of parts.
    """
    failing = 1 - 0.05 / max(1, len(claim.test))
    readings = [[_read(one, evidence, 1 - 0.05 / len(part), failing) for one in part] for part in claim.test]
    beside = [_read(one, evidence, 0.95, 0.95) for one in claim.beside]
    missing = list(dict.fromkeys(filter(None, (claim.not_measured, *(one.missing for one in chain(*readings))))))
    if missing:
        return Judged(claim, readings, evidence.benchmarks, missing, beside=beside)
    parts = [_least([[one.margin for one in part]]) for part in readings]
    margin = _least([[part] for part in parts])
    verdict = margin.verdict
    place = int(np.argmin([one.high if verdict == "fails" else one.low for one in parts]))
    end = "low" if parts[place].verdict == "holds" else "high"
    decisive = max(readings[place], key=lambda one: getattr(one.margin, end))
    return Judged(claim, readings, evidence.benchmarks, missing, verdict, margin, decisive, beside)


def _read(comparison: Comparison, evidence: Measured, holding: float, failing: float) -> Reading:
    printed = None
    with suppress(NotMeasuredError):
        printed = comparison.read(Reported())
    try:
        estimate = comparison.read(evidence)
    except NotMeasuredError as error:
        return Reading(comparison, None, printed, error.args[0])
    low, high = (holding, failing) if comparison.side == "above" else (failing, holding)
    return Reading(comparison, replace(estimate, low=estimate.at(low).low, high=estimate.at(high).high), printed, "")


def _least(margins: Sequence[Sequence[Estimate]]) -> Estimate:
    # The least over parts that all have to hold, the greatest over alternatives, end by end.
    return Estimate(*np.min([np.max([one.ends for one in part], axis=0) for part in margins], axis=0).tolist())


def _meets(readings: Sequence[Sequence[Reading]]) -> str:
    met = [[one.comparison.meets(one.printed) for one in part if one.printed] for part in readings]
    return ("yes" if all(map(any, filter(None, met))) else "no") if any(met) else "not printed"
