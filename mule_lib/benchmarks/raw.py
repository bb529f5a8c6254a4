"""Raw corpora in one shape, and the one way to rows of published data: a local file, a folder, or the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mule_lib.benchmarks import hub
from mule_lib.benchmarks.hub import HubData
from mule_lib.benchmarks.schema import Column, checked
from mule_lib.data import files
from mule_lib.data.files import DataFileError, Row


@dataclass(frozen=True)
class RawText:
    """A document to standardize: `role` is forget or retain, `source` says where it came from (file or commit, row)."""

    id: str
    text: str
    source: str
    title: str = ""
    role: str = ""


def table(
    source: str | Path,
    data: HubData,
    columns: Sequence[Column],
    *,
    config: str,
    splits: Sequence[str],
    revision: str | None = None,
    header: Sequence[str] = (),
) -> list[tuple[Row, dict[str, Any]]]:
    """Checked rows of one split: of a file, of a folder (flat or in the Hub's layout), or of the Hub for `source` "".

    Raises DataFileError (file, row, column) or DataAccessError (page and command).
    """
    if source == "":
        pinned = replace(data, revision=revision) if revision else data
        found = list(hub.rows(pinned, config, splits))
    else:
        path = Path(source)
        if not path.exists():
            raise DataFileError(f"{path}: no such file or folder; to get it: {data.command}")
        parts = [path] if path.is_file() else files.find(path, splits, config=config)
        found = [row for part in parts for row in files.iterate(part, header=header)]
    if not found:
        raise DataFileError(f"{source or data.repo}: {config}/{splits[0]} holds no rows")
    return [(row, checked(row, values, columns)) for row, values in found]


def unique(rows: Sequence[tuple[Row, dict[str, Any]]], column: str) -> None:
    """Raise DataFileError where two rows share the value of an id column."""
    first: dict[str, Row] = {}
    for row, values in rows:
        value = values[column]
        if value in first:
            raise row.error(column, f"{value!r} is already in row {first[value].number}")
        first[value] = row
