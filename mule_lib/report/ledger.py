"""The paper's claims and inconsistencies, in our own words, as data: `claims.yaml`, each claim with its test beside it."""

from collections.abc import Iterator, Mapping
from itertools import chain, product
from pathlib import Path
from typing import Any

from mule_lib.params import read_yaml
from mule_lib.report.claims import Claim, Comparison, Threshold
from mule_lib.report.names import LABELS, METRIC_NAMES

FILE = Path(__file__).parent / "claims.yaml"
# Every measure of `claims.Evidence` in words.
MEASURES = {
    "value": "{metric} of {row}",
    "gap": "{metric}, {row} minus {rival}",
    "near": "{metric} of {row} minus four fifths of {rival}'s",
    "lost": "{metric} lost by {row}",
    "removed": "{metric} removed by {row}",
    "refusals": "neighbour questions refused by {row} beyond the base model",
    "time": "time of a step, {row} over {rival}",
    "cosine": "cosine of {pair[0]} and {pair[1]}, {data_format}",
    "rise": "cosine of {pair[0]} and {pair[1]}, standardized minus raw",
    "fall": "A-distance of {pair[0]} and {pair[1]}, raw minus standardized",
}
WORDS = {
    **LABELS,
    **{"base": "the base model", "upper_bound": "the Upper Bound", "ensemble_teacher": "the Ensemble Teacher"},
    **{"duet": "DUET"},
    **METRIC_NAMES,
    **{"obj1": "Obj1 gain (Forget and General)", "obj2": "Obj2 gain (Retain Acc)", "obj3": "Obj3 gain (ASR)"},
}


def _test(parts: list[Mapping[str, Any]]) -> tuple[tuple[Comparison, ...], ...]:
    """All of the parts, each a comparison or `any` of several; a list as an argument stands for each of its members."""
    groups = ([chain(*map(_comparisons, part["any"]))] if "any" in part else zip(_comparisons(part)) for part in parts)
    return tuple(map(tuple, chain(*groups)))


def _comparisons(part: Mapping[str, Any]) -> Iterator[Comparison]:
    for values in product(*(value if isinstance(value, list) else [value] for value in part.values())):
        arguments = dict(zip(part, values, strict=True))
        measure, table = arguments.pop("measure"), arguments.pop("table")
        side = "above" if "above" in arguments else "below"
        threshold = THRESHOLDS[arguments.pop(side)]
        words = {name: value if name == "pair" else WORDS.get(value, value) for name, value in arguments.items()}
        yield Comparison(MEASURES[measure].format(**words), table, measure, arguments, side, threshold)


_DATA = read_yaml(FILE)
THRESHOLDS = {word: Threshold(word, *values) for word, values in _DATA["thresholds"].items()}
CLAIMS = tuple(Claim(**{**claim, "test": _test(claim.get("test", []))}) for claim in _DATA["claims"])
INCONSISTENCIES: tuple[str, ...] = tuple(_DATA["inconsistencies"])
