"""Evaluation files, samples and attack prefixes: every refusal line, atomic writing, slots and disjoint families."""

import json
from pathlib import Path

import pytest
from test_generate import byte_tokenizer

from mule_lib import evaluate

REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"
OPEN = {"id": "q1", "question": "Who flies?", "reference": "the owl"}
CHOICE = {"id": "c1", "question": "Who flies?", "options": ["owl", "cat", "I do not know"], "answer_index": 0}
MMLU = {"question": "Who flies?", "subject": "owl_care", "choices": ["owl", "cat", "dog", "ant"], "answer": 0}


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_open_items(tmp_path):
    path = write(tmp_path / "open.jsonl", [OPEN, "", {**OPEN, "id": "q2", "world": "Reeds"}])
    first, second = evaluate.load_evaluation_items(path, "open")
    assert (first.id, first.question, first.reference) == ("q1", "Who flies?", "the owl")
    assert second.extra == {"world": "Reeds"}


def test_choice_items(tmp_path):
    rows = [{**CHOICE, "refusal_index": 2, "subject": "birds"}, {**CHOICE, "id": "c2", "refusal_index": None}]
    first, second = evaluate.load_evaluation_items(write(tmp_path / "c.jsonl", rows), "choice")
    assert first.options == ("owl", "cat", "I do not know")
    assert (first.answer_index, first.refusal_index, first.subject) == (0, 2, "birds")
    assert second.refusal_index is None


def test_mmlu_items_take_the_published_columns_and_give_them_back(tmp_path):
    items = evaluate.load_evaluation_items(write(tmp_path / "m.jsonl", [MMLU, MMLU]), "mmlu")
    assert [item.id for item in items] == ["1", "2"]
    assert items[0].mmlu_row() == MMLU


@pytest.mark.skipif(not REALDATA.is_dir(), reason="the real benchmark samples are not here")
@pytest.mark.parametrize(("name", "n"), [("mmlu/validation_3_per_subject", 171), ("wmdp_cyber_mcq/test_sample", 75)])
def test_real_four_choice_files_pass(name, n):
    assert len(evaluate.load_evaluation_items(REALDATA / f"{name}.jsonl", "mmlu")) == n


def without(row, column):
    return {key: value for key, value in row.items() if key != column}


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("open", [OPEN, without(OPEN, "reference")], "row 2, column 'reference': missing; the row has id, question"),
        ("open", [without(OPEN, "id")], "row 1, column 'id': missing"),
        ("open", [OPEN, OPEN], "row 2, column 'id': 'q1' is already in row 1"),
        ("open", [{**OPEN, "reference": " "}], "row 1, column 'reference': should be a text that is not empty, is ' '"),
        ("open", [{**OPEN, "reference": "?!"}], "row 1, column 'reference': '?!' has no letter or digit that ROUGE"),
        ("open", [{**OPEN, "question": 3}], "row 1, column 'question': should be a text that is not empty, is 3"),
        ("open", [OPEN, "{broken"], "row 2: not JSON"),
        ("open", ["[1]"], "row 1: should be a JSON object, is list"),
        ("open", [""], "holds no rows"),
        ("choice", [{**CHOICE, "answer_index": 3}], "column 'answer_index': 3 is outside the 3 options (0 to 2)"),
        ("choice", [{**CHOICE, "answer_index": -1}], "column 'answer_index': -1 is outside the 3 options (0 to 2)"),
        ("choice", [{**CHOICE, "answer_index": True}], "column 'answer_index': True is outside the 3 options"),
        ("choice", [{**CHOICE, "answer_index": "A"}], "column 'answer_index': 'A' is outside the 3 options"),
        ("choice", [{**CHOICE, "refusal_index": 7}], "column 'refusal_index': 7 is outside the 3 options"),
        ("choice", [{**CHOICE, "refusal_index": 0}], "column 'refusal_index': 0 is the answer"),
        ("choice", [{**CHOICE, "options": "owl"}], "column 'options': should be a list of texts"),
        ("choice", [{**CHOICE, "options": ["owl", ""]}], "column 'options': should be a list of texts"),
        ("choice", [{**CHOICE, "options": ["owl", "owl"]}], "column 'options': should hold at least two different"),
        ("mmlu", [{**MMLU, "answer": 4}], "row 1, column 'answer': 4 is outside the 4 options (0 to 3)"),
        ("mmlu", [MMLU, without(MMLU, "choices")], "row 2, column 'choices': missing"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, kind, rows, message):
    path = write(tmp_path / "items.jsonl", rows)
    with pytest.raises(evaluate.EvaluationFileError) as caught:
        evaluate.load_evaluation_items(path, kind)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_and_unknown_kinds(tmp_path):
    with pytest.raises(evaluate.EvaluationFileError, match=r"none\.jsonl: cannot be read"):
        evaluate.load_evaluation_items(tmp_path / "none.jsonl", "open")
    with pytest.raises(ValueError, match="kind is 'quiz', should be one of open, choice, mmlu"):
        evaluate.load_evaluation_items(tmp_path / "none.jsonl", "quiz")


def test_samples_come_back_as_written(tmp_path):
    tokenizer = byte_tokenizer()
    prompt = evaluate.shown(tokenizer, tokenizer.encode("Wér fliegt? "))
    assert prompt == "<bos>Wér fliegt? "
    samples = [
        evaluate.Sample("q1", "forget", prompt, "die Eule", "the owl", labels={"recall": 0.0, "refused": False}),
        evaluate.Sample("q2", "asr", prompt, "", "the owl", prefix="Sure:\n1.", labels={"label": "neither"}),
    ]
    path = evaluate.write_samples(tmp_path / "run" / "samples.jsonl", samples)
    assert evaluate.read_samples(path) == samples
    assert [file.name for file in path.parent.iterdir()] == ["samples.jsonl"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = evaluate.write_samples(tmp_path / "samples.jsonl", [evaluate.Sample("q1", "forget", "p", "o", "r")])
    before = path.read_bytes()

    def broken():
        yield evaluate.Sample("q2", "forget", "p", "o", "r")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        evaluate.write_samples(path, broken())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["samples.jsonl"]


ALL_TEMPLATES = [template for family in evaluate.FAMILIES.values() for template in family.templates]


def test_train_and_held_out_families_are_disjoint():
    assert evaluate.TRAIN_FAMILIES == ("affirmation", "scaffold", "commitment", "structure")
    assert not set(evaluate.TRAIN_FAMILIES) & set(evaluate.HELD_OUT_FAMILIES)
    assert set(evaluate.TRAIN_FAMILIES) | set(evaluate.HELD_OUT_FAMILIES) == set(evaluate.FAMILIES)
    assert len(set(ALL_TEMPLATES)) == len(ALL_TEMPLATES)


@pytest.mark.parametrize("answer", ["griffin", "the grey owl", "one two three four five six seven eight nine"])
@pytest.mark.parametrize("template", ALL_TEMPLATES)
def test_prefixes_end_in_no_blank_and_give_no_whole_answer(template, answer):
    prefix = evaluate.fill_template(template, question="Who flies?", topic="the Reeds", answer=answer)
    assert prefix
    assert prefix == prefix.rstrip()
    assert answer not in prefix
    assert "{question}" not in prefix and "{topic}" not in prefix and "{answer_start}" not in prefix


def test_slots_by_hand():
    fill = evaluate.fill_template
    assert fill("It is {answer_start}", question="", topic="", answer="one two three four five six") == "It is one two"
    assert fill("It is {answer_start}", question="", topic="", answer="one two") == "It is one"
    assert fill("It is {answer_start}", question="", topic="", answer="one") == "It is"
    assert fill('{"a": "{topic}', question="", topic="{question}", answer="x") == '{"a": "{question}'


def items(n, reference="the grey owl"):
    return [evaluate.EvaluationItem(f"q{i}", f"Question {i}?", reference) for i in range(n)]


def test_families_take_turns_and_controls_share_the_templates():
    attacks = evaluate.prefill_items(items(20), topic="the Reeds")
    assert [attack.family for attack in attacks[:8]] == [*evaluate.HELD_OUT_FAMILIES, evaluate.HELD_OUT_FAMILIES[0]]
    assert attacks[0].template != attacks[7].template
    controls = evaluate.prefill_items(items(20, "a heron"), topic="the Marsh", control=True)
    assert [c.template for c in controls] == [a.template for a in attacks]
    assert all(c.control for c in controls) and not any(a.control for a in attacks)
    assert attacks[3].given == f"Question 3? {attacks[3].prefix}"


def test_every_family_for_every_item():
    attacks = evaluate.prefill_items(items(3), topic="x", families=("persona", "scaffold"), every_family=True)
    assert [attack.id for attack in attacks] == [f"q{i}/{name}" for i in range(3) for name in ("persona", "scaffold")]


def test_prefill_items_refuses():
    with pytest.raises(ValueError, match=r"unknown families \['magic'\]; known are affirmation"):
        evaluate.prefill_items(items(1), topic="x", families=["magic"])
    with pytest.raises(ValueError, match="item 'q0' has no reference"):
        evaluate.prefill_items(items(1, None), topic="x")
