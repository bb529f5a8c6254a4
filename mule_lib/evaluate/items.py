"""Evaluation files (JSON Lines), refused with file, row and column before any model is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mule_lib.evaluate.rouge import is_scorable


class EvaluationFileError(ValueError):
    """A bad evaluation file; the message is one line with the file, the row (from 1) and the column."""


@dataclass(frozen=True)
class EvaluationItem:
    """One item; open questions have a reference, choices have options and indices, the rest of the row is `extra`."""

    id: str
    question: str
    reference: str | None = None
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    refusal_index: int | None = None
    subject: str | None = None
    extra: Mapping = field(default_factory=dict)

    def mmlu_row(self) -> dict:
        """Return a choice item in the columns of cais/mmlu, which `four_choice_scores` takes."""
        return {
            "question": self.question,
            "subject": self.subject,
            "choices": list(self.options),
            "answer": self.answer_index,
        }


REQUIRED = {
    "open": ("id", "question", "reference"),
    "choice": ("id", "question", "options", "answer_index"),
    # cais/mmlu and cais/wmdp have no ids; the row number serves.
    "mmlu": ("question", "choices", "answer"),
}
_NAMES = {"choices": "options", "answer": "answer_index"}
_FIELDS = ("id", "question", "reference", "options", "answer_index", "refusal_index", "subject")


def load_evaluation_items(path: str | Path, kind: str) -> list[EvaluationItem]:
    """Read and check an evaluation file of kind `open`, `choice` or `mmlu` (columns of cais/mmlu and cais/wmdp).

    Refused with one line naming file, row and column: no rows, a row that is no JSON object, a missing column, a
    wrong type, an empty text, a reference that ROUGE cannot see, fewer than two options, doubled ones (`choice`), an
    index outside the options, a refusal that is the answer, a duplicate id. Raises `EvaluationFileError`.
    """
    if kind not in REQUIRED:
        raise ValueError(f"kind is {kind!r}, should be one of {', '.join(REQUIRED)}")
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationFileError(f"{path}: cannot be read ({error})") from error
    items, first_row = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        item = _item(_Row(path, number), line, kind)
        if item.id in first_row:
            raise _Row(path, number).error("id", f"{item.id!r} is already in row {first_row[item.id]}")
        first_row[item.id] = number
        items.append(item)
    if not items:
        raise EvaluationFileError(f"{path}: holds no rows")
    return items


@dataclass(frozen=True)
class _Row:
    path: Path
    number: int

    def error(self, column: str, message: str) -> EvaluationFileError:
        return EvaluationFileError(f"{self.path}: row {self.number}, column '{column}': {message}")


def _item(row: _Row, line: str, kind: str) -> EvaluationItem:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise EvaluationFileError(f"{row.path}: row {row.number}: not JSON ({error.msg})") from error
    if not isinstance(values, dict):
        raise EvaluationFileError(f"{row.path}: row {row.number}: should be a JSON object, is {type(values).__name__}")
    for column in REQUIRED[kind]:
        if column not in values:
            raise row.error(column, f"missing; the row has {', '.join(values) or 'no columns'}")
    for column in ("id", "question", "reference"):
        if column in values and not (isinstance(values[column], str) and values[column].strip()):
            raise row.error(column, f"should be a text that is not empty, is {values[column]!r}")
    if kind == "open" and not is_scorable(values["reference"]):
        raise row.error("reference", f"{values['reference']!r} has no letter or digit that ROUGE can see")
    names = _NAMES if kind == "mmlu" else {}
    if kind == "choice":
        _check_options(row, values, "options", "answer_index")
    if kind == "mmlu":
        # The published sets hold a few rows with doubled choices; they are scored as they are.
        _check_options(row, values, "choices", "answer", different=False)
    known = {names.get(column, column): value for column, value in values.items()}
    fields = {name: known[name] for name in _FIELDS if name in known}
    if "options" in fields:
        fields["options"] = tuple(fields["options"])
    return EvaluationItem(
        **{"id": str(row.number), **fields}, extra={k: v for k, v in known.items() if k not in _FIELDS}
    )


def _check_options(row: _Row, values: dict, options_column: str, answer_column: str, *, different: bool = True) -> None:
    options = values[options_column]
    if not isinstance(options, list) or not all(isinstance(o, str) and o.strip() for o in options):
        raise row.error(options_column, f"should be a list of texts that are not empty, is {options!r}")
    if len(options) < 2 or (different and len(set(options)) < len(options)):
        raise row.error(options_column, f"should hold at least two different options, is {options!r}")
    for column in (answer_column, "refusal_index"):
        index = values.get(column)
        if column == "refusal_index" and index is None:
            continue
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(options):
            raise row.error(column, f"{index!r} is outside the {len(options)} options (0 to {len(options) - 1})")
    if values.get("refusal_index") == values[answer_column]:
        raise row.error("refusal_index", f"{values['refusal_index']} is the answer")
