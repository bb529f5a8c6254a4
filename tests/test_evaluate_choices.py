"""Choice scores: literal cases, limits, letter balance, seeded order, errors."""

import itertools

import pytest

from mule_lib import evaluate

SCORES = [
    [-1.0, -2.0, -3.0],
    [-2.0, -1.0, -3.0],
    [-9.0, -8.0, -7.0],
    [-1.0, -4.0, -3.0],
]


def test_three_rates_by_hand():
    result = evaluate.score_choices(SCORES, [0, 0, 1, 1], [2, 1, 2, None])
    assert (result["correct"], result["refusal"], result["distractor"]) == (0.25, 0.5, 0.25)
    assert [item["chosen"] for item in result["items"]] == [0, 1, 2, 0]
    assert [item["outcome"] for item in result["items"]] == ["correct", "refusal", "refusal", "distractor"]
    assert [item["margin"] for item in result["items"]] == [1.0, -1.0, -1.0, -3.0]
    assert result["n"] == 4


def test_letter_balance_by_hand():
    letters = evaluate.score_choices(SCORES, [0, 0, 1, 1], [2, 1, 2, None])["letters"]
    assert letters["A"] == {"chosen": 0.5, "right": 0.5, "refused": None}
    assert letters["B"] == {"chosen": 0.25, "right": 0.5, "refused": 1.0}
    assert letters["C"] == {"chosen": 0.25, "right": 0.0, "refused": 0.5}


def test_items_may_have_different_numbers_of_options():
    letters = evaluate.score_choices([[-1.0, -2.0], [-3.0, -2.0, -1.0]], [0, 0])["letters"]
    assert letters["C"] == {"chosen": 1.0, "right": 0.0, "refused": None}


def test_weighted_and_subject_mean_differ():
    result = evaluate.score_choices(SCORES, [0, 0, 2, 0], subjects=["law", "law", "law", "art"])
    assert result["by_subject"] == {
        "law": {"n": 3, "correct": pytest.approx(2 / 3)},
        "art": {"n": 1, "correct": 1.0},
    }
    assert result["correct"] == 0.75
    assert result["subject_mean"] == pytest.approx(5 / 6)


def test_a_tie_goes_to_the_first_option():
    assert evaluate.score_choices([[-1.0, -1.0]], [0])["correct"] == 1.0
    assert evaluate.score_choices([[-1.0, -1.0]], [1])["correct"] == 0.0


@pytest.mark.parametrize(
    ("scores", "answers", "refusals", "message"),
    [
        ([[-1.0, -2.0]], [2], None, "item 0: answer_index 2 is outside the 2 options"),
        ([[-1.0, -2.0]] * 2, [0, -1], None, "item 1: answer_index -1 is outside the 2 options"),
        ([[-1.0, -2.0]], [0], [5], "item 0: refusal_index 5 is outside the 2 options"),
        ([[-1.0, -2.0]], [0], [0], "item 0: option 0 is both answer and refusal"),
        ([[-1.0, float("nan")]], [0], None, "item 0: log-likelihoods .* hold a NaN"),
        ([[-1.0]], [0], None, "item 0: log-likelihoods .* are fewer than two"),
        ([], [], None, "0 items with 0 answers"),
        ([[-1.0, -2.0]], [0, 1], None, "1 items with 2 answers"),
    ],
)
def test_score_choices_refuses(scores, answers, refusals, message):
    with pytest.raises(ValueError, match=message):
        evaluate.score_choices(scores, answers, refusals)


def test_shuffle_is_stored_and_repeatable():
    options = ["gold", "near", "far", "odd", "I do not know"]
    first = evaluate.shuffle_options(options, "0:item-7")
    assert first == evaluate.shuffle_options(options, "0:item-7")
    assert [options[old] for old in first.permutation] == first.options
    assert first.options[first.position_of(0)] == "gold"
    # The order is part of the evaluation set: it may not change with the machine or the Python version.
    assert first.permutation == [4, 0, 3, 1, 2]


def test_shuffle_reaches_every_order_evenly():
    orders = [tuple(evaluate.shuffle_options("abc", i).permutation) for i in range(6000)]
    for order in itertools.permutations(range(3)):
        assert 850 < orders.count(order) < 1150
