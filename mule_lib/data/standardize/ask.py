"""What is asked of the LLM and what comes back: prompt files with the forms of their replies, and the books."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import ConfigDict, Field, create_model

from mule_lib import prompts
from mule_lib.data.standardize.checks import ANSWER_WORDS, Fault
from mule_lib.data.standardize.generators import CachedGenerator, Request
from mule_lib.params import Checked, Count, ModelName, Seed, is_place

PROMPTS = sorted(entry.name[:-5] for entry in resources.files("mule_lib").joinpath("prompt_texts", "llm").iterdir())


class Standardize(Checked):
    """`mule standardize`. Sources: "" is the Hub at the pinned commit, else a file or folder. All counts are ours."""

    benchmark: Literal["muse_books", "wmdp_cyber"] = "muse_books"  # also names its prompt texts
    out_dir: str = "data/muse_books"
    seed: Seed = 0
    forget_source: str = ""
    questions_source: str = ""  # MUSE's knowmem, WMDP's questions
    general_source: str = ""  # Wikipedia
    mmlu_source: str = ""
    forget_chunks: Count = 400  # drawn at random from all; about 60 % of them train
    general_articles: Count = 300  # one chunk of each
    questions: Count = 300  # WMDP questions drawn for open form
    chunk_chars: int = Field(2400, ge=200)
    pairs_per_chunk: int = Field(4, ge=1, le=20)
    concepts_per_field: Count = 12
    pairs_per_concept: int = Field(4, ge=1, le=20)
    distractors: int = Field(3, ge=1, le=6)
    # Share of the pairs to refuse that get a counterpart; beside the others, general and neighbour pairs are drawn.
    anchor_share: float = Field(0.5, ge=0, lt=1)
    evaluation_share: float = Field(0.1, gt=0, lt=0.4)  # of the sources, for each evaluation set
    validation_share: float = Field(0.1, gt=0, lt=0.4)
    attacker_rounds: int = Field(0, ge=0)  # 0: the prefix families as they are, and no model is loaded
    attacker_candidates: Count = 4
    attacker_target: ModelName = "base"  # the model under attack: a hub id or a folder
    generator: Literal["openai", "local"] = "openai"  # any OpenAI-compatible endpoint, or a local transformers model
    generator_model: str = ""
    budget_tokens: int = Field(5_000_000, ge=1)
    concurrency: int = Field(8, ge=1, le=256)

    def problems(self) -> Iterator[tuple[str, str]]:
        """A place that is none of a run's, and a name whose lack would show only when the first reply is asked for."""
        if not is_place(self.out_dir, "data", "outputs", "build"):
            yield "out_dir", "give a folder below data/, or an absolute path outside of the repository, without .."
        if not self.generator_model:
            yield "generator_model", f"name the model for generator {self.generator!r}"

    def identity(self) -> dict[str, Any]:
        """The parameters that shape the data; a folder may be finished with other values of the rest."""
        return self.model_dump(exclude={"out_dir", "budget_tokens", "concurrency"})


@lru_cache
def prompt_file(name: str) -> Request:
    """One prompt of `prompt_texts/llm` with its slots open; `id` holds digits of its content."""
    text = resources.files("mule_lib").joinpath("prompt_texts", "llm", f"{name}.yaml").read_text("utf-8")
    values = yaml.safe_load(text)
    messages = tuple({"role": role, "content": values.pop(role)} for role in ("system", "user"))
    name = f"llm/{name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return Request(name, messages, form=_form(values.pop("reply")), **values)


def _form(shape: dict | list | str) -> Any:
    """The type of a shape: {key: shape}, [shape] or "text"."""
    if isinstance(shape, list):
        return list[_form(shape[0])]
    if isinstance(shape, dict):
        # Strict servers want closed objects with every key required.
        closed = ConfigDict(extra="forbid", strict=True)
        return create_model("Reply", __config__=closed, **{key: (_form(value), ...) for key, value in shape.items()})
    return {"text": str}[shape]


@dataclass
class Job:
    """One standardization under way: parameters, who is asked, and by step requests, items and what is rejected."""

    p: Standardize
    generator: CachedGenerator
    asked: Counter = field(default_factory=Counter)
    items: Counter = field(default_factory=Counter)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def texts(self) -> dict[str, Any]:
        """The benchmark's prompt texts: topic, restricted terms, taxonomy, prefixes."""
        return prompts.texts(self.p.benchmark)

    def ask(
        self, step: str, prompt: str, slots: Mapping[str, Mapping[str, Any]], *, seed: int | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Put one prompt file to the generator for every unit (id to slots); yield id and data of each usable reply."""
        file, same = prompt_file(prompt), {"topic": self.texts["topic"], "answer_words": ANSWER_WORDS}
        system, user = file.messages
        # The form stands in the prompt as well, since many servers constrain nothing.
        form = json.dumps(file.form.model_json_schema())
        ending = f"\n\nReply with one JSON value that fits this schema, and with nothing else: {form}"
        texts = [user["content"].format(**same, **more) + ending for more in slots.values()]
        requests = [replace(file, messages=(system, {"role": "user", "content": t}), seed=seed) for t in texts]
        for unit, reply in zip(slots, self.generator.complete(requests), strict=True):
            self.asked[step] += 1
            if reply.data is not None:
                yield unit, reply.data
            else:
                reason = "llm_refused" if reply.refused else "llm_failed"
                self.reject(step, (reason, reply.error or ""), unit=unit, text=reply.text)

    def passes(self, step: str, fault: Fault, **item: Any) -> bool:
        """Book an item found in a reply; where there is a fault, with its reason (of `checks.REASONS`) and a detail."""
        self.items[step] += 1
        if fault:
            self.reject(step, fault, **item)
        return fault is None

    def reject(self, step: str, fault: tuple[str, str], **item: Any) -> None:
        """Book that an item is not used after all."""
        self.rejected.append({"step": step, "reason": fault[0], "detail": fault[1], **item})

    def summary(self) -> pd.DataFrame:
        """One row per step: requests asked, items, accepted items, then rejected ones by reason."""
        rows = pd.DataFrame(self.rejected, columns=["step", "reason"])
        table = pd.DataFrame({"asked": self.asked, "items": self.items}, index=list(self.asked))
        table = table.join(pd.crosstab(rows["step"], rows["reason"])).fillna(0).astype(int).rename_axis("step")
        rejected = table.drop(columns=["asked", "items", "llm_failed", "llm_refused"], errors="ignore").sum(axis=1)
        table.insert(2, "accepted", table["items"] - rejected)
        return table.reset_index()
