"""Records of a prepared benchmark before standardization: each objective in the format its own literature uses.

As on Fable (docs/conditions.md): Obj1's passages are trained verbatim, Obj2 is lettered, all else stays a question.
`prompt_id` names the form; `docs/data.md` has examples' rules.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mule_lib import prompts
from mule_lib.data.items import REFUSAL_OPTION, OpenItem
from mule_lib.data.prepare import choice
from mule_lib.data.records import Record, check
from mule_lib.data.standardize.checks import content_words
from mule_lib.data.standardize.chunks import sentences
from mule_lib.data.text import normalise


@dataclass(frozen=True)
class Passage:
    """A source text; characters [start, end) of it bear out a pair."""

    text: str
    quote: tuple[int, int]


def raw_records(records: Sequence[Record], passages: Mapping[str, Passage] | None = None) -> list[Record]:
    """The records in raw formats, in the same order; `passages` by the ids of Obj1's records to forget.

    One to forget without a passage stays a question. Raises ValueError where no other answer could stand beside the
    right one, ValueError for a passage of no record to forget. Source: MULE Section 3.1, Figure 2's "Baseline".
    """
    passages, raw = passages or {}, []
    if unknown := sorted(set(passages) - {record.id for record in records if record.group == ("obj1", "forget")}):
        raise ValueError(f"passages: {unknown[0]!r} is no record of obj1 to forget")
    for record in records:
        changed, form = {}, "question"
        if record.id in passages:
            opening, rest = verbatim(passages[record.id], record.answer)
            changed, form = {"question": opening, "answer": rest, "verbatim": True}, "verbatim"
        elif record.objective == "obj2":
            same = [other for other in records if other.objective == record.objective]
            alike = [other for other in same if other.role == record.role]
            changed, form = {"question": lettered(record, alike, same)}, "lettered"
        raw.append(replace(record, **changed, prompt_id=f"raw/{form}"))
    check(raw, where="raw")
    return raw


def verbatim(passage: Passage, answer: str) -> tuple[str, str]:
    """The passage's opening sentence, and the rest of it up to and with the sentence that bears the answer.

    Where the opening sentence bears it, that one breaks off before the answer, at the earliest after its first word.
    """
    text, (begin, end) = passage.text, _place(passage, answer)
    spans = sentences(text)
    start, opened = spans[0]
    last = next((close for _, close in spans if close >= end), len(text))
    if last == opened:
        first_word = re.match(r"\S+\s*", text[start:])
        opened = max(begin, start + (first_word.end() if first_word else 0))
    return text[start:opened].strip(), text[opened:last].strip()


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
