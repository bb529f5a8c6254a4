"""The audit: what the base model must not have been trained on, and what unlearning must not see."""

import pytest

from mule_lib import prompts
from mule_lib.data.fable.benchmark import evaluation_sets, prefix_families, unlearning_records
from mule_lib.data.fable.questions import EVAL_PHRASINGS, QUESTIONS
from mule_lib.embedded.curriculum import Curriculum
from mule_lib.embedded.examples import Encoder
from mule_lib.embedded.mix import MIX

STEPS = 120  # of each stage: some 10,000 examples; the audit is of the generator, which draws every step alike


@pytest.fixture(scope="module")
def encode(fable_tokenizer):
    return Encoder(fable_tokenizer)


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
    held_out_prefixes = {prefix for family in prefix_families("held_out").values() for prefix in family}
    assert not held_out_prefixes & {record.prefix for record in records}


def test_prefixes_never_end_in_a_space():
    """The answer after a prefix begins with the space, so that its ids are the same everywhere."""
    for part in prompts.texts()["prefixes"].values():
        assert all(prefix == prefix.strip() for family in part.values() for prefix in family)
