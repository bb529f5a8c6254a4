"""Parameters of every notebook as frozen pydantic models; YAML in, errors that name the key and what would be right."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mule_lib.notebook_params import MeetTheModelParams, NotebookParams
from mule_lib.training_params import TrainingParams


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message names it."""


NOTEBOOK_PARAMS: dict[str, type[NotebookParams]] = {
    "00_meet_the_model": MeetTheModelParams,
    "03_training": TrainingParams,
}


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
    return f"{source}: {key} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
