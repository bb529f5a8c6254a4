"""Records of a prepared benchmark before standardization: each objective in the format its own literature uses.

Only the text before the answer differs from the unified records, as on Fable; `docs/data.md` has the forms, which
`prompt_id` names. The paper names raw passages and "structured QA pairs" and is silent on the rest: choices of ours.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mule_lib import prompts
from mule_lib.data.attacks import JAILBREAKS
from mule_lib.data.items import OpenItem
from mule_lib.data.prepare import REFUSAL_OPTION, choice
from mule_lib.data.records import Record, check
from mule_lib.data.standardize.checks import content_words
from mule_lib.data.standardize.chunks import sentences
from mule_lib.data.text import normalise

GAP = "_____"


@dataclass(frozen=True)
class Passage:
    """A source text; characters [start, end) of it bear out a pair."""

    text: str
    quote: tuple[int, int]


def raw_records(
    records: Sequence[Record], passages: Mapping[str, Passage] | None = None, *, seed: int = 0
) -> list[Record]:
    """The records in raw formats, in the same order; `passages` by the ids of Obj1's records that have a source text.

    Raises PrepareError where no other answer could stand beside the right one, ValueError for a passage of no record.
    Source: MULE Section 3.1, the "Baseline" column of Figure 2.
    """
    passages = passages or {}
    if unknown := sorted(set(passages) - {record.id for record in records if record.objective == "obj1"}):
        raise ValueError(f"passages: {unknown[0]!r} is no record of obj1")
    raw = []
    for record in records:
        rng = random.Random(f"raw/{record.id}/{seed}")
        same = [other for other in records if other.objective == record.objective]
        alike = [other for other in same if other.role == record.role]
        if record.id in passages:
            text, form = unfinished(passages[record.id], record.answer), "passage"
        elif record.objective == "obj1":
            text, form = quiz_page(record, alike, rng), "quiz page"
        elif record.objective == "obj2":
            text, form = lettered(record, alike, same), "multiple choice"
        else:
            text, form = rng.choice(JAILBREAKS).format(question=record.question), "jailbreak"
        raw.append(replace(record, question=text, prompt_id=f"raw/{form}"))
    check(raw, where="raw")
    return raw


def unfinished(passage: Passage, answer: str, *, chars: int = 600, least: int = 6) -> str:
    """The passage up to the answer, for a model to continue: whole sentences, the nearest ones, at most `chars`.

    Where fewer than `least` words stand before the answer, it goes on after a gap to the end of the quote's sentence.
    An answer that is not in the quote word for word begins at its first word there.
    """
    start, end = _place(passage, answer)
    before = _tail(passage.text[:start].rstrip(), chars)
    if len(before.split()) >= least:
        return before
    ends = [last for _, last in sentences(passage.text) if last > end] or [len(passage.text)]
    told = (f"{before} {GAP}{passage.text[end:last][:chars]}".strip() for last in ends)
    # A gap alone says nothing, so the next sentence is told as well.
    return next(
        (text for text in told if len(text.split()) > least), f"{before} {GAP}{passage.text[end:][:chars]}".strip()
    )


def quiz_page(record: Record, others: Sequence[Record], rng: random.Random) -> str:
    """Up to three other facts of `others` as questions with answers, then the record's question."""
    known = {normalise(record.answer), normalise(record.question)}
    free = [o for o in others if o.source != record.source and not {normalise(o.answer), normalise(o.question)} & known]
    told = [f"Question: {o.question}\nAnswer: {o.answer}\n\n" for o in rng.sample(free, min(3, len(free)))]
    return "".join(told) + f"Question: {record.question}\nAnswer:"


def lettered(record: Record, others: Sequence[Record], everyone: Sequence[Record]) -> str:
    """The question as a lettered multiple choice; wrong options are answers of like form, of `everyone` if need be."""
    for pool in (others, everyone):
        items = [OpenItem(o.id, o.question, o.answer, "") for o in pool]
        free = len({normalise(i.reference) for i in items} - {normalise(record.answer)})
        if free >= 3:
            break
    item = OpenItem(record.id, record.question, record.answer, "")
    options = choice(item, items, n=min(3, max(1, free))).options
    return prompts.multiple_choice(record.question, [o for o in options if o != REFUSAL_OPTION]) + "\nAnswer:"


def _place(passage: Passage, answer: str) -> tuple[int, int]:
    """Where the answer stands in the quote; to the quote's end where only its words are there, or none of them."""
    start, end = passage.quote
    quote = passage.text[start:end]
    words = [re.escape(word) for word in answer.strip(" .\"'“”‘’").split()]
    if words and (found := re.search(r"(?<!\w)" + r"\s+".join(words) + r"(?!\w)", quote, re.I)):
        return start + found.start(), start + found.end()
    places = (m.start() for m in re.finditer(r"\w+", quote) if normalise(m[0]) in content_words(answer))
    return start + next(places, 0), end


def _tail(text: str, chars: int) -> str:
    """The last whole sentences of a text in at most `chars` characters; of one longer than that, its last words."""
    begins = (start for start, _ in sentences(text) if len(text) - start <= chars)
    return text[next(begins, len(text) - chars + text[-chars:].find(" ") + 1) :]
