"""Columns of published data and the checks of their cells; a refusal is one line with file, row and column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecodeError, loads
from typing import Any

from mule_lib.data.files import LETTERS, Row, is_scorable


@dataclass(frozen=True)
class Column:
    """One column: `kind` is text, reference (a text that ROUGE can see), texts (a list of one or more), options (of
    two or more), index (of the list `of`).

    `also` are other names it was published under; a column that is not `required` may be missing or empty.
    """

    name: str
    kind: str = "text"
    of: str = ""
    also: tuple[str, ...] = ()
    required: bool = True


def checked(row: Row, values: Mapping[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """The cells of a row under the names of `columns`, each checked; order and further columns do not matter.

    Raises DataFileError.
    """
    cells: dict[str, Any] = {}
    for column in columns:
        found = next((name for name in (column.name, *column.also) if name in values), None)
        value = values[found] if found is not None else None
        if not column.required and value in (None, ""):
            continue
        if found is None:
            names = " or ".join((column.name, *column.also))
            raise row.error(names, f"missing; the row has {', '.join(map(str, values)) or 'no columns'}")
        if column.kind in ("texts", "options"):
            # Published sets hold a few rows with doubled choices; they are scored as they are.
            value = options(row, found, _listed(value), least=1 if column.kind == "texts" else 2, different=False)
        elif column.kind == "index":
            value = index(row, found, _numbered(value), len(cells[column.of]))
        else:
            value = text(row, found, value)
            if column.kind == "reference":
                reference(row, found, value)
        cells[column.name] = value
    return cells


def text(row: Row, column: str, value: Any) -> str:
    """The value where it is a text that is not empty. Raises DataFileError."""
    if not (isinstance(value, str) and value.strip()):
        raise row.error(column, f"should be a text that is not empty, is {value!r}")
    return value


def reference(row: Row, column: str, value: str) -> str:
    """The text where ROUGE sees something in it. Raises DataFileError."""
    if not is_scorable(value):
        raise row.error(column, f"{value!r} has no letter or digit that ROUGE can see")
    return value


def options(row: Row, column: str, value: Any, *, least: int = 2, different: bool = True) -> tuple[str, ...]:
    """The options of a row: at least two texts, all different, unless said otherwise. Raises DataFileError."""
    if not isinstance(value, list | tuple) or not all(isinstance(o, str) and o.strip() for o in value):
        raise row.error(column, f"should be a list of texts that are not empty, is {value!r}")
    if len(value) < least or (different and len(set(value)) < len(value)):
        wanted = "at least two different options" if least > 1 else "at least one text"
        raise row.error(column, f"should hold {wanted}, is {value!r}")
    return tuple(value)


def index(row: Row, column: str, value: Any, n: int) -> int:
    """The index of one of `n` options, given as a number from 0 or as a letter from A. Raises DataFileError."""
    number = value
    if isinstance(value, str) and len(value.strip()) == 1:
        number = LETTERS.find(value.strip())
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < n:
        raise row.error(column, f"{value!r} is outside the {n} options (0 to {n - 1}, or A to {LETTERS[n - 1]})")
    return number


def _listed(value: Any) -> Any:
    # A CSV cell has no lists; JSON in it is the usual way out.
    if isinstance(value, str):
        try:
            return loads(value)
        except JSONDecodeError:
            return value
    return value


def _numbered(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value
