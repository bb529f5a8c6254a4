"""Evaluation sets as JSON Lines, one file a set: read with file, row and column in every refusal, before any model."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from mule_lib.benchmarks.files import iterate
from mule_lib.benchmarks.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem
from mule_lib.benchmarks.schema import DataFileError, Row, index, options, reference, text
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


def read_items(path: str | Path, kind: str) -> list[Item]:
    """Read and check an evaluation file of kind `open`, `choice` or `attack`; columns are the fields of the items.

    Refused with one line naming file, row and column: no rows, a row that is no JSON object, a missing or unknown
    column, a wrong type, an empty text, a reference that ROUGE cannot see, fewer than two options or doubled ones, an
    index outside the options, a refusal that is the answer, a duplicate id. Raises `DataFileError`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, should be one of {', '.join(KINDS)}")
    items, first_row = [], {}
    for row, values in iterate(path):
        item = checked_item(row, values, kind)
        if item.id in first_row:
            raise row.error("id", f"{item.id!r} is already in row {first_row[item.id]}")
        first_row[item.id] = row.number
        items.append(item)
    if not items:
        raise DataFileError(f"{path}: holds no rows")
    return items


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as JSON Lines, whole or not at all."""
    write_jsonl(path, map(asdict, items))


def read_sets(folder: str | Path) -> EvaluationSets:
    """Read all sets of a benchmark from a folder that `write_sets` filled.

    Raises `DataFileError` for a missing or bad file, naming it.
    """
    folder = Path(folder)
    header = folder / HEADER
    if not header.is_file():
        raise DataFileError(f"{header}: missing; it names the benchmark and the topic that is to be forgotten")
    try:
        named = json.loads(header.read_text("utf-8"))
        benchmark, topic = named["benchmark"], named["topic"]
    except (ValueError, KeyError, TypeError):
        raise DataFileError(f'{header}: should be {{"benchmark": "...", "topic": "..."}}') from None
    files = {name: folder / f"{name}.jsonl" for name in SETS}
    missing = [file.name for name, file in files.items() if not file.exists() and name not in OPTIONAL]
    if missing:
        raise DataFileError(f"{folder}: lacks {', '.join(missing)}")
    sets = {name: tuple(read_items(file, SETS[name])) for name, file in files.items() if file.exists()}
    return EvaluationSets(benchmark=benchmark, topic=topic, **sets)


def write_sets(folder: str | Path, sets: EvaluationSets) -> None:
    """Write the sets of a benchmark to `<folder>/<set>.jsonl` (no empty ones), its name and topic to `sets.json`."""
    folder = Path(folder)
    for name in SETS:
        if items := getattr(sets, name):
            write_items(folder / f"{name}.jsonl", items)
    write_json(folder / HEADER, {"benchmark": sets.benchmark, "topic": sets.topic})


def checked_item(row: Row, values: Mapping[str, Any], kind: str) -> Item:
    """One item from the columns of a row, after every check of its kind. Raises `DataFileError`."""
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
    if "reference" in names:
        reference(row, "reference", values["reference"])
    if kind == "attack" and values["prefix"] != values["prefix"].rstrip():
        raise row.error("prefix", f"{values['prefix']!r} ends in white space, which would be a token of its own")
    made = {"subject": "", **values}
    if kind == "choice":
        made["options"] = options(row, "options", values["options"])
        made["answer"] = index(row, "answer", values["answer"], len(made["options"]))
        if values.get("refusal") is not None:
            made["refusal"] = index(row, "refusal", values["refusal"], len(made["options"]))
            if made["refusal"] == made["answer"]:
                raise row.error("refusal", f"{values['refusal']} is the answer")
    return KINDS[kind](**made)


def _optional(row: Row, values: Mapping, column: str, fits: Callable[[Any], bool], wanted: str) -> None:
    if column in values and not fits(values[column]):
        raise row.error(column, f"should be {wanted}, is {values[column]!r}")
