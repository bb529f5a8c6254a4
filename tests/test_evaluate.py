"""Evaluation: results that write and read themselves."""

import json

import pytest

from mule_lib.evaluate.result import ResultError, RunResult
from mule_lib.paper import METRICS

VALUES = {metric: [0.0, 1.0, 1.0, 1.0] for metric in METRICS}


def result(**changes) -> RunResult:
    fields = {
        "benchmark": "books",
        "row": "mule",
        "method": "mule",
        "label": "MULE",
        "seed": 1,
        "identity": "0123456789abcdef",
        "metrics": dict.fromkeys(METRICS, 75.0),
        "n": {"forget": 4},
        "details": {"neighbor": {"refusal": 0.25}},
        "timing": {"steps": 40, "train_seconds": 3.5},
        "log": [{"step": 2, "loss": 1.5}],
        "values": VALUES,
    }
    return RunResult(**{**fields, **changes})


def test_a_result_is_read_as_it_was_written(tmp_path):
    result().write(tmp_path)
    back = RunResult.read(tmp_path)
    assert back.model_dump() == result().model_dump() and back.folder == tmp_path
    held = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert list(held)[:6] == ["benchmark", "row", "method", "label", "seed", "identity"]
    assert "values" not in held and "folder" not in held and held["timing"]["steps"] == 40
    assert json.loads((tmp_path / "values.json").read_text("utf-8")) == VALUES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {**result().metrics, "asr": 12.0}}, "asr is 12.0000 in metrics.json, and the mean .* is 75.0000"),
        ({"values": {**VALUES, "asr": []}}, "no asr in metrics.json or no items of it in values.json"),
        ({"values": {**VALUES, "asr": [3.0]}}, "values.json: asr should hold values from 0 to 1"),
    ],
)
def test_results_that_contradict_themselves_are_refused(tmp_path, changes, message):
    result(**changes).write(tmp_path)
    with pytest.raises(ResultError, match=message) as error:
        RunResult.read(tmp_path)
    assert "\n" not in str(error.value)


def test_files_that_are_no_result_are_refused(tmp_path):
    result().write(tmp_path)
    file = tmp_path / "metrics.json"
    held = json.loads(file.read_text("utf-8"))
    del held["label"]
    file.write_text(json.dumps(held), "utf-8")
    with pytest.raises(ResultError, match=r"metrics.json: label \(Field required\); it should be a metrics.json"):
        RunResult.read(tmp_path)
    (tmp_path / "values.json").write_text("{", "utf-8")
    with pytest.raises(ResultError, match=r"values.json: cannot be read as JSON"):
        RunResult.read(tmp_path)
