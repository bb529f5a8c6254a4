"""What methods, benchmarks and metrics are called and how they are drawn in every table and figure, and their order."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from mule_lib.paper import LABELS as PAPER_LABELS
from mule_lib.paper import LOWER_IS_BETTER, REPORTED
from mule_lib.params import FABLE

BENCHMARKS = {"books": "Fable-Books", "cyber": "Fable-Cyber", "muse_books": "MUSE-Books", "wmdp_cyber": "WMDP-Cyber"}
PAPER_MODEL = "Llama-3.2-3B-Instruct"
EMBEDDED = {
    "base": "this project's embedded model of 3.7 M parameters",
    "smollm2": "SmolLM2-135M-Instruct, taught Fable",
}
METRIC_NAMES = {
    "forget": "Forget", "general": "General", "neighbor": "Retain Acc", "asr": "ASR", "mmlu": "MMLU",
    "overall": "Overall", "gold_distance": "Reference distance", "neighbor_open": "Retain, open",
    "neighbor_refused": "Retain refused", "controls": "Controls", "readable": "Readable",
    "forget_unseen": "Forget, unseen", "asr_unseen": "ASR, unseen", "asr_seen": "ASR, seen prefixes",
    "asr_searched": "ASR, searched", "forget_cloze": "Forget, cloze", "overall_readable": "Overall, readable",
    "asr_readable": "ASR, readable", "drift": "Drift",
}  # fmt: skip
DOWN = LOWER_IS_BETTER | {
    "gold_distance", "neighbor_refused", "forget_unseen", "asr_unseen", "asr_seen", "asr_searched", "forget_cloze",
    "drift",
}  # fmt: skip
# Nothing is trained in these, so they compete with no method; `gold` never saw what is to be forgotten.
BASE, GOLD = "base", "gold"
# Baselines as the paper ran them, and the rows in which they were given MULE's records; the number of logits in a row.
TWINS = {row: f"{row}_standardized" for row in ("duet", "sft", "ngdiff", "mollm", "flat", "simnpo", "ga")}
METHODS_OF_TWINS = {twin: row for row, twin in TWINS.items()}
KEPT_LOGITS = {"mule_k1": 1, "mule_k50": 50}
REFERENCES = frozenset({BASE, GOLD, "upper_bound", "ensemble_teacher"})

# seaborn's colour-blind palette by name, written out so that a method keeps its colour whatever else is drawn.
BLUE, ORANGE, GREEN, RED, PINK = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"
BROWN, ROSE, GREY, SKY = "#ca9161", "#d09fb8", "#8a8a8a", "#56b4e9"
DARK, MIDDLE = "#222222", "#6e6e6e"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))


class Style(NamedTuple):
    """How a method is drawn everywhere: told apart by colour, and by line and marker without it."""

    color: str
    line: str | tuple
    marker: str
    width: float = 1.3


STYLES: dict[str, Style] = {
    BASE: Style(MIDDLE, ":", "o", 1.5),
    "upper_bound": Style(DARK, "--", "^", 1.5),
    "ensemble_teacher": Style(MIDDLE, "-.", "v"),
    GOLD: Style(DARK, (0, (1, 1)), "*"),
    "mule": Style(BLUE, "-", "o", 2.4),
    "duet": Style(ORANGE, "--", "s"),
    "sft": Style(GREEN, "-.", "D"),
    "ngdiff": Style(RED, (0, (5, 1)), "X"),
    "mollm": Style(PINK, (0, (3, 1, 1, 1, 1, 1)), "P"),
    "flat": Style(SKY, "--", "<"),
    "simnpo": Style(BROWN, "-.", ">"),
    "ga": Style(ROSE, ":", "h"),
    "graddiff": Style(GREEN, ":", "p"),
    "npo": Style(ORANGE, "-", "h"),
    "idk_dpo": Style(RED, ":", "d"),
}
# How each verdict on a claim is drawn: colour-blind safe, and told apart by shape as well.
VERDICTS = {"holds": Style(BLUE, "-", "o"), "undecided": Style(MIDDLE, "-", "s"), "fails": Style("#b04a00", "-", "X")}
# The paper's names, but for its "Ours", which would claim the method for this suite.
LABELS = {
    **PAPER_LABELS, "mule": "MULE", "mule_duet_loss": "MULE with DUET's loss",
    "mule_bild_loss": "MULE with BiLD's loss", GOLD: "Retrained reference", "graddiff": "GradDiff", "npo": "NPO",
    "idk_dpo": "IdkDPO", "mule_no_standardization": "MULE on raw formats", "mule_no_anchors": "MULE without anchors",
    "mule_no_cot": "MULE without thought", "mule_ensemble": "MULE from Ensemble Teacher",
    "mule_first_position": "MULE, first position only", "mule_duet_loss_tuned": "MULE with DUET's loss, tuned",
    "mule_bild_loss_tuned": "MULE with BiLD's loss, tuned", "mule_raw_prompts": "MULE on milder raw formats",
    "mule_passage": "MULE on passages alone", "mule_lettered": "MULE on lettered choices alone",
    "mule_jailbreak": "MULE on jailbreaks alone", "duet_all_positions": "DUET, all positions",
    **{row: f"MULE, K = {kept}" for row, kept in KEPT_LOGITS.items()},
}  # fmt: skip
LABELS |= {twin: f"{LABELS[row]} on MULE's data" for row, twin in TWINS.items()}
LOSSES = (*REPORTED["table2"], "mule_duet_loss_tuned", "mule_bild_loss_tuned")
FORMS = ("mule_no_standardization", "mule_raw_prompts", "mule_passage", "mule_lettered", "mule_jailbreak")
SWITCHES = ("mule_no_anchors", "mule_no_cot", "mule_ensemble", "mule_first_position", *KEPT_LOGITS)
# Rows of the tables beside the paper's, in this order where they were run.
FURTHER = (GOLD, "ga", "graddiff", "npo", "simnpo", "idk_dpo", "flat", "duet_all_positions")
BESIDE = ("graddiff", "npo", "idk_dpo", "duet_all_positions")  # in no table of the paper, on MULE's records alone
PAPER, ON_MULES_RECORDS = "paper", "standardized"  # the two conditions of Tables 1 and 3 (docs/conditions.md)
# A spreadsheet takes a text with such a beginning for a formula; an apostrophe before it makes it a text again.
FORMULA = {r"^([=+@\t\r]|-(?![\d.]+$))": r"'\1"}


def plain(text: str) -> str:
    """Markdown, also of Jupyter, that shows a text as it stands: no tag, link, emphasis or formula comes of it."""
    marked = re.sub(r"([`*_~|])|\]\(", lambda sign: f"\\{sign[1]}" if sign[1] else "]&#40;", escape(text, quote=False))
    # Alone in an element, neither sign opens a formula, and as a number it does so in no reader of Markdown.
    marked = re.sub(r"\\(?![`*_~|])|\$", lambda sign: f"<span>&#{ord(sign[0])};</span>", marked)
    return " ".join(marked.split("\n"))


def styles_of(rows: Iterable[str]) -> dict[str, Style]:
    """Each row's style; one that the suite does not know takes a combination by its place among such rows."""
    unknown, colors, markers = sorted({*rows} - {*STYLES}), (BROWN, SKY, RED, GREEN, PINK, ORANGE), "osD^vPX*<>hp"
    made = {
        row: Style(colors[i % len(colors)], DASHES[(i + 4) % len(DASHES)], markers[i % len(markers)])
        for i, row in enumerate(unknown)
    }
    return {row: (STYLES | made)[row] for row in rows}


def condition(row: str) -> str:
    """The condition that a row of Table 1 or 3 ran in."""
    return ON_MULES_RECORDS if row in METHODS_OF_TWINS or row in BESIDE else PAPER


def method_of(row: str) -> str:
    """The row without its condition, as the paper names it."""
    return METHODS_OF_TWINS.get(row, row)


def label(row: str, known: Mapping[str, str] | None = None) -> str:
    """A row's name: the suite's, else the run's own label unless that is another row's name, else its id."""
    own = (known or {}).get(row, row)
    return LABELS.get(row) or (row if own in LABELS.values() else own)


def benchmark_name(benchmark: str) -> str:
    """What a benchmark is called; one of the reader's own keeps its id."""
    return BENCHMARKS.get(benchmark, benchmark)


def groups(table: str, found: Mapping[str, str]) -> dict[str, list[str]]:
    """The rows of table1, table2 or table3 under their headings; further ones of `found`, row to method, come last."""
    variants = {row for row, method in found.items() if method in REPORTED["table2"]}
    if table == "table2":
        others = sorted(variants.difference(LOSSES, FORMS, SWITCHES))
        return {
            "The loss (Table 2 of the paper), at MULE's K and rate; then tuned": list(LOSSES),
            "The form of the training data": list(FORMS),
            "Switches that the paper argues for and does not tabulate": [*SWITCHES, *others],
        }
    rows = list(REPORTED[table])
    rest = set(found).difference(rows, variants)
    twins = [twin for twin in METHODS_OF_TWINS if twin in rest]
    further = [row for row in FURTHER if row in rest] + sorted(rest.difference(FURTHER, twins))
    rest_title = f"Not in {table.replace('table', 'Table ')} of the paper"
    parts = {"": rows, "Baselines on MULE's records": twins, rest_title: further}
    return {heading: rows for heading, rows in parts.items() if rows}


def metric_name(metric: str, benchmark: str = "") -> str:
    """What a metric is called on a benchmark: Fable's four choices ask for farther facts, so they are not MMLU."""
    return "Far recall" if metric == "mmlu" and benchmark in FABLE else METRIC_NAMES[metric]


def heading(metric: str, benchmark: str = "") -> str:
    """A metric's name with an arrow that says which way is better."""
    return f"{metric_name(metric, benchmark)} {'↓' if metric in DOWN else '↑'}"


def number(value: float, digits: int = 1, *, sign: bool = False) -> str:
    """A measured number with a real minus sign and no negative zero; "" for none."""
    if value != value:
        return ""
    value = round(value, digits) or 0.0
    return f"{value:{'+' if sign and value else ''}.{digits}f}".replace("-", "−")


def spread(value: float, low: float | None = None, high: float | None = None, *, sign: bool = False) -> str:
    """A number with its interval, if it has one, as "1.7 [0.0, 4.4]"; "" for none."""
    ends = "" if low is None or value != value else f" [{number(low)}, {number(high)}]"
    return number(value, sign=sign) + ends


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"; "none" for nothing."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else "none"
