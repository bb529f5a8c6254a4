"""Evaluation sets as JSON Lines, one file a set: read with file, row and column in every refusal, before any model."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mule_lib.benchmarks.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem, is_scorable
from mule_lib.runs import write_json, write_jsonl

Item = OpenItem | ChoiceItem | AttackItem
KINDS: dict[str, type] = {"open": OpenItem, "choice": ChoiceItem, "attack": AttackItem}
# The sets of Section 5.1 and what their items are.
SETS = {
    "forget": "open", "general": "open", "neighbor": "choice", "attack": "attack", "mmlu": "choice",
    "controls": "attack",
}  # fmt: skip
OPTIONAL = ("controls",)
HEADER = "sets.json"
_OBJECTIVES = ("obj1", "obj2", "obj3")


class EvaluationFileError(ValueError):
    """A bad evaluation file; the message is one line with the file, the row (from 1) and the column."""


def read_items(path: str | Path, kind: str) -> list[Item]:
    """Read and check an evaluation file of kind `open`, `choice` or `attack`; columns are the fields of the items.

    Refused with one line naming file, row and column: no rows, a row that is no JSON object, a missing or unknown
    column, a wrong type, an empty text, a reference that ROUGE cannot see, fewer than two options or doubled ones, an
    index outside the options, a refusal that is the answer, a duplicate id. Raises `EvaluationFileError`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, should be one of {', '.join(KINDS)}")
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        row = path.read_bytes()[: error.start].count(b"\n") + 1
        raise EvaluationFileError(f"{path}: row {row}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except OSError as error:
        raise EvaluationFileError(f"{path}: cannot be read ({error.strerror})") from None
    items, first_row = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = Row(str(path), number)
        item = checked_item(row, _parsed(row, line), kind)
        if item.id in first_row:
            raise row.error("id", f"{item.id!r} is already in row {first_row[item.id]}")
        first_row[item.id] = number
        items.append(item)
    if not items:
        raise EvaluationFileError(f"{path}: holds no rows")
    return items


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as JSON Lines, whole or not at all."""
    write_jsonl(path, map(asdict, items))


def read_sets(folder: str | Path) -> EvaluationSets:
    """Read all sets of a benchmark from a folder that `write_sets` filled.

    Raises `EvaluationFileError` for a missing or bad file, naming it.
    """
    folder = Path(folder)
    header = folder / HEADER
    if not header.is_file():
        raise EvaluationFileError(f"{header}: missing; it names the benchmark and the topic that is to be forgotten")
    try:
        named = json.loads(header.read_text("utf-8"))
        benchmark, topic = named["benchmark"], named["topic"]
    except (ValueError, KeyError, TypeError):
        raise EvaluationFileError(f'{header}: should be {{"benchmark": "...", "topic": "..."}}') from None
    files = {name: folder / f"{name}.jsonl" for name in SETS}
    missing = [file.name for name, file in files.items() if not file.exists() and name not in OPTIONAL]
    if missing:
        raise EvaluationFileError(f"{folder}: lacks {', '.join(missing)}")
    sets = {name: tuple(read_items(file, SETS[name])) for name, file in files.items() if file.exists()}
    return EvaluationSets(benchmark=benchmark, topic=topic, **sets)


def write_sets(folder: str | Path, sets: EvaluationSets) -> None:
    """Write every set of a benchmark to `<folder>/<set>.jsonl`, its name and topic to `sets.json`; empty ones are left
    out."""
    folder = Path(folder)
    for name in SETS:
        if items := getattr(sets, name):
            write_items(folder / f"{name}.jsonl", items)
    write_json(folder / HEADER, {"benchmark": sets.benchmark, "topic": sets.topic})


@dataclass(frozen=True)
class Row:
    """Where a row stands: its file (or dataset) and its number, from 1."""

    where: str
    number: int

    def error(self, column: str, message: str) -> EvaluationFileError:
        """A refusal of one cell."""
        return EvaluationFileError(f"{self.where}: row {self.number}, column '{column}': {message}")


def checked_item(row: Row, values: Mapping[str, Any], kind: str) -> Item:
    """One item from the columns of a row, after every check of its kind. Raises `EvaluationFileError`."""
    names = {field.name: field for field in fields(KINDS[kind])}
    for column, field in names.items():
        if field.default is MISSING and column != "subject" and column not in values:
            raise row.error(column, f"missing; the row has {', '.join(values) or 'no columns'}")
    for column in values:
        if column not in names:
            raise row.error(column, f"unknown; the columns of this file are {', '.join(names)}")
    for column in ("id", "question", "reference", "prefix", "family"):
        if column in names:
            text(row, column, values[column])
    _optional(row, values, "subject", lambda value: isinstance(value, str), "a text")
    _optional(row, values, "control", lambda value: isinstance(value, bool), "true or false")
    _optional(row, values, "objective", lambda value: value in _OBJECTIVES, " or ".join(_OBJECTIVES))
    if "reference" in names and not is_scorable(values["reference"]):
        raise row.error("reference", f"{values['reference']!r} has no letter or digit that ROUGE can see")
    if kind == "attack" and values["prefix"] != values["prefix"].rstrip():
        raise row.error("prefix", f"{values['prefix']!r} ends in white space, which would be a token of its own")
    made = {"subject": "", **values}
    if kind == "choice":
        made["options"] = options(row, values, "options")
        index(row, values["answer"], "answer", len(made["options"]))
        if values.get("refusal") is not None:
            index(row, values["refusal"], "refusal", len(made["options"]))
            if values["refusal"] == values["answer"]:
                raise row.error("refusal", f"{values['refusal']} is the answer")
    return KINDS[kind](**made)


def text(row: Row, column: str, value: Any) -> str:
    """The value where it is a text that is not empty. Raises `EvaluationFileError`."""
    if not (isinstance(value, str) and value.strip()):
        raise row.error(column, f"should be a text that is not empty, is {value!r}")
    return value


def options(row: Row, values: Mapping[str, Any], column: str, *, different: bool = True) -> tuple[str, ...]:
    """The options of a row: at least two texts, all different unless said otherwise. Raises `EvaluationFileError`."""
    found = values[column]
    if not isinstance(found, list | tuple) or not all(isinstance(o, str) and o.strip() for o in found):
        raise row.error(column, f"should be a list of texts that are not empty, is {found!r}")
    if len(found) < 2 or (different and len(set(found)) < len(found)):
        raise row.error(column, f"should hold at least two different options, is {found!r}")
    return tuple(found)


def index(row: Row, value: Any, column: str, n: int) -> int:
    """The value where it is an index of one of `n` options. Raises `EvaluationFileError`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < n:
        raise row.error(column, f"{value!r} is outside the {n} options (0 to {n - 1})")
    return value


def _optional(row: Row, values: Mapping, column: str, fits: Callable[[Any], bool], wanted: str) -> None:
    if column in values and not fits(values[column]):
        raise row.error(column, f"should be {wanted}, is {values[column]!r}")


def _parsed(row: Row, line: str) -> dict:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise EvaluationFileError(f"{row.where}: row {row.number}: not JSON ({error.msg})") from None
    if not isinstance(values, dict):
        raise EvaluationFileError(f"{row.where}: row {row.number}: should be a JSON object, is {type(values).__name__}")
    return values
