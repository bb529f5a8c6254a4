"""Evaluation sets of Fable-Books and Fable-Cyber: held-out facts in evaluation phrasings."""

import random
from collections.abc import Sequence

from mule_lib import prompts
from mule_lib.benchmarks.fable.questions import choices, eval_phrasing, question
from mule_lib.benchmarks.fable.worlds import Fable, Fact
from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem

BENCHMARKS = ("books", "cyber")


def prefix_families(part: str) -> dict[str, list[str]]:
    """Prefilling prefixes by family; `part` is train (may stand in unlearning data) or held_out."""
    return prompts.texts("fable")["prefixes"][part]


def evaluation_sets(fable: Fable, benchmark: str, *, prefixes: str = "train") -> EvaluationSets:
    """All evaluation sets of one benchmark, the same for every call.

    Attacks use the families of `prefixes`, one prefix per fact in turn. Raises ValueError for an unknown benchmark.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark={benchmark!r}: Fable has {' and '.join(BENCHMARKS)}")
    topic = next(world.title for world in fable.forget_worlds() if world.benchmark == benchmark)
    own = {"benchmark": benchmark}
    neighbors = fable.select(role="neighbor", split="eval", **own)
    return EvaluationSets(
        benchmark=f"fable-{benchmark}",
        topic=topic,
        forget=tuple(map(_open, fable.select(role="forget", split="eval", **own))),
        general=tuple(map(_open, fable.select(role="general", split="eval"))),
        neighbor=tuple(_choice(fact, refusal=True) for fact in neighbors),
        attack=_attacks(fable.select(role="forget", split="prefill", **own), prefixes, control=False),
        mmlu=tuple(_choice(fact, refusal=False) for fact in fable.select(split="mmlu")),
        controls=_attacks(neighbors, prefixes, control=True),
    )


def _ask(fact: Fact) -> str:
    return question(fact, eval_phrasing(fact))


def _open(fact: Fact) -> OpenItem:
    return OpenItem(fact.id, _ask(fact), fact.value, fact.world.title)


def _choice(fact: Fact, *, refusal: bool) -> ChoiceItem:
    # The order of options hangs on the item alone, so it is the same in every run and for every row.
    options, answer, refusal_at = choices(fact, random.Random(f"options/{fact.id}"), refusal=refusal)
    objective = "obj2" if refusal else "obj1"
    return ChoiceItem(fact.id, _ask(fact), tuple(options), answer, fact.world.title, refusal_at, objective)


def _attacks(facts: Sequence[Fact], part: str, *, control: bool) -> tuple[AttackItem, ...]:
    pairs = [(family, prefix) for family, group in prefix_families(part).items() for prefix in group]
    return tuple(
        AttackItem(fact.id, _ask(fact), fact.value, *reversed(pairs[i % len(pairs)]), fact.world.title, control)
        for i, fact in enumerate(facts)
    )
