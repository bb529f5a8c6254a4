"""Figures of run folders: what they draw is what was measured, missing rows are said, files are the same twice."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from run_folders import made_beyond, write_run, write_runs

matplotlib.use("Agg")

from mule_lib import (
    figures,
    figures_ablation,
    figures_radar,
    figures_robustness,
    figures_runs,
    findings,
    results,
    robustness,
    tables,
)
from mule_lib.figures_style import STYLES, style_of
from mule_lib.paper import METRICS, REPORTED

ROWS = ("base", "gold", "upper_bound", "mule", "sft", "duet", "ngdiff", "mule_no_cot", "mule_duet_loss")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    suite = write_runs(tmp_path_factory.mktemp("suite"), rows=ROWS, benchmarks=("books",), seeds=2)
    for seed, row in enumerate(("base", "mule", "gold")):
        made = made_beyond({"base": 90, "mule": 6, "gold": 2}[row], seed=seed)
        write_run(suite, "cyber", row, 0, beyond=made)
    return results.load_runs(suite)


@pytest.fixture(scope="module")
def table1(runs):
    return tables.measured_table("table1", "books", runs)


@pytest.fixture(scope="module")
def table2(runs):
    return tables.measured_table("table2", "books", runs)


def _texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_every_row_has_a_look_of_its_own():
    """No two rows share colour, line and marker, nor line and marker within one table; unknown rows get one too."""
    looks = [(look.color, look.line, look.marker) for look in STYLES.values()]
    assert len(set(looks)) == len(looks)
    for table in REPORTED.values():
        without_color = [(style_of(row).line, style_of(row).marker) for row in table]
        assert len(set(without_color)) == len(without_color)
    own = [style_of(row, ["a_method", "b_method"]) for row in ("a_method", "b_method")]
    assert own[0] != own[1] and own[0] == style_of("a_method", ["b_method"])


def test_radar_turns_what_is_better_low(table1):
    """Outside is better: Forget and ASR are 100 minus the value, the rest the value; incomplete rows drop out."""
    data = figures_radar.radar_data(table1)
    low = data["metric"].isin(["forget", "asr"])
    assert np.allclose(data["outside"], np.where(low, 100 - data["value"], data["value"]))
    assert set(data.loc[data["panel"] == "measured", "row"]) == {"base", "upper_bound", "sft", "ngdiff", "duet", "mule"}
    assert set(data.loc[data["panel"] == "reported", "row"]) == set(figures_radar.RADAR_ROWS)
    assert data.query("panel == 'reported' and row == 'mule' and metric == 'asr'")["outside"].item() == 100 - 12.5


def test_radar_says_which_way_is_better_and_whose_numbers_it_shows(table1):
    """Every axis has an arrow and the value at its rim; each panel is titled with its source."""
    figure = figures_radar.radar(figures_radar.radar_data(table1))
    texts = _texts(figure)
    for name in ("Forget ↓\nrim = 0", "ASR ↓\nrim = 0", "General ↑\nrim = 100", "MMLU ↑\nrim = 100"):
        assert texts.count(name) == 2
    assert "Reported" in texts and "Measured" in texts and "MUSE-Books, Llama-3.2-3B-Instruct" in texts
    assert any(text.startswith("Fable-Books") for text in texts)
    alone = figures_radar.radar_data(tables.reported_table("table3"))
    assert set(alone["panel"]) == {"reported"} and "Measured" not in _texts(figures_radar.radar(alone))


def test_radar_finding_comes_from_the_numbers(table1):
    """Worsening MULE on one axis takes that axis out of the sentence."""
    data = figures_radar.radar_data(table1)
    before = figures_radar.radar_finding(data[data["panel"] == "measured"])
    mule = (data["row"] == "mule") & (data["metric"] == "asr") & (data["panel"] == "measured")
    changed = data.assign(outside=data["outside"].mask(mule, 0.0), value=data["value"].mask(mule, 100.0))
    after = figures_radar.radar_finding(changed[changed["panel"] == "measured"])
    assert "ASR" in before.split(";")[1] and "innermost axis is ASR with 100.0" in after
    assert "was not run" in figures_radar.radar_finding(data[(data["row"] != "mule")])


def test_overall_is_ordered_and_says_what_was_not_run(table1, runs):
    """Best first, every seed kept, missing rows last and named; the order's agreement is in the text."""
    data = figures_runs.overall_data(table1, runs)
    measured = data["measured"].dropna()
    assert list(measured) == sorted(measured, reverse=True) and data["measured"].isna().iloc[-1]
    assert len(data.set_index("row").loc["mule", "per_seed"].split()) == 2
    titles = figures_runs.source_titles(table1)
    text = figures_runs.overall_finding(data, **titles)
    assert "MULE leads the trained rows" in text and "Not run: " in text and "FLAT" in text.split("Not run")[1]
    figure = figures_runs.overall_dots(data, **titles)
    assert _texts(figure).count("not run") == len(table1.not_run())
    reported = figures_runs.overall_data(tables.reported_table("table1"))
    titles = figures_runs.source_titles(tables.reported_table("table1"))
    assert "Measured" not in "".join(_texts(figures_runs.overall_dots(reported, **titles)))
    assert "measured" not in figures_runs.overall_finding(reported, **titles).lower()


def test_training_curves_have_a_panel_per_row_and_a_line_per_seed(runs):
    """Rows that train nothing have none; the text counts whose loss fell."""
    data = figures_runs.curves_data(runs, "books")
    trained = {row for row in ROWS if row not in ("base", "gold", "upper_bound")}
    assert set(data["row"]) == trained
    figure = figures_runs.training_curves(data, order=["mule", "sft"])
    drawn = [axis for axis in figure.axes if axis.lines]
    assert [axis.get_title(loc="left") for axis in drawn][:2] == ["MULE", "SFT"]
    assert all(len(axis.lines) == 2 for axis in drawn) and len(drawn) == len(trained)
    assert figures_runs.curves_finding(data).endswith(f"falls for {len(trained)}, all of them.")
    rising = data.assign(loss=data["loss"].where(data["row"] != "sft", data["step"]))
    assert figures_runs.curves_finding(rising).endswith("does not for SFT.")
    assert figures_runs.curves_data(runs, "none").empty


def test_obedience_is_read_once_per_teacher(runs):
    """MULE's teacher, the one without thought and the ensemble differ; rates carry intervals; the worst is named."""
    data = figures_runs.obedience_data(runs)
    books = data[data["benchmark"] == "books"]
    assert list(dict.fromkeys(books["teacher"])) == ["oracle-cot", "oracle", "ensemble-cot"]
    assert len(books) == 18 and not books.duplicated(["teacher", "objective", "role"]).any()
    assert ((data["low"] <= data["obeyed"]) & (data["obeyed"] <= data["high"])).all()
    assert "without thought: 60 % as told" in figures_runs.obedience_finding(data)
    assert len(figures_runs.obedience_dots(data).axes) == 2


def test_ablation_turns_signs_and_keeps_intervals(table2):
    """A gain is better on every panel; its interval turns with it."""
    data = figures_ablation.ablation_data(table2).set_index(["row", "metric"])
    for metric in METRICS:
        cell, line = table2.cell("mule_no_cot", metric), data.loc["mule_no_cot", metric]
        sign = -1 if metric in ("forget", "asr") else 1
        assert line["gain"] == pytest.approx(sign * cell["difference"], abs=1e-3)
        assert line["low"] <= line["gain"] <= line["high"]
    assert data.loc["mule_no_cot", "forget"]["gain"] < 0
    figure = figures_ablation.ablation_differences(data.reset_index())
    assert _texts(figure).count("not run") == len(table2.not_run())


def test_robustness_compares_attacks_with_the_run_itself(runs):
    """The run's own metrics come first; curves, quantization, re-teaching and new families are all found."""
    data = robustness.beyond_data(runs)
    assert set(data["row"]) == {"base", "mule", "gold"} and set(data["benchmark"]) == {"cyber"}
    mule = data[(data["row"] == "mule") & (data["metric"] == "forget")]
    assert list(mule["condition"])[:2] == ["as trained", "step 0"]
    assert {"int8", "int4", "same", "disjoint", "step 16"} <= set(mule["condition"])
    run = next(run for run in runs if (run.benchmark, run.row) == ("cyber", "mule"))
    assert mule["measured"].iloc[0] == pytest.approx(run.metrics["forget"], abs=0.01)
    table = robustness.beyond_table(data).set_index("Row")
    assert table.loc["MULE", "Forget ↓ as trained"].startswith(f"{run.metrics['forget']:.1f} [")
    assert len(figures_robustness.robustness(data).axes) == 3
    assert "Gold (never knew): Forget " in robustness.beyond_finding(data)
    nothing = robustness.beyond_data([run for run in runs if run.benchmark == "books"])
    assert nothing.empty and robustness.beyond_table(nothing).empty
    assert robustness.beyond_finding(nothing) == "No row was attacked beyond the paper's metrics."


def test_attacks_that_were_skipped_are_not_invented(runs):
    """A skipped attack leaves no lines, and the table says "not measured"."""
    made = {**made_beyond(5), "relearning": {"skipped": "off"}, "held_out_prefixes": {"skipped": "none were given"}}
    kinds = {attack for attack, *_ in robustness.measurements(made)}
    assert kinds == {"reteaching", "quantization"}
    data = robustness.beyond_data(runs)
    left = data[~data["attack"].isin(["relearning", "held_out_prefixes"])]
    assert set(robustness.beyond_table(left)["ASR ↓ unseen families"]) == {"not measured"}
    assert "not measured" in _texts(figures_robustness.robustness(left))


def test_rates_are_means_over_seeds(runs):
    """Rates in percent, averaged over a row's seeds; the readable table keeps the order asked for."""
    data = robustness.rates_data(runs)
    mule = [run.details["neighbor"]["refusal"] for run in runs if (run.benchmark, run.row) == ("books", "mule")]
    name = "Refusal chosen, neighbours ↓"
    line = data[(data["benchmark"] == "books") & (data["row"] == "mule") & (data["rate"] == name)].iloc[0]
    assert line["value"] == pytest.approx(100 * np.mean(mule), abs=0.01) and line["seeds"] == 2
    shown = robustness.rates_table(data, "books", order=["sft", "mule", "flat"])
    assert list(shown["Row"]) == ["SFT", "MULE"]


def test_summaries_say_what_the_tables_hold(table1, table2, runs):
    """Numbers in the sentences are those of the cells; ranks follow when a rival is lifted."""
    text = findings.results_summary(table1)
    forget = table1.cell("mule", "forget")
    assert f"to {forget['measured']:.1f} [{forget['low']:.1f}, {forget['high']:.1f}]" in text
    assert "Forget from 32.1 to 2.7" in text and "number 1 of 8 trained rows" in text and "Not run: " in text
    lifted = table1.data.copy()
    lifted.loc[(lifted["row"] == "sft") & (lifted["metric"] == "overall"), "measured"] = 999.0
    other = tables.Table(**{**table1.__dict__, "data": lifted})
    assert "number 2 of 4 trained rows" in findings.results_summary(other)
    text = findings.ablation_summary(table2)
    assert "MULE without thought (−" in text.split("These gain")[0]
    assert "−5.5 for MULE with DUET's loss" in text
    none = tables.measured_table("table2", "cyber", [run for run in runs if run.row == "base"])
    assert findings.ablation_summary(none).startswith("MULE was not run")
    assert "not run" in findings.runs_summary([])
    assert findings.runs_summary(runs).startswith(
        f"{len(runs)} runs of {len(ROWS)} rows on Fable-Books and Fable-Cyber"
    )


def test_the_same_data_gives_the_same_files(table1, tmp_path):
    """PNG, PDF, CSV and alt text are byte-identical when drawn again, and no figure stays open."""
    for folder in ("a", "b"):
        data = figures_radar.radar_data(table1)
        alt = figures_radar.radar_finding(data)
        figures.save(figures_radar.radar(data), tmp_path / folder, "figure3", data=data, alt=alt)
    for suffix in ("png", "pdf", "csv", "txt"):
        first, second = (tmp_path / folder / f"figure3.{suffix}" for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    assert pd.read_csv(tmp_path / "a" / "figure3.csv").shape[0] == len(figures_radar.radar_data(table1))
