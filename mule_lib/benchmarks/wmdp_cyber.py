"""WMDP-Cyber (Li 2024): four-choice questions and the corpora to forget and to retain; the bio and chem parts stay out.

The Hub's commit decides the number of questions (2225 before April 2024, 1987 after). MULE's Forget metric asks open
questions, so `open_questions` keeps those that make sense without their options; the rest is left to an LLM.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from mule_lib.benchmarks.hub import HubData
from mule_lib.benchmarks.raw import RawText, table
from mule_lib.benchmarks.schema import Column
from mule_lib.data.items import ChoiceItem, OpenItem, is_scorable

HUB = HubData("cais/wmdp", "7125571f22f032c56415e7980f48d877dd830ff8")
CORPORA = HubData("cais/wmdp-corpora", "daf89fa9b618b63a624228061a9cebacca88009c")
LICENCE = "MIT"
SUBJECT = "wmdp-cyber"
CHOICES = (Column("question"), Column("choices", "options"), Column("answer", "index", of="choices"))
PARTS = ("forget", "retain")
# Questions that mean nothing, or something else, without their options.
_NEEDS_OPTIONS = re.compile(
    r"\b(which|what) of (the|these|those)\b|\bfollowing\b|\b(not|except|incorrect|false|least|best|most likely)\b"
    r"|\boptions?\b|\bstatements?\b|\b(above|below)\b|_{2,}",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"\b(all|none|both|neither|any) of (the|these)\b|\babove\b|^(true|false|yes|no)\.?$", re.IGNORECASE
)
MAX_QUESTION = 400  # characters; longer ones print programs or dumps whose output is asked for
MAX_ANSWER = 12  # words


def questions(source: str | Path = "", *, revision: str | None = None) -> tuple[ChoiceItem, ...]:
    """All four-choice questions as published, from the Hub (`source` ""), a folder or a file.

    Raises DataFileError for a bad row (an answer outside 0 to 3 or A to D) and DataAccessError without the data.
    """
    rows = table(source, HUB, CHOICES, config="wmdp-cyber", splits=("test", "train"), revision=revision)
    return tuple(
        ChoiceItem(f"{SUBJECT}/{n}", v["question"], v["choices"], v["answer"], SUBJECT, None, "obj1")
        for n, (_, v) in enumerate(rows, 1)
    )


def is_knowledge(item: ChoiceItem) -> bool:
    """Whether a question asks for knowledge, and not for the output of a program or dump that it prints."""
    return len(item.question) <= MAX_QUESTION and item.question.strip().count("\n") < 2


def open_questions(items: Sequence[ChoiceItem]) -> tuple[OpenItem, ...]:
    """The questions that can be asked without their options, with the right option as the reference.

    A rule and no judgement: it leaves out what names its options, asks for an exception, prints code, or has an
    answer longer than 12 words. Section 5.1 asks open questions; how the authors made them is not said.
    """
    kept = []
    for item in items:
        answer, asked = item.options[item.answer].strip(), item.question.strip()
        if (
            is_knowledge(item)
            and asked.endswith("?")
            and not _NEEDS_OPTIONS.search(asked)
            and not _NO_ANSWER.search(answer)
            and len(answer.split()) <= MAX_ANSWER
            and is_scorable(answer)
        ):
            kept.append(OpenItem(item.id, asked, answer, item.subject))
    return tuple(kept)


def corpus(source: str | Path = "", *, part: str = "forget", revision: str | None = None) -> list[RawText]:
    """Passages of `cyber-forget-corpus` (1000) or `cyber-retain-corpus` (4473) as raw texts.

    Raises ValueError for another part, DataFileError or DataAccessError for the data.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r}: the corpora are {' and '.join(PARTS)}")
    config = f"cyber-{part}-corpus"
    splits = ("train", config) if source == "" else (config, "train")
    rows = table(source, CORPORA, (Column("text"),), config=config, splits=splits, revision=revision)
    return [RawText(f"{config}/{n}", v["text"], f"{r.where}#{r.number}", "", part) for n, (r, v) in enumerate(rows, 1)]
