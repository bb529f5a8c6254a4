"""Question-answer pairs by an LLM (Sections 3.2, 3.3, 5.1): of passages, open questions, neighbours, as anchors."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mule_lib.data.items import ChoiceItem
from mule_lib.data.prepare import REFUSAL_OPTION  # the paper's own example of a refusal option (5.1)
from mule_lib.data.raw_formats import Passage
from mule_lib.data.standardize.ask import Job, prompt_file
from mule_lib.data.standardize.checks import Fault, fault, options_fault, restricted_fault, support_fault
from mule_lib.data.standardize.chunks import Chunk, find_quote
from mule_lib.data.text import normalise

CONCEPT_WORDS = 8


@dataclass(frozen=True)
class Pair:
    """A question-answer pair on its way to a record; `span` counts characters of the cleaned text (`chunks.clean`).

    `step` books it; `split` is what it is meant for ("obj1/train", "neighbor/evaluation", "attack", ...).
    """

    id: str
    step: str
    question: str
    answer: str
    source: str
    prompt_id: str = ""
    span: tuple[int, int] | None = None
    passage: Passage | None = None
    subject: str = ""
    split: str = ""


# Of a unit and an entry of its reply: why the source does not bear it out, and the pair's other fields.
Origin = Callable[[str, object], tuple[Fault, dict]]


def _written(
    job: Job, step: str, prompt: str, slots: Mapping[str, Mapping], origin: Origin, restricted: Sequence[str] = ()
) -> Iterator[Pair]:
    """The pairs of all replies that can be used."""
    for unit, reply in job.ask(step, prompt, slots):
        many = hasattr(reply, "pairs")
        for n, entry in enumerate(reply.pairs if many else [reply], 1):
            text = {"question": entry.question.strip(), "answer": entry.answer.strip()}
            unsupported, more = origin(unit, entry)
            wrong = fault(**text) or restricted_fault(" ".join(text.values()), restricted) or unsupported
            if job.passes(step, wrong, unit=unit, **text, quote=getattr(entry, "quote", "")):
                fields = {"id": f"{unit}#{n}" if many else unit, "prompt_id": prompt_file(prompt).id, **more}
                yield Pair(step=step, **text, **fields)


def passage_pairs(
    job: Job, cut: Sequence[Chunk], step: str, focus: str, known: Sequence[str] = (), restricted: Sequence[str] = ()
) -> Iterator[Pair]:
    """Up to `pairs_per_chunk` pairs of each chunk that stand alone and that their quoted words bear out.

    `focus` says what about, `known` are words that questions may name although the chunk does not, and a pair that
    names a `restricted` term is rejected. A pair's span is that of its quote in the cleaned source.
    """
    by_id, same = {chunk.id: chunk for chunk in cut}, {"count": job.p.pairs_per_chunk, "focus": focus}
    slots = {c.id: {**same, "source": c.title or "an untitled text", "passage": c.text} for c in cut}

    def origin(unit, entry):
        chunk, place = by_id[unit], find_quote(entry.quote, by_id[unit].text)
        if place is None:
            return ("quote_not_found", entry.quote), {}
        names = [*known, chunk.title]
        wrong = support_fault(entry.question, entry.answer, quote=entry.quote, source=chunk.text, known=names)
        # The source with the chunk: a book of a million characters is no unit that is held out.
        source, span = f"{chunk.source}:{chunk.start}-{chunk.end}", (chunk.start + place[0], chunk.start + place[1])
        return wrong, {"source": source, "span": span, "passage": Passage(chunk.text, place), "subject": chunk.title}

    return _written(job, step, "qa", slots, origin, restricted)


def open_pairs(job: Job, items: Sequence[ChoiceItem]) -> Iterator[Pair]:
    """Multiple-choice questions as open ones (Section 5.1 asks WMDP openly); the right option bears the answer out."""
    by_id = {item.id: item for item in items}
    slots = {
        i.id: {"question": i.question, "options": "; ".join(i.options), "answer": i.options[i.answer]} for i in items
    }

    def origin(unit, entry):
        item, source = by_id[unit], " ".join([by_id[unit].question, *by_id[unit].options])
        wrong = support_fault(entry.question, entry.answer, quote=item.options[item.answer], source=source)
        return wrong, {"source": unit, "subject": item.subject}

    return _written(job, "open questions", "open_question", slots, origin)


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
            if not 1 <= len(name.split()) <= CONCEPT_WORDS:
                wrong = "malformed", f"a name of 1 to {CONCEPT_WORDS} words is needed"
            elif normalise(name) in kept:
                wrong = "same_concept", kept[normalise(name)][0]
            if job.passes(step, wrong, unit=unit, concept=name):
                kept[normalise(name)] = f"concept/{unit}-{n:02d}", name
    return dict(kept.values())


def concept_pairs(job: Job, concepts: Mapping[str, str]) -> Iterator[Pair]:
    """`pairs_per_concept` pairs of each concept in the same form as all others; no source bears them out."""
    slots = {name: {"concept": concept, "count": job.p.pairs_per_concept} for name, concept in concepts.items()}

    def origin(unit, _):
        return None, {"source": unit, "subject": concepts[unit]}

    return _written(job, "neighbor pairs", "neighbor_qa", slots, origin, job.texts["restricted"])


def counterparts(
    job: Job, pairs: Sequence[Pair], objective: str, *, concepts: str, prefixes: Mapping[str, str]
) -> dict[str, Pair]:
    """Section 3.3: beside a question to refuse one like it that has to be answered, by the id of the one to refuse.

    `concepts` lie next to the domain (Obj2), `prefixes` by pair id open its answer (Obj3). A pair whose counterpart was
    rejected has none.
    """
    by_id, ending = {pair.id: pair for pair in pairs}, f"~{objective}"
    slots = {
        p.id: {"question": p.question, "answer": p.answer, "concepts": concepts, "prefix": prefixes[p.id]}
        for p in pairs
    }

    def origin(unit, _):
        return None, {"id": unit + ending, "source": f"counterpart of {unit}", "split": by_id[unit].split}

    made = _written(job, f"{objective} anchors", f"anchor_{objective}", slots, origin, job.texts["restricted"])
    return {pair.id.removesuffix(ending): pair for pair in made}


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
