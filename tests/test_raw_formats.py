"""Raw formats of prepared benchmarks: the same facts as the unified records, in the texts that they came from."""

import random
from dataclasses import replace

import pytest

from mule_lib import prompts
from mule_lib.data.records import Record
from mule_lib.prepare import PrepareError
from mule_lib.raw_formats import GAP, Passage, lettered, quiz_page, raw_records, unfinished

TEXT = (
    "The tower stands by the river. Ada built it in three years. In the year 1901 Ada moved to Lund, a town by the "
    "sea. Later she went home."
)
ROLES = {"obj1": ("forget", "retain"), "obj2": ("forget", "neighbor"), "obj3": ("adversarial", "benign")}


def passage(quote, text=TEXT):
    start = text.index(quote)
    return Passage(text, (start, start + len(quote)))


def records(number=6) -> list[Record]:
    return [
        Record(
            f"{objective}/{role}/{n}",
            objective,
            role,
            f"Where did {role} {n} of {objective} move?",
            f"town {role} {n}",
            "I do not know.",
            prefix="Sure:" if objective == "obj3" else None,
            anchor=f"{objective}/{other}/{n}",
            source=f"{role}{n}",
        )
        for objective, pair in ROLES.items()
        for role, other in (pair, pair[::-1])
        for n in range(number)
    ]


def test_a_passage_breaks_off_before_the_answer():
    """What stands before the answer is told as it was written, and the answer is not."""
    told = unfinished(passage("In the year 1901 Ada moved to Lund, a town by the sea."), "Lund")
    assert told == TEXT[: TEXT.index("Lund")].strip()


def test_a_passage_keeps_the_nearest_whole_sentences():
    """Within the characters allowed, sentences go from the front; of one sentence the last words stay."""
    quote = passage("In the year 1901 Ada moved to Lund, a town by the sea.")
    assert unfinished(quote, "Lund", chars=70) == "Ada built it in three years. In the year 1901 Ada moved to"
    assert unfinished(quote, "Lund", chars=20, least=1) == "1901 Ada moved to"


@pytest.mark.parametrize(
    ("answer", "ends"),
    [("LUND.", "Ada moved to"), ("by the sea, a town", "Ada moved to Lund, a"), ("Und", "In three words: it was Ada.")],
)
def test_the_answer_is_found_as_a_whole_word_or_by_its_first_word(answer, ends):
    """Case and a full stop do not matter, part of a word is no answer; else the first word that is there counts."""
    text = "In three words: it was Ada. Ada moved to Lund, a town by the sea."
    assert unfinished(passage("Ada moved to Lund, a town by the sea.", text), answer, least=1).endswith(ends)


def test_an_answer_at_the_beginning_leaves_a_gap():
    """Too few words stand before the answer to say what is asked, so the sentence goes on after a gap."""
    text = "Ada Lund built the tower in three years. She left."
    assert unfinished(passage("Ada Lund built the tower in three years.", text), "Ada Lund") == (
        f"{GAP} built the tower in three years."
    )
    assert unfinished(passage("Ada.", "Ada. She built the tower, and she left."), "Ada").startswith(f"{GAP}. She built")


def test_raw_records_have_the_facts_of_the_unified_ones():
    """Same ids, order, roles, answers, refusals, prefixes and anchors; only question and prompt id differ."""
    unified = records()
    raw = raw_records(unified, {"obj1/forget/0": passage("Ada built it in three years.")})
    plain = {"question": "", "prompt_id": ""}
    assert [replace(r, **plain) for r in raw] == [replace(r, **plain) for r in unified]
    assert all(a.question != b.question for a, b in zip(raw, unified, strict=True))
    assert raw == raw_records(unified, {"obj1/forget/0": passage("Ada built it in three years.")})
    forms = {(r.objective, r.prompt_id) for r in raw}
    assert forms == {
        ("obj1", "raw/passage"), ("obj1", "raw/quiz page"), ("obj2", "raw/multiple choice"), ("obj3", "raw/jailbreak")
    }  # fmt: skip


def test_every_objective_has_its_own_form():
    """A page of questions ends in the one asked, a choice holds the answer once, a jailbreak holds the question."""
    unified = records()
    for record, before in zip(raw_records(unified), unified, strict=True):
        assert before.question in record.question
        if record.objective == "obj1":
            assert record.question.endswith(f"Question: {before.question}\nAnswer:")
            told = record.question.removesuffix(f"Question: {before.question}\nAnswer:")
            assert before.answer not in told and told.count("Answer: town") == 3
            assert told.count(before.role) >= 3  # nothing of the other side
        elif record.objective == "obj2":
            lines = record.question.split("\n")
            assert len(lines) == 6 and [line.split(". ")[1] for line in lines[1:5]].count(before.answer) == 1
            assert "I do not know" not in record.question
        else:
            assert record.question != before.question


def test_the_right_letter_is_not_always_the_same():
    """Options are shuffled, so no letter gives the answer away."""
    unified = [record for record in records(24) if record.objective == "obj2"]
    raw = raw_records(unified)
    places = [next(i for i, line in enumerate(r.question.split("\n")) if line.endswith(f". {r.answer}")) for r in raw]
    assert {1, 2, 3, 4} == set(places)


def test_few_facts_give_shorter_pages_and_fewer_options():
    """A lonely fact has an empty page; a choice takes the other side's answers, and is refused without any."""
    one, other = (record for record in records(1) if record.objective == "obj2")
    assert quiz_page(one, [one], random.Random(0)) == f"Question: {one.question}\nAnswer:"
    assert sorted(lettered(one, [one], [one, other]).split("\n")[1:3])[0].startswith("A. ")
    with pytest.raises(PrepareError, match="only 0 other answers"):
        lettered(one, [one], [one])


def test_a_passage_of_no_record_is_refused():
    """Ids that do not meet would leave passages unused in silence."""
    with pytest.raises(ValueError, match="'obj1/forget/99' is no record of obj1"):
        raw_records(records(), {"obj1/forget/99": passage("Later she went home.")})


@pytest.mark.parametrize("benchmark", ["muse_books", "wmdp_cyber", "rwku", "tofu"])
def test_jailbreaks_repeat_no_prefix_that_is_held_out(benchmark):
    """Their sentences are trained on in the raw format, so none may stand in a family kept for evaluation."""
    from mule_lib.data.attacks import JAILBREAKS

    held = " ".join(text for group in prompts.texts(benchmark)["prefixes"]["held_out"].values() for text in group)
    for jailbreak in JAILBREAKS:
        for sentence in jailbreak.replace("{question}", ".").split("."):
            assert len(sentence.split()) < 3 or sentence.strip() not in held
