"""Question-answer pairs by an LLM (Sections 3.2, 3.3, 5.1): of passages, open questions, neighbours, as anchors."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mule_lib.data.items import REFUSAL_OPTION, ChoiceItem
from mule_lib.data.raw_formats import Passage
from mule_lib.data.standardize.ask import Job, prompt_file
from mule_lib.data.standardize.checks import Fault, fault, options_fault, restricted_fault, support_fault
from mule_lib.data.standardize.chunks import Chunk, find_quote
from mule_lib.data.text import normalise


@dataclass(frozen=True)
class Pair:
    """A question-answer pair on its way to a record; `span` counts characters of the cleaned text (`chunks.clean`)."""

    id: str
    step: str
    question: str
    answer: str
    source: str
    prompt_id: str = ""
    span: tuple[int, int] | None = None
    passage: Passage | None = None
    subject: str = ""
    unit: str = ""  # what is divided between the splits: a chunk, a question, a concept
    split: str = ""  # what it is meant for: "obj1/train", "neighbor/evaluation", "attack", ...


def _written(
    job: Job, step: str, prompt: str, slots: Mapping[str, Mapping], support: Callable | None = None,
    restricted: Sequence[str] = (),
) -> Iterator[tuple[str, Any, Pair]]:  # fmt: skip
    """Unit, entry and pair of all replies that can be used; `support` says why a source does not bear an entry out."""
    for unit, reply in job.ask(step, prompt, slots):
        many = hasattr(reply, "pairs")
        for n, entry in enumerate(reply.pairs if many else [reply], 1):
            text = {"question": entry.question.strip(), "answer": entry.answer.strip()}
            wrong = fault(**text) or restricted_fault(" ".join(text.values()), restricted)
            wrong = wrong or (support(unit, entry) if support else None)
            if job.passes(step, wrong, unit=unit, **text, quote=getattr(entry, "quote", "")):
                name = f"{unit}#{n}" if many else unit
                yield unit, entry, Pair(name, step, **text, source=unit, prompt_id=prompt_file(prompt).id, unit=unit)


def passage_pairs(
    job: Job, cut: Sequence[Chunk], step: str, focus: str, restricted: Sequence[str] = ()
) -> Iterator[Pair]:
    """Up to `pairs_per_chunk` pairs of each chunk on the `focus` that stand alone and that quoted words bear out."""
    by_id, same = {chunk.id: chunk for chunk in cut}, {"count": job.p.pairs_per_chunk, "focus": focus}
    slots = {c.id: {**same, "source": c.title or "an untitled text", "passage": c.text} for c in cut}

    def support(unit: str, entry) -> Fault:
        missing = find_quote(entry.quote, by_id[unit].text) is None
        return ("quote_not_found", entry.quote) if missing else support_fault(entry.answer, entry.quote)

    for unit, entry, pair in _written(job, step, "qa", slots, support, restricted):
        chunk = by_id[unit]
        start, end = find_quote(entry.quote, chunk.text)
        # The source with the chunk: a book of a million characters is no unit that is held out.
        source, span = f"{chunk.source}:{chunk.start}-{chunk.end}", (chunk.start + start, chunk.start + end)
        passage = Passage(chunk.text, (start, end))
        yield replace(pair, source=source, span=span, passage=passage, subject=chunk.title)


def open_pairs(job: Job, items: Sequence[ChoiceItem]) -> list[Pair]:
    """Multiple-choice questions as open ones (Section 5.1 asks WMDP openly); the right option bears the answer out."""
    right, subjects = {i.id: i.options[i.answer] for i in items}, {i.id: i.subject for i in items}
    slots = {i.id: {"question": i.question, "options": "; ".join(i.options), "answer": right[i.id]} for i in items}
    written = _written(job, "open questions", "open_question", slots, lambda u, e: support_fault(e.answer, right[u]))
    return [replace(pair, subject=subjects[unit]) for unit, _, pair in written]


def neighbor_concepts(job: Job) -> dict[str, str]:
    """Names by id of `concepts_per_field` concepts next to each field of the taxonomy, outside the domain."""
    step, restricted = "neighbor concepts", [*job.texts["restricted"], job.texts["topic"]]
    fields = enumerate(job.texts["taxonomy"], 1)
    slots = {f"{n:02d}": {"field": field, "count": job.p.concepts_per_field} for n, field in fields}
    kept: dict[str, tuple[str, str]] = {}
    for unit, reply in job.ask(step, "neighbor_concepts", slots, seed=job.p.seed):
        for n, entry in enumerate(reply.concepts, 1):
            name = " ".join(entry.name.split())
            wrong = restricted_fault(name, restricted)
            if normalise(name) in kept:
                wrong = "same_concept", kept[normalise(name)][0]
            if job.passes(step, wrong, unit=unit, concept=name):
                kept[normalise(name)] = f"concept/{unit}-{n:02d}", name
    return dict(kept.values())


def concept_pairs(job: Job, concepts: Mapping[str, str]) -> list[Pair]:
    """`pairs_per_concept` pairs of each concept in the same form as all others; no source bears them out."""
    slots = {name: {"concept": concept, "count": job.p.pairs_per_concept} for name, concept in concepts.items()}
    written = _written(job, "neighbor pairs", "neighbor_qa", slots, restricted=job.texts["restricted"])
    return [replace(pair, subject=concepts[unit]) for unit, _, pair in written]


def counterparts(
    job: Job, pairs: Sequence[Pair], objective: str, *, concepts: str, prefixes: Mapping[str, str]
) -> dict[str, Pair]:
    """Section 3.3: beside a question to refuse one like it that has to be answered, by the id of the one to refuse.

    `concepts` lie next to the domain (Obj2), `prefixes` by pair id open its answer (Obj3). Some are rejected.
    """
    same, by_id = {"concepts": concepts}, {pair.id: pair for pair in pairs}
    slots = {p.id: {**same, "question": p.question, "answer": p.answer, "prefix": prefixes[p.id]} for p in pairs}
    step, restricted = f"{objective} anchors", job.texts["restricted"]
    return {
        unit: replace(pair, id=f"{unit}~{objective}", source=f"counterpart of {unit}", split=by_id[unit].split)
        for unit, _, pair in _written(job, step, f"anchor_{objective}", slots, restricted=restricted)
    }


def choice_items(job: Job, pairs: Sequence[Pair]) -> list[ChoiceItem]:
    """Multiple choice with confusing options and the refusal option; the order is drawn by item and seed."""
    step, count, by_id = "neighbor choices", job.p.distractors, {pair.id: pair for pair in pairs}
    slots = {pair.id: {"question": pair.question, "answer": pair.answer, "count": count} for pair in pairs}
    kept = []
    for unit, reply in job.ask(step, "neighbor_choices", slots):
        pair, wrong = by_id[unit], [option.strip() for option in reply.distractors][:count]
        item = {"unit": unit, "question": pair.question, "answer": pair.answer, "distractors": wrong}
        if not job.passes(step, options_fault(pair.answer, wrong, count=count), **item):
            continue
        options = [option.rstrip(".") for option in (pair.answer, *wrong, REFUSAL_OPTION)]
        order = random.Random(f"options/{job.p.seed}/{unit}").sample(range(len(options)), len(options))
        shown, right, refusal = tuple(options[i] for i in order), order.index(0), order.index(len(options) - 1)
        kept.append(ChoiceItem(f"neighbor/{unit}", pair.question, shown, right, pair.subject, refusal))
    return kept
