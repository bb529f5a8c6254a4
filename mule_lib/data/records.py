"""The unified record of Section 3.2: one question-answer form for every objective, on disk as JSON Lines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from mule_lib.data import files
from mule_lib.data.files import (
    STRICT,
    AnyText,
    DataFileError,
    Flag,
    PrefixOrNone,
    Row,
    Span,
    Text,
    TextOrNone,
    member_of,
)


class Objective(StrEnum):
    """The three objectives: forget concepts, tell neighbours apart, withstand prefilled answers."""

    OBJ1 = "obj1"
    OBJ2 = "obj2"
    OBJ3 = "obj3"


class Role(StrEnum):
    """What a record does for its objective."""

    FORGET = "forget"
    RETAIN = "retain"
    NEIGHBOR = "neighbor"
    ADVERSARIAL = "adversarial"
    BENIGN = "benign"


# Roles that the unlearned model has to refuse; the others it has to answer.
REFUSED = frozenset({Role.FORGET, Role.ADVERSARIAL})


class Group(NamedTuple):
    """The records of one objective and role; its text, "obj1/forget", stands in seeds and files."""

    objective: Objective
    role: Role

    def __str__(self) -> str:
        return f"{self.objective}/{self.role}"


@dataclass(frozen=True)
class Record:
    """One training example: `anchor` is the id of its contrastive partner (Section 3.3), `source` its origin.

    The answer of a `verbatim` record is a passage of the source itself, every token of which is trained on (3.1).
    """

    __pydantic_config__ = STRICT

    id: Text
    objective: Annotated[str, member_of(Objective)]
    role: Annotated[str, member_of(Role)]
    question: Text
    answer: Text
    refusal: Text
    prefix: PrefixOrNone = None
    anchor: TextOrNone = None
    source: AnyText = ""
    span: Span = None
    generator: AnyText = ""
    prompt_id: AnyText = ""
    split: AnyText = "train"
    verbatim: Flag = False

    @property
    def group(self) -> Group:
        """Objective and role."""
        return Group(Objective(self.objective), Role(self.role))

    @property
    def target(self) -> str:
        """What the unlearned model should say: the refusal where the role is refused, else the answer."""
        return self.refusal if self.role in REFUSED else self.answer


def anchored(
    objective: str, roles: tuple[str, str], sides: Sequence[Mapping[str, Any]], *, number: str, **shared: Any
) -> list[Record]:
    """A record to refuse and one to answer, each the other's anchor; `sides` are their columns, `shared` both's."""
    ids = [f"{objective}/{role}/{number}" for role in roles]
    return [
        Record(id=name, objective=objective, role=role, anchor=partner, **side, **shared)
        for name, partner, role, side in zip(ids, reversed(ids), roles, sides, strict=True)
    ]


def check(records: Sequence[Record], *, where: str = "records", rows: Sequence[Row] | None = None) -> None:
    """Raise DataFileError for a wrong type, a doubled id, an unknown objective or role, an empty text, a lost partner.

    `rows` are the records' places in their file, `where` with numbers from 1 without them.
    """
    rows = rows or [Row(where, number) for number in range(1, len(records) + 1)]
    placed = list(zip(rows, records, strict=True))
    for row, record in placed:
        files.typed(row, vars(record), Record)
    files.unique("id", ((row, record.id) for row, record in placed))
    ids = {None, *(record.id for record in records)}
    for row, record in placed:
        if record.anchor not in ids or record.anchor == record.id:
            raise row.error("anchor", f"{record.anchor!r} is no other record's id")


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSON Lines, whole or not at all."""
    files.write_jsonl(path, map(asdict, records))


def read_records(path: str | Path) -> list[Record]:
    """Read and check a JSON Lines file of records; raises DataFileError with file, row and column."""
    placed = [(row, files.typed(row, values, Record)) for row, values in files.iterate(path)]
    if not placed:
        raise DataFileError(f"{path}: holds no records")
    records = [record for _, record in placed]
    check(records, rows=[row for row, _ in placed])
    return records
