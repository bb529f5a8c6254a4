"""Checked values, and errors in one line that name key and remedy: the base of every schema, and YAML in."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

# Keys as OpenAI and Hugging Face hand them out.
KEY = re.compile(r"\b(sk-[\w-]{20,}|hf_[A-Za-z0-9]{20,})")


class OneLineError(Exception):
    """An error whose one line says it all, also below a cell in Jupyter."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class ParameterError(OneLineError, ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message names it and what would be right."""


def nearest(name: str, known: Collection[str]) -> str:
    """The hint that an error about an unknown name ends with."""
    near = difflib.get_close_matches(str(name), map(str, known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(str, known)) or 'none'}"


class Checked(BaseModel):
    """A frozen model whose constructor raises ParameterError in one line: unknown key, wrong type, out of range."""

    # Strict: true is no number, and "3" neither.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, strict=True)

    def __init__(self, /, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParameterError("; ".join(_line(item, type(self)) for item in error.errors())) from None
        for name, problem in self.problems():
            raise ParameterError(f"{name} = {getattr(self, name)!r}: {problem}")

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between values that are right one by one: a parameter's name, and what would be right."""
        yield from ()


def _line(error: Mapping[str, Any], schema: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown parameter {key!r}; {nearest(key, schema.model_fields)}"
    problem = error["msg"].removeprefix("Value error, ")
    if error["type"] == "literal_error":
        problem = nearest(error["input"], re.findall("'(.+?)'", error["ctx"]["expected"]))
    return f"{key} = {repr(error['input'])[:120]}: {problem}"


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of keys and values. Raises ParameterError for a missing file, a doubled key or no such mapping."""
    if not file.exists():
        there = [path.name for path in file.parent.glob("*.yaml")]
        raise ParameterError(f"{file}: no such params file; {nearest(file.name, there)}")
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{file}: cannot be read as text ({error})") from None
    read = yaml_value(text, source=str(file))
    if not isinstance(read, dict) or not all(isinstance(key, str) for key in read):
        raise ParameterError(f"{file}: should be a flat mapping of parameter to value")
    return read


def yaml_value(text: str, *, source: str) -> Any:
    """A YAML text as a value; "" stays a text. Raises ParameterError, which starts with `source`, for a bad one."""
    if KEY.search(text):
        raise ParameterError(f"{source}: holds what looks like a key; keys are read from the environment alone")
    try:
        return yaml.load(text, Loader=_Loader) if text else ""
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParameterError(f"{source}: not valid YAML ({' '.join(str(error).split())})") from None


class _Loader(yaml.SafeLoader):
    """YAML without its traps: the first of two equal keys is lost, a text is put in place of 1e-4, aliases explode."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1}: aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if doubled := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise yaml.YAMLError(f"the key {doubled[0]!r} stands twice, from line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
