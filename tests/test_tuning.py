"""The tuning grid: validation data apart from evaluation, the best setting found, every row tried equally often."""

import json

import pytest

from mule_lib import methods, tuning
from mule_lib.benchmarks.fable.evaluation import BENCHMARKS, evaluation_sets
from mule_lib.benchmarks.fable.unlearning import unlearning_records
from mule_lib.benchmarks.fable.validation import validation_sets
from mule_lib.benchmarks.fable.worlds import build


def line(row, rate, overall, benchmark="books", options=None):
    return {
        "row": row,
        "benchmark": benchmark,
        "learning_rate": str(rate),
        "options": json.dumps(options or {}),
        "overall": str(overall),
    }


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_validation_shares_no_question_with_evaluation_and_no_forget_fact_with_training(benchmark):
    fable = build(0)
    validation, evaluation = validation_sets(fable, benchmark), evaluation_sets(fable, benchmark)
    names = ("forget", "general", "neighbor", "attack", "mmlu")
    evaluated = {item.question for name in names for item in getattr(evaluation, name)}
    facts = {item.id.rsplit("/", 1)[0] for name in ("forget", "attack") for item in getattr(validation, name)}
    trained = {record.source for record in unlearning_records(fable, benchmark)}
    assert facts and not facts & trained
    for name in names:
        items = getattr(validation, name)
        assert len({item.id for item in items}) == len(items) >= 30
        assert not {item.question for item in items} & evaluated
        assert not {item.id.rsplit("/", 1)[0] for item in items} & {i.id for n in names for i in getattr(evaluation, n)}


def test_the_best_setting_is_the_best_mean_over_benchmarks_and_diverged_ones_are_out():
    lines = [
        line("sft", 1e-3, 90), line("sft", 1e-3, 10, "cyber"),
        line("sft", 1e-4, 60), line("sft", 1e-4, 50, "cyber"),
        line("sft", 4e-3, 500), line("sft", 4e-3, "", "cyber"),
    ]  # fmt: skip
    assert tuning.chosen(lines) == {"sft": (1e-4, {}, 55.0)}


def test_the_second_round_stands_at_the_best_rate_of_the_first():
    lines = [line("mule", 1e-3, 10), line("mule", 5e-4, 20), line("mule", 1e-4, 99, options={"top_k": 50})]
    assert tuning.second_round("mule", lines) == [(5e-4, {"top_k": k}) for k in (20, 50, 200)]
    lines = [line("sft", 1e-3, 10), line("sft", 5e-4, 20)]
    assert [rate for rate, _ in tuning.second_round("sft", lines)] == [7e-4, 3.5e-4, 4.25e-4]


def test_every_trained_row_is_tried_equally_often_and_with_options_it_has():
    counts = set()
    for row in tuning.ROWS:
        first = [line(row, rate, i) for i, (rate, _) in enumerate(tuning.first_round())]
        settings = tuning.first_round() + tuning.second_round(row, first)
        counts.add(len({(rate, json.dumps(options)) for rate, options in settings}))
        for _, options in settings:
            methods.with_options(row, options)
    assert counts == {len(tuning.RATES) + 3}


def test_grid_lines_come_back_as_they_were_written(tmp_path):
    file = tmp_path / "deep" / "books.csv"
    row = dict.fromkeys(tuning.COLUMNS, "1") | {"options": json.dumps({"top_k": 50})}
    tuning.append_line(file, row)
    tuning.append_line(file, row)
    assert tuning.read_grid(file) == [row, row]
    assert tuning.read_grid(tmp_path / "none.csv") == []
