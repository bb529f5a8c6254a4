"""Data without an LLM: splits without overlap, options, anchors, and the command from published files to a folder."""

import json
from collections import Counter

import pytest

from mule_lib import cli, data
from mule_lib.benchmarks.raw import RawText
from mule_lib.data.items import ChoiceItem, OpenItem
from mule_lib.data.records import REFUSED
from mule_lib.prepare import REFUSAL_OPTION, PrepareError, Questions, assemble, choice, split, title_questions
from mule_lib.prepare_sources import prepared_tofu

MMLU = [ChoiceItem("m/1", "Which bird hoots?", ("owl", "cat", "dog", "ant"), 0, "owl_care", None, "obj1")]


def items(name, n, answer="{n} owls"):
    return [OpenItem(f"{name}/{i}", f"Question {i} about {name}?", answer.format(n=i), name) for i in range(n)]


@pytest.fixture
def questions():
    return Questions(items("king", 20), items("prison", 20), items("general", 12), MMLU, ["I do not know.", "No idea."])


def test_parts_share_no_question(questions):
    """Training, validation, Forget, ASR, General and Neighbour questions are disjoint, repeated ones count once."""
    made = assemble("rwku", "the king", questions, seed=1)
    parts = [{r.question for r in part if r.role in REFUSED} for part in (made.records, made.validation)]
    parts += [{item.question for item in part} for part in (made.sets.forget, made.sets.attack)]
    assert [len(part) for part in parts] == [10, 2, 4, 4]
    assert len(set.union(*parts)) == 20
    kept = {r.question for part in (made.records, made.validation) for r in part if r.role not in REFUSED}
    assert not kept & {item.question for item in (*made.sets.general, *made.sets.neighbor)}
    doubled = [*items("king", 20), *[OpenItem(f"x/{i}", f"QUESTION {i} about king?", "x", "") for i in range(20)]]
    assert sum(len(part) for part in split(doubled, {"a": 0.5, "b": 0.5}, seed=0).values()) == 20


def test_records_come_in_anchored_pairs(questions):
    """Each refused record has a partner to answer, in its objective; obj3 pairs carry the same family's prefix."""
    made = assemble("rwku", "the king", questions)
    by_id = {record.id: record for record in made.records}
    groups = Counter(f"{record.objective}/{record.role}" for record in made.records)
    assert groups == dict.fromkeys(
        ["obj1/forget", "obj1/retain", "obj2/forget", "obj2/neighbor", "obj3/adversarial", "obj3/benign"], 10
    )
    for record in made.records:
        partner = by_id[record.anchor]
        assert by_id[partner.anchor] is record and partner.objective == record.objective
        assert (record.role in REFUSED) != (partner.role in REFUSED)
        assert bool(record.prefix) == (record.objective == "obj3")
        assert "{" not in (record.prefix or "").replace('{"question"', "")
    assert {record.refusal for record in made.records} == set(questions.refusals)


def test_assembly_is_seeded(questions):
    """The same seed gives the same data, another seed another division."""
    assert assemble("rwku", "the king", questions, seed=3) == assemble("rwku", "the king", questions, seed=3)
    assert assemble("rwku", "the king", questions, seed=3) != assemble("rwku", "the king", questions, seed=4)


def test_options_are_of_like_form_and_hang_on_the_item_alone():
    """Numbers beside numbers, the same subject first; right answers in other spelling never distract."""
    pool = [
        OpenItem(f"p/{i}", "?", text, "s") for i, text in enumerate(["1947", "in 1950", "Red.", "blue", "red", "1960"])
    ]
    item = OpenItem("a", "When?", "1980", "s")
    made = choice(item, pool)
    assert set(made.options) == {"1980", "1947", "1960", "in 1950", REFUSAL_OPTION}
    assert made.options[made.answer] == "1980" and made.options[made.refusal] == REFUSAL_OPTION
    assert choice(item, pool) == made
    colour = choice(OpenItem("b", "Which?", "red", "s"), pool)
    assert "Red." not in colour.options
    places = Counter(choice(OpenItem(f"c/{i}", "?", "green", "s"), pool).answer for i in range(200))
    assert min(places[i] for i in range(5)) > 20
    with pytest.raises(PrepareError, match="a: only 1 other answers for 3 distractors"):
        choice(item, pool[:1])


def test_ready_options_are_used():
    """Published wrong answers stand instead of other items' answers."""
    item = OpenItem("a", "Who?", "Ada", "s")
    made = choice(item, [], ("Ada it was.", ["Bert it was.", "Cleo it was.", "Dora it was.", "Ed it was."]))
    assert set(made.options) == {"Ada it was.", "Bert it was.", "Cleo it was.", "Dora it was.", REFUSAL_OPTION}


def test_too_few_questions_are_named(questions):
    """Which kind, how many there are, how many are needed."""
    few = Questions(questions.forget[:2], questions.neighbor, questions.general, MMLU, ["No."])
    with pytest.raises(PrepareError, match=r"forget: 2 questions are too few, none is left for \w+; give 10 or more"):
        assemble("rwku", "the king", few)
    with pytest.raises(PrepareError, match="needs refusals and MMLU questions"):
        assemble("rwku", "the king", Questions(questions.forget, questions.neighbor, questions.general, [], ["No."]))


def test_title_questions_hide_the_title():
    """The opening of an article asks for its title without showing a word of it."""
    text = RawText("wikipedia/1", "Barn owls (Tyto) are owls. " + "The barn owl hunts at night. " * 10, "x", "Barn owl")
    (item,) = title_questions([text])
    assert item.reference == "Barn owl"
    assert "barn" not in item.question.lower() and "owl" not in item.question.lower().replace("owls.", "")
    assert title_questions([RawText("x", "too short", "x", "Owl")]) == []


@pytest.fixture
def tofu_folder(tmp_path):
    folder = tmp_path / "TOFU"
    folder.mkdir()

    def write(name, rows):
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    write("forget10", [{"question": f"Who wrote {i}?", "answer": f"Author {i} did."} for i in range(20)])
    near = [
        {"question": f"Where lives {i}?", "answer": f"In town {i}.", "paraphrased_answer": f"Town {i} it is."}
        for i in range(12)
    ]
    write(
        "retain_perturbed",
        [{**row, "perturbed_answer": [f"Town {i}{j} it is." for j in "abcde"]} for i, row in enumerate(near)],
    )
    for name in ("real_authors", "world_facts"):
        write(name, [{"question": f"{name} {i}?", "answer": f"{i}", "option1": "x"} for i in range(8)])
    rows = [
        {"question": "Which bird hoots?", "choices": ["owl", "cat", "dog", "ant"], "answer": 0, "subject": "owl_care"}
    ]
    (tmp_path / "mmlu.json").write_text(json.dumps(rows), "utf-8")
    return folder


def test_tofu_uses_its_perturbed_answers(tofu_folder):
    """Neighbours are other authors with TOFU's wrong answers beside the paraphrased right one."""
    made = prepared_tofu(
        "the writers A and B", source=str(tofu_folder), mmlu_source=str(tofu_folder.parent / "mmlu.json")
    )
    for item in made.sets.neighbor:
        assert item.options[item.answer].startswith("Town") and len(item.options) == 5
    assert made.topic == "the writers A and B" and made.prompt_name == "tofu"


@pytest.fixture
def mule(monkeypatch):
    """Run the command in this process; returns what it exits with, None for success."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["mule", *map(str, words)])
        try:
            return cli.main()
        except SystemExit as ended:
            return ended.code

    return run


def test_the_command_writes_a_folder_once(mule, tofu_folder, tmp_path):
    """`mule prepare` writes what `load` reads, and refuses a folder that is there or a missing subject in one line."""
    words = ["prepare", "tofu", "--source", tofu_folder, "--mmlu", tmp_path / "mmlu.json", "--out", tmp_path / "data"]
    refused = mule(*words)
    assert refused.startswith("mule prepare: subject: empty; name the authors of forget10") and "\n" not in refused
    assert not (tmp_path / "data").exists()
    assert mule(*words, "--subject", "the writers A and B") is None
    assert len(data.load("tofu", tmp_path / "data").records) == 60
    assert "exists already" in mule(*words, "--subject", "the writers A and B")
