"""Fable's worlds: the same everywhere, large enough for their splits, with plausible wrong answers."""

import random

import pytest

from mule_lib.data.fable import questions, worlds
from mule_lib.data.fable.benchmark import evaluation_sets
from mule_lib.data.fable.common_knowledge import GENERAL_FIELDS, SECURITY_FIELDS
from mule_lib.data.fable.questions import N_PHRASINGS, QUESTIONS, STATEMENTS


def test_same_seed_same_worlds(fable):
    """A rebuilt Fable is equal fact by fact, another seed is not."""
    worlds.build.cache_clear()
    assert worlds.build(0) == fable
    assert [f.value for f in worlds.build(1).facts] != [f.value for f in fable.facts]


def test_world_and_item_counts(fable):
    """At least 30 worlds, and at least 100 items behind every number of a row, on both benchmarks."""
    assert len(fable.worlds) >= 30
    for name in ("books", "cyber"):
        sets = evaluation_sets(fable, name)
        for part in ("forget", "general", "neighbor", "attack", "mmlu"):
            assert len(getattr(sets, part)) >= 100, (name, part)


def test_ids_titles_and_entities_are_unique(fable):
    """One id a fact, one title a world, and an invented entity belongs to one world only."""
    ids = [fact.id for fact in fable.facts]
    assert len(set(ids)) == len(ids)
    titles = [world.title for world in fable.worlds]
    assert len(set(titles)) == len(titles)
    invented = [entity for world in fable.worlds if world.kind != "field" for entity in world.entities]
    assert len(set(invented)) == len(invented)


def test_titles_share_no_word(fable):
    """No title of an invented world is a near miss of another."""
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
            options, answer, refusal_at = questions.choices(fact, rng, refusal=refusal)
            assert options[answer] == fact.value
            assert len(set(options)) == len(options) == 4 + refusal
            assert (refusal_at is None) != refusal
            assert set(options) - {questions.REFUSAL_OPTION} <= set(fact.pool)


def test_passage_tells_facts_of_its_world(fable):
    """A passage names its world and states values of its facts."""
    facts = [fact for fact in fable.facts if fact.world.role == "forget"][:5]
    text = questions.passage(facts, random.Random(0))
    assert facts[0].world.title in text
    assert all(fact.value in text for fact in facts)


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


@pytest.mark.parametrize(("counts", "name"), [({"n_series": 5}, "n_series=5"), ({"n_toolkits": 3}, "n_toolkits=3")])
def test_too_few_worlds_are_refused(counts, name):
    """A count too small for the splits names itself and the smallest that works."""
    with pytest.raises(ValueError, match=f"{name} is too small .* at least"):
        worlds.build(0, **counts)


def test_too_many_worlds_are_refused():
    """More worlds than titles are refused by name."""
    with pytest.raises(ValueError, match="at most 50 titles"):
        worlds.build(0, n_series=60)


def test_unknown_benchmark_is_refused(fable):
    """The valid names stand in the message."""
    with pytest.raises(ValueError, match="books and cyber"):
        evaluation_sets(fable, "films")
