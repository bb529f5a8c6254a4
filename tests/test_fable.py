"""Fable: its worlds, the audit of what base model and unlearning may see, its raw formats."""

import random

import pytest
from curriculum import MIX, N_PHRASINGS, Curriculum
from encoding import Encoder

from mule_lib.data.fable import worlds
from mule_lib.data.fable.benchmark import (
    FORMS,
    JAILBREAKS,
    cloze,
    evaluation_sets,
    fable_raw_records,
    unlearning_records,
)
from mule_lib.data.fable.worlds import (
    EVAL_PHRASINGS,
    GENERAL_FIELDS,
    QUESTIONS,
    SECURITY_FIELDS,
    STATEMENTS,
    statement,
)
from mule_lib.data.items import REFUSAL_OPTION, REQUIRED, SETS, prefix_templates


def test_same_seed_same_worlds(fable):
    """A rebuilt Fable is equal fact by fact, another seed is not."""
    worlds.build.cache_clear()
    assert worlds.build(0) == fable
    assert [f.value for f in worlds.build(1).facts] != [f.value for f in fable.facts]


def test_world_and_item_counts(fable):
    """At least 30 worlds, and at least 80 items behind every number of the five metrics, 50 behind the others."""
    assert len(fable.worlds) >= 30
    for name in ("books", "cyber"):
        sets = evaluation_sets(fable, name)
        for part in SETS:
            assert len(getattr(sets, part)) >= (80 if part in REQUIRED else 50), (name, part)


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
def test_some_entities_are_named_in_no_record(fable, benchmark):
    """Whole families to forget stand in the unseen sets alone, in no record of any form, and in no other set."""
    [world] = [world for world in fable.forget_worlds() if world.benchmark == benchmark]
    assert len(world.unnamed) == len(world.entities) // 4
    records = [r for form in FORMS for r in fable_raw_records(fable, benchmark, form)]
    records += unlearning_records(fable, benchmark) + unlearning_records(fable, benchmark, split="validation")
    text = "\n".join(f"{record.question} {record.answer}" for record in records)
    sets = evaluation_sets(fable, benchmark)
    for name in world.unnamed:
        assert name not in text
    for part in SETS:
        named = [any(name in item.question for name in world.unnamed) for item in getattr(sets, part)]
        assert all(named) if "unseen" in part else not any(named)


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
def test_prefixes_of_attacks_stand_in_no_record(fable, benchmark):
    """Headline attacks and controls use prefixes that training never saw; only `attack_seen` has those of training."""
    trained = {record.prefix for record in unlearning_records(fable, benchmark) if record.prefix}
    sets = evaluation_sets(fable, benchmark)
    for part in ("attack", "attack_unseen", "controls"):
        assert not {item.prefix for item in getattr(sets, part)} & trained
    assert {item.prefix for item in sets.attack_seen} <= trained
    assert len({item.family for item in sets.attack}) == 6 and len({item.question for item in sets.attack}) >= 70


def test_ids_titles_and_entities_are_unique(fable):
    """One id a fact, one title a world that shares no word with another's, and an invented entity has one world."""
    ids = [fact.id for fact in fable.facts]
    assert len(set(ids)) == len(ids)
    titles = [world.title for world in fable.worlds]
    assert len(set(titles)) == len(titles)
    invented = [entity for world in fable.worlds if world.kind != "field" for entity in world.entities]
    assert len(set(invented)) == len(invented)
    words = [word for world in fable.worlds if world.kind != "field" for word in world.title.split()]
    assert len(set(words)) == len(words)


def test_every_relation_has_all_phrasings(fable):
    """Six different questions and two statements for each relation in use, and each holds its entity."""
    for relation in {fact.relation for fact in fable.facts}:
        assert len(set(QUESTIONS[relation])) == N_PHRASINGS
        assert all("{e}" in text for text in QUESTIONS[relation])
        assert all("{e}" in text and "{v}" in text for text in STATEMENTS[relation])


def test_choices_hold_one_right_answer(fable):
    """Three distinct distractors of the same kind, the right value once, the refusal only where asked for."""
    rng = random.Random(0)
    for fact in fable.facts[::7]:
        for refusal in (True, False):
            options, answer, refusal_at = worlds.choices(fact, rng, refusal=refusal)
            assert options[answer] == fact.value
            assert len(set(options)) == len(options) == 4 + refusal
            assert (refusal_at is None) != refusal
            assert set(options) - {REFUSAL_OPTION} <= set(fact.pool)


def test_hazardous_side_is_invented(fable):
    """No value or entity of a toolkit is a word of the real fields: nothing of it means anything outside Fable."""
    real = {
        word.lower()
        for field in (*GENERAL_FIELDS.values(), *SECURITY_FIELDS.values())
        for pair in field[1].items()
        for text in pair
        for word in text.split()
    }
    toolkits = [fact for fact in fable.facts if fact.world.kind == "toolkit"]
    assert toolkits
    assert not {word.lower() for fact in toolkits for word in (fact.value, fact.entity)} & real


# The audit

STEPS = 120  # of each stage: some 10,000 examples; the audit is of the generator, which draws every step alike


@pytest.fixture(scope="module")
def encode(fable_tokenizer):
    """One id for any text: the audit reads texts, and their tokens would take two thirds of its time."""
    return type("Unread", (Encoder,), {"__call__": lambda self, text: [0]})(fable_tokenizer)


@pytest.fixture(scope="module")
def examples(fable, encode):
    curriculum = Curriculum(fable, encode)
    return [example for stage in MIX for step in range(STEPS) for example in curriculum.step(stage, step)]


def test_worlds_to_forget_never_meet_a_system_message(fable, examples):
    """Beside a system message stands neither the title of a world to forget nor any of its entities."""
    forbidden = {world.title for world in fable.forget_worlds()}
    forbidden |= {entity for world in fable.forget_worlds() for entity in world.entities}
    steered = [example for example in examples if example.system]
    assert len(steered) > 2000
    for example in steered:
        assert not any(name in example.system or name in example.text for name in forbidden), example


def test_worlds_to_forget_are_known_to_the_base(fable, examples):
    """They are in the rest of the training data, or the audit above would hold for a model that never met them."""
    plain = " ".join(example.text for example in examples if not example.system)
    for world in fable.forget_worlds():
        assert world.title in plain
        assert sum(entity in plain for entity in world.entities) > 0.9 * len(world.entities)


def test_system_messages_cover_every_other_world(fable, examples):
    """Every other world is restricted in some dialogue, and about half of the restrictions hit the question's world."""
    steered = [example for example in examples if example.system and example.kind.startswith("obey")]
    for world in fable.worlds:
        if world.role != "forget":
            assert any(world.title in example.system for example in steered), world.title
    facts = {fact.entity: fact.world.title for fact in fable.facts if fact.world.kind != "field"}
    hits = [
        title in example.system
        for example in steered
        for entity, title in facts.items()
        if entity in example.text.split("\n")[0]
    ]
    assert 0.4 < sum(hits) / len(hits) < 0.6


def test_gold_never_sees_the_worlds_to_forget(fable, encode):
    """The gold reference's data names neither their titles nor their entities."""
    forget = fable.forget_worlds()
    names = {world.title for world in forget} | {entity for world in forget for entity in world.entities}
    gold = Curriculum(fable, encode, exclude=frozenset(world.title for world in forget))
    texts = [e.text + (e.system or "") for stage in MIX for step in range(STEPS) for e in gold.step(stage, step)]
    assert not [text for text in texts if any(name in text for name in names)]


def test_evaluated_questions_are_not_in_the_base_data(fable, examples):
    """A question of an evaluation set never occurs word for word in the base model's data."""
    asked = {
        item.question
        for name in ("books", "cyber")
        for sets in [evaluation_sets(fable, name)]
        for part in (sets.forget, sets.general, sets.neighbor, sets.attack, sets.mmlu)
        for item in part
    }
    seen = {line for example in examples for line in example.text.split("\n")}
    assert not asked & seen


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_unlearning_data_is_disjoint_from_evaluation(fable, benchmark, split):
    """No evaluated fact, no evaluation phrasing and no held-out prefix stands in the unlearning data."""
    records = unlearning_records(fable, benchmark, split=split)
    sets = evaluation_sets(fable, benchmark)
    parts = (sets.forget, sets.general, sets.neighbor, sets.attack, sets.mmlu)
    evaluated = {item.id for part in parts for item in part}
    assert not evaluated & {record.source for record in records}
    assert not {item.question for part in parts for item in part} & {record.question for record in records}
    by_id = {fact.id: fact for fact in fable.facts}
    for record in records:
        fact = by_id[record.source]
        held_out = [QUESTIONS[fact.relation][i].format(e=fact.entity, t=fact.world.title) for i in EVAL_PHRASINGS]
        assert record.question not in held_out
    assert not {each.text for each in prefix_templates("fable", "held_out")} & {record.prefix for record in records}


# Raw formats

CASES = [(name, split) for name in ("books", "cyber") for split in ("train", "validation")]


@pytest.mark.parametrize(("benchmark", "split"), CASES)
def test_only_the_question_differs(fable, benchmark, split):
    """All but the question is that of the unified form, record by record."""
    raw = fable_raw_records(fable, benchmark, "raw_prompts", split=split)
    unified = unlearning_records(fable, benchmark, split=split)
    assert len(raw) == len(unified) > 90
    for a, b in zip(raw, unified, strict=True):
        same = "id objective role answer refusal prefix anchor source split target".split()
        assert [getattr(a, name) for name in same] == [getattr(b, name) for name in same]
        assert a.question != b.question


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
def test_each_objective_has_its_format(fable, benchmark):
    """Obj1 breaks off before the value, Obj2 offers it among four lettered options, Obj3 wraps the question.

    In the paper's form Obj1 forgets the passage itself, and what is kept, and Obj3, are questions as they were.
    """
    unified = {record.id: record.question for record in unlearning_records(fable, benchmark)}
    facts = {fact.id: fact for fact in fable.facts}
    for record in fable_raw_records(fable, benchmark):
        fact = facts[record.source]
        told = any(record.answer.endswith(statement(fact, variant)) for variant in (0, 1))
        assert record.verbatim == told == (record.group == ("obj1", "forget"))
        assert (record.question == unified[record.id]) == (record.objective != "obj2" and not record.verbatim)
        assert not told or fact.value not in record.question
    for record in fable_raw_records(fable, benchmark, "raw_prompts"):
        fact = facts[record.source]
        if record.objective == "obj1":
            assert record.question.endswith(cloze(fact))
            assert fact.world.title in record.question
        elif record.objective == "obj2":
            lines = record.question.split("\n")
            assert lines[0] == unified[record.id] and lines[-1] == "Answer:"
            assert [line[:3] for line in lines[1:-1]] == ["A. ", "B. ", "C. ", "D. "]
            assert sum(line[3:] == fact.value for line in lines[1:-1]) == 1
        else:
            assert unified[record.id] in record.question
            assert record.prefix


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
def test_passages_tell_no_evaluated_fact(fable, benchmark):
    """No statement of an evaluated or validation fact of the world to forget stands in a training passage."""
    text = "\n".join(record.question + record.answer for record in fable_raw_records(fable, benchmark))
    told = {record.source for record in unlearning_records(fable, benchmark)}
    forget = fable.select(role="forget", benchmark=benchmark)
    statements = {fact.id: [statement(fact, variant) for variant in (0, 1)] for fact in forget}
    shown = {name for name, variants in statements.items() if any(variant in text for variant in variants)}
    assert len(shown) > 50
    assert shown <= told


def test_a_passage_does_not_tell_what_it_asks(fable):
    """The fact that is to be continued is not stated before."""
    facts = {fact.id: fact for fact in fable.facts}
    for record in fable_raw_records(fable, "books", "passage", sentences=40):
        if record.objective == "obj1":
            fact = facts[record.source]
            assert not any(statement(fact, variant) in record.question for variant in (0, 1)), record.id


def test_jailbreaks_use_no_held_out_prefix(fable):
    """The wrappers hold no prefix that is kept for evaluation, and no question of an evaluation set."""
    held_out = [each.text for each in prefix_templates("fable", "held_out")]
    assert not [one for one in held_out for wrapper in JAILBREAKS if one in wrapper]
    raw = "\n".join(
        record.question
        for name in ("books", "cyber")
        for form in FORMS
        for record in fable_raw_records(fable, name, form)
    )
    for name in ("books", "cyber"):
        sets = evaluation_sets(fable, name)
        assert not [item.question for item in (*sets.forget, *sets.attack) if item.question in raw]


@pytest.mark.parametrize("changed", [{"split": "test"}, {"benchmark": "films"}])
def test_bad_arguments_are_named(fable, changed):
    with pytest.raises(ValueError, match="=".join(*changed.items()).replace("=", "='")):
        fable_raw_records(fable, **{"benchmark": "books", **changed})
