"""Run folders are read whole, checked, and turned into points with intervals."""

import json

import numpy as np
import pytest
from run_folders import ITEMS, UNTRAINED, write_run, write_runs

from mule_lib import results
from mule_lib.evaluate.rows import gold_distance
from mule_lib.paper import METRICS, overall

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
    assert list(mule.curve["step"])[-1] == 40 and mule.params["model"] == "base" and mule.provenance["packages"]
    assert next(run for run in runs if run.row == "base").curve.empty


def test_tidy_points_are_means_over_items_and_seeds(runs):
    """A metric is the mean of its runs', inside its interval; overall and gold distance follow from the metrics."""
    table = results.tidy(runs).set_index(["benchmark", "row", "metric"])
    assert list(results.tidy(runs).columns) == list(results.TIDY)
    for benchmark in ("books", "cyber"):
        mean = {
            row: {
                m: np.mean([run.metrics[m] for run in runs if (run.benchmark, run.row) == (benchmark, row)])
                for m in METRICS
            }
            for row in FEW
        }
        for row in FEW:
            for metric in METRICS:
                line = table.loc[benchmark, row, metric]
                assert line["measured"] == pytest.approx(mean[row][metric])
                assert line["low"] <= line["measured"] <= line["high"]
                assert (line["n"], line["seeds"]) == (ITEMS[metric], 1 if row in UNTRAINED else 3)
            line = table.loc[benchmark, row, "overall"]
            assert line["measured"] == pytest.approx(overall(mean["base"], mean[row]), abs=1e-5)
            line = table.loc[benchmark, row, "gold_distance"]
            assert line["measured"] == pytest.approx(gold_distance({row: mean[row]}, mean["gold"])[row]["mean"])
    assert table.loc["books", "base", "overall"]["high"] == 0
    assert table.loc["books", "gold", "gold_distance"]["high"] == 0


def test_without_base_or_gold_there_is_no_overall_or_distance(runs):
    """What cannot be computed is absent, and the rest is the same."""
    table = results.tidy([run for run in runs if run.row in ("mule", "sft")])
    assert set(table["metric"]) == set(METRICS)
    assert len(results.tidy([])) == 0 and list(results.tidy([]).columns) == list(results.TIDY)


def test_per_seed_has_every_run(runs):
    """One value per run and metric; overall of a seed is against the base row."""
    table = results.per_seed(runs)
    one = table.query("benchmark == 'cyber' and row == 'sft' and seed == 2").set_index("metric")["value"]
    run = next(run for run in runs if (run.benchmark, run.row, run.seed) == ("cyber", "sft", 2))
    base = next(run for run in runs if (run.benchmark, run.row) == ("cyber", "base"))
    assert one["forget"] == run.metrics["forget"]
    assert one["overall"] == overall(base.metrics, run.metrics)
    assert len(table) == len(runs) * 6


def test_differences_are_paired(tmp_path):
    """A row that answers as another does, item by item, differs by nothing with certainty; unpaired it would not."""
    for seed in range(3):
        write_run(tmp_path, "books", "mule", seed)
        copy = write_run(tmp_path, "books", "mule_k1", seed)
        source = tmp_path / "runs" / "books" / "mule" / f"seed-{seed}"
        (copy / "values.json").write_text((source / "values.json").read_text())
        told = json.loads((copy / "metrics.json").read_text())
        told["metrics"] = json.loads((source / "metrics.json").read_text())["metrics"]
        (copy / "metrics.json").write_text(json.dumps(told))
    write_run(tmp_path, "books", "sft", 1)
    write_run(tmp_path, "books", "duet", 7)
    write_run(tmp_path, "books", "base", 0)
    table = results.differences(results.load_runs(tmp_path), "mule").set_index(["row", "metric"])
    same = table.loc["mule_k1"]
    assert (same[["difference", "low", "high"]] == 0).all().all() and set(same["seeds"]) == {3}
    assert table.loc["sft", "forget"]["seeds"] == 1  # only seed 1 is common
    assert "duet" not in table.index.get_level_values(0)  # no common seed
    assert table.loc["base", "forget"]["difference"] > 50  # the base faces every seed
    assert table.loc["base", "overall"]["seeds"] == 3
    assert results.differences(results.load_runs(tmp_path), "flat").empty


def _break(folder, file, change):
    told = json.loads((folder / file).read_text())
    change(told)
    (folder / file).write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("metrics.json", lambda told: told.pop("details"), "metrics.json: lacks details"),
        ("metrics.json", lambda told: told.update(seed=4), "holds the run books/mule/seed-4; its folder should be"),
        ("metrics.json", lambda told: told["metrics"].update(asr=50.5), "asr is 50.5000 in metrics.json, and the mean"),
        ("metrics.json", lambda told: told["metrics"].pop("mmlu"), "no mmlu in metrics.json"),
        ("values.json", lambda told: told.update(general=[2.0] * 70), "general should hold values from 0 to 1"),
        (
            "values.json",
            lambda told: told.update(general=[float("nan")] * 70),
            "general should hold values from 0 to 1",
        ),
        ("values.json", lambda told: told.pop("forget"), "no forget in metrics.json or no items of it"),
    ],
)
def test_broken_runs_are_refused_by_name(tmp_path, file, change, message):
    """One line that names the file and what is wrong."""
    _break(write_run(tmp_path, "books", "mule", 0), file, change)
    with pytest.raises(results.ResultError, match=message) as error:
        results.load_runs(tmp_path)
    assert "\n" not in str(error.value)


def test_text_that_is_no_json_and_missing_folders_are_refused(tmp_path):
    """Half a file and a path without anything; a run without metrics.json is one that did not end."""
    folder = write_run(tmp_path, "books", "mule", 0)
    (folder / "values.json").write_text('{"forget": [0')
    with pytest.raises(results.ResultError, match=r"values.json: cannot be read as JSON"):
        results.load_runs(tmp_path)
    (folder / "metrics.json").unlink()
    assert results.load_runs(tmp_path) == []
    with pytest.raises(results.ResultError, match="none: no such folder; `make reproduce`"):
        results.load_runs(tmp_path / "none")


def test_rows_of_other_items_are_refused(tmp_path):
    """Rows are compared item by item, so their numbers of items agree."""
    write_run(tmp_path, "books", "mule", 0)
    folder = write_run(tmp_path, "books", "sft", 0)
    _break(folder, "values.json", lambda told: told.update(forget=[1.0] * 12))
    _break(folder, "metrics.json", lambda told: told["metrics"].update(forget=100.0))
    with pytest.raises(results.ResultError, match=r"sft/seed-0: forget has 12 items, .*mule/seed-0 has 60"):
        results.load_runs(tmp_path)
