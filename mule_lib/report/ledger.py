"""The ledger: the paper's claims as data (`claims.yaml`, each with its test beside it), and their verdicts to read."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd

from mule_lib.params import read_yaml
from mule_lib.report import figures, tables
from mule_lib.report.claims import Claim, Comparison, Judged, Reading, Threshold
from mule_lib.report.names import DARK, LABELS, METRIC_NAMES, VERDICTS, benchmark_name, listed

MEASURES = {  # those of `evidence.Evidence`, in words
    "value": "{metric} of {row}",
    "gap": "{metric}, {row} minus {rival}",
    "near": "{metric} of {row} minus four fifths of {rival}'s",
    "lost": "{metric} lost by {row}",
    "removed": "{metric} removed by {row}",
    "agreement": "answers to {answers} of the same kind, {row} and {rival}",
    "operations": "operations of a step, {row} over {rival}",
    "time": "time of a step, {row} over {rival}",
    "cosine": "cosine of {pair[0]} and {pair[1]}, {data_format}, step {step}",
    "rise": "cosine of {pair[0]} and {pair[1]}, standardized minus raw, step {step}",
    "fall": "A-distance of {pair[0]} and {pair[1]}, raw minus standardized",
}
WORDS = {
    **{**LABELS, **METRIC_NAMES, "base": "the base model", "upper_bound": "the Upper Bound", "duet": "DUET"},
    "mmlu": "MMLU (on Fable: Far recall)",
    **{"obj1": "Obj1 gain (Forget and General)", "obj2": "Obj2 gain (Retain Acc)", "obj3": "Obj3 gain (ASR)"},
}
COLUMNS = (
    *("id", "claim", "where", "reported", "measured", "low", "high", "verdict", "test", "should_be", "unit"),
    *("benchmark", "n", "seeds", "comparisons", "reported_meets", "told_apart", "explanation"),
)
MEETS = {"yes": "; what is printed meets the test", "no": "; what is printed misses the test", "not printed": ""}
CAPTION = (
    "The paper's claims. Reported: the paper's printed numbers. Measured: this suite's, with 95 % intervals over items "
    "and seeds; the end by which a claim could fail is widened for all its comparisons together."
)
HUNDREDTHS = {"cosine": 100, "distance": 50, "times": 100}  # all margins on one axis: an A-distance ends at 2
TICKS = {-100: "≤−100", -30: "−30", -10: "−10", -3: "−3", 0: "0", 3: "3", 10: "10", 30: "30", 100: "≥100"}
SPELT = {"asr": "ASR", "sft": "SFT", "duet": "DUET", "cot": "CoT", "topk": "Top-K"}


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


_DATA = read_yaml(Path(__file__).with_name("claims.yaml"))
THRESHOLDS = {word: Threshold(word, *values) for word, values in _DATA["thresholds"].items()}
CLAIMS = tuple(
    Claim(
        **{
            **claim,
            "test": _test(claim.get("test", [])),
            "beside": tuple(chain(*map(_comparisons, claim.get("beside", [])))),
        }
    )
    for claim in _DATA["claims"]
)
INCONSISTENCIES: tuple[str, ...] = tuple(_DATA["inconsistencies"])


def data(judged: Sequence[Judged]) -> pd.DataFrame:
    """One line per claim with `COLUMNS`: `measured` with its ends is the decisive comparison's (`test`), in `unit`."""
    lines = []
    for one in judged:
        line = _line(one, one.decisive) if one.decisive else {"n": 0, "seeds": 0}
        line |= {"test": line.get("comparison"), "comparisons": sum(map(len, one.readings))}
        line |= {name: getattr(one.claim, name) for name in ("id", "claim", "where", "reported")}
        line |= {name: getattr(one, name) for name in ("verdict", "reported_meets", "told_apart", "explanation")}
        names = sorted({reading.comparison.table for reading in chain(*one.readings)})
        lines.append(line | {"benchmark": "+".join(dict.fromkeys(one.benchmarks[table] for table in names))})
    return pd.DataFrame(lines, columns=list(COLUMNS))


def comparisons(judged: Sequence[Judged]) -> pd.DataFrame:
    """One line per comparison of every claim: reported beside measured, threshold with its reason, verdict."""
    return pd.DataFrame(_line(one, reading) for one in judged for reading in chain(*one.readings))


def _line(one: Judged, reading: Reading) -> dict[str, Any]:
    comparison, ours, printed = reading.comparison, reading.ours, reading.printed
    return {
        "id": one.claim.id,
        "comparison": comparison.what,
        "benchmark": one.benchmarks[comparison.table],
        "reported": printed and printed.value,
        **dict(zip(("measured", "low", "high"), ours.ends if ours else (None,) * 3, strict=True)),
        "should_be": comparison.bound,
        "unit": comparison.threshold.unit,
        "verdict": reading.margin.verdict if ours else "undecided",
        "n": sum(ours.items.values()) if ours else 0,
        "seeds": (ours.seeds or 1) if ours else 0,
        "reported_meets": reading.reported_meets,
        "missing": reading.missing,
        "reason": comparison.threshold.reason,
    }


def table(judged: Sequence[Judged]) -> tables.Table:
    """The ledger for reading: claim, reported, measured with interval and threshold, verdict, the test behind it."""
    shown = pd.DataFrame(
        {
            "Claim": f"{one.claim.claim} ({one.claim.where})",
            "Reported (paper)": one.claim.reported + MEETS[one.reported_meets],
            "Measured": one.measured,
            "Verdict": one.verdict,
            "Test": f"{one.decisive.comparison.what} {one.behind}" if one.decisive else one.behind,
        }
        for one in judged
    )
    classes = shown.map(lambda _: "").assign(Verdict=shown["Verdict"])
    caption, widths = f"{CAPTION} {finding(judged)}", (0.25, 0.2, 0.15, 0.105, 0.215)
    return tables.Table("claims", data(judged), shown, caption, classes=classes, widths=widths)


def title(identifier: str) -> str:
    """The id of a claim in words."""
    text = " ".join(SPELT.get(word, word) for word in identifier.split("_"))
    return text[0].upper() + text[1:]


def finding(judged: Sequence[Judged]) -> str:
    """Alt text of the figure and summary of the ledger: what the verdicts say."""
    ids = {word: [title(one.claim.id) for one in judged if one.verdict == word] for word in VERDICTS}
    against = [title(one.claim.id) for one in judged if one.reported_meets == "no"]
    names = dict.fromkeys(judged[0].benchmarks.values())
    missing = sum(one.decisive is None for one in judged)
    return (
        f"Of {len(judged)} claims of the paper, {len(ids['holds'])} hold, {len(ids['fails'])} fail and "
        f"{len(ids['undecided'])} are undecided on {listed([*map(benchmark_name, names)])}. What fails: "
        f"{'; '.join(ids['fails']) or 'nothing'}. {missing} of the undecided lack a run or a measurement. "
        f"The paper's own printed numbers miss the same thresholds for: {'; '.join(against) or 'none'}."
    )


def figure(judged: Sequence[Judged]) -> figures.Picture:
    """All verdicts at one look: how far beyond its threshold each claim lies, and whether the paper's numbers meet it.

    Margins are points; those of cosines, ratios and distances in hundredths (`HUNDREDTHS`).
    """
    lines = []
    for one in sorted(judged, key=lambda one: [*VERDICTS].index(one.verdict)):
        scale = HUNDREDTHS.get(one.decisive.comparison.threshold.unit, 1) if one.decisive else np.nan
        ends = [scale * end for end in one.margin.ends] if one.decisive else [np.nan] * 3
        lines.append((one.claim.id, one.verdict, *ends, one.reported_meets, "; ".join(one.missing)))
    drawn = pd.DataFrame(lines, columns=["id", "verdict", "margin", "low", "high", "reported_meets", "missing"])
    counts = drawn["verdict"].value_counts()
    legend = "   ".join(f"{sign} {word} ({counts.get(word, 0)})" for sign, word in zip("●■✖", VERDICTS, strict=True))
    marks = drawn.assign(panel=legend, line=drawn["id"].map(title), series=drawn["verdict"], value=drawn["margin"])
    marks["missing"] = [shorten(text, 40, placeholder=" …") for text in marks["missing"]]
    marks[["value", "low", "high"]] = marks[["value", "low", "high"]].clip(-100, 100)
    words = (
        "← against the claim   margin beyond the threshold: points; cosines, ratios × 100; distances × 50   for it →"
    )
    made, axes = figures.dots(marks, VERDICTS, xlabel=words, limits=(-108, 108))
    axis = axes[0, 0]
    axis.axvline(0, color=DARK, lw=0.9, zorder=0.5)
    axis.set_xscale("symlog", linthresh=10, linscale=0.7)
    axis.set_xticks([*TICKS], [*TICKS.values()])
    beside = {"transform": axis.get_yaxis_transform(), "va": "center", "ha": "center", "size": 7.5}
    axis.text(1.07, -1.5, "paper's own\nnumbers\nmeet it", **beside)
    for height, line in enumerate(drawn.itertuples()):
        axis.text(1.07, height, line.reported_meets.replace("not printed", "–"), **beside)
        axis.get_yticklabels()[height].set_color(VERDICTS[line.verdict].color)
    return figures.Picture(made, drawn, finding(judged))
