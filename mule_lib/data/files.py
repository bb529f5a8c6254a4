"""Files of data: written whole or not at all, hashed, found, and read with file, row and column in every refusal."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError, ValidationInfo

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".txt")
LETTERS = "ABCDEFGHIJ"
# Shards as the Hub names them: retain-00001-of-00004.parquet, at times with a hash at the end.
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]+)?$")


class DataFileError(ValueError):
    """Bad data; the message is one line with the file, the row (from 1), the column, and what would be right."""


@dataclass(frozen=True)
class Row:
    """Where a row stands: its file (or dataset) and its number, from 1."""

    where: str
    number: int

    def error(self, column: str, message: str) -> DataFileError:
        """A refusal of one cell."""
        return DataFileError(f"{self.where}: row {self.number}, column '{column}': {message}")


Rows = Iterator[tuple[Row, dict[str, Any]]]


# Writing and hashing


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in their given order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; raises DataFileError with the row that is none."""
    return [values for _, values in iterate(path)]


def file_hash(file: Path) -> str:
    """Sixteen hex digits of a file's content."""
    status = file.stat()
    return _file_hash(file, status.st_mtime_ns, status.st_size)


def folder_hashes(start: str | Path, *, only: Sequence[str] = ("*",)) -> dict[str, str]:
    """Hash of every file of a folder that matches one of `only`, by its name there, or of one file; {} for "".

    Hidden files do not count. Raises FileNotFoundError where there is nothing.
    """
    if not start:
        return {}
    start = Path(start)
    if not start.exists():
        raise FileNotFoundError(f"{start}: no such file or folder")
    files = sorted(file for file in start.rglob("*") if file.is_file()) if start.is_dir() else [start]
    names = {file: file.relative_to(start).as_posix() if start.is_dir() else file.name for file in files}
    return {
        name: file_hash(file)
        for file, name in names.items()
        if any(fnmatch(name, pattern) for pattern in only) and not any(part.startswith(".") for part in name.split("/"))
    }


@cache
def _file_hash(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


# Finding and reading


def find(folder: str | Path, splits: Sequence[str], *, config: str = "") -> list[Path]:
    """The files of the first of `splits` that a folder has, shards in order; the names of a split changed over time.

    Looked for in `<folder>/<config>` and `<folder>`, as `<split>.<suffix>`, `<split>-00000-of-00001.<suffix>` or a
    folder `<split>`. Raises DataFileError naming what is missing and what is there.
    """
    folder = Path(folder)
    places = [place for place in (folder / config, folder / "data", folder) if place.is_dir()]
    for split in splits:
        for place in dict.fromkeys(places):
            within = place / split
            files = data_files(within) if within.is_dir() else [f for f in data_files(place) if _stem(f) == split]
            if files:
                return _whole(files)
    there = sorted({_stem(file) for place in places for file in data_files(place)})
    wanted = " or ".join(f"{config}/{split}" if config else split for split in splits)
    raise DataFileError(f"{folder}: has no {wanted} ({', '.join(SUFFIXES)}); it has {', '.join(there) or 'no data'}")


def data_files(folder: Path) -> list[Path]:
    """The data files directly in a folder, sorted."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())


def iterate(path: str | Path) -> Rows:
    """Each row of a parquet, JSON, JSON Lines or CSV file with its place; a text file is one row.

    Raises DataFileError with the row that cannot be read: no such file, another format than its name says, a
    truncated parquet file, a line that is not JSON, a CSV row of another length, text that is not UTF-8.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataFileError(f"{path}: of an unknown kind; data files end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataFileError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataFileError(f"{path}: empty")
    with path.open("rb") as stream:
        if stream.read(40).startswith(b"version https://git-lfs.github.com"):
            raise DataFileError(f"{path}: a Git LFS pointer, not the data; run `git lfs pull` in its folder")
    if suffix == ".parquet":
        rows = _parquet(path)
    elif suffix == ".csv":
        rows = enumerate(_csv(path), 1)
    elif suffix == ".txt":
        rows = iter([(1, {"text": _decoded(path)})])
    else:
        rows = _json(path)
    return ((Row(str(path), number), values) for number, values in rows)


def _stem(file: Path) -> str:
    return _SHARD.sub("", file.stem)


def _whole(files: list[Path]) -> list[Path]:
    shards = [_SHARD.search(file.stem) for file in files]
    if all(shards):
        missing = sorted(set(range(int(shards[0][2]))) - {int(shard[1]) for shard in shards})
        if missing:
            folder, count = files[0].parent, int(shards[0][2])
            raise DataFileError(f"{folder}: shard {missing[0]} of {count} of {_stem(files[0])} is missing")
    elif len({file.suffix for file in files}) > 1:
        raise DataFileError(f"{files[0].parent}: {' and '.join(f.name for f in files)} are the same split; keep one")
    return files


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataFileError(f"{path}: row {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    whole = _decoded(path)
    # TOFU's JSON Lines are called .json. Only "\n" ends a line: published texts hold other line separators.
    listed = path.suffix.lower() == ".json" and whole.lstrip().startswith("[")
    lines = [(0, whole)] if listed else [(n, line) for n, line in enumerate(whole.split("\n"), 1) if line.strip()]
    for number, line in lines:
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}" if listed else f"row {number}"
            raise DataFileError(f"{path}: {where}: not JSON ({error.msg})") from None
        for n, row in enumerate(value, 1) if listed else [(number, value)]:
            if not isinstance(row, dict):
                raise DataFileError(f"{path}: row {n}: should be a JSON object, is {type(row).__name__}")
            yield n, row


def _csv(path: Path) -> list[dict[str, Any]]:
    import pandas as pd

    _decoded(path)  # pandas names no row when the encoding is another
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataFileError(f"{path}: not a CSV table ({' '.join(str(error).split())})") from None
    return table.to_dict("records")


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield number, values
    except (pyarrow.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:120]
        raise DataFileError(f"{path}: not a whole parquet file ({why}); download it again") from None


# The types of cells: pydantic checks them, `typed` says what is wrong in one line.


STRICT = ConfigDict(extra="forbid")


def _cell(wanted: str, fits: Callable[[Any], Any]) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not fits(value):
            raise ValueError(f"should be {wanted}, is {value!r}")
        return value

    return BeforeValidator(check)


def is_scorable(reference: str) -> bool:
    """Tell whether ROUGE can see anything in a reference; where not, every answer would count as forgotten."""
    return re.search("[a-z0-9]", reference.lower()) is not None


def member_of(names: Iterable[str]) -> BeforeValidator:
    """The check of a cell that holds one of some names."""
    allowed = tuple(map(str, names))
    return _cell(" or ".join(allowed), lambda value: value in allowed)


def _reference(value: str) -> str:
    if not is_scorable(value):
        raise ValueError(f"{value!r} has no letter or digit that ROUGE can see")
    return value


def _prefix(value: str | None) -> str | None:
    if value is not None and value != value.rstrip():
        raise ValueError(f"{value!r} ends in white space, which would be a token of its own")
    return value


def _texts(least: int, *, different: bool = False) -> BeforeValidator:
    def check(value: Any) -> Sequence[str]:
        if isinstance(value, str):  # a CSV cell has no lists; JSON in it is the usual way out
            with suppress(json.JSONDecodeError):
                value = json.loads(value)
        if not isinstance(value, list | tuple) or not all(map(_is_text, value)):
            raise ValueError(f"should be a list of texts that are not empty, is {value!r}")
        if len(value) < least or (different and len(set(value)) < len(value)):
            wanted = "at least two different options" if least > 1 else "at least one text"
            raise ValueError(f"should hold {wanted}, is {value!r}")
        return value

    return BeforeValidator(check)


def _index(value: Any, info: ValidationInfo) -> int:
    options = info.data.get("options") or info.data.get("choices") or ()
    number: Any = value
    if isinstance(value, str):
        number = int(value) if value.strip().isdecimal() else LETTERS.find(value.strip() or "?")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(options):
        last = len(options) - 1
        raise ValueError(f"{value!r} is outside the {last + 1} options (0 to {last}, or A to {LETTERS[last]})")
    return number


def _span(value: Any) -> Any:
    if value is None:
        return value
    fits = isinstance(value, list | tuple) and [type(end) for end in value] == [int, int]
    if not fits or not 0 <= value[0] <= value[1]:
        raise ValueError(f"should be null or two characters' places [start, end], is {value!r}")
    return tuple(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


Text = Annotated[str, _cell("a text that is not empty", _is_text)]
AnyText = Annotated[str, _cell("a text", lambda value: isinstance(value, str))]
TextOrNone = Annotated[str | None, _cell("a text or null", lambda value: isinstance(value, str | None))]
Flag = Annotated[bool, _cell("true or false", lambda value: isinstance(value, bool))]
Reference = Annotated[Text, AfterValidator(_reference)]
Prefix = Annotated[Text, AfterValidator(_prefix)]
PrefixOrNone = Annotated[TextOrNone, AfterValidator(_prefix)]
Span = Annotated[tuple[int, int] | None, BeforeValidator(_span)]
# Published sets hold a few rows with doubled choices; they are scored as they are.
Texts = Annotated[tuple[str, ...], _texts(1)]
Choices = Annotated[tuple[str, ...], _texts(2)]
Options = Annotated[tuple[str, ...], _texts(2, different=True)]
# The index of one of the `options` or `choices` before it: a number from 0, its digits, or a letter from A.
Index = Annotated[int, BeforeValidator(_index)]
IndexOrNone = Annotated[int | None, BeforeValidator(lambda v, info: None if v is None else _index(v, info))]


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def typed(row: Row, values: Mapping[str, Any], kind: type) -> Any:
    """The cells of a row as `kind` (a dataclass or a TypedDict), each checked.

    Raises DataFileError for the first column that is missing, unknown or of another form.
    """
    try:
        return _adapter(kind).validate_python(dict(values))
    except ValidationError as error:
        problems = error.errors()
    problem = next((p for p in problems if p["type"] == "missing"), problems[0])
    column = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "missing":
        raise row.error(column, f"missing; the row has {', '.join(map(str, values)) or 'no columns'}")
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        raise row.error(column, f"unknown; the columns of this file are {', '.join(kind.__annotations__)}")
    raise row.error(column, str(problem["ctx"]["error"]) if "ctx" in problem else problem["msg"])


def unique(column: str, rows: Iterable[tuple[Row, str]]) -> None:
    """Raise DataFileError where two rows share the value of an id column."""
    first: dict[str, Row] = {}
    for row, value in rows:
        if value in first:
            raise row.error(column, f"{value!r} is already in row {first[value].number}")
        first[value] = row
