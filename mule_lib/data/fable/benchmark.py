"""Fable-Books and Fable-Cyber: unlearning records in unified and in raw form, evaluation sets, validation sets.

Each record to refuse has an anchor that has to be answered: a general fact (obj1), a question of the same relation
about a neighbour (obj2 and obj3, there after the same prefix). Evaluation facts, phrasings and held-out prefixes never
occur in records; validation sets rest on training facts and phrasings only.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from mule_lib import prompts
from mule_lib.data.attacks import JAILBREAKS, in_turn, prefix_templates
from mule_lib.data.fable.questions import (
    REFUSAL,
    TRAIN_PHRASINGS,
    choices,
    eval_phrasing,
    opening,
    question,
    statement,
)
from mule_lib.data.fable.worlds import Fable, Fact
from mule_lib.data.items import ChoiceItem, EvaluationSets, OpenItem
from mule_lib.data.records import Record, anchored, check
from mule_lib.params import FABLE

GENERATOR = "fable rules"
FORMATS = {"obj1": "passage", "obj2": "multiple choice", "obj3": "jailbreak"}


def unlearning_records(fable: Fable, benchmark: str, *, split: str = "train") -> list[Record]:
    """Records of all three objectives for one benchmark, balanced between what to refuse and what to answer.

    `split` is train, or validation: a fifth of the training facts, kept for choosing hyper-parameters.
    Raises ValueError for an unknown benchmark or split.
    """
    forget, neighbors, general = _training_facts(fable, benchmark, split)
    rng = random.Random(f"unlearning/{benchmark}/0")
    prefixes = [prefix for _, prefix in prefix_templates("fable", "train")]
    records: list[Record] = []

    def pair(objective: str, roles: tuple[str, str], *facts: Fact, prefix: str | None = None) -> None:
        sides = [
            {"question": question(fact, rng.choice(TRAIN_PHRASINGS)), "answer": f"{fact.value}.", "source": fact.id}
            for fact in facts
        ]
        shared = {"refusal": REFUSAL, "prefix": prefix, "generator": GENERATOR, "split": split}
        records.extend(anchored(objective, roles, sides, number=f"{len(records) // 2:04d}", **shared))

    for i, fact in enumerate(forget):
        pair("obj1", ("forget", "retain"), fact, rng.choice(general))
        pair("obj2", ("forget", "neighbor"), fact, _near(fact, neighbors, rng))
        benign = rng.choice(general) if i % 2 else _near(fact, neighbors, rng)
        pair("obj3", ("adversarial", "benign"), fact, benign, prefix=prefixes[i % len(prefixes)])
    check(records)
    return records


def fable_raw_records(fable: Fable, benchmark: str, *, split: str = "train", sentences: int = 5) -> list[Record]:
    """The records of `unlearning_records` before standardization, each objective in its own literature's format.

    The same facts, answers, prefixes, ids and anchors in the same order; only the text before the answer differs. The
    paper names raw passages and "structured QA pairs" and is silent on the rest, so these are choices of ours: Obj1
    reads a passage that breaks off before the value (MUSE's verbatim text), Obj2 a lettered multiple choice (WMDP,
    MMLU), Obj3 a jailbreak string around the question. The embedded model obeys an intention rarely on such texts, so
    the teacher reads the unified question of the same id, and both formats have the same targets.
    `sentences` are stated before the one that breaks off; they are other facts of the same world, role and split, so
    a passage never states an evaluated fact. `prompt_id` names the format.
    Raises ValueError for an unknown benchmark or split. Source: MULE Section 3.1, the "Baseline" column of Figure 2.
    """
    unified = unlearning_records(fable, benchmark, split=split)
    facts = {fact.id: fact for fact in fable.facts}
    alike: dict[tuple[str, str], dict[str, Fact]] = {}
    for record in unified:
        fact = facts[record.source]
        alike.setdefault((record.role, fact.world.title), {})[fact.id] = fact
    raw = []
    for record in unified:
        fact, rng = facts[record.source], random.Random(f"raw/{record.id}/0")
        if record.objective == "obj1":
            others = alike[record.role, fact.world.title].values()
            rest = [one for one in others if (one.entity, one.relation) != (fact.entity, fact.relation)]
            drawn = [statement(one, rng.randrange(2)) for one in rng.sample(rest, min(sentences, len(rest)))]
            text = " ".join([opening(fact.world), *drawn, cloze(fact)])
        elif record.objective == "obj2":
            text = prompts.multiple_choice(record.question, choices(fact, rng, refusal=False)[0]) + "\nAnswer:"
        else:
            text = rng.choice(JAILBREAKS).format(question=record.question)
        raw.append(replace(record, question=text, prompt_id=f"raw/{FORMATS[record.objective]}"))
    check(raw)
    return raw


def cloze(fact: Fact) -> str:
    """The fact's statement up to its value, for a model to continue: "The capital of France is"."""
    whole = next(text for text in (statement(fact, 1), statement(fact, 0)) if text.endswith(f" {fact.value}."))
    return whole.removesuffix(f" {fact.value}.")


def evaluation_sets(fable: Fable, benchmark: str) -> EvaluationSets:
    """All evaluation sets of one benchmark, held-out facts in evaluation phrasings, the same for every call.

    Attacks use the training prefixes, one per fact in turn. Raises ValueError for an unknown benchmark.
    """
    _check_name(benchmark)
    topic = next(world.title for world in fable.forget_worlds() if world.benchmark == benchmark)
    neighbors = fable.select(role="neighbor", split="eval", benchmark=benchmark)
    hidden = fable.select(role="forget", split="prefill", benchmark=benchmark)
    prefixes = prefix_templates("fable", "train")
    return EvaluationSets(
        benchmark=f"fable-{benchmark}",
        topic=topic,
        forget=tuple(map(_open, fable.select(role="forget", split="eval", benchmark=benchmark))),
        general=tuple(map(_open, fable.select(role="general", split="eval"))),
        neighbor=tuple(_choice(fact, refusal=True) for fact in neighbors),
        attack=in_turn(map(_open, hidden), prefixes, topic=topic),
        mmlu=tuple(_choice(fact, refusal=False) for fact in fable.select(split="mmlu")),
        controls=in_turn(map(_open, neighbors), prefixes, topic=topic, control=True),
    )


def validation_sets(fable: Fable, benchmark: str) -> EvaluationSets:
    """Five sets for choosing hyper-parameters, from the fifth of the training facts that unlearning data leaves out.

    Each fact is asked in every training phrasing, at most 80 items a set; four-choice questions stand in for the
    MMLU-like set, whose facts are all evaluated. Raises ValueError for an unknown benchmark.
    """
    forget, neighbors, general = _training_facts(fable, benchmark, "validation")
    other = [fact for fact in fable.select(split="train") if fact.world.role == "other"]

    def drawn(facts: Sequence[Fact], make: Callable) -> tuple:
        each = [(fact, phrasing) for phrasing in TRAIN_PHRASINGS for fact in facts]
        asked = random.Random(f"validation/{benchmark}").sample(each, min(80, len(each)))
        return tuple(make(fact, phrasing, f"{fact.id}/{phrasing}") for fact, phrasing in asked)

    topic = forget[0].world.title
    return EvaluationSets(
        benchmark=f"fable-{benchmark}",
        topic=topic,
        forget=drawn(forget, _open),
        general=drawn(general, _open),
        neighbor=drawn(neighbors, lambda *asked: _choice(*asked, refusal=True)),
        attack=in_turn(drawn(forget, _open), prefix_templates("fable", "train"), topic=topic),
        mmlu=drawn(other, lambda *asked: _choice(*asked, refusal=False)),
    )


def _check_name(benchmark: str) -> None:
    if benchmark not in FABLE:
        raise ValueError(f"benchmark={benchmark!r}: Fable has {' and '.join(FABLE)}")


def _training_facts(fable: Fable, benchmark: str, split: str) -> tuple[list[Fact], ...]:
    """Facts to forget, of neighbours and of general knowledge that may be trained on; every fifth is for validation."""
    _check_name(benchmark)
    if split not in ("train", "validation"):
        raise ValueError(f"split={split!r}: train or validation")
    parts = (
        {"role": "forget", "benchmark": benchmark},
        {"role": "neighbor", "benchmark": benchmark},
        {"role": "general"},
    )
    return tuple(
        [fact for i, fact in enumerate(fable.select(split="train", **part)) if (i % 5 == 4) == (split == "validation")]
        for part in parts
    )


def _near(fact: Fact, neighbors: list[Fact], rng: random.Random) -> Fact:
    return rng.choice([other for other in neighbors if other.relation == fact.relation] or neighbors)


def _open(fact: Fact, phrasing: int | None = None, name: str = "") -> OpenItem:
    asked = question(fact, eval_phrasing(fact) if phrasing is None else phrasing)
    return OpenItem(name or fact.id, asked, fact.value, fact.world.title)


def _choice(fact: Fact, phrasing: int | None = None, name: str = "", *, refusal: bool) -> ChoiceItem:
    item = _open(fact, phrasing, name)
    # The order of options hangs on the item alone, so it is the same in every run and for every row.
    options, answer, refused = choices(fact, random.Random(f"options/{item.id}"), refusal=refusal)
    objective = "obj2" if refusal else "obj1"
    return ChoiceItem(item.id, item.question, tuple(options), answer, item.subject, refused, objective)
