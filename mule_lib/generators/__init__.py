"""Language-model back ends behind one interface: any OpenAI-compatible endpoint, a local model, recorded replies.

`OpenAIEndpoint` imports the `openai` package and `LocalModel` imports torch, so each is imported when it is named.
"""

from importlib import import_module

from mule_lib.generators.budget import PrintProgress, Progress
from mule_lib.generators.complete import Tally
from mule_lib.generators.replay import Replay
from mule_lib.generators.requests import BudgetError, Generator, GeneratorError, Reply, Request

_LATE = {"OpenAIEndpoint": "openai_endpoint", "LocalModel": "local", "load_local": "local"}
__all__ = [
    "BudgetError",
    "Generator",
    "GeneratorError",
    "LocalModel",
    "OpenAIEndpoint",
    "PrintProgress",
    "Progress",
    "Replay",
    "Reply",
    "Request",
    "Tally",
    "load_local",
]


def __getattr__(name: str):
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
