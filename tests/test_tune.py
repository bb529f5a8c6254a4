"""The tuning grid: validation data apart from evaluation, the best setting found, every method tried equally often."""

import json

import pytest
import tune

from mule_lib.data.fable.benchmark import evaluation_sets, unlearning_records, validation_sets
from mule_lib.data.items import REQUIRED, SETS
from mule_lib.params import FABLE, ROOT, method_options

GRID = ROOT / "params" / "04_training" / "grid"


def line(row, rate, overall, benchmark="books", options=None, seed=0, lost=0.0):
    note = f"General lost {lost}" if overall != "" else "loss is nan"
    values = {"row": row, "benchmark": benchmark, "learning_rate": str(rate), "overall": str(overall), "note": note}
    return {**values, "options": json.dumps(options or {}), "seed": str(seed)}


def everywhere(*given, **more):
    return [line(*given, benchmark=name, **more) for name in FABLE]


@pytest.mark.parametrize("benchmark", FABLE)
def test_validation_shares_no_question_with_evaluation_and_no_forget_fact_with_training(fable, benchmark):
    validation, evaluation = validation_sets(fable, benchmark), evaluation_sets(fable, benchmark)
    evaluated = {item.question for name in SETS for item in getattr(evaluation, name)}
    facts = {item.id.split("/")[1] for name in ("forget", "attack") for item in getattr(validation, name)}
    records = unlearning_records(fable, benchmark)
    trained = {record.source.split("/")[1] for record in records if record.role in ("forget", "adversarial")}
    assert facts and not facts & trained
    for name in REQUIRED:
        items = getattr(validation, name)
        assert len({item.id for item in items}) == len(items) >= 9
        assert not {item.question for item in items} & (evaluated | {record.question for record in records})


def test_the_best_setting_is_the_best_mean_and_diverged_ones_are_out():
    lines = [
        *everywhere("sft", 1e-3, 90, lost=9), *everywhere("sft", 1e-4, 60, lost=1),
        line("sft", 4e-3, 500), line("sft", 4e-3, "", "cyber"),
    ]  # fmt: skip
    assert tune.best_settings("sft", lines) == [("sft", 1e-3, {})]
    assert tune.best_settings("sft", lines, most_lost=5) == [("sft", 1e-4, {})]
    again = everywhere("sft", 1e-4, 62, seed=1)  # more seeds come before a better mean of fewer
    assert tune.best_settings("sft", lines + again) == [("sft", 1e-4, {})]
    assert tune.scores(lines + again)["sft", 1e-4, "{}"] == (2, 61)


def test_rounds_go_on_from_the_best_and_beyond_an_end():
    first = [
        each for i, (setting, _) in enumerate(tune.plan("mule", 1, [])) for each in everywhere("mule", setting.rate, i)
    ]
    best = max(float(each["learning_rate"]) for each in first)
    second = [setting for setting, _ in tune.plan("mule", 2, first)]
    assert [setting.rate for setting in second] == [pytest.approx(2.5 * best), best, best, best]
    assert [setting.changed for setting in second[1:]] == list(tune.OWN["mule"])
    assert tune.plan("mule", 3, first) == [(setting, 1) for setting in tune.best_settings("mule", first, 2)]


def test_every_row_is_tried_equally_often_and_with_options_it_has():
    for method, changes in tune.OWN.items():
        assert len(changes) == 3 == len(tune.FINER)
        for changed in changes:
            method_options(method, {name: value for name, value in changed.items() if name not in ("steps", "warmup")})


def test_the_shipped_rows_are_the_grids_choices():
    lines = [entry for name in FABLE for entry in tune.read_grid(GRID / f"{name}.csv")]
    for row in {entry["row"] for entry in lines}:
        p = tune.parameters(row)
        [best] = tune.best_settings(row, lines)
        assert p.learning_rate == best.rate
        given = {name: getattr(p, name, p.options.get(name)) for name in best.changed}
        assert {name: p.options.get(name, value) for name, value in given.items()} == best.changed
