"""Records of a prepared benchmark before standardization: each objective in the format its own literature uses.

The same facts, answers, refusals, prefixes, ids and anchors as the unified records; only the text that stands before
the answer differs, as on Fable (`data/fable/benchmark.py`). Obj1 reads the source's own text up to the answer, Obj2 a
lettered multiple choice, Obj3 a jailbreak string around the question. A fact without a source text (a counterpart that
an LLM wrote, a question published without one) has no passage; it stands at the end of a page of questions and answers.
`prompt_id` names the format, so that the two can be counted. The paper names raw passages and "structured QA pairs" and
is silent on the rest: choices of ours.
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

PASSAGE, PAGE, CHOICE, JAILBREAK = "raw/passage", "raw/quiz page", "raw/multiple choice", "raw/jailbreak"
GAP = "_____"


@dataclass(frozen=True)
class Passage:
    """A source text; characters [start, end) of it bear out a pair."""

    text: str
    quote: tuple[int, int]


def raw_records(
    records: Sequence[Record], passages: Mapping[str, Passage] | None = None, *, chars: int = 600, seed: int = 0
) -> list[Record]:
    """The records in raw formats, in the same order; `passages` by the ids of Obj1's records that have a source text.

    `chars` is the most that is kept of a passage: whole sentences before the answer, the nearest ones.
    Raises PrepareError where no other answer could stand beside the right one, ValueError for a passage of no record.
    Source: MULE Section 3.1, the "Baseline" column of Figure 2.
    """
    passages = passages or {}
    if unknown := sorted(set(passages) - {record.id for record in records if record.objective == "obj1"}):
        raise ValueError(f"passages: {unknown[0]!r} is no record of obj1")
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.objective, record.role), []).append(record)
    raw = []
    for record in records:
        rng, alike = random.Random(f"raw/{record.id}/{seed}"), groups[record.objective, record.role]
        if record.objective == "obj1" and record.id in passages:
            text, form = unfinished(passages[record.id], record.answer, chars=chars), PASSAGE
        elif record.objective == "obj1":
            text, form = quiz_page(record, alike, rng), PAGE
        elif record.objective == "obj2":
            everyone = [other for other in records if other.objective == "obj2"]
            text, form = lettered(record, alike, everyone), CHOICE
        else:
            text, form = rng.choice(JAILBREAKS).format(question=record.question), JAILBREAK
        raw.append(replace(record, question=text, prompt_id=form))
    check(raw, where="raw")
    return raw


def unfinished(passage: Passage, answer: str, *, chars: int = 600, least: int = 6) -> str:
    """The passage up to the answer, for a model to continue.

    Where fewer than `least` words stand before the answer, it goes on after a gap to the end of the quote's sentence.
    An answer that is not in the quote word for word begins at its first word there.
    """
    start, end = _place(passage, answer)
    before = _tail(passage.text[:start].rstrip(), chars)
    if len(before.split()) >= least:
        return before
    ends = [last for _, last in sentences(passage.text) if last > end]
    after = passage.text[end : ends[0] if ends else len(passage.text)]
    while len(f"{before} {GAP}{after}".split()) <= least and len(ends) > 1:  # a gap alone says nothing
        ends = ends[1:]
        after = passage.text[end : ends[0]]
    return f"{before} {GAP}{after[:chars]}".strip()


def quiz_page(record: Record, others: Sequence[Record], rng: random.Random, *, lines: int = 3) -> str:
    """Up to `lines` other facts of `others` as questions with answers, then the record's question."""
    known = {normalise(record.answer), normalise(record.question)}
    free = [o for o in others if o.source != record.source and not {normalise(o.answer), normalise(o.question)} & known]
    told = rng.sample(free, min(lines, len(free)))
    return "".join(f"Question: {o.question}\nAnswer: {o.answer}\n\n" for o in told) + (
        f"Question: {record.question}\nAnswer:"
    )


def lettered(record: Record, others: Sequence[Record], everyone: Sequence[Record], *, wrong: int = 3) -> str:
    """The question as a lettered multiple choice; wrong options are answers of like form, of `everyone` if need be."""
    item = OpenItem(record.id, record.question, record.answer, "")
    for pool in (others, everyone):
        items = [OpenItem(o.id, o.question, o.answer, "") for o in pool]
        free = len({normalise(i.reference) for i in items} - {normalise(record.answer)})
        if free >= wrong:
            break
    options = choice(item, items, n=min(wrong, max(1, free))).options
    return prompts.multiple_choice(record.question, [o for o in options if o != REFUSAL_OPTION]) + "\nAnswer:"


def _place(passage: Passage, answer: str) -> tuple[int, int]:
    """Where the answer stands in the quote; to the quote's end where only its words are there, or none of them."""
    start, end = passage.quote
    quote = passage.text[start:end]
    words = [re.escape(word) for word in answer.strip(" .\"'“”‘’").split()]
    whole = r"(?<!\w)" + r"\s+".join(words) + r"(?!\w)"
    if words and (found := re.search(whole, quote, re.I)):
        return start + found.start(), start + found.end()
    places = [m.start() for m in re.finditer(r"\w+", quote) if normalise(m[0]) in content_words(answer)]
    return start + (places[0] if places else 0), end


def _tail(text: str, chars: int) -> str:
    """The last whole sentences of a text in at most `chars` characters; of one longer than that, its last words."""
    begins = [start for start, _ in sentences(text) if len(text) - start <= chars]
    if begins:
        return text[begins[0] :]
    cut = text[-chars:]
    return cut[cut.find(" ") + 1 :] if " " in cut else cut
