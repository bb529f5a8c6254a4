"""The tuning grid: validation data apart from evaluation, the best setting found, every method tried equally often."""

import importlib.util
import json

import pytest

from mule_lib import methods
from mule_lib.data.fable.benchmark import evaluation_sets, unlearning_records, validation_sets
from mule_lib.params import FABLE, ROOT, method_options, read_parameters

GRID = ROOT / "params" / "04_training" / "grid"


@pytest.fixture(scope="module")
def tune():
    spec = importlib.util.spec_from_file_location("tune", GRID / "tune.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(row, rate, overall, benchmark="books", options=None):
    values = {"row": row, "benchmark": benchmark, "learning_rate": str(rate), "overall": str(overall)}
    return {**values, "options": json.dumps(options or {})}


@pytest.mark.parametrize("benchmark", FABLE)
def test_validation_shares_no_question_with_evaluation_and_no_forget_fact_with_training(fable, benchmark):
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


def test_the_best_setting_is_the_best_mean_over_benchmarks_and_diverged_ones_are_out(tune):
    lines = [
        line("sft", 1e-3, 90), line("sft", 1e-3, 10, "cyber"),
        line("sft", 1e-4, 60), line("sft", 1e-4, 50, "cyber"),
        line("sft", 4e-3, 500), line("sft", 4e-3, "", "cyber"),
    ]  # fmt: skip
    assert tune.chosen(lines) == {"sft": (1e-4, {}, 55.0)}


def test_every_trained_method_is_tried_equally_often_and_with_options_it_has(tune):
    lines = [line("mule", 1e-3, 10), line("mule", 5e-4, 20), line("mule", 1e-4, 99, options={"top_k": 50})]
    assert tune.second_round("mule", lines) == [(5e-4, {"top_k": k}) for k in (20, 50, 200)]
    counts = set()
    for row in tune.ROWS:
        first = [line(row, rate, i) for i, (rate, _) in enumerate(tune.first_round())]
        settings = tune.first_round() + tune.second_round(row, first)
        counts.add(len({(rate, json.dumps(options)) for rate, options in settings}))
        for _, options in settings:
            method_options(row, options)
    assert counts == {len(tune.RATES) + 3}


def test_the_shipped_defaults_are_the_grids_choices(tune):
    lines = [entry for name in FABLE for entry in tune.read_grid(GRID / f"{name}.csv")]
    best = tune.chosen(lines)
    assert set(best) == set(tune.ROWS) == {name for name, method in methods.METHODS.items() if method.terms}
    for row, (rate, options, _) in best.items():
        p = read_parameters("04_training", ROOT / "params" / "04_training" / "fable.yaml", {"row": row})
        assert (p.learning_rate, p.options) == (rate, options)
        assert sum(entry["row"] == row for entry in lines) == len(FABLE) * (len(tune.RATES) + 3)
