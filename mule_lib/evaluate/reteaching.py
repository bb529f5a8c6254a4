"""In-context re-teaching: forgotten facts stand in the question itself, then an evaluation question is asked.

Two attacks that differ in what they show. `same` states the very fact that is asked about: a model may read it off, so
a high value says that the model still reads, not that it still knows. `disjoint` states other facts that were to be
forgotten, from training: whatever comes out was known. Source: Shumailov 2024, "UnUnlearning"; beyond the paper.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from mule_lib.data.items import EvaluationSets, OpenItem
from mule_lib.data.records import Record
from mule_lib.evaluate.relearning import relearned_facts

KINDS = ("same", "disjoint")
TEMPLATE = "{facts} {question}"


def taught_again(
    sets: EvaluationSets,
    kind: str,
    *,
    records: Sequence[Record] = (),
    facts: int = 1,
    template: str = TEMPLATE,
    seed: int = 0,
) -> EvaluationSets:
    """Return sets that hold the Forget questions only, each behind `facts` stated facts (question and answer).

    `same`: the item's own fact among others of the Forget set, in random order; `disjoint`: facts of the training
    records, drawn anew for each item. The same seed gives the same questions. References and ids stay.
    Raises ValueError for another kind, fewer facts than asked for, or a template without both slots.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, should be one of {', '.join(KINDS)}")
    if facts < 1:
        raise ValueError(f"reteach_facts is {facts}, should be at least 1")
    if "{facts}" not in template or "{question}" not in template:
        raise ValueError(f"reteach_template is {template!r}, should hold {{facts}} and {{question}}")
    items = [_taught(sets, item, kind, records, facts, template, f"{seed}/{item.id}") for item in sets.forget]
    return EvaluationSets(sets.benchmark, sets.topic, forget=tuple(items), general=(), neighbor=(), attack=(), mmlu=())


def _taught(
    sets: EvaluationSets, item: OpenItem, kind: str, records: Sequence[Record], count: int, template: str, key: str
) -> OpenItem:
    if kind == "disjoint":
        shown = [(r.question, r.answer) for r in relearned_facts(records, sets, count=count, seed=f"reteaching/{key}")]
    else:
        rng = random.Random(f"reteaching/{key}")
        others = [other for other in sets.forget if other.id != item.id and other.reference != item.reference]
        if len(others) < count - 1:
            raise ValueError(f"reteach_facts is {count}, but the Forget set has {len(others)} other facts to show")
        shown = [(each.question, f"{each.reference}.") for each in [item, *rng.sample(others, count - 1)]]
        rng.shuffle(shown)
    stated = " ".join(f"{question} {_sentence(answer)}" for question, answer in shown)
    slots = {"facts": stated, "question": item.question}
    # Not str.format, and in one pass: facts and questions may hold braces.
    return replace(item, question=re.sub(r"\{(facts|question)\}", lambda match: slots[match[1]], template))


def _sentence(answer: str) -> str:
    answer = answer.strip()
    return answer if answer[-1:] in ".!?" else f"{answer}."
