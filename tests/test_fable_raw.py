"""Raw formats of Fable: the same facts and targets as the unified records, in other texts, and no evaluated fact."""

import pytest

from mule_lib.data.attacks import JAILBREAKS
from mule_lib.data.fable.benchmark import cloze, evaluation_sets, prefix_families, raw_records, unlearning_records
from mule_lib.data.fable.questions import statement

CASES = [(name, split) for name in ("books", "cyber") for split in ("train", "validation")]


@pytest.mark.parametrize(("benchmark", "split"), CASES)
def test_only_the_question_differs(fable, benchmark, split):
    """All but the question is that of the unified form, record by record."""
    raw, unified = (make(fable, benchmark, split=split) for make in (raw_records, unlearning_records))
    assert len(raw) == len(unified) > 100
    for a, b in zip(raw, unified, strict=True):
        same = "id objective role answer refusal prefix anchor source split target".split()
        assert [getattr(a, name) for name in same] == [getattr(b, name) for name in same]
        assert a.question != b.question


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
def test_each_objective_has_its_format(fable, benchmark):
    """Obj1 breaks off before the value, Obj2 offers it among four lettered options, Obj3 wraps the question."""
    unified = {record.id: record.question for record in unlearning_records(fable, benchmark)}
    facts = {fact.id: fact for fact in fable.facts}
    for record in raw_records(fable, benchmark):
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
    text = "\n".join(record.question for record in raw_records(fable, benchmark))
    told = {record.source for record in unlearning_records(fable, benchmark)}
    forget = fable.select(role="forget", benchmark=benchmark)
    statements = {fact.id: [statement(fact, variant) for variant in (0, 1)] for fact in forget}
    shown = {name for name, variants in statements.items() if any(variant in text for variant in variants)}
    assert len(shown) > 50
    assert shown <= told


def test_a_passage_does_not_tell_what_it_asks(fable):
    """The fact that is to be continued is not stated before."""
    facts = {fact.id: fact for fact in fable.facts}
    for record in raw_records(fable, "books", sentences=40):
        if record.objective == "obj1":
            fact = facts[record.source]
            assert not any(statement(fact, variant) in record.question for variant in (0, 1)), record.id


def test_every_fact_can_break_off(fable):
    """A statement without its value never ends in the value."""
    for fact in fable.facts:
        assert any(f"{cloze(fact)} {fact.value}." == statement(fact, variant) for variant in (0, 1))


def test_the_seed_decides_and_the_same_seed_repeats(fable):
    """Same arguments, same records; another seed or number of sentences, others."""
    assert raw_records(fable, "books") == raw_records(fable, "books")
    assert raw_records(fable, "books", seed=1) != raw_records(fable, "books")
    shorter = raw_records(fable, "books", sentences=0)
    assert len(shorter[0].question) < len(raw_records(fable, "books")[0].question)


def test_jailbreaks_use_no_held_out_prefix(fable):
    """The wrappers hold no prefix that is kept for evaluation, and no question of an evaluation set."""
    held_out = [text for family in prefix_families("held_out").values() for text in family]
    assert not [one for one in held_out for wrapper in JAILBREAKS if one in wrapper]
    raw = "\n".join(record.question for name in ("books", "cyber") for record in raw_records(fable, name))
    for name in ("books", "cyber"):
        sets = evaluation_sets(fable, name)
        assert not [item.question for item in (*sets.forget, *sets.attack) if item.question in raw]


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"sentences": -1}, "sentences=-1"), ({"split": "test"}, "split='test'"), ({"benchmark": "films"}, "benchmark=")],
)
def test_bad_arguments_are_named(fable, changed, message):
    with pytest.raises(ValueError, match=message):
        raw_records(fable, **{"benchmark": "books", **changed})
