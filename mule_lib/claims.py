"""The claims ledger: a verdict on every claim of the paper from our numbers, beside what the paper reports.

A claim *holds* when the whole 95 % interval lies on the claimed side of a stated threshold, *fails* when all of it lies
on the other side, and is *undecided* otherwise, or when a run is missing, which is then named. A claim of several
comparisons is judged by their least favourable margin; its intervals are widened (Bonferroni) so that they cover
together at 95 %. There is no correction over the claims: of thirty verdicts, one or two may be wrong by chance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from mule_lib.claims_evidence import FABLE, Measured, Reported, Sample
from mule_lib.claims_logic import Margin, Read, Reading, Verdict, family_level, leaves, read
from mule_lib.claims_parts import THRESHOLDS
from mule_lib.claims_tests import NOT_MEASURED, TESTS
from mule_lib.paper import CLAIMS, Claim
from mule_lib.report.names import BENCHMARKS

VERDICTS: tuple[Verdict, ...] = ("holds", "undecided", "fails")
UNITLESS = ("cosine", "distance")
SPELT = {"asr": "ASR", "sft": "SFT", "duet": "DUET", "cot": "CoT", "topk": "Top-K"}


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, the test as read on our runs and on the paper's tables, and one line that explains."""

    claim: Claim
    verdict: Verdict
    explanation: str
    benchmarks: Mapping[str, str]
    ours: Read | None = None
    papers: Read | None = None

    @property
    def decisive(self) -> Reading | None:
        """The comparison that the verdict hangs on; None when something is missing."""
        return None if self.ours is None or self.ours.missing() else self.ours.decisive()

    @property
    def margin(self) -> Margin | None:
        """How far beyond its threshold the decisive comparison lies, positive on the claimed side."""
        return self.decisive.margin if self.decisive else None

    @property
    def reported_meets(self) -> str:
        """Whether the paper's printed numbers meet the same thresholds: yes, no, or not printed."""
        printed = self.papers and self.papers.without_missing()
        if not printed:
            return "not printed"
        return "yes" if printed.margin().estimate > 0 else "no"


def judge(evidence: Measured, *, level: float = 0.95, claims: Sequence[Claim] = CLAIMS) -> list[Judged]:
    """A verdict for every claim, in the paper's order. Raises `KeyError` for a claim without a test."""
    return [_judge(claim, evidence, level) for claim in claims]


def ledger(judged: Sequence[Judged]) -> pd.DataFrame:
    """One line per claim: id, claim, where, reported, measured, low, high, verdict, and what is behind them.

    `measured` with its ends is the statistic of the decisive comparison (`test`) in `unit`, to be `should_be`.
    """
    return pd.DataFrame([_line(one) for one in judged])


def comparisons(judged: Sequence[Judged]) -> pd.DataFrame:
    """One line per comparison of every claim: reported beside measured, threshold with its reason, verdict."""
    rows = []
    for one in judged:
        if one.ours is None:
            continue
        for ours, papers in zip(one.ours.readings(), one.papers.readings(), strict=True):
            rows.append(
                {
                    "id": one.claim.id,
                    "comparison": ours.comparison.what,
                    "benchmark": one.benchmarks[ours.comparison.table],
                    "reported": papers.sample.estimate if papers.sample else None,
                    "measured": ours.sample.estimate if ours.sample else None,
                    "low": ours.low,
                    "high": ours.high,
                    "should_be": bound(ours),
                    "unit": ours.comparison.threshold.unit,
                    "verdict": ours.verdict,
                    "n": ours.sample.n if ours.sample else 0,
                    "seeds": (ours.sample.seeds or 1) if ours.sample else 0,
                    "missing": ours.missing,
                    "reason": ours.comparison.threshold.reason,
                }
            )
    return pd.DataFrame(rows)


def thresholds() -> pd.DataFrame:
    """Every threshold of the tests: word, value, unit, reason."""
    return pd.DataFrame([{"word": word, **asdict(threshold)} for word, threshold in THRESHOLDS.items()])


def misses(judged: Sequence[Judged]) -> pd.DataFrame:
    """The comparisons that the paper's own printed numbers miss, in claims that they are meant to bear out."""
    rows = [
        (one.claim.id, reading.comparison.what, shown_value(reading), bound(reading), one.verdict)
        for one in judged
        if one.reported_meets == "no"
        for reading in one.papers.readings()
        if not reading.missing and reading.margin.estimate <= 0
    ]
    return pd.DataFrame(rows, columns=["claim", "comparison", "reported", "should be", "verdict on our runs"])


def bound(reading: Reading) -> str:
    """The threshold as a condition, such as `> 80`."""
    return f"{'>' if reading.side == 'above' else '<'} {reading.comparison.threshold.value:g}"


def counts(judged: Sequence[Judged]) -> dict[Verdict, int]:
    """How many claims have each verdict."""
    found = Counter(one.verdict for one in judged)
    return {verdict: found[verdict] for verdict in VERDICTS}


def title(identifier: str) -> str:
    """The id of a claim in words."""
    words = [SPELT.get(word, word) for word in identifier.split("_")]
    return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])


def finding(judged: Sequence[Judged]) -> str:
    """Alt text of the figure and summary of the ledger: what the verdicts say, from the verdicts themselves."""
    number = counts(judged)
    parts = [
        f"Of {len(judged)} claims of the paper, {number['holds']} hold, {number['fails']} fail and "
        f"{number['undecided']} are undecided on {_scale(judged)}."
    ]
    failed = [title(one.claim.id) for one in judged if one.verdict == "fails"]
    if failed:
        parts.append(f"What fails: {'; '.join(failed)}.")
    incomplete = sum(one.decisive is None for one in judged)
    if incomplete:
        parts.append(f"{incomplete} of the undecided lack a run or a measurement.")
    against = [title(one.claim.id) for one in judged if one.reported_meets == "no"]
    if against:
        parts.append(f"The paper's own printed numbers miss the same thresholds for: {'; '.join(against)}.")
    return " ".join(parts)


def _judge(claim: Claim, evidence: Measured, level: float) -> Judged:
    if claim.id in NOT_MEASURED:
        return Judged(claim, "undecided", f"undecided: {NOT_MEASURED[claim.id]}.", evidence.benchmarks)
    test = TESTS[claim.id]
    ours = read(test, evidence, level=family_level(test, level))
    papers = read(test, Reported(), level=level)
    verdict = ours.verdict()
    return Judged(claim, verdict, explain(ours, verdict, evidence.benchmarks), evidence.benchmarks, ours, papers)


def explain(ours: Read, verdict: Verdict, benchmarks: Mapping[str, str]) -> str:
    """One line with the numbers behind a verdict, or with what is missing."""
    if missing := ours.missing():
        left = [reading.verdict for reading in ours.readings() if not reading.missing]
        seen = f" Of {len(left)} other comparison{'s' * (len(left) != 1)}, {_tally(left)}." if left else ""
        return f"undecided: {'; '.join(missing)}.{seen}"
    one = ours.decisive()
    what = f"{one.comparison.what} is {shown(one)}, should be {bound(one)}"
    return f"{verdict}: {what} {behind(ours, benchmarks)}"


def behind(ours: Read, benchmarks: Mapping[str, str]) -> str:
    """What the decisive comparison rests on, and how the others of its claim came out."""
    one, verdicts = ours.decisive(), [reading.verdict for reading in ours.readings()]
    parts = [BENCHMARKS.get(name := benchmarks[one.comparison.table], name)]
    if one.sample.n:
        parts.append(f"{one.sample.n} items")
    if (seeds := one.sample.seeds) is not None:
        parts.append(f"{seeds} seeds" if seeds > 1 else "1 seed, so without the spread between seeds")
    some = " (some are alternatives)" if ours.has_alternatives() else ""
    others = f" Of {len(verdicts)} comparisons{some}, {_tally(verdicts)}." if len(verdicts) > 1 else ""
    return f"({', '.join(parts)}).{others}"


def shown_value(reading: Reading) -> str:
    """The statistic with its unit."""
    unit = reading.comparison.threshold.unit
    return _number(reading.sample.estimate) + ("" if unit in UNITLESS else f" {unit}")


def shown(reading: Reading) -> str:
    """The statistic with its interval and unit, such as `12.3 [8.0, 16.6] points`."""
    unit = reading.comparison.threshold.unit
    values = f"{_number(reading.sample.estimate)} [{_number(reading.low)}, {_number(reading.high)}]"
    return values if unit in UNITLESS else f"{values} {unit}"


def _line(one: Judged) -> dict:
    decisive, sample = one.decisive, one.decisive.sample if one.decisive else Sample(())
    tables = {leaf.table for leaf in leaves(TESTS[one.claim.id])} if one.claim.id in TESTS else set()
    return {
        "id": one.claim.id,
        "claim": one.claim.claim,
        "where": one.claim.where,
        "reported": one.claim.reported,
        "measured": sample.estimate if decisive else None,
        "low": decisive.low if decisive else None,
        "high": decisive.high if decisive else None,
        "verdict": one.verdict,
        "test": decisive.comparison.what if decisive else "",
        "should_be": bound(decisive) if decisive else "",
        "unit": decisive.comparison.threshold.unit if decisive else "",
        "benchmark": "+".join(dict.fromkeys(one.benchmarks[table] for table in sorted(tables))),
        "n": sample.n if decisive else 0,
        "seeds": (sample.seeds or 1) if decisive else 0,
        "comparisons": len(list(one.ours.readings())) if one.ours else 0,
        "reported_meets": one.reported_meets,
        "explanation": one.explanation,
    }


def _tally(verdicts: Sequence[str]) -> str:
    found = Counter(verdicts)
    words = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "undecided": ("is undecided", "are undecided")}
    if len(found) == 1 and len(verdicts) > 1:
        return f"all {words[verdicts[0]][1]}"
    parts = [f"{found[v]} {words[v][found[v] != 1]}" for v in words if found[v]]
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _number(value: float) -> str:
    shown = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return shown.replace("-", "−") if float(shown) else shown.removeprefix("-")


def _scale(judged: Sequence[Judged]) -> str:
    names = dict.fromkeys(BENCHMARKS.get(name, name) for one in judged for name in one.benchmarks.values())
    note = ", this project's embedded model" if {*FABLE.values()} & {*judged[0].benchmarks.values()} else ""
    return " and ".join(names) + note
