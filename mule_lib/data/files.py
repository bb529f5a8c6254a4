"""Files of data: written whole or not at all, hashed, found, and read with file, row and column in every refusal."""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, ValidationInfo

from mule_lib.prompts import LETTERS

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
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    finally:  # a full disk keeps the old file and gets its room back
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in their given order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def file_hash(file: Path) -> str:
    """Sixteen hex digits of a file's content."""
    status = file.stat()
    return _file_hash(file, status.st_mtime_ns, status.st_size)


def folder_hashes(start: Path, *, only: Sequence[str] = ("*",)) -> dict[str, str]:
    """Hash of every file of a folder that is not hidden and matches one of `only`, by its name there; or of one file.

    Raises FileNotFoundError where there is nothing.
    """
    if not start.is_dir():
        return {start.name: file_hash(start)}
    files = {file.relative_to(start).as_posix(): file for file in sorted(start.rglob("*")) if file.is_file()}
    wanted = (name for name in files if "/." not in f"/{name}" and any(fnmatch(name, pattern) for pattern in only))
    return {name: file_hash(files[name]) for name in wanted}


@cache
def _file_hash(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


# Finding and reading


def find(folder: Path, splits: Sequence[str], *, config: str = "") -> list[Path]:
    """The files of the first of `splits` that a folder has, shards in order; the names of a split changed over time.

    Looked for in `<folder>/<config>`, `<folder>/data` and `<folder>`, as `<split>.<suffix>`,
    `<split>-00000-of-00001.<suffix>` or a folder `<split>`. Raises DataFileError naming what is missing and what is
    there.
    """
    places = [place for place in dict.fromkeys((folder / config, folder / "data", folder)) if place.is_dir()]
    for split, place in product(splits, places):
        within = place / split
        files = data_files(within) if within.is_dir() else [f for f in data_files(place) if _stem(f) == split]
        shards = {int(shard[1]): int(shard[2]) for file in files if (shard := _SHARD.search(file.stem))}
        if missing := sorted(set(range(max(shards.values(), default=0))) - set(shards)):
            raise DataFileError(f"{place}: shard {missing[0]} of {max(shards.values())} of {split} is missing")
        if files:
            return files
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
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataFileError(f"{path}: of an unknown kind; data files end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataFileError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataFileError(f"{path}: empty")
    with path.open("rb") as stream:
        if stream.read(40).startswith(b"version https://git-lfs.github.com"):
            raise DataFileError(f"{path}: a Git LFS pointer, not the data; run `git lfs pull` in its folder")
    for number, values in enumerate(reader(path), 1):
        if values is not None:  # a blank line
            if not isinstance(values, dict):
                raise DataFileError(f"{path}: row {number}: should be a JSON object, is {type(values).__name__}")
            yield Row(str(path), number), values


def _stem(file: Path) -> str:
    return _SHARD.sub("", file.stem)


def _decoded(path: Path) -> str:
    if (size := path.stat().st_size) > 2**30:
        raise DataFileError(f"{path}: {size / 2**30:.0f} GiB are too large to be read at once; save it as parquet")
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataFileError(f"{path}: row {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _json(path: Path) -> Iterator[Any]:
    whole = _decoded(path)
    # Some JSON Lines are called .json. Only "\n" ends a line: published texts hold other line separators.
    listed = path.suffix.lower() == ".json" and whole.lstrip().startswith("[")
    for number, text in enumerate([whole] if listed else whole.split("\n"), 1):
        try:
            value = json.loads(text) if text.strip() else None
            if "\\ud" in text.lower():  # half a surrogate pair is JSON and no text
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            row, why = getattr(error, "lineno", 1) if listed else number, getattr(error, "msg", None) or error
            raise DataFileError(f"{path}: row {row}: not JSON ({' '.join(str(why).split())})") from None
        yield from value if listed else [value]


def _csv(path: Path) -> list[dict[str, Any]]:
    import pandas as pd

    text = io.StringIO(_decoded(path))  # pandas names no row when the encoding is another
    try:
        return pd.read_csv(text, dtype=str, keep_default_na=False, index_col=False).to_dict("records")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataFileError(f"{path}: not a CSV table ({' '.join(str(error).split())})") from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=256):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise DataFileError(f"{path}: not a whole parquet file ({why}); download it again") from None


_READERS: dict[str, Callable[[Path], Iterable[Any]]] = {
    ".parquet": _parquet,
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".txt": lambda path: [{"text": _decoded(path)}],
}
SUFFIXES = tuple(_READERS)


# The types of cells: pydantic checks them, `typed` says what is wrong in one line.


STRICT = ConfigDict(extra="forbid")


def _cell(wanted: str, fits: Callable[[Any], bool]) -> BeforeValidator:
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and any(sign.isprintable() and not sign.isspace() for sign in value)


def _is_prefix(value: Any) -> bool:
    return isinstance(value, str) and value == value.rstrip()


def _are_texts(value: Any, least: int) -> bool:
    return isinstance(value, list | tuple) and len(value) >= least and all(map(_is_text, value))


def _listed(value: Any) -> Any:
    with suppress(TypeError, ValueError):  # a CSV cell has no lists; JSON in it is the usual way out
        return json.loads(value)
    return value


def _index(value: Any, info: ValidationInfo) -> int:
    options, number = info.data.get("options") or info.data.get("choices") or (), value
    if isinstance(value, str):
        number = int(value) if value.strip().isdecimal() else LETTERS.find(value.strip() or "?")
    if type(number) is not int or not 0 <= number < len(options):
        last = len(options) - 1
        raise ValueError(f"{value!r} is outside the {last + 1} options (0 to {last}, or A to {LETTERS[last]})")
    return number


def _is_span(value: Any) -> bool:
    return isinstance(value, list | tuple) and [type(end) for end in value] == [int, int] and 0 <= value[0] <= value[1]


_PREFIX = "a text without white space at its end, which would be a token of its own"
_LIST = BeforeValidator(_listed)

Text = Annotated[str, _cell("a text that is not empty", _is_text)]
AnyText = Annotated[str, _cell("a text", lambda value: isinstance(value, str))]
TextOrNone = Annotated[str | None, _cell("a text or null", lambda value: isinstance(value, str | None))]
Flag = Annotated[bool, _cell("true or false", lambda value: isinstance(value, bool))]
Reference = Annotated[
    str, _cell("a text with a letter or digit that ROUGE can see", lambda v: _is_text(v) and is_scorable(v))
]
Prefix = Annotated[str, _cell(_PREFIX, lambda value: _is_text(value) and _is_prefix(value))]
PrefixOrNone = Annotated[str | None, _cell(f"null or {_PREFIX}", lambda value: value is None or _is_prefix(value))]
Span = Annotated[
    tuple[int, int] | None,
    _cell("null or two characters' places [start, end]", lambda value: value is None or _is_span(value)),
]
# Published sets hold a few rows with doubled choices; they are scored as they are.
Texts = Annotated[tuple[str, ...], _cell("a list of at least one text", lambda v: _are_texts(v, 1)), _LIST]
Choices = Annotated[tuple[str, ...], _cell("a list of at least two texts", lambda v: _are_texts(v, 2)), _LIST]
Options = Annotated[
    tuple[str, ...],
    _cell(
        f"a list of at least two different texts, at most {len(LETTERS)}",
        lambda v: _are_texts(v, 2) and len(set(v)) == len(v) <= len(LETTERS),
    ),
    _LIST,
]
# The index of one of the `options` or `choices` before it: a number from 0, its digits, or a letter from A.
Index = Annotated[int, BeforeValidator(_index)]
IndexOrNone = Annotated[int | None, BeforeValidator(lambda v, info: None if v is None else _index(v, info))]


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def typed(row: Row, values: Mapping[str, Any], kind: type) -> Any:
    """The cells of a row as `kind` (a dataclass or a pydantic model), each checked.

    Raises DataFileError for the first column that is missing, unknown or of another form.
    """
    try:
        return _adapter(kind).validate_python(dict(values))
    except ValidationError as error:
        problem = min(error.errors(), key=lambda found: found["type"] != "missing")
    column = str(problem["loc"][0])
    if problem["type"] == "missing":
        raise row.error(column, f"missing; the row has {', '.join(values) or 'no columns'}")
    if problem["type"] == "unexpected_keyword_argument":
        raise row.error(column, f"unknown; the columns of this file are {', '.join(kind.__annotations__)}")
    raise row.error(column, str(problem["ctx"]["error"]) if "ctx" in problem else problem["msg"])


def unique(column: str, rows: Iterable[tuple[Row, str]]) -> None:
    """Raise DataFileError where two rows share the value of an id column."""
    first: dict[str, Row] = {}
    for row, value in rows:
        if value in first:
            raise row.error(column, f"{value!r} is already in row {first[value].number}")
        first[value] = row
