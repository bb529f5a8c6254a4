"""What each notebook takes: one frozen pydantic model per notebook, defaults equal to those of its parameters cell."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mule_lib.prompts import CHOICE_STYLES


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"choose from {', '.join(allowed)}")
    return value


class NotebookParams(BaseModel):
    """What all notebooks take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0)
    out_dir: str

    @classmethod
    def from_cell(cls, names: Mapping[str, Any]) -> Self:
        """The checked parameters of a notebook from its names, `globals()` after the parameters cell.

        Raises KeyError for a parameter that the cell does not set, pydantic's ValidationError for a bad value.
        """
        return cls(**{name: names[name] for name in cls.model_fields})


class EvaluatedParams(NotebookParams):
    """What notebooks that ask a model take."""

    batch_size: int = Field(128, ge=1)
    max_new_tokens: int = Field(24, ge=1, le=256)
    choice_style: str = "texts"

    @field_validator("choice_style")
    @classmethod
    def _style(cls, value: str) -> str:
        return _one_of(value, CHOICE_STYLES)


class MeetTheModelParams(EvaluatedParams):
    """Notebook 00."""

    benchmarks: list[str] = ["books", "cyber"]
    out_dir: str = "outputs/fable/00_meet_the_model"

    @field_validator("benchmarks")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        from mule_lib.benchmarks.fable.evaluation import BENCHMARKS

        unknown = [name for name in value if name not in BENCHMARKS]
        if unknown or not value:
            raise ValueError(f"choose from {', '.join(BENCHMARKS)}")
        return value


class CollectingParams(NotebookParams):
    """Notebooks that only read run folders."""

    name: str = "fable"
    out_dir: str = "outputs/fable"


class ClaimsParams(CollectingParams):
    """Notebook 07. `benchmarks` stand for MUSE-Books and WMDP-Cyber, in this order."""

    benchmarks: list[str] = ["books", "cyber"]
    resamples: int = Field(10_000, ge=5_000)

    @field_validator("benchmarks")
    @classmethod
    def _one_for_each(cls, value: list[str]) -> list[str]:
        allowed = (("books", "muse_books"), ("cyber", "wmdp_cyber"))
        if len(value) != 2 or any(name not in names for name, names in zip(value, allowed, strict=True)):
            raise ValueError("give two: books or muse_books, then cyber or wmdp_cyber")
        return value
