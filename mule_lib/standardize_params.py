"""What `mule standardize` takes: one frozen pydantic model, checked before anything is paid for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from mule_lib.params import ParameterError, error_line, read_yaml

GENERATORS = ("openai", "local", "replay")
PREFIXES = ("train", "held_out")


class StandardizeParams(BaseModel):
    """Sources: "" is the Hub at the pinned commit, else a file or folder. The paper gives no counts; all are ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str = "muse_books"  # also the name of its prompt texts
    out_dir: str = "data/muse_books"
    seed: int = Field(0, ge=0)

    forget_source: str = ""
    questions_source: str = ""  # MUSE's knowmem, WMDP's questions
    general_source: str = ""  # Wikipedia
    mmlu_source: str = ""
    mmlu_split: str = "test"
    forget_chunks: int = Field(400, ge=1)  # drawn at random from all; about 60 % of them train
    general_articles: int = Field(300, ge=1)  # one chunk of each
    questions: int = Field(300, ge=1)  # WMDP questions drawn for open form

    chunk_chars: int = Field(2400, ge=200)
    pairs_per_chunk: int = Field(4, ge=1, le=20)
    answer_words: int = Field(12, ge=1)
    support: float = Field(0.6, ge=0, le=1)
    near_duplicate: float = Field(0.7, gt=0, le=1)
    concepts_per_field: int = Field(12, ge=1)
    pairs_per_concept: int = Field(4, ge=1, le=20)
    verify: bool = True  # a second look at pairs without a source
    distractors: int = Field(3, ge=1, le=6)
    refusals: int = Field(40, ge=0)  # beside our own
    # Share of the pairs to refuse that get a counterpart; beside the others, general and neighbour pairs are drawn.
    anchor_share: float = Field(0.5, ge=0, lt=1)
    evaluation_share: float = Field(0.1, gt=0, lt=0.4)  # of the sources, for each evaluation set
    validation_share: float = Field(0.1, gt=0, lt=0.4)
    evaluation_prefixes: str = "train"

    attacker_rounds: int = Field(0, ge=0)  # 0: the prefix families as they are, and no model is loaded
    attacker_candidates: int = Field(4, ge=1)
    attacker_group: int = Field(1, ge=1)  # questions that share a prefix; 1 is the paper's per-sample attack
    attacker_target: str = "base"  # the model under attack: a hub id or a folder
    attacker_tokens: int = Field(32, ge=1)

    generator: str = "openai"  # any OpenAI-compatible endpoint; local: a transformers model; replay: recorded replies
    generator_model: str = Field("", validate_default=True)
    replay_file: str = Field("", validate_default=True)
    cache_file: str = ""  # "" is <out_dir>/replies.jsonl
    budget_tokens: int = Field(5_000_000, ge=1)
    concurrency: int = Field(8, ge=1)
    max_failed: float = Field(0.05, ge=0, le=1)  # share of requests; above it nothing is written

    @field_validator("benchmark")
    @classmethod
    def _benchmark(cls, value: str) -> str:
        return _one_of(value, ("muse_books", "wmdp_cyber"))

    @field_validator("generator")
    @classmethod
    def _generator(cls, value: str) -> str:
        return _one_of(value, GENERATORS)

    @field_validator("evaluation_prefixes")
    @classmethod
    def _prefixes(cls, value: str) -> str:
        return _one_of(value, PREFIXES)

    @field_validator("mmlu_split")
    @classmethod
    def _split(cls, value: str) -> str:
        return _one_of(value, ("test", "validation", "dev"))

    @field_validator("generator_model", "replay_file")
    @classmethod
    def _named(cls, value: str, info: ValidationInfo) -> str:
        # A missing name would show only when the first reply is asked for.
        generator = info.data.get("generator")
        if not value and generator == "replay" and info.field_name == "replay_file":
            raise ValueError("name the file of recorded replies for generator 'replay'")
        if not value and generator in ("openai", "local") and info.field_name == "generator_model":
            raise ValueError(f"name the model for generator {generator!r}")
        return value


# Where it runs and what it costs: these change no record, so a folder may be finished with other values.
NOT_IN_THE_DATA = frozenset({"out_dir", "cache_file", "budget_tokens", "concurrency", "max_failed", "replay_file"})


def identity(params: StandardizeParams) -> dict:
    """The parameters that shape the data, for the check that a folder holds the data asked for."""
    return {key: value for key, value in params.model_dump().items() if key not in NOT_IN_THE_DATA}


def read(file: Path, overrides: Mapping[str, Any] | None = None) -> StandardizeParams:
    """Read a YAML file (flat keys), put the overrides over it and check. Raises ParameterError in one line."""
    try:
        return StandardizeParams(**{**read_yaml(file), **(overrides or {})})
    except ValidationError as error:
        lines = (error_line(str(file), item, StandardizeParams) for item in error.errors())
        raise ParameterError("; ".join(lines)) from None


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"choose from {', '.join(allowed)}")
    return value
