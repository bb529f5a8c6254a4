"""Sets for choosing hyper-parameters: facts and phrasings of the training splits only, never of the evaluation sets."""

import random
from collections.abc import Sequence

from mule_lib.benchmarks.fable.evaluation import BENCHMARKS, prefix_families
from mule_lib.benchmarks.fable.phrasings import TRAIN_PHRASINGS
from mule_lib.benchmarks.fable.questions import choices, question
from mule_lib.benchmarks.fable.unlearning import validation_part
from mule_lib.benchmarks.fable.worlds import Fable, Fact
from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem


def validation_sets(fable: Fable, benchmark: str, *, at_most: int = 80) -> EvaluationSets:
    """All five sets of one benchmark from the fifth of the training facts that unlearning data leaves out.

    Each fact is asked in every training phrasing, at most `at_most` items a set; four-choice questions stand in for
    the MMLU-like set, whose facts are all evaluated. Raises ValueError for an unknown benchmark.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark={benchmark!r}: Fable has {' and '.join(BENCHMARKS)}")
    own = {"benchmark": benchmark, "split": "train"}
    forget = validation_part(fable.select(role="forget", **own))
    neighbors = validation_part(fable.select(role="neighbor", **own))
    general = validation_part(fable.select(role="general", split="train"))
    other = [fact for fact in fable.select(split="train") if fact.world.role == "other"]
    pairs = [(family, text) for family, group in prefix_families("train").items() for text in group]

    def asked(facts: Sequence[Fact]) -> list[tuple[Fact, int]]:
        each = [(fact, phrasing) for phrasing in TRAIN_PHRASINGS for fact in facts]
        return random.Random(f"validation/{benchmark}").sample(each, min(at_most, len(each)))

    def chosen(facts: Sequence[Fact], *, refusal: bool) -> tuple[ChoiceItem, ...]:
        items = []
        for fact, phrasing in asked(facts):
            name = f"{fact.id}/{phrasing}"
            options, answer, refused = choices(fact, random.Random(f"options/{name}"), refusal=refusal)
            text, objective = question(fact, phrasing), "obj2" if refusal else "obj1"
            items.append(ChoiceItem(name, text, tuple(options), answer, fact.world.title, refused, objective))
        return tuple(items)

    def opened(facts: Sequence[Fact]) -> tuple[OpenItem, ...]:
        return tuple(
            OpenItem(f"{fact.id}/{phrasing}", question(fact, phrasing), fact.value, fact.world.title)
            for fact, phrasing in asked(facts)
        )

    attacks = []
    for i, (fact, phrasing) in enumerate(asked(forget)):
        family, prefix = pairs[i % len(pairs)]
        text = question(fact, phrasing)
        attacks.append(AttackItem(f"{fact.id}/{phrasing}", text, fact.value, prefix, family, fact.world.title))
    return EvaluationSets(
        benchmark=f"fable-{benchmark}",
        topic=forget[0].world.title,
        forget=opened(forget),
        general=opened(general),
        neighbor=chosen(neighbors, refusal=True),
        attack=tuple(attacks),
        mmlu=chosen(other, refusal=False),
    )
