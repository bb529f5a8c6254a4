"""Run folders are read whole, checked against each other, and turned into points with intervals."""

import json

import numpy as np
import pytest
from run_folders import ITEMS, UNTRAINED, write_run, write_runs

from mule_lib.evaluate.result import MORE_METRICS, ResultError
from mule_lib.paper import METRICS, overall
from mule_lib.report import results

FEW = ("base", "gold", "mule", "sft")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("suite"), rows=FEW, seeds=3)


@pytest.fixture(scope="module")
def runs(suite):
    return results.load_runs(suite)


def test_runs_are_read_in_order_from_either_folder(suite, runs):
    """The suite's folder and its `runs` give the same, by benchmark, row and seed."""
    expected = [(b, r, s) for b in ("books", "cyber") for r in sorted(FEW) for s in range(1 if r in UNTRAINED else 3)]
    assert [(run.benchmark, run.row, run.seed) for run in runs] == expected
    assert results.load_runs(suite / "runs") == runs
    mule = next(run for run in runs if run.row == "mule")
    assert mule.log[-1]["step"] == 40
    assert results.run_file(mule, "params.json")["model"] == "base"


def test_tidy_points_are_means_over_items_and_seeds(runs):
    """A metric is the mean of its runs', inside its interval; overall follows from the metrics, and the distance to
    the reference from the kinds of answers."""
    table = results.tidy(runs).set_index(["benchmark", "row", "metric"])
    assert list(results.tidy(runs).columns) == list(results.TIDY)
    means = {
        key: {m: np.mean([run.metrics[m] for run in group]) for m in METRICS}
        for key, group in results.by_row(runs).items()
    }
    for (benchmark, row), mean in means.items():
        for metric in METRICS:
            line = table.loc[benchmark, row, metric]
            assert line["measured"] == pytest.approx(mean[metric]) and line["low"] <= line["measured"] <= line["high"]
            assert (line["n"], line["seeds"]) == (ITEMS[metric], 1 if row in UNTRAINED else 3)
        measured = table.loc[benchmark, row]["measured"]
        assert measured["overall"] == pytest.approx(overall(means[benchmark, "base"], mean), abs=1e-5)
        assert measured["gold_distance"] > 10 or row == "gold"
    assert table.loc["books", "base", "overall"]["high"] == 0
    assert table.loc["books", "gold", "gold_distance"]["high"] == 0


def test_without_base_or_gold_there_is_no_overall_or_distance(runs):
    """What cannot be computed is absent, and the rest is the same."""
    table = results.tidy([run for run in runs if run.row in ("mule", "sft")])
    assert set(table["metric"]) == {*METRICS, *MORE_METRICS}
    assert len(results.tidy([])) == 0 and list(results.tidy([]).columns) == list(results.TIDY)


def test_differences_are_paired(tmp_path):
    """A row that answers as another does, item by item, differs by nothing with certainty; unpaired it would not."""
    for seed in range(3):
        copy, source = (write_run(tmp_path, "books", row, seed) for row in ("mule_k1", "mule"))
        (copy / "values.json").write_text((source / "values.json").read_text())
        metrics = json.loads((source / "metrics.json").read_text())["metrics"]
        _change(copy, "metrics.json", lambda content, metrics=metrics: content.update(metrics=metrics))
    for row, seed in (("sft", 1), ("duet", 7), ("base", 0)):
        write_run(tmp_path, "books", row, seed)
    runs = results.load_runs(tmp_path)
    table = results.differences(runs, "mule").set_index(["row", "metric"])
    same = table.loc["mule_k1"]
    assert (same[["difference", "low", "high"]] == 0).all().all() and set(same["seeds"]) == {3}
    assert table.loc["sft", "forget"]["seeds"] == 1  # only seed 1 is common
    assert "duet" not in table.index.get_level_values(0)  # no common seed
    assert table.loc["base", "forget"]["difference"] > 50  # the base faces every seed
    assert table.loc["base", "overall"]["seeds"] == 3
    assert results.differences(runs, "flat").empty


def _change(folder, file, change):
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("metrics.json", lambda run: run.pop("details"), r"metrics.json: details \(Field required\); it should"),
        ("metrics.json", lambda run: run.update(seed=4), "holds the run books/mule/seed-4; its folder should be"),
        ("metrics.json", lambda run: run["metrics"].update(asr=50.5), "asr is 50.5000 in metrics.json, and the mean"),
        ("metrics.json", lambda run: run["metrics"].pop("mmlu"), "no mmlu in metrics.json"),
        ("values.json", lambda values: values.update(general=[2.0] * 70), "general should hold values from 0 to 1"),
        ("values.json", lambda values: values.pop("forget"), "no forget in metrics.json or no items of it"),
        ("values.json", lambda held: held.update(general=[float("nan")] * 70), "should hold values from 0 to 1"),
    ],
)
def test_broken_runs_are_refused_by_name(tmp_path, file, change, message):
    """One line that names the file and what is wrong."""
    _change(write_run(tmp_path, "books", "mule", 0), file, change)
    with pytest.raises(ResultError, match=message) as error:
        results.load_runs(tmp_path)
    assert "\n" not in str(error.value)


def test_text_that_is_no_json_and_missing_folders_are_refused(tmp_path):
    """Half a file and a path without anything; a run without metrics.json is one that did not end."""
    folder = write_run(tmp_path, "books", "mule", 0)
    (folder / "values.json").write_text('{"forget": [0')
    with pytest.raises(ResultError, match=r"values.json: cannot be read as JSON"):
        results.load_runs(tmp_path)
    (folder / "metrics.json").unlink()
    assert results.load_runs(tmp_path) == []
    with pytest.raises(ResultError, match="none: no such folder; `make reproduce`"):
        results.load_runs(tmp_path / "none")


def test_rows_of_other_items_are_refused(tmp_path):
    """Rows are compared item by item, so their numbers of items agree."""
    write_run(tmp_path, "books", "mule", 0)
    folder = write_run(tmp_path, "books", "sft", 0)
    _change(folder, "values.json", lambda values: values.update(forget=[1.0] * 12))
    _change(folder, "metrics.json", lambda run: run["metrics"].update(forget=100.0))
    with pytest.raises(ResultError, match=r"sft/seed-0: forget has 12 items, .*mule/seed-0 has 60"):
        results.load_runs(tmp_path)
