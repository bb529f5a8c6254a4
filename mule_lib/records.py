"""The unified record of Section 3.2: one question-answer form for every objective, on disk as JSON Lines."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
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


def check(records: Sequence[Record], *, where: str = "records", rows: Sequence[int] | None = None) -> None:
    """Raise RecordError for a wrong type, a doubled id, an unknown objective or role, an empty text, a lost partner.

    A prefix may not end in white space, because the ids of the answer after it would change. `rows` are the records'
    row numbers in the file `where`, 1 and up without them.
    """
    rows = rows or range(1, len(records) + 1)
    ids: dict[str, int] = {}
    for row, record in zip(rows, records, strict=True):
        _check_types(record, f"{where}: row {row}")
        if record.id in ids:
            raise RecordError(f"{where}: row {row}, column 'id': {record.id!r} is already in row {ids[record.id]}")
        ids[record.id] = row
        for column, allowed in (("objective", OBJECTIVES), ("role", ROLES)):
            value = getattr(record, column)
            if value not in allowed:
                raise RecordError(f"{where}: row {row}, column '{column}': {value!r}; allowed are {', '.join(allowed)}")
        for column in ("id", "question", "answer", "refusal"):
            if not getattr(record, column).strip():
                raise RecordError(f"{where}: row {row}, column '{column}': empty")
        if record.prefix is not None and record.prefix != record.prefix.rstrip():
            raise RecordError(f"{where}: row {row}, column 'prefix': {record.prefix!r} ends in white space")
    for row, record in zip(rows, records, strict=True):
        if record.anchor is not None and record.anchor not in ids:
            raise RecordError(f"{where}: row {row}, column 'anchor': {record.anchor!r} is no record's id")


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON Lines, whole or not at all."""
    write_text(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records))


def read(path: Path) -> list[Record]:
    """Read and check a JSON Lines file of records; raises RecordError with file, row and column."""
    names = {field.name for field in fields(Record)}
    needed = [field.name for field in fields(Record) if field.default is MISSING]
    records, rows = [], []
    for row, line in _lines(path):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}: row {row}: not JSON ({error.msg})") from None
        if not isinstance(values, dict):
            raise RecordError(f"{path}: row {row}: should be a JSON object, is {type(values).__name__}")
        if set(values) - names:
            raise RecordError(
                f"{path}: row {row}: unknown columns {sorted(set(values) - names)}; known are {sorted(names)}"
            )
        if isinstance(values.get("span"), list):
            values["span"] = tuple(values["span"])
        for column in needed:
            if column not in values:
                raise RecordError(f"{path}: row {row}, column '{column}': missing; the row has {', '.join(values)}")
        records.append(Record(**values))
        rows.append(row)
    if not records:
        raise RecordError(f"{path}: holds no records")
    check(records, where=str(path), rows=rows)
    return records


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not Path(path).is_file():
        raise RecordError(f"{path}: no such file")
    raw = Path(path).read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        raise RecordError(f"{path}: row {row}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    # Only "\n" ends a line: texts may hold other line separators, which JSON leaves as they are.
    return ((row, line) for row, line in enumerate(text.split("\n"), 1) if line.strip())


def _check_types(record: Record, where: str) -> None:
    for column in fields(Record):
        value = getattr(record, column.name)
        if column.name == "span":
            fits = value is None or (
                isinstance(value, tuple) and [type(end) for end in value] == [int, int] and 0 <= value[0] <= value[1]
            )
            wanted = "null or two characters' places [start, end]"
        else:
            fits = isinstance(value, str) or (value is None and column.default is None)
            wanted = "a text or null" if column.default is None else "a text"
        if not fits:
            raise RecordError(f"{where}, column '{column.name}': should be {wanted}, is {value!r}")
