"""Attack prefixes: slots, disjoint families, whose turn it is."""

import pytest

from mule_lib import prompts
from mule_lib.data.items import OpenItem, fill_template, in_turn, prefix_templates

NAMES = ("fable", "muse_books", "wmdp_cyber", "rwku")
ALL_TEMPLATES = {
    template for name in NAMES for part in ("train", "held_out") for _, template in prefix_templates(name, part)
}


@pytest.mark.parametrize("name", NAMES)
def test_train_and_held_out_families_are_disjoint(name):
    train, held_out = (dict(prefix_templates(name, part)) for part in ("train", "held_out"))
    assert train and held_out and not set(train) & set(held_out)
    assert list(prompts.texts(name)["prefixes"]) == ["train", "held_out"]
    assert len({text for part in ("train", "held_out") for _, text in prefix_templates(name, part)}) == sum(
        len(prefix_templates(name, part)) for part in ("train", "held_out")
    )


@pytest.mark.parametrize("answer", ["griffin", "the grey owl", "one two three four five six seven eight nine"])
@pytest.mark.parametrize("template", sorted(ALL_TEMPLATES))
def test_prefixes_end_in_no_blank_and_give_no_whole_answer(template, answer):
    prefix = fill_template(template, question="Who flies?", topic="the Reeds", answer=answer)
    assert prefix
    assert prefix == prefix.rstrip()
    assert answer not in prefix
    assert "{question}" not in prefix and "{topic}" not in prefix and "{answer_start}" not in prefix


def test_slots_by_hand():
    fill = fill_template
    assert fill("It is {answer_start}", question="", topic="", answer="one two three four five six") == "It is one two"
    assert fill("It is {answer_start}", question="", topic="", answer="one two") == "It is one"
    assert fill("It is {answer_start}", question="", topic="", answer="one") == "It is"
    assert fill('{"a": "{topic}', question="", topic="{question}", answer="x") == '{"a": "{question}'


def open_items(n, reference="the grey owl"):
    return [OpenItem(f"q{i}", f"Question {i}?", reference, "x") for i in range(n)]


def test_families_take_turns_and_controls_share_the_templates():
    held_out = prefix_templates("rwku", "held_out")
    attacks = in_turn(open_items(20), held_out, topic="the Reeds")
    assert [attack.family for attack in attacks[:13]] == [family for family, _ in [*held_out, held_out[0]]]
    controls = in_turn(open_items(20, "a heron"), held_out, topic="the Marsh", control=True)
    assert [c.family for c in controls] == [a.family for a in attacks]
    assert all(c.control for c in controls) and not any(a.control for a in attacks)
