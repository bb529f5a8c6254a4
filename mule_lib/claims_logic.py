"""Verdicts from intervals: comparisons with a threshold, joined by all, any and not, with one error rate per claim."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mule_lib.claims_evidence import NotMeasuredError, Sample

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Threshold:
    """A stated bound with its unit and the reason for its value."""

    value: float
    unit: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """A statistic that the claim puts above (or below) a threshold; `read` takes the evidence and gives a `Sample`."""

    what: str
    table: str
    side: Literal["above", "below"]
    threshold: Threshold
    read: Callable[..., Sample]


@dataclass(frozen=True)
class All:
    """Holds when every part does."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class AnyOf:
    """Holds when at least one part does."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Not:
    """Holds when its part fails."""

    part: "Node"


Node = Comparison | All | AnyOf | Not


class Margin(NamedTuple):
    """How far beyond the threshold, positive on the claimed side, with the ends of its interval."""

    estimate: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """*holds* with the whole interval on the claimed side, *fails* with all of it on the other."""
        return "holds" if self.low > 0 else "fails" if self.high < 0 else "undecided"


@dataclass(frozen=True)
class Reading:
    """A comparison read on some evidence: the statistic with its interval, or why there is none (`missing`)."""

    comparison: Comparison
    negated: bool
    sample: Sample | None = None
    low: float = float("nan")
    high: float = float("nan")
    missing: str = ""

    @property
    def margin(self) -> Margin:
        """The margin for the claim, whatever side of the threshold the claim takes."""
        bound = self.comparison.threshold.value
        above = Margin(self.sample.estimate - bound, self.low - bound, self.high - bound)
        return above if (self.comparison.side == "above") != self.negated else flip(above)

    @property
    def verdict(self) -> Verdict:
        """The verdict of this comparison alone, for the claim; *undecided* where it could not be read."""
        return "undecided" if self.missing else self.margin.verdict

    @property
    def side(self) -> str:
        """The side that the claim takes, a negation counted in."""
        sides = {"above": "below", "below": "above"}
        return sides[self.comparison.side] if self.negated else self.comparison.side


def flip(margin: Margin) -> Margin:
    """The margin of the opposite statement."""
    return Margin(-margin.estimate, -margin.high, -margin.low)


def leaves(node: Node) -> Iterator[Comparison]:
    """The comparisons of a test in their order."""
    if isinstance(node, Comparison):
        yield node
    elif isinstance(node, Not):
        yield from leaves(node.part)
    else:
        for part in node.parts:
            yield from leaves(part)


def read(node: Node, evidence, *, level: float, negated: bool = False) -> "Read":
    """Read every comparison of a test at `level` (of each interval; `family_level` makes it one per claim)."""
    if isinstance(node, Not):
        return read(node.part, evidence, level=level, negated=not negated)
    if isinstance(node, Comparison):
        try:
            sample = node.read(evidence)
        except NotMeasuredError as error:
            return Read(leaf=Reading(node, negated, missing=error.args[0]))
        return Read(leaf=Reading(node, negated, sample, *sample.interval(level)))
    parts = tuple(read(part, evidence, level=level, negated=negated) for part in node.parts)
    # De Morgan: the negation of "all" is "any of the negations".
    return Read(parts=parts, every=isinstance(node, All) != negated)


def family_level(node: Node, level: float) -> float:
    """The level of each interval so that all of a claim's intervals cover together at `level` (Bonferroni).

    The least (or greatest) true margin of a family then lies between the least (greatest) of the low ends and of the
    high ends with that confidence, whatever the dependence between the rivals.
    """
    return 1 - (1 - level) / max(1, sum(1 for _ in leaves(node)))


@dataclass(frozen=True)
class Read:
    """A test with every comparison read: a leaf, or parts of which every one or any one has to hold."""

    leaf: Reading | None = None
    parts: tuple["Read", ...] = ()
    every: bool = True

    def readings(self) -> Iterator[Reading]:
        """All comparisons in their order."""
        if self.leaf:
            yield self.leaf
        for part in self.parts:
            yield from part.readings()

    def has_alternatives(self) -> bool:
        """Whether the test can hold although a comparison fails."""
        return (not self.every and len(self.parts) > 1) or any(part.has_alternatives() for part in self.parts)

    def missing(self) -> list[str]:
        """What could not be read, each once."""
        return list(dict.fromkeys(reading.missing for reading in self.readings() if reading.missing))

    def without_missing(self) -> "Read | None":
        """The test on what could be read alone; None when nothing could."""
        if self.leaf:
            return None if self.leaf.missing else self
        kept = tuple(part for part in (part.without_missing() for part in self.parts) if part)
        return Read(parts=kept, every=self.every) if kept else None

    def margin(self) -> Margin:
        """The margin of the whole test: the least over parts that all have to hold, the greatest over alternatives."""
        if self.leaf:
            return self.leaf.margin
        pick = min if self.every else max
        return Margin(*(pick(ends) for ends in zip(*(part.margin() for part in self.parts), strict=True)))

    def verdict(self) -> Verdict:
        """The verdict of the whole test; *undecided* when anything in it could not be read."""
        return "undecided" if self.missing() else self.margin().verdict

    def decisive(self) -> Reading:
        """The comparison that the verdict hangs on: it has the verdict of the whole test, and the least to spare."""
        if self.leaf:
            return self.leaf
        verdict = self.margin().verdict
        by_low = verdict == "holds" or (verdict == "undecided" and self.every)
        pick = min if self.every else max
        return pick(self.parts, key=lambda part: part.margin().low if by_low else part.margin().high).decisive()
