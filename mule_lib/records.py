"""The unified record of Section 3.2: one question-answer form for every objective, on disk as JSON Lines."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mule_lib.runs import write_text

OBJECTIVES = ("obj1", "obj2", "obj3")
ROLES = ("forget", "retain", "neighbor", "adversarial", "benign")
# Roles that the unlearned model has to refuse; the others it has to answer.
REFUSED = frozenset({"forget", "adversarial"})


class RecordError(ValueError):
    """A record or its file is malformed; the message names file, row and column."""


@dataclass(frozen=True)
class Record:
    """One training example: `anchor` is the id of its contrastive partner (Section 3.3), `source` its origin."""

    id: str
    objective: str
    role: str
    question: str
    answer: str
    refusal: str
    prefix: str | None = None
    anchor: str | None = None
    source: str = ""
    span: tuple[int, int] | None = None
    generator: str = ""
    prompt_id: str = ""
    split: str = "train"

    @property
    def target(self) -> str:
        """What the unlearned model should say: the refusal where the role is refused, else the answer."""
        return self.refusal if self.role in REFUSED else self.answer


def check(records: Sequence[Record], *, where: str = "records") -> None:
    """Raise RecordError for a doubled id, an unknown objective or role, an empty text, a missing anchor partner."""
    ids: dict[str, int] = {}
    for row, record in enumerate(records, 1):
        if record.id in ids:
            raise RecordError(f"{where}: row {row}, column 'id': {record.id!r} is already in row {ids[record.id]}")
        ids[record.id] = row
        for column, allowed in (("objective", OBJECTIVES), ("role", ROLES)):
            value = getattr(record, column)
            if value not in allowed:
                raise RecordError(f"{where}: row {row}, column '{column}': {value!r}; allowed are {', '.join(allowed)}")
        for column in ("question", "answer", "refusal"):
            if not getattr(record, column).strip():
                raise RecordError(f"{where}: row {row}, column '{column}': empty")
    for row, record in enumerate(records, 1):
        if record.anchor is not None and record.anchor not in ids:
            raise RecordError(f"{where}: row {row}, column 'anchor': {record.anchor!r} is no record's id")


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON Lines, whole or not at all."""
    write_text(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records))


def read(path: Path) -> list[Record]:
    """Read and check a JSON Lines file of records; raises RecordError with file, row and column."""
    names = {field.name for field in fields(Record)}
    records = []
    for row, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}: row {row}: not JSON ({error.msg})") from None
        if not isinstance(values, dict) or set(values) - names:
            raise RecordError(
                f"{path}: row {row}: unknown columns {sorted(set(values) - names)}; known are {sorted(names)}"
            )
        if values.get("span"):
            values["span"] = tuple(values["span"])
        try:
            records.append(Record(**values))
        except TypeError as error:
            raise RecordError(f"{path}: row {row}: {str(error).split('__init__() ')[-1]}") from None
    check(records, where=str(path))
    return records
