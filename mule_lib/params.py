"""Parameters of every notebook as frozen pydantic models; YAML in, errors that name the key and what would be right."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mule_lib.prompts import CHOICE_STYLES


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message names it."""


class NotebookParams(BaseModel):
    """What all notebooks take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0)
    batch_size: int = Field(256, ge=1)
    out_dir: str


class MeetTheModelParams(NotebookParams):
    """Notebook 00."""

    benchmarks: list[str] = ["books", "cyber"]
    max_new_tokens: int = Field(24, ge=1, le=256)
    choice_style: str = "texts"
    out_dir: str = "outputs/fable/00_meet_the_model"

    @field_validator("choice_style")
    @classmethod
    def _style(cls, value: str) -> str:
        if value not in CHOICE_STYLES:
            raise ValueError(f"choose from {', '.join(CHOICE_STYLES)}")
        return value

    @field_validator("benchmarks")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        from mule_lib.benchmarks.fable.evaluation import BENCHMARKS

        unknown = [name for name in value if name not in BENCHMARKS]
        if unknown or not value:
            raise ValueError(f"choose from {', '.join(BENCHMARKS)}")
        return value


NOTEBOOK_PARAMS: dict[str, type[NotebookParams]] = {"00_meet_the_model": MeetTheModelParams}


def validate(notebook: str, values: Mapping[str, Any], *, source: str = "parameters") -> NotebookParams:
    """The checked parameters of a notebook (its file stem).

    Raises ParameterError in one line: unknown key with the nearest valid name, wrong type or value out of range.
    """
    if notebook not in NOTEBOOK_PARAMS:
        raise ParameterError(f"{notebook}: no such notebook; there are {', '.join(NOTEBOOK_PARAMS)}")
    schema = NOTEBOOK_PARAMS[notebook]
    try:
        return schema(**values)
    except ValidationError as error:
        raise ParameterError("; ".join(_line(source, item, schema) for item in error.errors())) from None


def load(notebook: str, file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> NotebookParams:
    """Read a YAML file (flat keys), put the overrides over it and validate.

    Raises ParameterError for a missing file, text that is not a flat YAML mapping, or a bad value.
    """
    values: dict[str, Any] = {}
    if file is not None:
        if not file.exists():
            raise ParameterError(f"{file}: no such params file")
        try:
            read = yaml.safe_load(file.read_text("utf-8")) or {}
        except yaml.YAMLError as error:
            raise ParameterError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
        if not isinstance(read, dict):
            raise ParameterError(f"{file}: should be a flat mapping of parameter to value")
        values.update(read)
    values.update(overrides or {})
    return validate(notebook, values, source=str(file) if file else "parameters")


def _line(source: str, error: Mapping[str, Any], schema: type[NotebookParams]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, schema.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"valid names are {', '.join(schema.model_fields)}"
        return f"{source}: unknown parameter {key!r}; {hint}"
    return f"{source}: {key} = {error['input']!r}: {error['msg']}"
