"""Published questions and corpora, one table of columns for all of them: `published.yaml`.

`read_set(name, source)` gives a set's items or texts from a file or a folder (flat or in the Hub's layout), or, for
source "", from the Hub at a pinned commit; what is gated, missing or out of reach is named before any download.
MUSE's "retain" questions are about the same fictional world, so here they are neighbours and not MULE's General set;
WMDP's commit decides the number of its questions (2225 before April 2024, 1987 after). For Wikipedia, which dump, how
many articles and which filter the authors took is not said; here 20231101.en and articles of 500 characters or more.
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
class HubData:
    """A dataset of the Hub: `repo` (or a local folder in the Hub's layout), and the commit its numbers hang on."""

    repo: str
    revision: str

    @property
    def page(self) -> str:
        """Address of the dataset's card at this commit."""
        return f"https://huggingface.co/datasets/{self.repo}/tree/{self.revision}"

    @property
    def command(self) -> str:
        """The shell command that downloads it to a folder which `read_set` takes."""
        where = f"data/{self.repo.rsplit('/', 1)[-1]}"
        return f"hf download {self.repo} --repo-type dataset --revision {self.revision} --local-dir {where}"


@dataclass(frozen=True)
class RawText:
    """A document to standardize: `role` is forget or retain, `source` says where it came from (file or commit, row)."""

    id: str
    text: str
    source: str
    title: str = ""
    role: str = ""


@dataclass(frozen=True)
class Published(HubData):
    """One published set, as `published.yaml` describes it."""

    config: str
    columns: Mapping[str, str]
    splits: Sequence[str]
    files: Sequence[str] = ()
    id: str = ""
    subject: str = ""
    role: str = ""
    lenient: bool = False


_TABLE = yaml.safe_load(resources.files("mule_lib.data").joinpath("published.yaml").read_text("utf-8"))
SETS = {name: Published(**values) for name, values in _TABLE.items()}
_TYPES = {"reference": Reference, "references": Texts, "wrong": Texts, "options": Choices, "answer": Index}


def read_set(name: str, source: str | Path = "") -> tuple[OpenItem | ChoiceItem | RawText, ...]:
    """A published set as open questions, multiple choice or texts.

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
    made, seen = [], set()
    for number, (row, cells) in enumerate(rows, 1):
        if part.lenient:
            cells = {field: value.strip() if isinstance(value, str) else value for field, value in cells.items()}
        if "references" in cells:  # the first plain answer
            plain = (text.strip() for text in cells["references"] if text.isascii() and is_scorable(text))
            cells["reference"] = next(plain, cells["references"][0])
        # RWKU has a general question once for every person.
        repeated = part.lenient and "person" not in cells and cells["question"] in seen
        seen.add(cells.get("question"))
        if not repeated:
            made.append((_item(part, f"{part.id or part.config}/{number}", row, cells), cells))
    kept = [(item, cells) for item, cells in made if not isinstance(item, OpenItem) or is_scorable(item.reference)]
    if len(kept) < len(made):
        lost = len(made) - len(kept)
        warnings.warn(
            f"{name}: {lost} of {len(made)} questions left out: ROUGE sees nothing in the answer", stacklevel=2
        )
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


def _found(part: Published, source: str | Path) -> Rows:
    if source == "":
        return hub_rows(part, part.config, part.splits)
    path = Path(source)
    if not path.exists():
        raise DataFileError(f"{path}: no such file or folder; to get it: {part.command}")
    paths = [path] if path.is_file() else files.find(path, part.files or part.splits, config=part.config)
    return (row for each in paths for row in files.iterate(each))


def _cells(part: Published, rows: Rows) -> Rows:
    """The rows' checked cells by field; further columns and their order do not matter."""
    columns = tuple(part.columns.items())
    model = _model(columns, part.lenient)
    for row, values in rows:
        present = {c: v for c, v in values.items() if v not in (None, "") or f"{c}?" not in part.columns.values()}
        checked = files.typed(row, present, model)
        cells = {field: getattr(checked, column.rstrip("?")) for field, column in columns}
        yield row, {field: value for field, value in cells.items() if value is not None}


@cache
def _model(columns: tuple[tuple[str, str], ...], lenient: bool) -> type:
    """A pydantic model of the columns, from (field, column); of a lenient set, references may be any text."""
    types = dict(_TYPES, reference=Text) if lenient else _TYPES
    fields: dict[str, Any] = {}
    for field, column in columns:
        kind = types.get(field, Text)
        fields[column.rstrip("?")] = (kind | None, None) if column.endswith("?") else (kind, ...)
    return create_model("Columns", **fields)


# The Hub


def check_access(data: HubData, *, endpoint: str | None = None) -> bool:
    """True where the Hub lets us read this dataset, False where the Hub is out of reach (the cache may have it).

    Asks for permission only and downloads nothing. Raises DataAccessError for a gated, private or missing dataset.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    page = f"https://huggingface.co/datasets/{data.repo}"
    try:
        HfApi(endpoint=endpoint).auth_check(data.repo, repo_type="dataset")
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


def hub_rows(
    data: HubData, config: str, splits: Sequence[str], *, shuffled: int | None = None, buffer: int = 10_000
) -> Rows:
    """Each row of the first of `splits` that the dataset has, with its place.

    With a seed `shuffled`, rows are streamed without a download, shards shuffled, rows within a buffer of that many.
    Raises DataAccessError before anything is downloaded where the dataset is gated or missing, or neither reachable
    nor in the cache, or has none of the splits.
    """
    import datasets

    local = Path(data.repo).is_dir()
    reachable, reason = local or check_access(data), ""
    for split in splits:
        where = f"{data.repo}@{data.revision[:7]}/{config}/{split}"
        pinned = None if local else data.revision
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = datasets.load_dataset(
                    data.repo, config, split=split, revision=pinned, streaming=shuffled is not None
                )
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            if isinstance(error, ValueError) and "split" in reason.lower() and "config" not in reason.lower():
                continue
            why = reason[:160] if reachable else "the Hub cannot be reached and the cache lacks it"
            raise DataAccessError(
                f"{data.repo} ({config}): {why}; see {data.page}; where there is a network: `{data.command}`, then "
                "give that folder here"
            ) from None
        if shuffled is not None:
            found = found.shuffle(seed=shuffled, buffer_size=buffer)
        return ((Row(where, number), values) for number, values in enumerate(found, 1))
    raise DataAccessError(f"{where}: no such split; it has {reason}; see {data.page}")


# Wikipedia, the source of general knowledge (Section 3.2: "uniformly sampling")

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
) -> list[RawText]:
    """A seeded sample of articles, cleaned: streamed from the Hub (`source` ""), or drawn from a file or folder.

    From files the draw is exactly uniform, in one pass and with the memory of the sample. From the Hub it is uniform
    over shards and within a buffer of so many articles, which spares a download of 20 GB. The same seed and commit
    give the same articles. Raises DataFileError (row, column; too few articles; a doubled id) or DataAccessError.
    """
    part = SETS["wikipedia"]
    if source == "":
        stream = hub_rows(part, part.config, part.splits, shuffled=seed, buffer=buffer)
        sample = list(islice(usable(stream, min_chars), count))
    else:
        path = Path(source)
        if not path.exists():
            raise DataFileError(
                f"{path}: no such file or folder; to get it: {part.command} --include '{part.config}/*'"
            )
        folder = path / part.config if (path / part.config).is_dir() else path
        paths = [path] if path.is_file() else files.data_files(folder)
        if not paths:
            raise DataFileError(f"{folder}: holds no data ({', '.join(files.SUFFIXES)})")
        rows = (row for each in paths for row in files.iterate(each))
        sample = reservoir(usable(rows, min_chars), count, seed=seed)
    if len(sample) < count:
        raise DataFileError(
            f"{source or part.repo}: {len(sample)} usable articles of {min_chars} characters or more, {count} asked for"
        )
    return sample


def reservoir(texts: Iterable[RawText], count: int, *, seed: int) -> list[RawText]:
    """A uniform sample of `count` texts in one pass, in the order of the stream (Vitter's algorithm R)."""
    rng = random.Random(f"wikipedia/{seed}")
    kept: list[tuple[int, RawText]] = []
    for i, text in enumerate(texts):
        if len(kept) < count:
            kept.append((i, text))
        elif (place := rng.randrange(i + 1)) < count:
            kept[place] = (i, text)
    return [text for _, text in sorted(kept, key=lambda pair: pair[0])]


def usable(rows: Rows, min_chars: int) -> Iterator[RawText]:
    """Articles that are long enough and no list of meanings, cleaned. Raises DataFileError for a doubled id."""
    first: dict[str, int] = {}
    for row, cells in _cells(SETS["wikipedia"], rows):
        if cells["id"] in first:
            raise row.error("id", f"{cells['id']!r} is already in row {first[cells['id']]}")
        first[cells["id"]] = row.number
        text = plain_wikitext(cells["text"])
        if len(text) >= min_chars and "<unk>" not in cells["title"] and "(disambiguation)" not in cells["title"]:
            where = cells.get("url") or f"{row.where}#{row.number}"
            yield RawText(f"wikipedia/{cells['id']}", text, where, plain_wikitext(cells["title"]), "retain")


def plain_wikitext(text: str) -> str:
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
