"""MMLU (Hendrycks 2021) in the columns of cais/mmlu, or as the original CSV files without a header."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mule_lib.benchmarks.hub import HubData
from mule_lib.benchmarks.raw import table
from mule_lib.benchmarks.schema import Column, checked
from mule_lib.data import files
from mule_lib.data.files import DataFileError
from mule_lib.data.items import ChoiceItem

HUB = HubData("cais/mmlu", "c30699e8356da336a370243923dbaf21066bb9fe")
LICENCE = "MIT"
COLUMNS = (
    Column("question"),
    Column("choices", "options"),
    Column("answer", "index", of="choices"),
    Column("subject", required=False),  # cards before 2024 had none
)
ORIGINAL = ("question", "A", "B", "C", "D", "answer")
SPLITS = {"test": ("test",), "validation": ("validation", "val"), "dev": ("dev",)}


def questions(
    source: str | Path = "",
    *,
    split: str = "test",
    subjects: Sequence[str] = (),
    revision: str | None = None,
) -> tuple[ChoiceItem, ...]:
    """Questions of one split, of some subjects or all, from the Hub (`source` ""), a folder or a file.

    A folder may be cais/mmlu's or the original `<split>/<subject>_<split>.csv`, where answers are letters.
    Raises ValueError for an unknown split, DataFileError (row, column; a subject without questions) or
    DataAccessError.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: MMLU has {', '.join(SPLITS)}")
    original = _original(Path(source), split) if source else []
    if original:
        items = [item for file in original for item in _original_rows(file)]
    else:
        rows = table(source, HUB, COLUMNS, config="all", splits=SPLITS[split], revision=revision)
        items = [
            ChoiceItem(
                f"mmlu/{split}/{n}", v["question"], v["choices"], v["answer"], v.get("subject", ""), None, "obj1"
            )
            for n, (_, v) in enumerate(rows, 1)
        ]
    lacking = sorted(set(subjects) - {item.subject for item in items})
    if lacking:
        raise DataFileError(f"{source or HUB.repo}: has no questions of {', '.join(lacking)}")
    return tuple(item for item in items if not subjects or item.subject in subjects)


def four_choice_row(item: ChoiceItem) -> dict:
    """An item in the published columns, which `evaluate.four_choice_scores` takes."""
    return {
        "question": item.question,
        "subject": item.subject,
        "choices": list(item.options),
        "answer": item.answer,
    }


def _original(source: Path, split: str) -> list[Path]:
    """The CSV files of hendrycks/test below a folder, or the one that `source` is; none for another layout."""
    if source.is_file():
        return [source] if source.suffix == ".csv" else []
    short = SPLITS[split][-1]
    place = next((p for p in (source / short, source / "data" / short, source) if p.is_dir()), None)
    return sorted(place.glob(f"*_{short}.csv")) if place else []


def _original_rows(file: Path) -> list[ChoiceItem]:
    subject = re.sub("_(test|val|dev)$", "", file.stem)
    items = []
    for row, values in files.iterate(file, header=ORIGINAL):
        if "choices" not in values:
            lacking = [letter for letter in "ABCD" if letter not in values]
            if lacking:
                raise row.error(lacking[0], f"missing; the row has {', '.join(values)}")
            values = {**values, "choices": [values[letter] for letter in "ABCD"]}
        cells = checked(row, values, COLUMNS)
        name = cells.get("subject", subject)
        items.append(
            ChoiceItem(f"{file.stem}/{row.number}", cells["question"], cells["choices"], cells["answer"], name)
        )
    return [replace(item, objective="obj1") for item in items]
