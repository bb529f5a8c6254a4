"""RWKU (Jin 2024): questions about 200 famous people, about what stands near them, and general ones."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from mule_lib.benchmarks.hub import HubData
from mule_lib.benchmarks.raw import table
from mule_lib.benchmarks.schema import Column
from mule_lib.data.files import DataFileError, Row
from mule_lib.data.items import ChoiceItem, OpenItem, is_scorable

# No commit of this dataset is known to us: `main` is resolved when it is read, so write down which one it was.
HUB = HubData("jinzhuoran/RWKU", "main")
LICENCE = "CC-BY-4.0"
_PROBE = (Column("query"), Column("answer"), Column("subject"), Column("type", required=False))
_NEAR = (*_PROBE, Column("neighbor"))
_CHOICE = (
    Column("question"),
    Column("choices", "options"),
    Column("answer", "index", of="choices"),
    Column("task", required=False),
)
LEVELS = (1, 2)


def targets(source: str | Path = "", *, revision: str | None = None) -> list[str]:
    """The people that can be forgotten, in published order."""
    config = "forget_target"
    rows = table(source, HUB, (Column("target"),), config=config, splits=_splits(config, source), revision=revision)
    return list(dict.fromkeys(values["target"] for _, values in rows))


def probes(
    source: str | Path = "", *, subject: str = "", level: int = 2, near: bool = False, revision: str | None = None
) -> tuple[OpenItem, ...]:
    """Questions about one person (all where `subject` is ""): `forget_level1` (cloze) or `forget_level2` (questions).

    With `near`, those about what stands near: the item's subject is then the neighbour. Level 3 puts user-side attacks
    into the question and is no prefill. Raises ValueError for another level, DataFileError for a bad row or an unknown
    subject, DataAccessError.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: read as open questions are levels {' and '.join(map(str, LEVELS))}")
    config = f"{'neighbor' if near else 'forget'}_level{level}"
    columns = _NEAR if near else _PROBE
    rows = table(source, HUB, columns, config=config, splits=_splits(config, source), revision=revision)
    known = dict.fromkeys(values["subject"] for _, values in rows)
    if subject and subject not in known:
        raise DataFileError(f"{source or HUB.repo}: {config} has no subject {subject!r}; it has {_some(list(known))}")
    about = "neighbor" if near else "subject"
    items = [
        OpenItem(f"{config}/{n}", v["query"].strip(), v["answer"].strip(), v[about])
        for n, (_, v) in enumerate(rows, 1)
        if not subject or v["subject"] == subject
    ]
    return _scorable(items, config)


def general(source: str | Path = "", *, revision: str | None = None) -> tuple[OpenItem, ...]:
    """General questions (`utility_factuality`, from TriviaQA), each once, the first plain answer as reference."""
    config = "utility_factuality"
    columns = (Column("question"), Column("answers", "texts"))
    rows = table(source, HUB, columns, config=config, splits=_splits(config, source), revision=revision)
    items = [OpenItem(f"{config}/{n}", asked, _first(v["answers"]), "general") for n, asked, v in _once(rows)]
    return _scorable(items, config)


def mmlu(source: str | Path = "", *, revision: str | None = None) -> tuple[ChoiceItem, ...]:
    """RWKU's part of MMLU (`utility_general`), each question once."""
    config = "utility_general"
    rows = table(source, HUB, _CHOICE, config=config, splits=_splits(config, source), revision=revision)
    return tuple(
        ChoiceItem(f"{config}/{n}", asked, v["choices"], v["answer"], v.get("task", ""), None, "obj1")
        for n, asked, v in _once(rows)
    )


def _once(rows: Sequence[tuple[Row, dict]]) -> Iterator[tuple[int, str, dict]]:
    """Number, question and cells of the rows, repeated questions left out: RWKU has them once for every person."""
    seen: set[str] = set()
    for n, (_, values) in enumerate(rows, 1):
        asked = values["question"].strip()
        if asked not in seen:
            seen.add(asked)
            yield n, asked, values


def _splits(config: str, source: str | Path) -> tuple[str, ...]:
    published = ("train",) if config == "forget_target" else ("test",)
    # Files carry other names than configurations.
    names = {
        "forget_target": "intro",
        "utility_factuality": "triviaqa",
        "utility_general": "retain_mmlu",
    }
    return published if source == "" else (config, names.get(config, config))


def _scorable(items: Sequence[OpenItem], config: str) -> tuple[OpenItem, ...]:
    kept = tuple(item for item in items if is_scorable(item.reference))
    if len(kept) < len(items):
        lost = len(items) - len(kept)
        warnings.warn(
            f"{config}: {lost} of {len(items)} questions left out: ROUGE sees nothing in the answer", stacklevel=3
        )
    return kept


def _first(answers: Sequence[str]) -> str:
    return next((answer.strip() for answer in answers if answer.isascii() and is_scorable(answer)), answers[0])


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
