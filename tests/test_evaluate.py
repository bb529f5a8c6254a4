"""Evaluation: a row from sets to metrics, scores of choices, results that write and read themselves."""

import json
from dataclasses import replace

import pytest
import tiny

from mule_lib import evaluate, prompts
from mule_lib.data.fable.benchmark import evaluation_sets
from mule_lib.data.items import SETS
from mule_lib.evaluate import evaluate_row, score_choices
from mule_lib.evaluate.result import MORE_METRICS, RunResult
from mule_lib.evaluate.row import METRIC_OF
from mule_lib.models import contexts
from mule_lib.paper import METRICS
from mule_lib.prompts import steering


@pytest.fixture(scope="module")
def model(fable_tokenizer):
    return tiny.model(of=fable_tokenizer)


@pytest.fixture(scope="module")
def sets(fable):
    whole = evaluation_sets(fable, "books")
    return replace(whole, **{name: getattr(whole, name)[:6] for name in SETS})


@pytest.mark.parametrize("style", prompts.CHOICE_STYLES)
def test_row_has_every_metric_and_sample(model, fable_tokenizer, sets, style):
    """All metrics in points, one value per item behind each, and a sample for every item of every set."""
    result = evaluate_row(model, fable_tokenizer, sets, steering("none", sets.topic), choice_style=style)
    elsewhere = {"asr_searched", "drift"}  # no search was asked for, and the base is not at hand
    assert set(result.metrics) == {*METRIC_OF} - elsewhere >= {*METRICS, *MORE_METRICS} - elsewhere
    assert all(0 <= value <= 100 for value in result.metrics.values())
    for metric, values in result.values.items():
        assert len(values) == (12 if metric == "readable" else 6)
        assert result.metrics[metric] == pytest.approx(100 * sum(values) / len(values))
    assert len(result.samples) == 66 and all(len(kinds) == 6 for kinds in result.kinds.values())
    chosen = next(sample for sample in result.samples if sample["set"] == "neighbor")
    item = next(item for item in sets.neighbor if item.id == chosen["id"])
    assert chosen["output"] in prompts.answers(item.options, style=style)


def test_batch_size_and_order_change_nothing(model, fable_tokenizer, sets):
    """One by one, in other batches, or with the sets reversed: the same outputs for the same items."""
    how = steering("oracle", sets.topic, cot=True)

    def outputs(each, size):
        result = evaluate_row(model, fable_tokenizer, each, how, batch_size=size, max_new_tokens=4)
        return {(sample["set"], sample["id"]): sample["output"] for sample in result.samples}

    turned = replace(sets, **{name: getattr(sets, name)[::-1] for name in SETS})
    assert outputs(sets, 64) == outputs(sets, 5) == outputs(turned, 64)


def test_thought_comes_before_the_prefix(model, fable_tokenizer, sets):
    """In a steered attack the teacher's thought precedes the attacker's words, and one BOS opens the prompt."""
    item = sets.attack[0]
    how = steering("oracle", sets.topic, cot=True)
    made = contexts(model, fable_tokenizer, [item], how, max_thought_tokens=5)[0]
    text = fable_tokenizer.decode(made.input_ids)
    assert text.index(prompts.THINK) < text.index(prompts.END_THINK) < text.index(item.prefix)
    assert list(made.input_ids).count(fable_tokenizer.bos_token_id) == 1


def test_a_row_needs_all_five_sets_unless_part_is_asked_for(model, fable_tokenizer, sets):
    """The empty sets are named; with `partial` the others are measured."""
    some, none = replace(sets, general=(), mmlu=(), controls=()), steering("none", sets.topic)
    with pytest.raises(ValueError, match="sets: fable-books has no items in general, mmlu; a row needs all five"):
        evaluate_row(model, fable_tokenizer, some, none)
    result = evaluate_row(model, fable_tokenizer, some, none, partial=True, max_new_tokens=2)
    assert set(result.metrics) & {*METRICS} == {"forget", "neighbor", "asr"}
    assert result.n == {name: 6 for name in SETS if getattr(some, name)} | {"neighbor_open": 6}


def test_what_runs_a_model_is_imported_when_it_is_asked_for():
    """So tables and figures do without torch (test_params.py)."""
    assert evaluate.rouge_l("red dragon", "a red dragon").recall == 1
    with pytest.raises(AttributeError, match="no attribute 'bleu'"):
        evaluate.bleu  # noqa: B018


SCORES = [
    [-1.0, -2.0, -3.0], [-2.0, -1.0, -3.0], [-9.0, -8.0, -7.0], [-1.0, -4.0, -3.0],
]  # fmt: skip


def test_three_rates_by_hand():
    """A tie goes to the first option."""
    assert score_choices([[-1.0, -1.0]] * 2, [0, 1])["correct"] == 0.5
    result = score_choices(SCORES, [0, 0, 1, 1], [2, 1, 2, None])
    assert (result["correct"], result["refusal"], result["distractor"]) == (0.25, 0.5, 0.25)
    assert [item["chosen"] for item in result["items"]] == [0, 1, 2, 0]
    assert [item["outcome"] for item in result["items"]] == ["correct", "refusal", "refusal", "distractor"]
    assert [item["margin"] for item in result["items"]] == [1.0, -1.0, -1.0, -3.0]
    assert result["n"] == 4


@pytest.mark.parametrize(
    ("scores", "answers", "refusals", "message"),
    [
        ([[-1.0, -2.0]], [0], [0], "item 0: option 0 is both answer and refusal"),
        ([[-1.0, float("nan")]], [0], None, "item 0: log-likelihoods .* hold a NaN"),
        ([[-1.0]], [0], None, "item 0: log-likelihoods .* are fewer than two"),
        ([[-1.0, -2.0]] * 2, [0, -1], None, "item 1: index -1 is outside the 2 options"),
        ([[-1.0, -2.0]], [0], [5], "item 0: index 5 is outside the 2 options"),
        ([], [], None, "0 items with 0 answers"),
        ([[-1.0, -2.0]], [0, 1], None, "1 items with 2 answers and 1 refusals"),
    ],
)
def test_score_choices_refuses(scores, answers, refusals, message):
    with pytest.raises(ValueError, match=message):
        score_choices(scores, answers, refusals)


VALUES = {metric: [0.0, 1.0, 1.0, 1.0] for metric in METRICS}


def result(**changes) -> RunResult:
    fields = {
        "benchmark": "books", "row": "mule", "method": "mule", "label": "MULE", "seed": 1,
        "identity": "0123456789abcdef", "metrics": dict.fromkeys(METRICS, 75.0), "n": {"forget": 4},
        "details": {"neighbor": {"refusal": 0.25}}, "timing": {"steps": 40, "train_seconds": 3.5},
        "log": [{"step": 2, "loss": 1.5}], "values": VALUES,
    }  # fmt: skip
    return RunResult(**{**fields, **changes})


def test_a_result_is_read_as_it_was_written(tmp_path):
    result().write(tmp_path)
    back = RunResult.read(tmp_path)
    assert back.model_dump() == result().model_dump() and back.folder == tmp_path
    held = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert list(held)[:6] == ["benchmark", "row", "method", "label", "seed", "identity"]
    assert "values" not in held and "folder" not in held and held["timing"]["steps"] == 40
    assert json.loads((tmp_path / "values.json").read_text("utf-8")) == VALUES
