"""The ledger: the paper's claims as data (`claims.yaml`, each with its test beside it), and their verdicts to read."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import yaml

from mule_lib.params import ROOT
from mule_lib.report import figures, tables
from mule_lib.report.claims import Claim, Comparison, Judged, Reading, Threshold
from mule_lib.report.names import BLUE, DARK, LABELS, METRIC_NAMES, VERDICTS, benchmark_name, listed

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
# The scales that claims are judged at: the suite's name, what it is called, and its committed reference below outputs/.
SCALES = {
    **{"fable": ("Fable", "reference"), "smollm2": ("SmolLM2", "reference_smollm2")},
    "paper": ("Llama-3.2-3B", "reference_paper"),
}
TILES = dict.fromkeys(("holds", "undecided", "fails", "not printed", "not measured"), "#f4f4f4")
TILES |= {"holds": BLUE, "undecided": "#d0d0d0", "fails": VERDICTS["fails"].color}


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


_DATA = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text("utf-8"))
THRESHOLDS = {word: Threshold(word, *values) for word, values in _DATA["thresholds"].items()}
CLAIMS = tuple(
    Claim(**claim | {"test": _test(claim.get("test", [])), "beside": (*chain(*_test(claim.get("beside", []))),)})
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
            "§": one.claim.section,
            "Claim": one.claim.short,
            "Verdict": one.verdict,
            "Measured": one.measured,
            "Reported (paper)": one.claim.reported + MEETS[one.reported_meets],
            "In full": f"{one.claim.claim} ({one.claim.where})",
            "Test": f"{one.decisive.comparison.what} {one.behind}" if one.decisive else one.behind,
        }
        for one in by_section(judged)
    )
    classes = shown.map(lambda _: "").assign(Verdict=shown["Verdict"])
    caption, widths = f"{CAPTION} {finding(judged)}", (0.03, 0.13, 0.09, 0.12, 0.15, 0.18, 0.18)
    return tables.Table("claims", data(judged), shown, caption, classes=classes, widths=widths)


def by_section(judged: Sequence[Judged]) -> list[Judged]:
    """Claims in the order of the paper's sections."""
    return sorted(judged, key=lambda one: one.claim.section)


def finding(judged: Sequence[Judged]) -> str:
    """Alt text of the figure and summary of the ledger: what the verdicts say."""
    ids = {word: [one.claim.short for one in judged if one.verdict == word] for word in VERDICTS}
    against = [one.claim.short for one in judged if one.reported_meets == "no"]
    names = dict.fromkeys(judged[0].benchmarks.values())
    missing = sum(one.decisive is None for one in judged)
    return (
        f"Of {len(judged)} claims of the paper, {len(ids['holds'])} hold, {len(ids['fails'])} fail and "
        f"{len(ids['undecided'])} are undecided on {listed([*map(benchmark_name, names)])}. What fails: "
        f"{'; '.join(ids['fails']) or 'nothing'}. {missing} of the undecided lack a run or a measurement. "
        f"The paper's own printed numbers miss the same thresholds for: {'; '.join(against) or 'none'}."
    )


def figure(judged: Sequence[Judged], scale: str = "fable") -> figures.Picture:
    """A tile per claim, by section, and scale: the paper's printed numbers, this suite's, other scales' references."""
    told, words = by_section(judged), {"yes": "holds", "no": "fails"}
    drawn = pd.DataFrame({
        **{"id": [one.claim.id for one in told], "section": [one.claim.section for one in told]},
        **{"claim": [one.claim.short for one in told], "missing": ["; ".join(one.missing) for one in told]},
        "paper's numbers": [words.get(one.reported_meets, one.reported_meets) for one in told],
        SCALES.get(scale, (scale,))[0]: ["not measured" if one.missing else one.verdict for one in told],
    })  # fmt: skip
    for other, folder in (found for name, found in SCALES.items() if name != scale):
        if (file := ROOT / "outputs" / folder / "tables" / "claims.csv").exists():
            drawn[other] = drawn["id"].map(pd.read_csv(file).set_index("id")["verdict"]).fillna("not measured")
    tiles = drawn.iloc[:, 4:]
    made, ((axis,),) = figures.panels(1, 1, 0, figsize=(2.9 + 1.1 * tiles.shape[1], 0.5 + 0.235 * len(tiles)))
    sentences = "§" + drawn["section"] + "  " + drawn["claim"]
    sns.heatmap(tiles.map([*TILES].index), annot=tiles, fmt="", cmap=[*TILES.values()], vmin=-0.5, vmax=4.5, cbar=False,
                linewidths=1.5, ax=axis, yticklabels=sentences, annot_kws={"size": 8})  # fmt: skip
    axis.xaxis.tick_top()
    axis.tick_params(length=0, labelrotation=0, labelsize=8.5)
    for place in np.flatnonzero(drawn["section"].ne(drawn["section"].shift()))[1:]:
        axis.axhline(place, color=DARK, lw=1)
    return figures.Picture(made, drawn, finding(judged))
