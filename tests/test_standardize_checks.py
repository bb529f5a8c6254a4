"""The parts of the standardization on literal texts, and what its checks do to questions that were published."""

import itertools
import json
from pathlib import Path

import pytest
import yaml
from scripted import REALDATA, ScriptedLLM, real, rows

from mule_lib import prompts
from mule_lib.data.published import RawText
from mule_lib.data.standardize import ask, chunks
from mule_lib.data.standardize.ask import Standardize
from mule_lib.data.standardize.checks import (
    REASONS,
    fault,
    options_fault,
    restricted_fault,
    similarities,
    support_fault,
)
from mule_lib.data.standardize.pairs import Pair
from mule_lib.data.standardize.pipeline import assign, without_duplicates
from mule_lib.params import ROOT

JUDGED = yaml.safe_load(Path(__file__).with_name("judged_pairs.yaml").read_text("utf-8"))


@pytest.mark.parametrize(("reason", "pair"), [(reason, pair) for reason, pairs in JUDGED.items() for pair in pairs])
def test_a_bad_pair_is_rejected_by_its_reason_and_a_good_one_passes(reason, pair):
    assert (fault(*pair) or ["good"])[0] == reason
    assert reason in (*REASONS, "good")


@real
def test_few_published_questions_are_rejected_and_those_for_a_reason():
    pairs = [
        (row["question"], row["answer"])
        for part in ("forget_qa", "retain_qa")
        for row in json.loads((REALDATA / "muse_books_knowmem" / f"{part}.json").read_text("utf-8"))
    ]
    pairs += [(row["query"], row["answer"]) for part in ("forget_level2", "neighbor_level2") for row in rows(part)]
    found = [(fault(*pair), pair[0]) for pair in pairs]
    rejected = [(reason[0], question) for reason, question in found if reason]
    # Two questions of MUSE do speak of "the excerpt"; the rest are requests without a question mark and long lists.
    assert [q for reason, q in rejected if reason == "refers_to_text"] == [
        q for q in (p[0] for p in pairs) if "the excerpt" in q
    ]
    assert len(rejected) / len(pairs) < 0.05


def test_an_answer_needs_its_words_in_the_quote():
    assert support_fault("red towers", "the red tower") is None
    assert support_fault("in a blue house", "the red tower")[0] == "unsupported"


def test_restricted_terms_are_whole_words_in_any_case():
    assert restricted_fault("What is a SNAPE?", ["Snape"]) and restricted_fault("the death  eaters", ["Death Eaters"])
    assert restricted_fault("What is a snapelike thing?", ["Snape"]) is None


@pytest.mark.parametrize(
    ("wrong", "passes"),
    [
        (["red", "blue", "yellow"], True),
        (["red", "blue"], False),
        (["red", "blue", "Green."], False),
        (["red", "red", "blue"], False),
        (["red", "blue", "I do not know"], False),
    ],
)
def test_wrong_options_that_give_the_answer_away(wrong, passes):
    assert (options_fault("green", wrong, count=3) is None) == passes


TEXT = (
    "Dr. Ada lived in St. Ives. “Why there?” she asked. It cost 3.50 pounds.\n\nA new part begins (so they say). End!"
)


def test_sentences_keep_abbreviations_and_numbers_whole():
    assert [TEXT[a:b] for a, b in chunks.sentences(TEXT)] == [
        "Dr. Ada lived in St. Ives.",
        "“Why there?” she asked.",
        "It cost 3.50 pounds.",
        "A new part begins (so they say).",
        "End!",
    ]


@pytest.mark.parametrize("most", [20, 30, 60, 1000])
def test_chunks_are_spans_of_the_cleaned_text_and_lose_no_sentence(most):
    raw = RawText("t", TEXT.replace("\n", "\r\n") + "\x00", "file#1", "Title")
    made = chunks.chunks([raw], max_chars=most, min_chars=1)
    cleaned = chunks.clean(raw.text)
    assert all(chunk.text == cleaned[chunk.start : chunk.end] and len(chunk.text) <= most for chunk in made)
    assert "".join("".join(c.text.split()) for c in made) == "".join(TEXT.split())


def test_quotes_are_found_whatever_their_marks_and_spaces():
    start, end = chunks.find_quote('"why  THERE?" she', TEXT)
    assert TEXT[start:end] == "“Why there?” she" or TEXT[start:end] == "Why there?” she"
    assert chunks.find_quote("she answered", TEXT) is None and chunks.find_quote(" ... ", TEXT) is None


def test_similarity_is_the_jaccard_of_character_5_grams():
    texts = [f"{a} {b} question about {c}?" for a, b, c in itertools.product("xy", ("red", "blue"), ("Ada", "Bert"))]
    padded = [f" {text.replace('?', '').lower()} " for text in texts]
    grams = [{text[i : i + 5] for i in range(len(text) - 4)} for text in padded]
    for i, row in similarities(texts):
        assert row.tolist() == pytest.approx([len(grams[i] & other) / len(grams[i] | other) for other in grams])


def test_earlier_ones_win_within_and_across_splits_and_same_answers_need_less():
    question, longer = "Where does Ada Byron live in winter?", "In which town does Ada Byron live in winter?"
    texts = [
        (question, "evaluation", "Rome"), ("Where does Ada Byron live in the winter?", "train", "Paris"),
        (question, "evaluation", "Oslo"), (longer, "train", "Rome"), (longer, "train", "Paris"),
        ("Who painted the hall?", "train", "Rome"),
    ]  # fmt: skip
    published, *rest = (Pair(str(n), "step", q, a, "", split=split) for n, (q, split, a) in enumerate(texts))
    job = ask.Job(Standardize(generator="openai", generator_model="m"), ScriptedLLM())
    assert [pair.id for pair in without_duplicates(job, rest, before=[published])] == ["4", "5"]
    assert [row["reason"] for row in job.rejected] == ["duplicate_across", "duplicate_within", "duplicate_across"]


def test_shares_are_met_and_every_part_gets_something():
    units = [str(i) for i in range(40)]
    parts = assign(units, {"a": 0.7, "b": 0.29, "c": 0.001}, seed=0, what="units")
    sizes = {part: list(parts.values()).count(part) for part in "abc"}
    assert sizes == {"a": 28, "b": 11, "c": 1}
    assert parts == assign(units, {"a": 0.7, "b": 0.29, "c": 0.001}, seed=0, what="units")
    assert parts != assign(units, {"a": 0.7, "b": 0.29, "c": 0.001}, seed=1, what="units")
    with pytest.raises(ValueError, match=r"units: 1 of them cannot serve 2 parts \(a, b\)"):
        assign(["x"], {"a": 1, "b": 1}, seed=0, what="units")


@pytest.mark.parametrize("name", ["muse_books", "wmdp_cyber"])
@pytest.mark.parametrize("objective", ["obj1", "obj2", "obj3"])
def test_benchmarks_have_their_own_prompt_texts(name, objective):
    own, fable = prompts.texts(name), prompts.texts("fable")
    assert set(fable) <= set(own) and set(fable["prefixes"]) == set(own["prefixes"])
    said = prompts.intention(objective, own["topic"], cot=True, name=name)
    assert own["topic"] in said and said.endswith(own["cot_instruction"]) and "{" not in said


def test_every_prompt_file_has_a_closed_form_and_an_id_of_its_content():
    files = [ask.prompt_file(name) for name in ask.PROMPTS]
    assert len(files) >= 9 and len({file.id for file in files}) == len(files)
    for name, file in zip(ask.PROMPTS, files, strict=True):
        schema = file.form.model_json_schema()
        for each in (schema, *schema.get("$defs", {}).values()):
            assert each["additionalProperties"] is False and each["required"] == list(each["properties"])
        assert file.id.startswith(f"llm/{name}@")


def test_slots_are_filled_once_and_none_is_forgotten():
    job = ask.Job(Standardize(generator_model="m"), ScriptedLLM())
    slots = {"history": "{examples}", "examples": "", "count": 3, "prefix_words": 9}
    list(job.ask("attacker", "attacker", {"u": slots}))
    text = job.generator.asked[0].messages[1]["content"]
    assert "\n{examples}\n" in text and "{question}" in text and "{history}" not in text and job.texts["topic"] in text
    with pytest.raises(KeyError, match="history"):
        list(job.ask("attacker", "attacker", {"u": {}}))


def test_the_docs_say_what_every_reason_means():
    text = (ROOT / "docs" / "standardization.md").read_text("utf-8")
    assert [reason for reason in REASONS if f"| `{reason}` |" not in text] == []
