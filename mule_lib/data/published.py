"""Published questions and corpora, one table of columns for all of them: `published.yaml`.

MUSE's "retain" questions are about the same fictional world, so here they are neighbours and not MULE's General set;
WMDP's commit decides the number of its questions (2225 before April 2024, 1987 after).
"""

import random
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import create_model

from mule_lib.data import files
from mule_lib.data.files import Choices, DataFileError, Index, Reference, Row, Rows, Text, Texts, is_scorable
from mule_lib.data.items import ChoiceItem, OpenItem


class DataAccessError(RuntimeError):
    """A dataset cannot be had; one line with its page and the command that gets it."""


@dataclass(frozen=True)
class RawText:
    """A document to standardize: `role` is forget or retain, `source` says where it came from (file or commit, row)."""

    id: str
    text: str
    source: str
    title: str = ""
    role: str = ""


@dataclass(frozen=True)
class Published:
    """One published set, as `published.yaml` describes it: `repo` of the Hub and the commit its numbers hang on."""

    repo: str
    revision: str
    config: str
    columns: Mapping[str, str]
    splits: Sequence[str]
    files: Sequence[str] = ()
    id: str = ""
    subject: str = ""
    role: str = ""
    lenient: bool = False

    @property
    def page(self) -> str:
        """Address of the dataset's card at this commit."""
        return f"https://huggingface.co/datasets/{self.repo}/tree/{self.revision}"

    @property
    def command(self) -> str:
        """The shell command that downloads it to a folder which `read_set` takes."""
        where = f"data/{self.repo.rsplit('/', 1)[-1]}"
        return f"hf download {self.repo} --repo-type dataset --revision {self.revision} --local-dir {where}"


_TABLE = yaml.safe_load(resources.files("mule_lib.data").joinpath("published.yaml").read_text("utf-8"))
SETS = {name: Published(**values) for name, values in _TABLE.items()}
_TYPES = {"reference": Reference, "references": Texts, "options": Choices, "answer": Index}


def read_set(name: str, source: str | Path = "") -> tuple[OpenItem | ChoiceItem | RawText, ...]:
    """A published set as open questions, multiple choice or texts, from a file or folder, or "" for the Hub.

    Raises ValueError for an unknown set, DataFileError (file, row, column) or DataAccessError (page and command).
    """
    return tuple(item for item, _ in read_rows(name, source))


def read_rows(name: str, source: str | Path = "") -> list[tuple[OpenItem | ChoiceItem | RawText, dict[str, Any]]]:
    """What `read_set` gives, each with all fields of its row. Raises what `read_set` does."""
    if name not in SETS:
        raise ValueError(f"{name!r}: published sets are {', '.join(SETS)}")
    part = SETS[name]
    rows = list(_cells(part, _found(part, source)))
    if not rows:
        raise DataFileError(f"{source or part.repo}: {part.config}/{part.splits[0]} holds no rows")
    kept, seen, lost = [], set(), 0
    for number, (row, cells) in enumerate(rows, 1):
        if part.lenient:
            cells = {field: value.strip() if isinstance(value, str) else value for field, value in cells.items()}
        if "references" in cells:  # the first plain answer
            plain = (text.strip() for text in cells["references"] if text.isascii() and is_scorable(text))
            cells["reference"] = next(plain, cells["references"][0])
        # RWKU has a general question once for every person.
        repeated = part.lenient and "person" not in cells and cells["question"] in seen
        seen.add(cells.get("question"))
        if not is_scorable(cells.get("reference", "text")):
            lost += not repeated
        elif not repeated:
            kept.append((_item(part, f"{part.id or part.config}/{number}", row, cells), cells))
    if lost:
        message = f"{name}: {lost} of {lost + len(kept)} questions left out: ROUGE sees nothing in the answer"
        warnings.warn(message, stacklevel=2)
    return kept


def is_knowledge(item: ChoiceItem) -> bool:
    """Whether a question asks for knowledge, and not for the output of a program or dump that it prints."""
    return len(item.question) <= 400 and item.question.strip().count("\n") < 2


def _item(part: Published, name: str, row: Row, cells: Mapping[str, Any]) -> OpenItem | ChoiceItem | RawText:
    subject = cells.get("subject", part.subject)
    if "text" in cells:
        return RawText(name, cells["text"], f"{row.where}#{row.number}", "", part.role)
    if "options" in cells:
        return ChoiceItem(name, cells["question"], cells["options"], cells["answer"], subject, None, "obj1")
    return OpenItem(name, cells["question"], cells["reference"], subject)


def _found(part: Published, source: str | Path, *, get: str = "") -> Rows:
    """The rows of a set; `get` is what the command that gets its files needs besides."""
    if source == "":
        return hub_rows(part)
    path = Path(source)
    if not path.exists():
        raise DataFileError(f"{path}: no such file or folder; to get it: {part.command}{get}")
    paths = [path] if path.is_file() else files.find(path, part.files or part.splits, config=part.config)
    return (row for each in paths for row in files.iterate(each))


def _cells(part: Published, rows: Rows) -> Rows:
    """The rows' checked cells by field; further columns and their order do not matter."""
    model, optional = _model(tuple(part.columns.items()), part.lenient), part.columns.values()
    for row, values in rows:
        present = {c: v for c, v in values.items() if v not in (None, "") or f"{c}?" not in optional}
        cells = vars(files.typed(row, present, model))
        found = {field: cells[column.rstrip("?")] for field, column in part.columns.items()}
        yield row, {field: value for field, value in found.items() if value is not None}


@cache
def _model(columns: tuple[tuple[str, str], ...], lenient: bool) -> type:
    """A pydantic model of the columns, from (field, column); of a lenient set, references may be any text."""
    types = _TYPES | ({"reference": Text} if lenient else {})
    kinds = {column: types.get(field, Text) for field, column in columns}
    each = {c.rstrip("?"): (kind | None, None) if c.endswith("?") else (kind, ...) for c, kind in kinds.items()}
    return create_model("Columns", **each)


# The Hub


def check_access(data: Published) -> bool:
    """True where the Hub lets us read this dataset, False where the Hub is out of reach (the cache may have it).

    Asks for permission only and downloads nothing. Raises DataAccessError for a gated, private or missing dataset.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    page = f"https://huggingface.co/datasets/{data.repo}"
    try:
        HfApi().auth_check(data.repo, repo_type="dataset")
    except GatedRepoError:
        raise DataAccessError(
            f"{data.repo}: gated; accept its terms at {page}, then run `hf auth login` and start again "
            f"(or `{data.command}` and give that folder)"
        ) from None
    except RepositoryNotFoundError:
        raise DataAccessError(
            f"{data.repo}: not on the Hub, or private; look at {page}, log in by `hf auth login` if it is yours"
        ) from None
    except (OfflineModeIsEnabled, HTTPError, OSError):
        return False
    return True


def hub_rows(data: Published, *, shuffled: int | None = None) -> Rows:
    """Each row of the set, with its place; the commit is pinned, so the first of its splits is there.

    With a seed `shuffled`, rows are streamed without a download, shards shuffled, rows within a buffer of 10,000.
    Raises DataAccessError before anything is downloaded where the dataset is gated or missing, or neither reachable
    nor in the cache, or lacks the split.
    """
    import datasets

    reachable, split = check_access(data), data.splits[0]
    try:
        with warnings.catch_warnings(action="ignore"):
            found = datasets.load_dataset(
                data.repo, data.config, split=split, revision=data.revision, streaming=shuffled is not None
            )
    except (ValueError, OSError) as error:
        why = " ".join(str(error).split())[:160] if reachable else "the Hub cannot be reached and the cache lacks it"
        raise DataAccessError(
            f"{data.repo} ({data.config}/{split}): {why}; see {data.page}; where there is a network: `{data.command}`, "
            "then give that folder here"
        ) from None
    if shuffled is not None:
        found = found.shuffle(seed=shuffled, buffer_size=10_000)
    where = f"{data.repo}@{data.revision[:7]}/{data.config}/{split}"
    return ((Row(where, number), values) for number, values in enumerate(found, 1))


# Wikipedia, the source of general knowledge (Section 3.2: "uniformly sampling")

_END = re.compile(
    r"^\s*(?:References|Notes|See also|External links|Further reading|Bibliography|Sources)\s*$", re.MULTILINE
)
_TOKENIZED = re.compile(r"<unk>| @[-,.]@ | [,.] | \.$", re.MULTILINE)
_MARKS = {r" @([-,.])@ ": r"\1", r' " (.*?) " ': r' "\1" ', r" ([,.;:!?)%])": r"\1", r"\( ": "(", r" ('s|n't)\b": r"\1"}
MIN_CHARS = 500  # which dump, how many articles and which filter the authors took is not said


def articles(source: str | Path = "", *, count: int, seed: int = 0) -> list[RawText]:
    """A seeded sample of articles, cleaned: streamed from the Hub (`source` ""), or drawn from a file or folder.

    From files the draw is exactly uniform, in one pass and with the memory of the sample. From the Hub it is uniform
    over shards and within the stream's buffer, which spares a download of 20 GB. The same seed and commit give the
    same articles. Raises DataFileError (row, column; too few articles; a doubled id) or DataAccessError.
    """
    part = SETS["wikipedia"]
    if source == "":
        sample = list(islice(usable(hub_rows(part, shuffled=seed)), count))
    else:
        rows = _found(part, source, get=f" --include '{part.config}/*'")
        sample = reservoir(usable(rows), count, seed=seed)
    if len(sample) < count:
        raise DataFileError(
            f"{source or part.repo}: {len(sample)} usable articles of {MIN_CHARS} characters or more, {count} asked for"
        )
    return sample


def reservoir(texts: Iterable[RawText], count: int, *, seed: int) -> list[RawText]:
    """A uniform sample of `count` texts in one pass, in the order of the stream (Vitter's algorithm R)."""
    rng, kept = random.Random(f"wikipedia/{seed}"), {}
    for i, text in enumerate(texts):
        place = i if i < count else rng.randrange(i + 1)
        if place < count:
            kept[place] = (i, text)
    return [text for _, text in sorted(kept.values(), key=lambda pair: pair[0])]


def usable(rows: Rows) -> Iterator[RawText]:
    """Articles that are long enough and no list of meanings, cleaned. Raises DataFileError for a doubled id."""
    first: dict[str, int] = {}
    for row, cells in _cells(SETS["wikipedia"], rows):
        if cells["id"] in first:
            raise row.error("id", f"{cells['id']!r} is already in row {first[cells['id']]}")
        first[cells["id"]] = row.number
        text = plain_wikitext(cells["text"])
        if len(text) >= MIN_CHARS and "<unk>" not in cells["title"] and "(disambiguation)" not in cells["title"]:
            where = cells.get("url") or f"{row.where}#{row.number}"
            yield RawText(f"wikipedia/{cells['id']}", text, where, plain_wikitext(cells["title"]), "retain")


def plain_wikitext(text: str) -> str:
    """Running text of an article: end sections cut off, WikiText's marks (` @-@ `, spaced punctuation) undone.

    Sentences with `<unk>` are dropped: a question about a masked word has no answer.
    """
    text = _END.split(text, maxsplit=1)[0]
    if _TOKENIZED.search(text):
        # In tokenized text a sentence ends in a mark with spaces around it; a decimal point has none.
        sentences = (re.split(r"(?<= [.!?])(?=\s)", line) for line in text.split("\n"))
        text = "\n".join("".join(part for part in line if "<unk>" not in part) for line in sentences)
        for mark, plain in _MARKS.items():
            text = re.sub(mark, plain, text)
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
