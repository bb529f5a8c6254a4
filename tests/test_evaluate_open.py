"""ROUGE-L and its companions: literal values, the argument order, and errors."""

import pytest

from mule_lib.data import text as judges


def test_recall_and_precision_are_not_swapped():
    score = judges.rouge_l("the Golden Snitch", "It is the Golden Snitch of course, as everybody knows")
    assert score.recall == 1.0
    assert score.precision == pytest.approx(3 / 10)
    assert score.f1 == pytest.approx(2 * 0.3 / 1.3)
    assert score["recall"] == score.recall


def test_rouge_by_hand():
    score = judges.rouge_l("a b c d", "a x c")
    assert (score.recall, score.precision) == (0.5, pytest.approx(2 / 3))


def test_rouge_limits():
    assert judges.rouge_l("the Snitch", "THE SNITCH!").f1 == 1.0
    assert judges.rouge_l("the Snitch", "").recall == 0.0
    assert judges.rouge_l("the Snitch", "no clue").f1 == 0.0


def test_stemmer_is_a_parameter():
    assert judges.rouge_l("seekers", "seeker").recall == 1.0
    assert judges.rouge_l("seekers", "seeker", stemmer=False).recall == 0.0


def test_open_answer_scores_by_hand():
    result = judges.open_answer_scores(
        ["red dragon", "red dragon", "red dragon", "red dragon"],
        ["the red dragon flew", "I don't know.", "", "red red red red red"],
        max_new_tokens=64,
    )
    assert result["recall"] == result["score"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert result["f1"] == pytest.approx((2 * 0.5 / 1.5 + 2 * 0.5 * 0.2 / 0.7) / 4)
    assert (result["refusal_rate"], result["empty_rate"], result["garbled_rate"]) == (0.25, 0.25, 0.25)
    assert result["n"] == 4
    assert result["headline"] == "rougeL_recall"
    assert result["settings"] == {"package": "rouge_score", "stemmer": True, "max_new_tokens": 64}
    assert [item["refused"] for item in result["items"]] == [False, True, False, False]


def test_headline_may_be_f1():
    result = judges.open_answer_scores(["red dragon"], ["a red dragon"], headline="f1")
    assert result["score"] == result["f1"] == pytest.approx(0.8)


def test_order_of_items_changes_nothing():
    references, predictions = ["red dragon", "blue", "one two three"], ["red", "I cannot say", "three two one"]
    there = judges.open_answer_scores(references, predictions)
    back = judges.open_answer_scores(references[::-1], predictions[::-1])
    assert there["items"] == back["items"][::-1]
    assert there["recall"] == pytest.approx(back["recall"], abs=1e-15)


@pytest.mark.parametrize(
    ("references", "predictions", "changes", "message"),
    [
        (["a"], [], {}, "1 references and 0 predictions"),
        ([], [], {}, "0 references and 0 predictions"),
        (["one", " ?"], ["x", "y"], {}, "item 1: reference ' \\?' holds nothing that ROUGE can see"),
        (["one"], ["x"], {"headline": "rouge"}, "headline is 'rouge', should be 'recall' or 'f1'"),
    ],
)
def test_open_answer_scores_refuses(references, predictions, changes, message):
    with pytest.raises(ValueError, match=message):
        judges.open_answer_scores(references, predictions, **changes)


@pytest.mark.parametrize(
    "text",
    [
        "...",
        "???!",
        "the the the the",
        "in the tower in the tower in the tower",
        "aaaaaaaaaaaa",
        "the end \N{REPLACEMENT CHARACTER}",
    ],
)
def test_garbled(text):
    assert judges.is_garbled(text)


@pytest.mark.parametrize(
    "text", ["", "  ", "42", "1000000000000", "the Snitch", "very very good", "ha ha ha", "A. A tale of a tub"]
)
def test_not_garbled(text):
    assert not judges.is_garbled(text)


def test_empty_is_white_space():
    assert judges.is_empty(" \n\t")
    assert not judges.is_empty(".")
