"""The paper's printed numbers as data, and Overall Performance; what the paper reports, never what was measured here.

Source: arXiv 2604.15482, Tables 1 and 2 (MUSE-Books) and Table 3 (WMDP-Cyber). Values are points as printed.
"""

from collections.abc import Mapping

# forget and general: ROUGE; neighbor: Retain Acc; asr: attack success rate; mmlu: accuracy.
METRICS = ("forget", "general", "neighbor", "asr", "mmlu")
LOWER_IS_BETTER = frozenset({"forget", "asr"})

BENCHMARKS = {"table1": "muse_books", "table2": "muse_books", "table3": "wmdp_cyber"}
# Table 2 prints no base model; its overall values are taken against the one of Table 1.
BASE_TABLE = {"table1": "table1", "table2": "table1", "table3": "table3"}

LABELS = {
    "base": "Base Model",
    "ga": "GA",
    "simnpo": "SimNPO",
    "flat": "FLAT",
    "sft": "SFT",
    "ngdiff": "NGDiff",
    "mollm": "MOLLM",
    "ensemble_teacher": "Ensemble Teacher (ET)",
    "duet": "DUET (w/ ET)",
    "mule": "Ours",
    "upper_bound": "Upper Bound",
    "mule_duet_loss": "Ours w/ DUET Loss",
    "mule_bild_loss": "Ours w/ BILD Loss",
}


def _row(*points: float) -> dict[str, float]:
    return dict(zip((*METRICS, "overall"), points, strict=True))


REPORTED: dict[str, dict[str, dict[str, float]]] = {
    "table1": {
        "base": _row(32.1, 84.3, 57.28, 70.5, 60.8, 0.00),
        "ga": _row(36.9, 85.0, 55.9, 70.0, 36.45, -29.33),
        "simnpo": _row(21.4, 43.1, 57.7, 70.5, 60.40, -30.48),
        "flat": _row(0.7, 58.3, 42.7, 39.0, 58.92, 20.44),
        "sft": _row(0.3, 49.6, 50.7, 1.5, 50.2, 48.92),
        "ngdiff": _row(13.6, 83.3, 37.7, 17.9, 60.8, 50.52),
        "mollm": _row(19.9, 83.6, 57.4, 69.2, 60.8, 12.92),
        "ensemble_teacher": _row(6.2, 60.9, 26.8, 13.5, 60.3, 28.52),
        "duet": _row(3.2, 71.3, 26.8, 39.5, 49.9, 5.52),
        "mule": _row(2.7, 78.1, 58.5, 12.5, 59.2, 80.82),
        "upper_bound": _row(2.1, 80.1, 58.5, 6.7, 60.7, 90.72),
    },
    "table2": {
        "mule": _row(2.7, 78.1, 58.5, 12.5, 58.2, 79.82),
        "mule_duet_loss": _row(3.19, 74.0, 57.6, 12.5, 58.2, 74.33),
        "mule_bild_loss": _row(3.9, 82.3, 56.3, 23.5, 58.3, 69.72),
    },
    "table3": {
        "base": _row(68.5, 88.1, 96.3, 60.7, 59.9, 0.00),
        "ensemble_teacher": _row(20.8, 64.4, 86.0, 50.7, 59.4, 23.20),
        "duet": _row(25.5, 91.1, 95.3, 24.7, 50.6, 71.70),
        "sft": _row(34.2, 87.1, 95.3, 44.7, 57.4, 45.80),
        "ngdiff": _row(17.3, 63.8, 90.6, 40.0, 59.88, 41.88),
        "mollm": _row(17.2, 66.3, 89.7, 35.3, 59.77, 48.17),
        "mule": _row(8.1, 89.1, 88.8, 5.1, 56.9, 106.50),
        "upper_bound": _row(6.7, 93.1, 90.7, 3.3, 59.9, 118.60),
    },
}


def overall(base: Mapping[str, float], row: Mapping[str, float]) -> float:
    """Return Overall Performance in points: the unweighted sum of the five gains of a row over its base.

    The text does not define it; this sum reproduces every printed value. Forget and ASR gain by falling, the others by
    rising. Rounded to 1e-6, so that sums of printed decimals compare equal to printed decimals. Raises `KeyError` for
    a missing metric.
    """
    gains = ((base[m] - row[m]) if m in LOWER_IS_BETTER else (row[m] - base[m]) for m in METRICS)
    return round(sum(gains), 6)


def base_row(table: str) -> dict[str, float]:
    """Return the reported base model that a table's overall values are taken against."""
    return REPORTED[BASE_TABLE[table]]["base"]
