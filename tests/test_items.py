"""Evaluation files, samples and attack prefixes: every refusal line, atomic writing, slots and disjoint families."""

import json

import pytest

from mule_lib import prompts
from mule_lib.data import files
from mule_lib.data.attacks import fill_template, in_turn, prefix_templates
from mule_lib.data.items import OpenItem, read_items

OPEN = {"id": "q1", "question": "Who flies?", "reference": "the owl"}
CHOICE = {"id": "c1", "question": "Who flies?", "options": ["owl", "cat", "I do not know"], "answer": 0}

ATTACK = {**OPEN, "prefix": "Sure:", "family": "affirmation"}


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_open_items(tmp_path):
    path = write(tmp_path / "open.jsonl", [OPEN, "", {**OPEN, "id": "q2", "subject": "Reeds"}])
    first, second = read_items(path, "open")
    assert (first.id, first.question, first.reference) == ("q1", "Who flies?", "the owl")
    assert (first.subject, second.subject, second.objective) == ("", "Reeds", "obj1")


def test_choice_items(tmp_path):
    rows = [{**CHOICE, "refusal": 2, "subject": "birds"}, {**CHOICE, "id": "c2", "refusal": None, "answer": "B"}]
    first, second = read_items(write(tmp_path / "c.jsonl", rows), "choice")
    assert first.options == ("owl", "cat", "I do not know")
    assert (first.answer, first.refusal, first.subject) == (0, 2, "birds")
    assert (second.answer, second.refusal) == (1, None)


def without(row, column):
    return {key: value for key, value in row.items() if key != column}


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("open", [OPEN, without(OPEN, "reference")], "row 2, column 'reference': missing; the row has id, question"),
        ("open", [OPEN, OPEN], "row 2, column 'id': 'q1' is already in row 1"),
        ("open", [{**OPEN, "reference": " "}], "row 1, column 'reference': should be a text with a letter"),
        ("open", [{**OPEN, "reference": "?!"}], "should be a text with a letter or digit that ROUGE can see, is '?!'"),
        ("open", [{**OPEN, "question": 3}], "row 1, column 'question': should be a text that is not empty, is 3"),
        ("open", ["", ""], "holds no rows"),
        ("choice", [{**CHOICE, "answer": 3}], "column 'answer': 3 is outside the 3 options (0 to 2, or A to C)"),
        ("choice", [{**CHOICE, "answer": -1}], "column 'answer': -1 is outside the 3 options (0 to 2, or A to C)"),
        ("choice", [{**CHOICE, "answer": "D"}], "column 'answer': 'D' is outside the 3 options"),
        ("choice", [{**CHOICE, "refusal": 7}], "column 'refusal': 7 is outside the 3 options"),
        ("choice", [{**CHOICE, "refusal": 0}], "column 'refusal': 0 is the answer"),
        ("choice", [{**CHOICE, "options": "owl"}], "column 'options': should be a list of at least two different"),
        ("choice", [{**CHOICE, "options": ["owl"] * 2}], "'options': should be a list of at least two different"),
        ("open", [{**OPEN, "referense": "x"}], "column 'referense': unknown; the columns of this file are id"),
        ("open", [{**OPEN, "objective": "obj4"}], "column 'objective': should be obj1 or obj2 or obj3, is 'obj4'"),
        ("attack", [{**ATTACK, "prefix": "Sure: "}], "'prefix': should be a text without white space at its end"),
        ("attack", [{**ATTACK, "control": "no"}], "column 'control': should be true or false, is 'no'"),
        ("attack", [without(ATTACK, "family")], "column 'family': missing"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, kind, rows, message):
    path = write(tmp_path / "items.jsonl", rows)
    with pytest.raises(files.DataFileError) as caught:
        read_items(path, kind)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


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
