"""What is asked of the LLM and what comes back: prompt files with the forms of their replies, and the books."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, create_model

from mule_lib import prompts
from mule_lib.data.standardize.generators import Generator, Request, in_words
from mule_lib.params import Checked, Count, Seed

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


class Standardize(Checked):
    """`mule standardize`. Sources: "" is the Hub at the pinned commit, else a file or folder. All counts are ours."""

    benchmark: Literal["muse_books", "wmdp_cyber"] = "muse_books"  # also names its prompt texts
    out_dir: str = "data/muse_books"
    seed: Seed = 0

    forget_source: str = ""
    questions_source: str = ""  # MUSE's knowmem, WMDP's questions
    general_source: str = ""  # Wikipedia
    mmlu_source: str = ""
    mmlu_split: Literal["test", "validation", "dev"] = "test"
    forget_chunks: Count = 400  # drawn at random from all; about 60 % of them train
    general_articles: Count = 300  # one chunk of each
    questions: Count = 300  # WMDP questions drawn for open form

    chunk_chars: int = Field(2400, ge=200)
    pairs_per_chunk: int = Field(4, ge=1, le=20)
    answer_words: Count = 12
    support: float = Field(0.6, ge=0, le=1)
    near_duplicate: float = Field(0.7, gt=0, le=1)
    concepts_per_field: Count = 12
    pairs_per_concept: int = Field(4, ge=1, le=20)
    verify: bool = True  # a second look at pairs without a source
    distractors: int = Field(3, ge=1, le=6)
    refusals: int = Field(40, ge=0)  # beside our own
    # Share of the pairs to refuse that get a counterpart; beside the others, general and neighbour pairs are drawn.
    anchor_share: float = Field(0.5, ge=0, lt=1)
    evaluation_share: float = Field(0.1, gt=0, lt=0.4)  # of the sources, for each evaluation set
    validation_share: float = Field(0.1, gt=0, lt=0.4)
    evaluation_prefixes: Literal["train", "held_out"] = "train"

    attacker_rounds: int = Field(0, ge=0)  # 0: the prefix families as they are, and no model is loaded
    attacker_candidates: Count = 4
    attacker_target: str = "base"  # the model under attack: a hub id or a folder
    attacker_tokens: Count = 32

    # Any OpenAI-compatible endpoint, a local transformers model, or recorded replies.
    generator: Literal["openai", "local", "replay"] = "openai"
    generator_model: str = ""
    replay_file: str = ""
    cache_file: str = ""  # "" is <out_dir>/replies.jsonl
    budget_tokens: Count = 5_000_000
    concurrency: Count = 8
    max_failed: float = Field(0.05, ge=0, le=1)  # share of requests; above it nothing is written

    def problems(self) -> Iterator[tuple[str, str]]:
        """A name whose lack would show only when the first reply is asked for."""
        if self.generator == "replay" and not self.replay_file:
            yield "replay_file", "name the file of recorded replies for generator 'replay'"
        if self.generator != "replay" and not self.generator_model:
            yield "generator_model", f"name the model for generator {self.generator!r}"

    def identity(self) -> dict[str, Any]:
        """The parameters that shape the data; a folder may be finished with other values of the rest."""
        costs = {"out_dir", "cache_file", "budget_tokens", "concurrency", "max_failed", "replay_file"}
        return self.model_dump(exclude=costs)


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
