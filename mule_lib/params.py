"""Parameters of every notebook as frozen pydantic models; YAML in, errors that name the key and what would be right."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mule_lib.collecting_params import RadarParams, TableParams
from mule_lib.notebook_params import ClaimsParams, MeetTheModelParams, NotebookParams
from mule_lib.pilot_params import DataParams, GradientParams
from mule_lib.training_params import TrainingParams


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message names it."""


NOTEBOOK_PARAMS: dict[str, type[NotebookParams]] = {
    "00_meet_the_model": MeetTheModelParams,
    "01_data_standardization": DataParams,
    "02_gradient_cosine": GradientParams,
    "03_training": TrainingParams,
    "04_main_results": TableParams,
    "05_ablation": TableParams,
    "06_wmdp_radar": RadarParams,
    "07_claims": ClaimsParams,
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
        raise ParameterError("; ".join(error_line(source, item, schema) for item in error.errors())) from None


def load(notebook: str, file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> NotebookParams:
    """Read a YAML file (flat keys), put the overrides over it and validate.

    Raises ParameterError for a missing file, text that is not a flat YAML mapping, or a bad value.
    """
    values = {**(read_yaml(file) if file is not None else {}), **(overrides or {})}
    return validate(notebook, values, source=str(file) if file else "parameters")


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of keys and values. Raises ParameterError for a missing file or text that is no such mapping."""
    if not file.exists():
        near = difflib.get_close_matches(file.name, [path.name for path in file.parent.glob("*.yaml")], n=1)
        raise ParameterError(f"{file}: no such params file{f'; did you mean {near[0]}?' if near else ''}")
    try:
        read = yaml.safe_load(file.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(read, dict):
        raise ParameterError(f"{file}: should be a flat mapping of parameter to value")
    return read


def error_line(source: str, error: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """One line for one of pydantic's errors: the key, its value, and what would be right."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), schema.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"valid names are {', '.join(schema.model_fields)}"
        return f"{source}: unknown parameter {key!r}; {hint}"
    return f"{source}: {key} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
