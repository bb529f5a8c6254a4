"""Concepts next to the domain to unlearn, their pairs and their multiple choice (Sections 3.2 and 5.1, Obj2)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mule_lib import prompt_files
from mule_lib.data.items import ChoiceItem
from mule_lib.data.text import normalise
from mule_lib.generators import Generator
from mule_lib.standardize.checks import Limits, fault, options_fault, restricted_fault
from mule_lib.standardize.ledger import Ledger, Pair

CONCEPT_WORDS = 8


@dataclass(frozen=True)
class Concept:
    """A neighbouring concept, the field of the taxonomy that it lies next to, and why it is outside."""

    id: str
    name: str
    field: str
    near: str
    outside: str


def concepts(
    fields: Sequence[str],
    generator: Generator,
    ledger: Ledger,
    *,
    topic: str,
    restricted: Sequence[str],
    count: int,
    seed: int,
) -> list[Concept]:
    """`count` concepts per field of the benchmark's taxonomy; doubled ones and those that name the domain go."""
    step = "neighbor concepts"
    slots = {f"{n:02d}": {"topic": topic, "field": field, "count": count} for n, field in enumerate(fields, 1)}
    kept: dict[str, Concept] = {}
    for unit, data in ledger.ask(generator, step, "neighbor_concepts", slots, seeds=dict.fromkeys(slots, seed)):
        for n, entry in enumerate(data["concepts"], 1):
            name = " ".join(entry["name"].split())
            ledger.item(step)
            found = restricted_fault(name, [*restricted, topic])
            if not name or len(name.split()) > CONCEPT_WORDS:
                found = "malformed", f"a name of 1 to {CONCEPT_WORDS} words is needed"
            elif normalise(name) in kept:
                found = "same_concept", kept[normalise(name)].id
            if found:
                ledger.reject(step, found, unit=unit, concept=name)
                continue
            kept[normalise(name)] = Concept(
                f"concept/{unit}-{n:02d}", name, slots[unit]["field"], entry["near"], entry["outside"]
            )
    ledger.accept(step, len(kept))
    return list(kept.values())


def concept_pairs(
    concepts: Sequence[Concept],
    generator: Generator,
    ledger: Ledger,
    *,
    topic: str,
    restricted: Sequence[str],
    count: int,
    limits: Limits,
) -> list[Pair]:
    """`count` pairs per concept in the same form as all others; no source bears them out, so verify them."""
    step = "neighbor pairs"
    by_id = {concept.id: concept for concept in concepts}
    slots = {
        concept.id: {
            "concept": concept.name, "count": count, "topic": topic, "answer_words": limits.answer_words
        }
        for concept in concepts
    }  # fmt: skip
    kept = []
    for unit, data in ledger.ask(generator, step, "neighbor_qa", slots):
        for n, entry in enumerate(data["pairs"], 1):
            question, answer = entry["question"].strip(), entry["answer"].strip()
            ledger.item(step)
            found = closed_book_fault(question, answer, limits=limits, restricted=restricted)
            if found:
                ledger.reject(step, found, unit=unit, question=question, answer=answer)
                continue
            kept.append(
                Pair(
                    id=f"{unit}#{n}",
                    step=step,
                    question=question,
                    answer=answer,
                    source=unit,
                    prompt_id=prompt_files.prompt_id("llm/neighbor_qa"),
                    subject=by_id[unit].name,
                )
            )
    return kept


def closed_book_fault(
    question: str, answer: str, *, limits: Limits, restricted: Sequence[str]
) -> tuple[str, str] | None:
    """Why a pair that has to be answered, and has no source, cannot be used: (reason, detail), or None."""
    return fault(question, answer, limits=limits) or restricted_fault(f"{question} {answer}", restricted)


def verified(pairs: Sequence[Pair], generator: Generator, ledger: Ledger, *, step: str, topic: str) -> list[Pair]:
    """The pairs that a second look finds true, clear and outside the domain; the others are booked at their own step.

    `step` books the requests. A pair without a verdict does not pass.
    """
    slots = {pair.id: {"question": pair.question, "answer": pair.answer, "topic": topic} for pair in pairs}
    verdicts = dict(ledger.ask(generator, step, "verify", slots))
    passed = []
    for pair in pairs:
        verdict = verdicts.get(pair.id)
        wrong = [name for name in ("premise", "correct", "alone", "outside") if verdict and not verdict[name]]
        if verdict and not wrong:
            passed.append(pair)
            continue
        found = "verifier", f"not {', not '.join(wrong)}" if wrong else "no verdict"
        ledger.reject(pair.step, found, unit=pair.id, question=pair.question, answer=pair.answer)
    return passed


def choice_items(
    pairs: Sequence[Pair], generator: Generator, ledger: Ledger, *, refusal: str, count: int, seed: int
) -> list[ChoiceItem]:
    """Multiple choice with `count` confusing options and the refusal option; the order is drawn per item and seed."""
    step = "neighbor choices"
    by_id = {pair.id: pair for pair in pairs}
    slots = {pair.id: {"question": pair.question, "answer": pair.answer, "count": count} for pair in pairs}
    kept = []
    for unit, data in ledger.ask(generator, step, "neighbor_choices", slots):
        pair = by_id[unit]
        wrong = [option.strip() for option in data["distractors"]][:count]
        ledger.item(step)
        if found := options_fault(pair.answer, wrong, count=count):
            ledger.reject(step, found, unit=unit, question=pair.question, answer=pair.answer, distractors=wrong)
            continue
        options = [pair.answer.rstrip("."), *(option.rstrip(".") for option in wrong), refusal.rstrip(".")]
        order = random.Random(f"options/{seed}/{unit}").sample(range(len(options)), len(options))
        kept.append(
            ChoiceItem(
                f"neighbor/{unit}",
                pair.question,
                tuple(options[i] for i in order),
                order.index(0),
                pair.subject,
                order.index(len(options) - 1),
            )
        )
        ledger.accept(step)
    return kept
