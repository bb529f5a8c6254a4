"""The paper's internal inconsistencies, each recomputed from its printed tables where it can be."""

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from mule_lib.paper import BASE_TABLE, INCONSISTENCIES, LABELS, METRICS, REPORTED, overall
from mule_lib.report.names import METRIC_NAMES

Tables = Mapping[str, Mapping[str, Mapping[str, float]]]
# What the recomputation finds, in words with numbers, and whether it bears the inconsistency out.
Found = tuple[str, bool]
TRAINED = ("ga", "simnpo", "flat", "sft", "ngdiff", "mollm", "duet", "mule")
INTRODUCED_ASR = 16.0  # Section 1, contribution 4
TEXT_ALONE = "text alone"


def _lost(tables: Tables, table: str, row: str, metric: str) -> float:
    return round(tables[BASE_TABLE[table]]["base"][metric] - tables[table][row][metric], 6)


def _trained(tables: Tables, table: str, metric: str) -> dict[str, float]:
    return {row: values[metric] for row, values in tables[table].items() if row in TRAINED}


def _labels(rows: Iterable[str]) -> str:
    return ", ".join(LABELS[row] for row in rows)


def _number(table: str) -> str:
    return table.replace("table", "Table ")


def _introduced_asr(tables: Tables) -> Found:
    ours = {table: rows["mule"]["asr"] for table, rows in tables.items()}
    printed = {values["asr"] for rows in tables.values() for values in rows.values()}
    sft = tables["table1"]["sft"]["asr"]
    text = (
        f"ASR of Ours is {ours['table1']:g} in Table 1, {ours['table3']:g} in Table 3, and {INTRODUCED_ASR:g} "
        f"{'stands' if INTRODUCED_ASR in printed else 'stands nowhere'} in the ASR columns; SFT has {sft:g} in Table 1"
    )
    return text, INTRODUCED_ASR not in printed and sft < ours["table1"]


def _two_mmlu(tables: Tables) -> Found:
    first, second = tables["table1"]["mule"], tables["table2"]["mule"]
    sums = [overall(tables["table1"]["base"], row) == row["overall"] for row in (first, second)]
    gaps = {metric: round(first[metric] - second[metric], 6) for metric in (*METRICS, "overall")}
    different = {metric: gap for metric, gap in gaps.items() if gap}
    text = (
        ", ".join(f"{METRIC_NAMES[metric]} {first[metric]:g} and {second[metric]:g}" for metric in different)
        or "no difference"
    )
    return f"Tables 1 and 2: {text}; sums right: {sum(sums)} of 2", set(different) == {"mmlu", "overall"} and all(sums)


def _two_bases(tables: Tables) -> Found:
    one, three = (tables[table]["base"]["mmlu"] for table in ("table1", "table3"))
    return f"base MMLU {one:g} (Table 1) and {three:g} (Table 3)", one != three


def _secure_sft(tables: Tables) -> Found:
    attacked = _trained(tables, "table3", "asr")
    lost = {metric: _lost(tables, "table3", "sft", metric) for metric in ("general", "neighbor")}
    text = (
        f"Table 3: ASR of SFT {attacked['sft']:g}, the highest of the trained rows is {max(attacked.values()):g}; "
        f"SFT loses {lost['general']:g} of General and {lost['neighbor']:g} of neighbour"
    )
    return text, attacked["sft"] == max(attacked.values()) and max(lost.values()) <= 5


def _kept_utility(tables: Tables) -> Found:
    forget = _trained(tables, "table3", "forget")
    lost = {row: _lost(tables, "table3", row, "general") for row in ("ngdiff", "mollm")}
    text = (
        f"Table 3: NGDiff and MOLLM lose {lost['ngdiff']:g} and {lost['mollm']:g} of General; their Forget is "
        f"{forget['ngdiff']:g} and {forget['mollm']:g}, DUET's {forget['duet']:g}, SFT's {forget['sft']:g}"
    )
    better = max(forget["ngdiff"], forget["mollm"]) < min(forget["duet"], forget["sft"])
    return text, min(lost.values()) > 10 and better


def _ngdiff_books(tables: Tables) -> Found:
    lost = _lost(tables, "table1", "ngdiff", "neighbor")
    asr = {row: values["asr"] for row, values in tables["table1"].items() if row != "upper_bound"}
    safer = [row for row, value in asr.items() if value < asr["ngdiff"]]
    text = f"Table 1: NGDiff loses {lost:g} of neighbour; lower ASR than its {asr['ngdiff']:g}: {_labels(safer)}"
    return text, lost > 10 and len(safer) <= len(asr) // 3


def _high_integrity(tables: Tables) -> Found:
    kept = _trained(tables, "table3", "neighbor")
    text = "Table 3, neighbour of the trained rows: " + ", ".join(
        f"{LABELS[row]} {value:g}" for row, value in kept.items()
    )
    return text, kept["mule"] == min(kept.values())


def _matches_bound(tables: Tables) -> Found:
    ours, bound = tables["table1"]["mule"], tables["table1"]["upper_bound"]
    gaps = {metric: round(ours[metric] - bound[metric], 6) for metric in ("neighbor", "general", "asr", "forget")}
    text = "Table 1, Ours minus Upper Bound: " + ", ".join(
        f"{METRIC_NAMES[metric]} {gap:+g}" for metric, gap in gaps.items()
    )
    return text, gaps["neighbor"] == 0 and all(gaps[metric] for metric in ("general", "asr", "forget"))


def _ascent(tables: Tables) -> Found:
    lost = {metric: _lost(tables, "table1", "ga", metric) for metric in ("forget", "general", "mmlu")}
    text = "Table 1, GA against the base: " + ", ".join(
        f"{METRIC_NAMES[metric]} {-value:+g}" for metric, value in lost.items()
    )
    return text, lost["forget"] < 0 and lost["general"] < 0 and lost["mmlu"] > 20


def _shared_cells(tables: Tables) -> Found:
    pairs = (("table1", "ensemble_teacher", "duet"), ("table3", "duet", "sft"))
    cells = [(tables[table][left]["neighbor"], tables[table][right]["neighbor"]) for table, left, right in pairs]
    text = ", ".join(
        f"{a:g} and {b:g} ({_number(t)}, {_labels([x, y])})" for (t, x, y), (a, b) in zip(pairs, cells, strict=True)
    )
    return f"neighbour {text}", all(left == right for left, right in cells)


def _gain_over_duet_loss(tables: Tables) -> Found:
    ours, other = tables["table2"]["mule"], tables["table2"]["mule_duet_loss"]
    gaps = {metric: round(ours[metric] - other[metric], 6) for metric in (*METRICS, "overall")}
    text = "Table 2, Ours minus DUET loss: " + ", ".join(
        f"{METRIC_NAMES[metric]} {gap:+g}" for metric, gap in gaps.items()
    )
    return text, gaps["asr"] == gaps["mmlu"] == 0 and gaps["general"] > gaps["overall"] / 2


def _left_out(tables: Tables) -> Found:
    missing = [row for row in tables["table1"] if row not in tables["table3"]]
    return f"rows of Table 1 that Table 3 lacks: {_labels(missing) or 'none'}", bool(missing)


def _decimals(tables: Tables) -> Found:
    cells = [values[metric] for rows in tables.values() for values in rows.values() for metric in METRICS]
    two = sum(round(cell, 1) != cell for cell in cells)
    return f"{two} of {len(cells)} printed metrics need two decimals", 0 < two < len(cells)


# By place in INCONSISTENCIES, with words that the entry has to contain; the others rest on the paper's text alone.
CHECKS: dict[int, tuple[str, Callable[[Tables], Found]]] = {
    0: ("16.0 %", _introduced_asr),
    1: ("59.2 and overall 80.82", _two_mmlu),
    2: ("base model's MMLU", _two_bases),
    4: ("SFT is secure", _secure_sft),
    5: ("NGDiff and MOLLM keep utility", _kept_utility),
    6: ("NGDiff keeps retention", _ngdiff_books),
    7: ("high neighbour integrity", _high_integrity),
    8: ("matches the Upper Bound", _matches_bound),
    10: ("GA raises Forget", _ascent),
    12: ("share one neighbour accuracy", _shared_cells),
    13: ("With the DUET loss", _gain_over_duet_loss),
    17: ("leave out GA", _left_out),
    18: ("two decimals", _decimals),
}


def recomputed(tables: Tables = REPORTED) -> pd.DataFrame:
    """One line per inconsistency: number, inconsistency, recomputed (from the printed tables), status.

    `status` is *confirmed* or *not confirmed* by the printed numbers, or *text alone* where no number is involved
    (methods.md section 14). Raises `ValueError` when a check no longer meets the entry that it was written for.
    """
    rows = []
    for place, text in enumerate(INCONSISTENCIES):
        words, check = CHECKS.get(place, ("", None))
        if words not in text:
            raise ValueError(f"INCONSISTENCIES[{place}] should be about {words!r}; it says {text!r}")
        found, confirmed = check(tables) if check else ("", None)
        status = TEXT_ALONE if check is None else "confirmed" if confirmed else "not confirmed"
        rows.append({"number": place + 1, "inconsistency": text, "recomputed": found, "status": status})
    return pd.DataFrame(rows)
