"""Wikipedia as the source of general knowledge (Section 3.2: "uniformly sampling"): a seeded sample of articles.

Which dump, how many articles and which filter the authors took is not said; here 20231101.en, and articles of 500
characters or more.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mule_lib.benchmarks import hub
from mule_lib.benchmarks.hub import HubData
from mule_lib.benchmarks.raw import RawText
from mule_lib.benchmarks.schema import Column, checked
from mule_lib.data import files
from mule_lib.data.files import DataFileError, Row

HUB = HubData("wikimedia/wikipedia", "b04c8d1ceb2f5cd4588862100d08de323dccfbaa")
CONFIG = "20231101.en"
LICENCE = "CC-BY-SA-3.0 and GFDL"
COLUMNS = (Column("id"), Column("title"), Column("text"), Column("url", required=False))
_END = re.compile(
    r"^\s*(References|Notes|See also|External links|Further reading|Bibliography|Sources)\s*$", re.MULTILINE
)

_TOKENIZED = re.compile(r"<unk>| @[-,.]@ | [,.] | \.$", re.MULTILINE)


def articles(
    source: str | Path = "",
    *,
    count: int,
    seed: int = 0,
    min_chars: int = 500,
    buffer: int = 10_000,
    revision: str | None = None,
) -> list[RawText]:
    """A seeded sample of articles, cleaned: streamed from the Hub (`source` ""), or drawn from a file or folder.

    From files the draw is exactly uniform, in one pass and with the memory of the sample. From the Hub it is uniform
    over shards and within a buffer of so many articles, which spares a download of 20 GB. The same seed and commit
    give the same articles. Raises DataFileError (row, column; too few articles; a doubled id) or DataAccessError.
    """
    if source == "":
        data = replace(HUB, revision=revision) if revision else HUB
        usable = _usable(hub.stream(data, CONFIG, "train", seed=seed, buffer=buffer), min_chars)
        sample = list(islice(usable, count))
    else:
        sample = reservoir(_usable(_local(Path(source)), min_chars), count, seed=seed)
    if len(sample) < count:
        raise DataFileError(
            f"{source or HUB.repo}: {len(sample)} usable articles of {min_chars} characters or more, {count} asked for"
        )
    return sample


def reservoir(items: Iterable[RawText], count: int, *, seed: int) -> list[RawText]:
    """A uniform sample of `count` items in one pass, in the order of the stream (Vitter's algorithm R)."""
    rng = random.Random(f"wikipedia/{seed}")
    kept: list[tuple[int, RawText]] = []
    for i, item in enumerate(items):
        if len(kept) < count:
            kept.append((i, item))
        elif (place := rng.randrange(i + 1)) < count:
            kept[place] = (i, item)
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])]


def clean(text: str) -> str:
    """Running text of an article: end sections cut off, WikiText's marks (` @-@ `, spaced punctuation) undone.

    Sentences with `<unk>` are dropped: a question about a masked word has no answer.
    """
    end = _END.search(text)
    text = text[: end.start()] if end else text
    if _TOKENIZED.search(text):
        text = re.sub(r" @([-,.])@ ", r"\1", text)
        # In tokenized text a sentence ends in a mark with spaces around it; a decimal point has none.
        text = "\n".join(
            "".join(part for part in re.split(r"(?<= [.!?])(?=\s)", line) if "<unk>" not in part)
            for line in text.split("\n")
        )
        text = re.sub(r' " (.*?) " ', r' "\1" ', text)
        text = re.sub(r" ([,.;:!?)%])", r"\1", text)
        text = re.sub(r"\( ", "(", text)
        text = re.sub(r" ('s|n't)\b", r"\1", text)
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _local(source: Path) -> Iterator[tuple[Row, dict]]:
    if not source.exists():
        raise DataFileError(f"{source}: no such file or folder; to get it: {HUB.command} --include '{CONFIG}/*'")
    if source.is_file():
        parts = [source]
    else:
        folder = source / CONFIG if (source / CONFIG).is_dir() else source
        parts = files.data_files(folder)
        if not parts:
            raise DataFileError(f"{folder}: holds no data ({', '.join(files.SUFFIXES)})")
    for part in parts:
        yield from files.iterate(part)


def _usable(rows: Iterator[tuple[Row, dict]], min_chars: int) -> Iterator[RawText]:
    first: dict[str, int] = {}
    for row, values in rows:
        cells = checked(row, values, COLUMNS)
        if cells["id"] in first:
            raise row.error("id", f"{cells['id']!r} is already in row {first[cells['id']]}")
        first[cells["id"]] = row.number
        text = clean(cells["text"])
        if len(text) < min_chars or "<unk>" in cells["title"] or "(disambiguation)" in cells["title"]:
            continue
        where = cells.get("url") or f"{row.where}#{row.number}"
        yield RawText(f"wikipedia/{cells['id']}", text, where, clean(cells["title"]), "retain")
