"""Local data in parquet, JSON, JSON Lines, CSV or plain text: found in a folder, read row by row, refused by row."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mule_lib.benchmarks.schema import DataFileError, Row

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".txt")
# Shards as the Hub names them: retain-00001-of-00004.parquet, at times with a hash at the end.
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]+)?$")

Rows = Iterator[tuple[Row, dict[str, Any]]]


def iterate(path: str | Path, *, header: Sequence[str] = ()) -> Rows:
    """Each row of a file with its place; `header` names the columns of a CSV file without a column `header[0]`.

    Raises DataFileError with the row that cannot be read: no such file, another format than its name says, a
    truncated parquet file, a line that is not JSON, a CSV row of another length, text that is not UTF-8.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataFileError(f"{path}: of an unknown kind; data files end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataFileError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataFileError(f"{path}: empty")
    with path.open("rb") as stream:
        if stream.read(40).startswith(b"version https://git-lfs.github.com"):
            raise DataFileError(f"{path}: a Git LFS pointer, not the data; run `git lfs pull` in its folder")
    if path.suffix.lower() == ".csv":
        return _csv(path, header)
    readers = {".parquet": _parquet, ".jsonl": _jsonl, ".json": _json, ".txt": _text}
    return readers[path.suffix.lower()](path)


def find(folder: str | Path, splits: Sequence[str], *, config: str = "") -> list[Path]:
    """The files of the first of `splits` that a folder has, shards in order; the names of a split changed over time.

    Looked for in `<folder>/<config>` and `<folder>`, as `<split>.<suffix>`, `<split>-00000-of-00001.<suffix>` or a
    folder `<split>`. Raises DataFileError naming what is missing and what is there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataFileError(f"{folder}: no such folder")
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


def _stem(file: Path) -> str:
    return _SHARD.sub("", file.stem)


def _whole(files: list[Path]) -> list[Path]:
    shards = [_SHARD.search(file.stem) for file in files]
    if all(shards):
        have, count = {int(shard[1]) for shard in shards}, int(shards[0][2])
        missing = sorted(set(range(count)) - have)
        if missing:
            raise DataFileError(f"{files[0].parent}: shard {missing[0]} of {count} of {_stem(files[0])} is missing")
        return files
    if len(files) > 1 and len({file.suffix for file in files}) > 1:
        raise DataFileError(f"{files[0].parent}: {' and '.join(f.name for f in files)} are the same split; keep one")
    return files


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataFileError(f"{path}: row {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _jsonl(path: Path) -> Rows:
    # Only "\n" ends a line: published texts hold other line separators.
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataFileError(f"{path}: row {number}: not JSON ({error.msg})") from None
        yield Row(str(path), number), _object(path, number, values)


def _json(path: Path) -> Rows:
    whole = _decoded(path)
    if not whole.lstrip().startswith("["):  # JSON Lines under another name, as TOFU's
        yield from _jsonl(path)
        return
    try:
        values = json.loads(whole)
    except json.JSONDecodeError as error:
        raise DataFileError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from None
    for number, value in enumerate(values, 1):
        yield Row(str(path), number), _object(path, number, value)


def _object(path: Path, number: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataFileError(f"{path}: row {number}: should be a JSON object, is {type(value).__name__}")
    return value


def _text(path: Path) -> Rows:
    yield Row(str(path), 1), {"text": _decoded(path)}


def _csv(path: Path, header: Sequence[str] = ()) -> Rows:
    import pandas as pd

    _decoded(path)  # pandas names no row when the encoding is another
    how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "index_col": False}
    try:
        table = pd.read_csv(path, **how)
        if header and header[0] not in table.columns:
            table = pd.read_csv(path, header=None, **how)
            if len(table.columns) != len(header):
                raise DataFileError(f"{path}: has {len(table.columns)} columns, should have {', '.join(header)}")
            table.columns = list(header)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataFileError(f"{path}: not a CSV table ({' '.join(str(error).split())})") from None
    for number, values in enumerate(table.to_dict("records"), 1):
        yield Row(str(path), number), values


def _parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield Row(str(path), number), values
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:120]
        raise DataFileError(f"{path}: not a whole parquet file ({why}); download it again") from None
