"""Unlearning data of Fable in the unified form: training facts in training phrasings, with contrastive anchors.

Each record to refuse has an anchor that has to be answered: a general fact (obj1), a question of the same relation
about a neighbour (obj2 and obj3, there after the same prefix). Evaluation facts, phrasings
and held-out prefixes never occur.
"""

import random
from collections.abc import Sequence

from mule_lib.benchmarks.fable.evaluation import BENCHMARKS, prefix_families
from mule_lib.benchmarks.fable.phrasings import TRAIN_PHRASINGS
from mule_lib.benchmarks.fable.questions import REFUSAL, question
from mule_lib.benchmarks.fable.worlds import Fable, Fact
from mule_lib.data.records import Record, check

GENERATOR = "fable rules"


def unlearning_records(fable: Fable, benchmark: str, *, split: str = "train", seed: int = 0) -> list[Record]:
    """Records of all three objectives for one benchmark, balanced between what to refuse and what to answer.

    `split` is train, or validation: a fifth of the training facts, kept for choosing hyper-parameters.
    Raises ValueError for an unknown benchmark or split.
    """
    if benchmark not in BENCHMARKS:
        raise ValueError(f"benchmark={benchmark!r}: Fable has {' and '.join(BENCHMARKS)}")
    if split not in ("train", "validation"):
        raise ValueError(f"split={split!r}: train or validation")
    rng = random.Random(f"unlearning/{benchmark}/{seed}")
    own = {"benchmark": benchmark, "split": "train"}
    forget = _part(fable.select(role="forget", **own), split)
    neighbors = _part(fable.select(role="neighbor", **own), split)
    general = _part(fable.select(role="general", split="train"), split)
    prefixes = [prefix for family in prefix_families("train").values() for prefix in family]
    records: list[Record] = []

    def pair(objective: str, roles: tuple[str, str], refused: Fact, answered: Fact, prefix: str | None = None) -> None:
        ids = [f"{objective}/{role}/{len(records) // 2:04d}" for role in roles]
        for name, partner, role, fact in zip(ids, reversed(ids), roles, (refused, answered), strict=True):
            records.append(
                Record(
                    id=name,
                    objective=objective,
                    role=role,
                    question=question(fact, rng.choice(TRAIN_PHRASINGS)),
                    answer=f"{fact.value}.",
                    refusal=REFUSAL,
                    prefix=prefix,
                    anchor=partner,
                    source=fact.id,
                    generator=GENERATOR,
                    split=split,
                )
            )

    for i, fact in enumerate(forget):
        pair("obj1", ("forget", "retain"), fact, rng.choice(general))
        pair("obj2", ("forget", "neighbor"), fact, _near(fact, neighbors, rng))
        benign = rng.choice(general) if i % 2 else _near(fact, neighbors, rng)
        pair("obj3", ("adversarial", "benign"), fact, benign, prefixes[i % len(prefixes)])
    check(records)
    return records


def validation_part(facts: Sequence[Fact]) -> list[Fact]:
    """The fifth of training facts that is kept for choosing hyper-parameters."""
    return [fact for i, fact in enumerate(facts) if i % 5 == 4]


def _part(facts: Sequence[Fact], split: str) -> list[Fact]:
    kept = validation_part(facts)
    return kept if split == "validation" else [fact for fact in facts if fact not in kept]


def _near(fact: Fact, neighbors: list[Fact], rng: random.Random) -> Fact:
    alike = [other for other in neighbors if other.relation == fact.relation]
    return rng.choice(alike or neighbors)
