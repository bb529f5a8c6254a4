"""What is asked of the LLM and what comes back: prompt files with the forms of their replies, and the books."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, create_model

from mule_lib import prompts
from mule_lib.data.standardize.generators import Generator, Request, in_words
from mule_lib.params import Standardize

COLUMNS = ["step", "asked", "failed", "refused", "items", "accepted", "rejected"]


@dataclass(frozen=True)
class Prompt:
    """A file of `prompt_texts/llm`; `id` holds digits of its content, `form` is what a reply has to fit."""

    id: str
    system: str
    user: str
    form: type[BaseModel]
    max_tokens: int
    temperature: float
    own: tuple[str, ...] = ()  # replies that need no LLM


PROMPTS = sorted(entry.name[:-5] for entry in resources.files("mule_lib").joinpath("prompt_texts", "llm").iterdir())


@lru_cache
def prompt_file(name: str) -> Prompt:
    """Read one prompt; `reply` in the file is the shape of the JSON that is asked for."""
    text = resources.files("mule_lib").joinpath("prompt_texts", "llm", f"{name}.yaml").read_text("utf-8")
    values = yaml.safe_load(text)
    name = f"llm/{name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return Prompt(name, form=_form(values.pop("reply")), **values)


def _form(shape: dict | list | str) -> Any:
    """The type of a shape: {key: shape}, [shape], "text" or "true or false"."""
    if isinstance(shape, list):
        return list[_form(shape[0])]
    if isinstance(shape, dict):
        # Strict servers want closed objects with every key required.
        closed = ConfigDict(extra="forbid", strict=True)
        return create_model("Reply", __config__=closed, **{key: (_form(value), ...) for key, value in shape.items()})
    return {"text": str, "true or false": bool}[shape]


@dataclass
class Job:
    """One standardization under way: its parameters, who is asked, and the books of every step.

    `counts` are asked, failed, refused, items and accepted by step; `rejected` says of every other item why not.
    """

    p: Standardize
    generator: Generator
    counts: dict[str, Counter] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    tokens: Counter = field(default_factory=Counter)

    @cached_property
    def texts(self) -> dict[str, Any]:
        """The benchmark's prompt texts: topic, restricted terms, taxonomy, prefixes."""
        return prompts.texts(self.p.benchmark)

    def ask(
        self, step: str, prompt: str, slots: Mapping[str, Mapping[str, Any]], *, seeds: Mapping[str, int] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Put one prompt file to the generator for every unit (id to slots); yield id and data of each usable reply.

        All requests go out in one batch, before the first is yielded. Failures and refusals are booked.
        """
        file, same = prompt_file(prompt), {"topic": self.texts["topic"], "answer_words": self.p.answer_words}
        requests = [
            Request(
                f"{step}/{unit}",
                (
                    {"role": "system", "content": file.system},
                    {"role": "user", "content": f"{file.user.format(**same, **values)}\n\n{in_words(file.form)}"},
                ),
                file.form,
                file.max_tokens,
                file.temperature,
                (seeds or {}).get(unit),
            )
            for unit, values in slots.items()
        ]
        if not requests:
            return
        count = self.counts.setdefault(step, Counter())
        replies = self.generator.complete(requests)
        count["asked"] += len(requests)
        for unit, reply in zip(slots, replies, strict=True):
            self.tokens.update(prompt=reply.prompt_tokens, completion=reply.completion_tokens)
            if reply.data is not None:
                yield unit, reply.data
                continue
            what = "refused" if reply.refused else "failed"
            count[what] += 1
            self.reject(step, (f"llm_{what}", reply.error or ""), unit=unit, text=reply.text)

    def passes(self, step: str, fault: tuple[str, str] | None, **item: Any) -> bool:
        """Book an item found in a reply; where there is a fault, with its reason (of `checks.REASONS`) and a detail."""
        self.counts.setdefault(step, Counter())["items"] += 1
        if fault:
            self.reject(step, fault, **item)
        return fault is None

    def reject(self, step: str, fault: tuple[str, str], **item: Any) -> None:
        """Book that an item is not used after all."""
        self.rejected.append({"step": step, "reason": fault[0], "detail": fault[1], **item})

    def accept(self, step: str, number: int = 1) -> None:
        """Book items that are used."""
        self.counts.setdefault(step, Counter())["accepted"] += number

    def summary(self) -> pd.DataFrame:
        """One row per step: the counts of `COLUMNS`, then rejected items by reason, for reasons that occurred."""
        table = pd.DataFrame([{"step": step, **count} for step, count in self.counts.items()], columns=COLUMNS)
        items = [row for row in self.rejected if not row["reason"].startswith("llm_")]
        items = pd.DataFrame(items, columns=["step", "reason"])
        reasons = pd.crosstab(items["step"], items["reason"])
        table["rejected"] = table["step"].map(reasons.sum(axis=1))
        table = table.join(reasons, on="step")
        return table.fillna(0).astype({name: int for name in table.columns[1:]})
