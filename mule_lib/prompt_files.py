"""Prompts for the LLMs that build data, kept as readable files and named by their content.

A file of `prompt_texts/llm` holds a system and a user text with {slots}, the JSON schema of the reply and the sampling.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

# A doubled brace stands for itself, so that a prompt can speak of slots.
_SLOT = re.compile(r"\{\{(?P<literal>[a-z_]+)\}\}|\{(?P<name>[a-z_]+)\}")


@dataclass(frozen=True)
class PromptFile:
    """One prompt: its texts, the schema of its reply, and `id`, which changes with every letter of the file."""

    id: str
    system: str
    user: str
    schema: dict
    max_tokens: int
    temperature: float
    more: Mapping[str, Any]


def prompt_id(name: str) -> str:
    """Name of a prompt file with its content: "llm/qa@0123456789ab" (first 12 digits of its SHA-256).

    Raises ValueError naming the prompts there are.
    """
    return f"{name}@{hashlib.sha256(_content(name).encode()).hexdigest()[:12]}"


def names() -> list[str]:
    """Names of all prompt files, those for LLMs below "llm/"."""
    root = resources.files("mule_lib").joinpath("prompt_texts")
    own = [entry.name for entry in root.iterdir()]
    llm = [f"llm/{entry.name}" for entry in root.joinpath("llm").iterdir()]
    return sorted(name.removesuffix(".yaml") for name in own + llm if name.endswith(".yaml"))


@lru_cache
def load(name: str) -> PromptFile:
    """Read one prompt; `more` holds the keys of the file that are no part of a request."""
    values = yaml.safe_load(_content(name))
    own = ("system", "user", "schema", "max_tokens", "temperature")
    lacking = [key for key in own if key not in values]
    if lacking:
        raise ValueError(f"prompt {name!r} has no {', '.join(lacking)}")
    more = {key: value for key, value in values.items() if key not in own}
    return PromptFile(prompt_id(name), **{key: values[key] for key in own}, more=more)


def messages(prompt: PromptFile, slots: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """The prompt's chat with its slots filled. Raises ValueError for a slot without a value, or the other way round."""
    used: set[str] = set()

    def fill(match: re.Match) -> str:
        if match["literal"]:
            return f"{{{match['literal']}}}"
        if match["name"] not in slots:
            raise ValueError(f"prompt {prompt.id}: slot {{{match['name']}}} has no value")
        used.add(match["name"])
        return str(slots[match["name"]])

    chat = tuple(
        {"role": role, "content": _SLOT.sub(fill, text)}
        for role, text in (("system", prompt.system), ("user", prompt.user))
    )
    if set(slots) - used:
        raise ValueError(f"prompt {prompt.id}: no slot for {', '.join(sorted(set(slots) - used))}")
    return chat


def _content(name: str) -> str:
    file = resources.files("mule_lib").joinpath("prompt_texts", f"{name}.yaml")
    if name not in names():
        raise ValueError(f"prompt {name!r}: no such file; there are {', '.join(names())}")
    return file.read_text("utf-8")
