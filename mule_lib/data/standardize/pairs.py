"""Question-answer pairs by an LLM (Sections 3.2, 3.3, 5.1): of passages, of neighbours, as anchors; and refusals."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mule_lib.data.items import ChoiceItem
from mule_lib.data.standardize.ask import Job, prompt_file
from mule_lib.data.standardize.checks import (
    Fault,
    fault,
    nearest,
    options_fault,
    restricted_fault,
    support_fault,
)
from mule_lib.data.standardize.chunks import Chunk, find_quote
from mule_lib.data.text import is_refusal, normalise

CONCEPT_WORDS, REFUSAL_WORDS, REFUSALS_PER_REQUEST = 8, 20, 20
REFUSAL_OPTION = "I do not know"  # the paper's own example of a refusal option (5.1)


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
    subject: str = ""
    split: str = ""


def passage_pairs(
    job: Job, cut: Sequence[Chunk], step: str, focus: str, known: Sequence[str] = (), restricted: Sequence[str] = ()
) -> Iterator[Pair]:
    """Up to `pairs_per_chunk` pairs of each chunk that stand alone and that their quoted words bear out.

    `focus` says what about, `known` are words that questions may name although the chunk does not, and a pair that
    names a `restricted` term is rejected. A pair's span is that of its quote in the cleaned source.
    """
    by_id = {chunk.id: chunk for chunk in cut}
    same = {"count": job.p.pairs_per_chunk, "focus": focus}
    slots = {c.id: {**same, "source": c.title or "an untitled text", "passage": c.text} for c in cut}
    for unit, reply in job.ask(step, "qa", slots):
        chunk = by_id[unit]
        for n, entry in enumerate(reply.pairs, 1):
            question, answer, place = entry.question.strip(), entry.answer.strip(), find_quote(entry.quote, chunk.text)
            wrong = _closed_book_fault(job, question, answer, restricted)
            if not wrong and place is None:
                wrong = "quote_not_found", entry.quote
            elif not wrong:
                quote, names = chunk.text[slice(*place)], [*known, chunk.title]
                sizes = {"support": job.p.support, "known": names}
                wrong = support_fault(question, answer, quote=quote, source=chunk.text, **sizes)
            if job.passes(step, wrong, unit=unit, question=question, answer=answer, quote=entry.quote):
                # The source with the chunk: a book of a million characters is no unit that is held out.
                source, span = f"{chunk.source}:{chunk.start}-{chunk.end}", [chunk.start + end for end in place]
                prompt_id = prompt_file("qa").id
                yield Pair(f"{unit}#{n}", step, question, answer, source, prompt_id, tuple(span), chunk.title)


def open_pairs(job: Job, items: Sequence[ChoiceItem]) -> Iterator[Pair]:
    """Multiple-choice questions as open ones (Section 5.1 asks WMDP openly); the right option bears the answer out."""
    step, by_id = "open questions", {item.id: item for item in items}
    slots = {
        i.id: {"question": i.question, "options": "; ".join(i.options), "answer": i.options[i.answer]} for i in items
    }
    for unit, reply in job.ask(step, "open_question", slots):
        item, question, answer = by_id[unit], reply.question.strip(), reply.answer.strip()
        right, source = item.options[item.answer], f"{item.question} {' '.join(item.options)}"
        wrong = None if reply.possible else ("not_convertible", item.question[:80])
        wrong = wrong or _closed_book_fault(job, question, answer)
        wrong = wrong or support_fault(question, answer, quote=right, source=source, support=job.p.support)
        if job.passes(step, wrong, unit=unit, question=question, answer=answer, quote=right):
            yield Pair(unit, step, question, answer, item.id, prompt_file("open_question").id, subject=item.subject)


def neighbor_concepts(job: Job) -> dict[str, str]:
    """Names by id of `concepts_per_field` concepts next to each field of the taxonomy, outside the domain."""
    step, restricted = "neighbor concepts", [*job.texts["restricted"], job.texts["topic"]]
    fields = enumerate(job.texts["taxonomy"], 1)
    slots = {f"{n:02d}": {"field": field, "count": job.p.concepts_per_field} for n, field in fields}
    kept: dict[str, tuple[str, str]] = {}
    for unit, reply in job.ask(step, "neighbor_concepts", slots, seeds=dict.fromkeys(slots, job.p.seed)):
        for n, entry in enumerate(reply.concepts, 1):
            name = " ".join(entry.name.split())
            wrong = restricted_fault(name, restricted)
            if not 1 <= len(name.split()) <= CONCEPT_WORDS:
                wrong = "malformed", f"a name of 1 to {CONCEPT_WORDS} words is needed"
            elif normalise(name) in kept:
                wrong = "same_concept", kept[normalise(name)][0]
            if job.passes(step, wrong, unit=unit, concept=name):
                kept[normalise(name)] = f"concept/{unit}-{n:02d}", name
    job.accept(step, len(kept))
    return dict(kept.values())


def concept_pairs(job: Job, concepts: Mapping[str, str]) -> Iterator[Pair]:
    """`pairs_per_concept` pairs of each concept in the same form as all others; no source bears them out."""
    step, count = "neighbor pairs", job.p.pairs_per_concept
    slots = {name: {"concept": concept, "count": count} for name, concept in concepts.items()}
    for unit, reply in job.ask(step, "neighbor_qa", slots):
        for n, entry in enumerate(reply.pairs, 1):
            more = {"source": unit, "subject": concepts[unit]}
            yield from _answerable(job, f"{unit}#{n}", step, entry, "neighbor_qa", unit, more)


def counterparts(
    job: Job, pairs: Sequence[Pair], *, objective: str, more: Mapping[str, Mapping[str, str]]
) -> dict[str, Pair]:
    """Section 3.3: beside a question to refuse one like it that has to be answered, by the id of the one to refuse.

    `more` are further slots of the objective's prompt by pair id. A pair whose counterpart was rejected has none.
    """
    step, prompt, by_id, made = f"{objective} anchors", f"anchor_{objective}", {pair.id: pair for pair in pairs}, {}
    slots = {p.id: {"question": p.question, "answer": p.answer, **more.get(p.id, {})} for p in pairs}
    for unit, entry in job.ask(step, prompt, slots):
        source = {"source": f"counterpart of {unit}", "split": by_id[unit].split}
        for pair in _answerable(job, f"{unit}~{objective}", step, entry, prompt, unit, source):
            made[unit] = pair
    passed = {pair.id for pair in verified(job, list(made.values()), step=f"{objective} anchors verified")}
    return {unit: pair for unit, pair in made.items() if pair.id in passed}


def verified(job: Job, pairs: Sequence[Pair], *, step: str) -> list[Pair]:
    """The pairs that a second look finds true, clear and outside the domain; all of them where `verify` is off.

    `step` books the requests, the pairs' own step what is rejected. A pair without a verdict does not pass.
    """
    if not job.p.verify:
        return list(pairs)
    slots = {pair.id: {"question": pair.question, "answer": pair.answer} for pair in pairs}
    verdicts = dict(job.ask(step, "verify", slots))
    passed = []
    for pair in pairs:
        verdict = verdicts[pair.id].model_dump() if pair.id in verdicts else {"verdict": False}
        if all(verdict.values()):
            passed.append(pair)
            continue
        detail = ", ".join(f"not {name}" for name, good in verdict.items() if not good)
        job.reject(pair.step, ("verifier", detail), unit=pair.id, question=pair.question, answer=pair.answer)
    return passed


def with_partners(pairs: Sequence[Pair], made: Mapping[str, Pair], pool: Sequence[Pair]) -> list[tuple[Pair, Pair]]:
    """Each pair with its counterpart, else with the most similar pair of the pool among those used least so far."""
    lacking = [pair for pair in pairs if pair.id not in made]
    chosen = nearest([pair.question for pair in lacking], [pair.question for pair in pool]) if lacking else []
    others = {pair.id: pool[place] for pair, place in zip(lacking, chosen, strict=True)}
    return [(pair, made.get(pair.id) or others[pair.id]) for pair in pairs]


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
    job.accept(step, len(kept))
    return kept


def refusal_pool(job: Job) -> list[str]:
    """Our own refusals (`llm/refusals`), and about `refusals` more by the LLM: those that the judge sees, each once.

    A refusal that the judge misses would count as an answer, and one that names the domain fits no other question.
    """
    step, size = "refusals", REFUSALS_PER_REQUEST
    kept = {normalise(text): text for text in prompt_file("refusals").own}
    slots = {f"{n:02d}": {"count": min(job.p.refusals, size)} for n in range(-(-job.p.refusals // size))}
    seeds = {unit: job.p.seed + n for n, unit in enumerate(slots)}
    for unit, reply in job.ask(step, "refusals", slots, seeds=seeds):
        for text in (entry.strip() for entry in reply.refusals):
            wrong = restricted_fault(text, job.texts["restricted"])
            if not 1 <= len(text.split()) <= REFUSAL_WORDS:
                wrong = "malformed", f"1 to {REFUSAL_WORDS} words are needed"
            elif not is_refusal(text):
                wrong = "not_a_refusal", text
            elif normalise(text) in kept:
                wrong = "duplicate_within", kept[normalise(text)]
            if job.passes(step, wrong, unit=unit, refusal=text):
                kept[normalise(text)] = text
                job.accept(step)
    return list(kept.values())


def _closed_book_fault(job: Job, question: str, answer: str, restricted: Sequence[str] = ()) -> Fault:
    wrong = fault(question, answer, answer_words=job.p.answer_words)
    return wrong or restricted_fault(f"{question} {answer}", restricted)


def _answerable(job: Job, name: str, step: str, entry, prompt: str, unit: str, more: Mapping) -> Iterator[Pair]:
    """The pair of a reply that has to be answered and has no source, unless something is wrong with it."""
    question, answer = entry.question.strip(), entry.answer.strip()
    wrong = _closed_book_fault(job, question, answer, job.texts["restricted"])
    if job.passes(step, wrong, unit=unit, question=question, answer=answer):
        yield Pair(name, step, question, answer, prompt_id=prompt_file(prompt).id, **more)
