"""The refusals that records to refuse are given: short, varied, and seen as refusals by the judge."""

import random
from collections.abc import Sequence

from mule_lib import prompt_files
from mule_lib.data.text import is_refusal, normalise
from mule_lib.generators import Generator
from mule_lib.standardize.checks import restricted_fault
from mule_lib.standardize.ledger import Ledger

REFUSAL_WORDS = 20
PER_REQUEST = 20


def refusal_pool(
    generator: Generator, ledger: Ledger, *, count: int, restricted: Sequence[str], seed: int
) -> list[str]:
    """Our own refusals (`llm/refusals`), and about `count` more by the LLM: those that the judge sees, each once.

    A refusal that the judge misses would count as an answer, and one that names the domain fits no other question.
    """
    step = "refusals"
    kept = {normalise(text): text for text in prompt_files.load("llm/refusals").more["own"]}
    units = [f"{n:02d}" for n in range(-(-count // PER_REQUEST))]
    slots = {unit: {"count": min(count, PER_REQUEST)} for unit in units}
    seeds = {unit: seed + n for n, unit in enumerate(units)}
    for unit, data in ledger.ask(generator, step, "refusals", slots, seeds=seeds):
        for text in (entry.strip() for entry in data["refusals"]):
            ledger.item(step)
            found = restricted_fault(text, restricted)
            if not text or len(text.split()) > REFUSAL_WORDS:
                found = "malformed", f"1 to {REFUSAL_WORDS} words are needed"
            elif not is_refusal(text):
                found = "not_a_refusal", text
            elif normalise(text) in kept:
                found = "duplicate_within", kept[normalise(text)]
            if found:
                ledger.reject(step, found, unit=unit, refusal=text)
                continue
            kept[normalise(text)] = text
            ledger.accept(step)
    return list(kept.values())


def refusal_for(name: str, pool: Sequence[str], *, seed: int) -> str:
    """The refusal of one record, drawn by its id and the seed: the same however many records there are."""
    return random.Random(f"refusal/{seed}/{name}").choice(pool)
