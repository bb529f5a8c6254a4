"""Fable-Books and Fable-Cyber: unlearning records in unified and in raw form, evaluation sets, validation sets.

Each record to refuse has an anchor that has to be answered: a general fact (obj1), a question of the same relation
about a neighbour (obj2 and obj3, there after the same prefix). Evaluation facts, phrasings and held-out prefixes never
occur in records; validation sets rest on training facts and phrasings only.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources

import yaml

from mule_lib import prompts
from mule_lib.data.fable.worlds import (
    REFUSAL,
    UNLEARNING_PHRASINGS,
    VALIDATION_PHRASING,
    Fable,
    Fact,
    choices,
    eval_phrasing,
    opening,
    question,
    statement,
)
from mule_lib.data.items import ChoiceItem, EvaluationSets, OpenItem, in_turn, prefix_templates
from mule_lib.data.records import Record, anchored, check
from mule_lib.params import FABLE

GENERATOR = "fable rules"
JAILBREAKS: tuple[str, ...] = tuple(
    yaml.safe_load(resources.files("mule_lib.data").joinpath("attacks.yaml").read_text("utf-8"))["jailbreaks"]
)
# The form of each objective's records by data format.
FORMS: dict[str, dict[str, str]] = {
    "raw": {"obj1": "verbatim", "obj2": "lettered", "obj3": "question"},
    "raw_prompts": {"obj1": "passage", "obj2": "lettered", "obj3": "jailbreak"},
    **{form: dict.fromkeys(prompts.OBJECTIVES, form) for form in ("passage", "lettered", "jailbreak")},
}


def unlearning_records(fable: Fable, benchmark: str, *, split: str = "train") -> list[Record]:
    """Records of all three objectives for one benchmark, balanced between what to refuse and what to answer.

    `split` is train, or validation: a fifth of the training facts, kept for choosing hyper-parameters.
    Raises ValueError for an unknown benchmark or split.
    """
    forget, neighbors, general = _training_facts(fable, benchmark, split)
    rng = random.Random(f"unlearning/{benchmark}/0")
    prefixes = [each.text for each in prefix_templates("fable", "train")]
    records: list[Record] = []

    def pair(objective: str, roles: tuple[str, str], *facts: Fact, prefix: str | None = None) -> None:
        sides = [
            {
                "question": question(fact, rng.choice(UNLEARNING_PHRASINGS)),
                "answer": f"{fact.value}.",
                "source": fact.id,
            }
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


def fable_raw_records(
    fable: Fable, benchmark: str, data_format: str = "raw", *, split: str = "train", sentences: int = 5
) -> list[Record]:
    """The records of `unlearning_records` before standardization: same facts, prefixes, ids and anchors, same order.

    `raw` is what the paper names: Obj1 forgets passages token by token (`verbatim`: opening sentence, then the rest)
    and keeps question-answer pairs, Obj3 is a question behind a prefix; of Obj2 it says nothing, lettered choices are
    ours. `raw_prompts` is milder: short targets behind a passage that breaks off, a lettered choice, a jailbreak.
    `passage`, `lettered` and `jailbreak` give all objectives one of these forms. `sentences` of a passage are of the
    same world, role and split as its fact, so none states an evaluated fact. `prompt_id` names the form.
    Raises ValueError for an unknown benchmark or split. KeyError for another format.
    Source: MULE Section 3.1, the "Baseline" column of Figure 2; docs/conditions.md.
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
        form = FORMS[data_format][record.objective]
        if form == "verbatim" and record.role != "forget":
            form = "question"
        changed: dict = {"question": record.question}
        if form in ("verbatim", "passage"):
            told = told_with(fact, alike[record.role, fact.world.title], rng, sentences=sentences)
            changed = {"question": " ".join([opening(fact.world), *told, cloze(fact)])}
            if form == "verbatim":
                told.append(statement(fact, rng.randrange(2)))
                changed = {"question": opening(fact.world), "answer": " ".join(told), "verbatim": True}
        elif form == "lettered":
            options = choices(fact, rng, refusal=False)[0]
            changed = {"question": prompts.multiple_choice(record.question, options) + "\nAnswer:"}
        elif form == "jailbreak":
            changed = {"question": rng.choice(JAILBREAKS).format(question=record.question)}
        raw.append(replace(record, **changed, prompt_id=f"raw/{form}"))
    check(raw)
    return raw


def cloze(fact: Fact) -> str:
    """The fact's statement up to its value, for a model to continue: "The capital of France is"."""
    whole = next(text for text in (statement(fact, 1), statement(fact, 0)) if text.endswith(f" {fact.value}."))
    return whole.removesuffix(f" {fact.value}.")


def told_with(fact: Fact, alike: dict[str, Fact], rng: random.Random, *, sentences: int) -> list[str]:
    """Statements of some of `alike`, none of which says what the fact says."""
    rest = [other for other in alike.values() if (other.entity, other.relation) != (fact.entity, fact.relation)]
    return [statement(other, rng.randrange(2)) for other in rng.sample(rest, min(sentences, len(rest)))]


def evaluation_sets(fable: Fable, benchmark: str) -> EvaluationSets:
    """All evaluation sets of one benchmark, held-out facts in evaluation phrasings, the same for every call.

    `attack` and `controls` use prefix families that no training data holds, two prefixes a fact to forget;
    `attack_seen` uses those of the training data. Facts of `World.unnamed` entities are in the `unseen` sets alone.
    Raises ValueError for an unknown benchmark.
    """
    _check_name(benchmark)
    [world] = [world for world in fable.forget_worlds() if world.benchmark == benchmark]
    neighbors = fable.select(role="neighbor", split="eval", benchmark=benchmark)
    parts = {
        split: fable.select(role="forget", split=split, benchmark=benchmark) for split in ("train", "eval", "prefill")
    }
    named, unnamed = (
        {split: [f for f in facts if (f.entity in world.unnamed) == hidden] for split, facts in parts.items()}
        for hidden in (False, True)
    )
    general, far = fable.select(role="general", split="eval"), fable.select(split="mmlu")
    topic = world.title
    seen, held_out = (prefix_templates("fable", part) for part in ("train", "held_out"))
    return EvaluationSets(
        benchmark=f"fable-{benchmark}",
        topic=topic,
        forget=tuple(map(_open, named["eval"])),
        general=tuple(map(_open, general)),
        neighbor=tuple(_choice(fact, refusal=True) for fact in neighbors),
        attack=in_turn(map(_open, named["prefill"]), held_out, topic=topic, each=2),
        mmlu=tuple(_choice(fact, refusal=False) for fact in far),
        controls=in_turn(map(_open, neighbors), held_out, topic=topic, control=True),
        attack_seen=in_turn(map(_open, named["prefill"]), seen, topic=topic),
        forget_unseen=tuple(map(_open, unnamed["train"] + unnamed["eval"])),
        attack_unseen=in_turn(map(_open, unnamed["prefill"]), held_out, topic=topic, each=2),
        forget_cloze=tuple(replace(_open(fact), question=cloze(fact)) for fact in named["eval"]),
        pools={_pool(fact): fact.pool for facts in (*parts.values(), neighbors, general) for fact in facts},
    )


def validation_sets(fable: Fable, benchmark: str) -> EvaluationSets:
    """Five sets for choosing hyper-parameters, from the fifth of the training facts that unlearning data leaves out.

    Facts are asked in a phrasing that neither unlearning data nor evaluation has, behind the prefixes of training, at
    most 80 items a set; four-choice questions stand in for the MMLU-like set, whose facts are all evaluated.
    Raises ValueError for an unknown benchmark.
    """
    forget, neighbors, general = _training_facts(fable, benchmark, "validation")
    other = [fact for fact in fable.select(split="train") if fact.world.role == "other"]

    def drawn(facts: Sequence[Fact], make: Callable) -> tuple:
        asked = random.Random(f"validation/{benchmark}").sample(facts, min(80, len(facts)))
        return tuple(make(fact, VALIDATION_PHRASING, fact.id) for fact in asked)

    topic = forget[0].world.title
    return EvaluationSets(
        benchmark=f"fable-{benchmark}",
        topic=topic,
        forget=drawn(forget, _open),
        general=drawn(general, _open),
        neighbor=drawn(neighbors, lambda *asked: _choice(*asked, refusal=True)),
        attack=in_turn(drawn(forget, _open), prefix_templates("fable", "train"), topic=topic, each=4),
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
    known = ([f for f in fable.select(split="train", **part) if f.entity not in f.world.unnamed] for part in parts)
    return tuple([f for i, f in enumerate(facts) if (i % 5 == 4) == (split == "validation")] for facts in known)


def _near(fact: Fact, neighbors: list[Fact], rng: random.Random) -> Fact:
    return rng.choice([other for other in neighbors if other.relation == fact.relation] or neighbors)


def _open(fact: Fact, phrasing: int | None = None, name: str = "") -> OpenItem:
    asked = question(fact, eval_phrasing(fact) if phrasing is None else phrasing)
    return OpenItem(name or fact.id, asked, fact.value, fact.world.title, pool=_pool(fact))


def _pool(fact: Fact) -> str:
    """The name of the fact's pool of values: its relation, of real fields their title."""
    return fact.world.title if fact.world.kind == "field" else fact.relation


def _choice(fact: Fact, phrasing: int | None = None, name: str = "", *, refusal: bool) -> ChoiceItem:
    item = _open(fact, phrasing, name)
    # The order of options hangs on the item alone, so it is the same in every run and for every row.
    options, answer, refused = choices(fact, random.Random(f"options/{item.id}"), refusal=refusal)
    objective = "obj2" if refusal else "obj1"
    return ChoiceItem(item.id, item.question, tuple(options), answer, item.subject, refused, objective, item.pool)
