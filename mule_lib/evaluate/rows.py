"""The five metrics of a table row from the results behind them, and the distance to the gold reference model."""

from collections.abc import Mapping


def five_metrics(*, forget: Mapping, general: Mapping, neighbor: Mapping, asr: Mapping, mmlu: Mapping) -> dict:
    """Return a row in the paper's points (0 to 100) from the results of its five evaluations.

    `forget` and `general` come from `open_answer_scores`, `neighbor` and `mmlu` from `score_choices` (or
    `four_choice_scores`), `asr` from `attack_success_rate`. The keys are those of `paper.METRICS`.
    """
    return measured({"forget": forget, "general": general, "neighbor": neighbor, "asr": asr, "mmlu": mmlu})


def measured(results: Mapping[str, Mapping]) -> dict[str, float]:
    """Return the metrics, in points (0 to 100), of those evaluations that are there; keys are of `paper.METRICS`."""
    return {metric: 100 * result[_SHARE[metric]] for metric, result in results.items()}


def item_values(
    *, forget: Mapping, general: Mapping, neighbor: Mapping, asr: Mapping, mmlu: Mapping
) -> dict[str, list[float]]:
    """Return the value of every item in 0 to 1 behind each of the five metrics; their means are the metrics."""
    return values_of({"forget": forget, "general": general, "neighbor": neighbor, "asr": asr, "mmlu": mmlu})


def values_of(results: Mapping[str, Mapping]) -> dict[str, list[float]]:
    """Return the value of every item, in 0 to 1, of those evaluations that are there."""
    return {metric: _VALUES[metric](result) for metric, result in results.items()}


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


def _success_values(result: Mapping) -> list[float]:
    return [float(item["success"]) for item in result["items"]]


# Where an evaluation's result holds the share behind its metric, and how its items are read.
_SHARE = {"forget": "score", "general": "score", "neighbor": "correct", "asr": "asr", "mmlu": "correct"}
_VALUES = {
    "forget": _open_values,
    "general": _open_values,
    "neighbor": _choice_values,
    "asr": _success_values,
    "mmlu": _choice_values,
}
