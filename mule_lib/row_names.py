"""What rows, benchmarks and metrics are called in every table and figure, and in which order they stand."""

from collections.abc import Iterable, Mapping

from mule_lib.paper import LABELS as PAPER_LABELS
from mule_lib.paper import REPORTED

BENCHMARK_NAMES = {
    "books": "Fable-Books",
    "cyber": "Fable-Cyber",
    "muse_books": "MUSE-Books",
    "wmdp_cyber": "WMDP-Cyber",
}
PAPER_MODEL = "Llama-3.2-3B-Instruct"
EMBEDDED = {"base": "this project's embedded model of 3.7 M parameters"}

METRIC_NAMES = {
    "forget": "Forget",
    "general": "General",
    "neighbor": "Neighbour",
    "asr": "ASR",
    "mmlu": "MMLU",
    "overall": "Overall",
    "gold_distance": "Gold distance",
}
DOWN = frozenset({"forget", "asr", "gold_distance"})

# The paper's names, but for its "Ours", which would claim the method for this suite.
LABELS = {
    **PAPER_LABELS,
    "mule": "MULE",
    "mule_duet_loss": "MULE with DUET's loss",
    "mule_bild_loss": "MULE with BiLD's loss",
    "gold": "Gold (never knew)",
    "graddiff": "GradDiff",
    "npo": "NPO",
    "idk_dpo": "IdkDPO",
    "mule_no_standardization": "MULE on raw formats",
    "mule_no_anchors": "MULE without anchors",
    "mule_no_cot": "MULE without thought",
    "mule_ensemble": "MULE from Ensemble Teacher",
    "mule_first_position": "MULE, first position only",
}
# Nothing is trained in these, so they compete with no method.
REFERENCES = frozenset({"base", "upper_bound", "ensemble_teacher", "gold"})
LOSSES = ("mule", "mule_duet_loss", "mule_bild_loss")
SWITCHES = (
    "mule_no_standardization",
    "mule_no_anchors",
    "mule_no_cot",
    "mule_ensemble",
    "mule_first_position",
    "mule_k1",
    "mule_k50",
)
# Rows of the tables beside the paper's, in this order where they were run.
FURTHER = ("gold", "ga", "graddiff", "npo", "simnpo", "idk_dpo", "flat")


def label(row: str, known: Mapping[str, str] | None = None) -> str:
    """A row's name: the suite's, else for a number of kept logits what it says, else the run's own, else its id."""
    if row in LABELS:
        return LABELS[row]
    if row.removeprefix("mule_k").isdigit():
        return f"MULE, K = {row.removeprefix('mule_k')}"
    return (known or {}).get(row, row)


def is_variant(row: str) -> bool:
    """Whether a row is MULE with something changed, which Table 2 compares."""
    return row.startswith("mule_")


def groups(table: str, found: Iterable[str] = ()) -> list[tuple[str, list[str]]]:
    """The rows of table1, table2 or table3 under their headings; `found` rows that the paper lacks come last."""
    found = set(found)
    if table == "table2":
        variants = [row for row in found if is_variant(row) and row not in (*LOSSES, *SWITCHES)]
        return [
            ("The loss (Table 2 of the paper)", list(LOSSES)),
            (
                "Switches that the paper argues for and does not tabulate",
                [*SWITCHES, *sorted(variants, key=_by_number)],
            ),
        ]
    rows = list(REPORTED[table])
    further = [row for row in FURTHER if row in found and row not in rows]
    own = sorted(row for row in found if row not in (*rows, *further) and not is_variant(row))
    parts = [("", rows), (f"Not in {table.replace('table', 'Table ')} of the paper", [*further, *own])]
    return [(heading, rows) for heading, rows in parts if rows]


def arrow(metric: str) -> str:
    """Which way is better."""
    return "↓" if metric in DOWN else "↑"


def heading(metric: str) -> str:
    """A metric's name with its arrow."""
    return f"{METRIC_NAMES[metric]} {arrow(metric)}"


def model_name(model: str) -> str:
    """What a run's `model` parameter means to a reader."""
    return EMBEDDED.get(model, model)


def better(metric: str, left: float, right: float) -> bool:
    """Whether `left` is the better value."""
    return left < right if metric in DOWN else left > right


def _by_number(row: str) -> tuple[int, str]:
    digits = row.removeprefix("mule_k")
    return (int(digits) if digits.isdigit() else 0, row)
