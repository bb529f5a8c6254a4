"""The comparisons that claims are made of: statistics of rows and corpora, and thresholds with their reasons."""

from collections.abc import Callable
from functools import partial

from mule_lib.claims_evidence import Sample, combine, share_removed
from mule_lib.claims_logic import All, Comparison, Node, Threshold
from mule_lib.report.names import METRIC_NAMES

# Row names within a sentence; `row_names` has those that head a line of a table.
NAMES = {
    "base": "the base model",
    "mule": "MULE",
    "mule_duet_loss": "MULE with the DUET loss",
    "mule_bild_loss": "MULE with the BiLD loss",
    "mule_no_standardization": "MULE without standardization",
    "mule_no_anchors": "MULE without anchors",
    "mule_no_cot": "MULE without the chain of thought",
    "ensemble_teacher": "the Ensemble Teacher",
    "upper_bound": "the Upper Bound",
    "sft": "SFT",
    "duet": "DUET",
    "ngdiff": "NGDiff",
    "mollm": "MOLLM",
    "ga": "GA",
    "simnpo": "SimNPO",
    "flat": "FLAT",
}
GAIN_NAMES = {
    **METRIC_NAMES,
    "obj1": "Obj1 gain (Forget and General)",
    "obj2": "Obj2 gain (Neighbour)",
    "obj3": "Obj3 gain (ASR)",
}

SIGN = Threshold(0.0, "points", "the claim is a direction: any difference that is not chance counts")
REMOVED = Threshold(
    80.0,
    "% of base",
    "the paper calls removals of 82 to 92 % of the base's Forget or ASR a success and of 2 to 75 % insufficient",
)
KEPT = Threshold(10.0, "points", "the paper calls losses of 6.2 (General, Table 1) and 7.5 (neighbour, Table 3) kept")
COST = Threshold(5.0, "points", "the paper calls a loss of 6.6 (neighbour of SFT, Table 1) a cost, and 1.6 none")
WIDE = Threshold(5.0, "points", "the smallest gap that the paper calls wide is 5.4 (ASR of NGDiff, Table 1)")
MATCH = Threshold(5.0, "points", "a gap of less than what counts as a cost")
CLOSE = Threshold(0.0, "points", "at least four fifths of the bound's Overall; the paper's 89 and 90 % count as close")
NEAR_ZERO = Threshold(0.1, "cosine", "less than a hundredth of either gradient's squared length lies along the other")
STRONG = Threshold(0.5, "cosine", "the usual bound of a strong correlation; the paper speaks of 0.92")
ALIGNED = Threshold(0.0, "cosine", "a positive cosine: a small step for one objective also helps the other")
NEARER = Threshold(0.0, "distance", "the claim is a direction: any fall of the proxy A-distance counts")
LIGHT = Threshold(2.0, "times", "a frozen teacher's forward pass adds a third to a training step; twice is generous")

THRESHOLDS = {
    "differs": SIGN,
    "removed": REMOVED,
    "kept": KEPT,
    "paid": COST,
    "wide": WIDE,
    "matched": MATCH,
    "close": CLOSE,
    "orthogonal": NEAR_ZERO,
    "strongly aligned": STRONG,
    "aligned": ALIGNED,
    "nearer": NEARER,
    "light": LIGHT,
}


def _metric(metric, row, table, evidence) -> Sample:
    return evidence.metric(table, row, metric)


def _gap(metric, row, rival, table, evidence) -> Sample:
    return evidence.metric(table, row, metric) - evidence.metric(table, rival, metric)


def _removed(metric, row, table, evidence) -> Sample:
    return share_removed(evidence.metric(table, "base", metric), evidence.metric(table, row, metric))


def _close(row, rival, share, table, evidence) -> Sample:
    return evidence.metric(table, row, "overall") - share * evidence.metric(table, rival, "overall")


def _refusals(row, table, evidence) -> Sample:
    return evidence.refusals(table, row) - evidence.refusals(table, "base")


def _times(row, rival, table, evidence) -> Sample:
    slow, fast = (evidence.seconds_per_step(table, name) for name in (row, rival))
    return combine(lambda left, right: left / right, slow, fast)


def _cosine(form, pair, table, evidence) -> Sample:
    return evidence.cosine(table, form, pair)


def _cosine_rise(pair, table, evidence) -> Sample:
    return evidence.gain(table, pair)


def _distance_fall(pair, table, evidence) -> Sample:
    return evidence.distance(table, "raw", pair) - evidence.distance(table, "standardized", pair)


def removed(metric: str, row: str, table: str) -> Comparison:
    """The row takes most of what the base model has (Forget or ASR)."""
    what = f"{GAIN_NAMES[metric]} removed by {NAMES[row]}"
    return Comparison(what, table, "above", REMOVED, partial(_removed, metric, row, table))


def drop(metric: str, row: str, table: str, side: str, threshold: Threshold) -> Comparison:
    """How far the row falls below the base model on a metric that should stay."""
    what = f"{GAIN_NAMES[metric]} lost by {NAMES[row]}"
    return Comparison(what, table, side, threshold, partial(_gap, metric, "base", row, table))


def kept(metric: str, row: str, table: str) -> Comparison:
    """The row keeps a metric."""
    return drop(metric, row, table, "below", KEPT)


def costs(metric: str, row: str, table: str, threshold: Threshold = COST) -> Comparison:
    """The row pays with a metric."""
    return drop(metric, row, table, "above", threshold)


def higher(metric: str, row: str, rival: str, table: str, threshold: Threshold = SIGN) -> Comparison:
    """The row stands above the rival in a number, whichever way is better."""
    what = f"{GAIN_NAMES[metric]}, {NAMES[row]} minus {NAMES[rival]}"
    return Comparison(what, table, "above", threshold, partial(_gap, metric, row, rival, table))


def matches(metric: str, low: str, high: str, table: str) -> Comparison:
    """`high` exceeds `low` by less than a cost."""
    what = f"{GAIN_NAMES[metric]}, {NAMES[high]} minus {NAMES[low]}"
    return Comparison(what, table, "below", MATCH, partial(_gap, metric, high, low, table))


def refuses_more(row: str, table: str, side: str) -> Comparison:
    """Refusals of neighbour questions beyond those of the base model."""
    what = f"neighbour questions refused by {NAMES[row]} beyond the base model"
    return Comparison(what, table, side, COST, partial(_refusals, row, table))


def positive_overall(row: str, table: str) -> Comparison:
    """The five gains add up to more than nothing."""
    return Comparison(f"Overall of {NAMES[row]}", table, "above", SIGN, partial(_metric, "overall", row, table))


def cosine(form: str, pair: tuple[str, str], table: str, side: str, threshold: Threshold) -> Comparison:
    """The cosine between two objectives' gradients."""
    what = f"cosine of {pair[0]} and {pair[1]}, {form}"
    return Comparison(what, table, side, threshold, partial(_cosine, form, pair, table))


def cosine_rises(pair: tuple[str, str], table: str) -> Comparison:
    """Standardization raises the cosine."""
    what = f"cosine of {pair[0]} and {pair[1]}, standardized minus raw"
    return Comparison(what, table, "above", ALIGNED, partial(_cosine_rise, pair, table))


def distance_falls(pair: tuple[str, str], table: str) -> Comparison:
    """Standardization lowers the proxy A-distance."""
    what = f"A-distance of {pair[0]} and {pair[1]}, raw minus standardized"
    return Comparison(what, table, "above", NEARER, partial(_distance_fall, pair, table))


def close_to_bound(table: str) -> Comparison:
    """Overall reaches four fifths of the Upper Bound's."""
    what = "Overall of MULE minus four fifths of the Upper Bound's"
    return Comparison(what, table, "above", CLOSE, partial(_close, "mule", "upper_bound", 0.8, table))


def light(table: str) -> Comparison:
    """A step of MULE costs little more than one of SFT."""
    return Comparison("time of a step, MULE over SFT", table, "below", LIGHT, partial(_times, "mule", "sft", table))


def near_zero(pair: tuple[str, str], table: str) -> Node:
    """Two objectives' gradients are nearly orthogonal on raw data."""
    low = Threshold(-NEAR_ZERO.value, NEAR_ZERO.unit, NEAR_ZERO.reason)
    return All((cosine("raw", pair, table, "below", NEAR_ZERO), cosine("raw", pair, table, "above", low)))


def every(make: Callable[..., Node], *groups: tuple) -> All:
    """One part for each combination of the groups' members, in the order of the arguments of `make`."""
    combinations = [()]
    for group in groups:
        combinations = [(*done, member) for done in combinations for member in group]
    return All(tuple(make(*arguments) for arguments in combinations))
