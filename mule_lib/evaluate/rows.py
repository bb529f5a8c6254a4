"""The five metrics of a table row from the results behind them, and the distance to the gold reference model."""

from collections.abc import Mapping

from mule_lib.paper import METRICS


def five_metrics(*, forget: Mapping, general: Mapping, neighbor: Mapping, asr: Mapping, mmlu: Mapping) -> dict:
    """Return a row in the paper's points (0 to 100) from the results of its five evaluations.

    `forget` and `general` come from `open_answer_scores`, `neighbor` and `mmlu` from `score_choices` (or
    `four_choice_scores`), `asr` from `attack_success_rate`. The keys are those of `paper.METRICS`.
    """
    shares = (forget["score"], general["score"], neighbor["correct"], asr["asr"], mmlu["correct"])
    return {metric: 100 * share for metric, share in zip(METRICS, shares, strict=True)}


def item_values(
    *, forget: Mapping, general: Mapping, neighbor: Mapping, asr: Mapping, mmlu: Mapping
) -> dict[str, list[float]]:
    """Return the value of every item in 0 to 1 behind each of the five metrics; their means are the metrics."""
    return {
        "forget": _open_values(forget),
        "general": _open_values(general),
        "neighbor": _choice_values(neighbor),
        "asr": [float(item["success"]) for item in asr["items"]],
        "mmlu": _choice_values(mmlu),
    }


def gold_distance(rows: Mapping[str, Mapping[str, float]], gold: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return per row and metric how far it lies from the gold model, one that never knew, and their mean.

    Distances are absolute: forgetting more than the gold model is as far off as forgetting less. Only the metrics of
    `gold` count; a row that lacks one raises `KeyError`.
    """
    distances = {}
    for name, row in rows.items():
        parts = {metric: abs(row[metric] - value) for metric, value in gold.items()}
        distances[name] = {**parts, "mean": sum(parts.values()) / len(parts)}
    return distances


def _open_values(result: Mapping) -> list[float]:
    return [item[result["headline"].removeprefix("rougeL_")] for item in result["items"]]


def _choice_values(result: Mapping) -> list[float]:
    return [float(item["outcome"] == "correct") for item in result["items"]]
