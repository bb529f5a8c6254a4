"""The tuning grid: validation data apart from evaluation, the best setting found, every row tried equally often."""

import json
from pathlib import Path

import pytest
import yaml

from mule_lib import methods, tuning
from mule_lib.data.fable.benchmark import evaluation_sets, unlearning_records, validation_sets
from mule_lib.data.fable.worlds import build
from mule_lib.params import FABLE


def line(row, rate, overall, benchmark="books", options=None):
    return {
        "row": row,
        "benchmark": benchmark,
        "learning_rate": str(rate),
        "options": json.dumps(options or {}),
        "overall": str(overall),
    }


@pytest.mark.parametrize("benchmark", FABLE)
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
            methods.get(row, options)
    assert counts == {len(tuning.RATES) + 3}


def test_grid_lines_come_back_as_they_were_written(tmp_path):
    file = tmp_path / "deep" / "books.csv"
    row = dict.fromkeys(tuning.COLUMNS, "1") | {"options": json.dumps({"top_k": 50})}
    tuning.append_line(file, row)
    tuning.append_line(file, row)
    assert tuning.read_grid(file) == [row, row]
    assert tuning.read_grid(tmp_path / "none.csv") == []


def test_choices_reach_the_params_files_and_ablations_follow_their_method(tmp_path):
    for name, options in (("mule", {}), ("mule_no_cot", {"cot": False}), ("upper_bound", {})):
        method = "upper_bound" if name == "upper_bound" else "mule"
        text = yaml.safe_dump({"row": name, "method": method, "options": options, "learning_rate": 1.0, "steps": 40})
        (tmp_path / f"{name}.yaml").write_text(f"# why\n{text}")
    assert tuning.write_choices(tmp_path, [line("mule", 5e-4, 10, options={"top_k": 50})]) == ["mule", "mule_no_cot"]
    read = {file.stem: yaml.safe_load(file.read_text()) for file in tmp_path.glob("*.yaml")}
    assert read["mule"]["options"] == {"top_k": 50} and read["mule"]["learning_rate"] == 5e-4
    assert read["mule_no_cot"]["options"] == {"top_k": 50, "cot": False} and read["mule_no_cot"]["steps"] == 40
    assert read["upper_bound"]["learning_rate"] == 1.0
    assert (tmp_path / "mule.yaml").read_text().startswith("# why\n")


def test_the_shipped_defaults_are_the_grid_s_choices():
    root = Path(tuning.__file__).parent.parent / "params" / "04_training"
    lines = [entry for name in FABLE for entry in tuning.read_grid(root / "grid" / f"{name}.csv")]
    best = tuning.chosen(lines)
    assert set(best) == set(tuning.ROWS)
    for row, (rate, options, _) in best.items():
        values = yaml.safe_load((root / "fable" / f"{row}.yaml").read_text("utf-8"))
        assert float(values["learning_rate"]) == rate and values["options"] == options
        tried = [entry for entry in lines if entry["row"] == row]
        assert len(tried) == len(FABLE) * (len(tuning.RATES) + 3)
