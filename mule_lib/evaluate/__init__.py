"""Forget, General, Retain Acc, ASR and MMLU with their samples and intervals; rates are 0 to 1 throughout.

What runs a model is imported when it is first asked for, so that readers of results do without torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "evaluate_row": "evaluate.row",
    "sample_answers": "evaluate.row",
    "base_beside": "evaluate.drift",
    "with_drift": "evaluate.drift",
    "score_choices": "evaluate.row",
    "bootstrap_interval": "evaluate.intervals",
    "rouge_l": "data.text",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mule_lib.{_HOMES[name]}"), name)
