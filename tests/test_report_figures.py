"""Figures: what they draw is what was measured, missing rows are said, files are the same twice."""

from dataclasses import replace
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from run_folders import made_beyond, write_run, write_runs

matplotlib.use("Agg")

from mule_lib import report
from mule_lib.paper import METRICS
from mule_lib.report import beyond, cosines, figures, results, tables

ROWS = (
    "base",
    "gold",
    "upper_bound",
    "mule",
    "sft",
    "sft_standardized",
    "duet",
    "ngdiff",
    "mule_no_cot",
    "mule_duet_loss",
)
LOG = [
    {"step": 2, "loss": 3.0, "loss_obj1": 1.0, "loss_obj2": 2.0},
    {"step": 4, "loss": 1.5, "loss_obj1": 0.5, "loss_obj2": 1.0},
    {"step": 6, "loss": 2.5, "loss_obj1": 0.25, "loss_obj2": 2.25},
]


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


def _texts(picture):
    return [text.get_text() for text in picture.figure.findobj(matplotlib.text.Text)]


def test_radar_turns_what_is_better_low(table1):
    """Outside is better: Forget and ASR are 100 minus the value, the rest the value; incomplete rows drop out."""
    picture = figures.radar(table1)
    data = picture.data
    low = data["metric"].isin(["forget", "asr"])
    assert np.allclose(data["outside"], np.where(low, 100 - data["value"], data["value"]))
    assert set(data.loc[data["panel"] == "measured", "row"]) == {"base", "upper_bound", "sft", "ngdiff", "duet", "mule"}
    assert set(data.loc[data["panel"] == "reported", "row"]) == set(figures.RADAR_ROWS)
    assert data.query("panel == 'reported' and row == 'mule' and metric == 'asr'")["outside"].item() == 100 - 12.5
    texts = _texts(picture)
    for name in ("Forget ↓\nrim = 0", "ASR ↓\nrim = 0", "General ↑\nrim = 100"):
        assert texts.count(name) >= 2
    assert texts.count("MMLU ↑\nrim = 100") == texts.count("Far recall ↑\nrim = 100") == 2
    assert any(text.startswith("Reported\nMUSE-Books") for text in texts)
    beaten = table1.data.copy()
    beaten.loc[(beaten["row"] == "sft") & (beaten["metric"] == "asr"), "measured"] = -1.0
    axes_of_mule = (
        figures.radar(one).finding.split("Measured")[1].split(";")[0] for one in (table1, replace(table1, data=beaten))
    )
    assert ["ASR" in text for text in axes_of_mule] == [True, False]
    alone = figures.radar(tables.measured_table("table3", "wmdp_cyber", []))
    assert set(alone.data["panel"]) == {"reported"} and "Measured" not in alone.finding + "".join(_texts(alone))


def test_overall_is_ordered_and_says_what_was_not_run(table1, runs):
    """Best first, every seed a stroke, missing rows last; the best and the order's agreement are in the text."""
    picture = figures.overall_intervals(table1, runs)
    measured = picture.data["measured"].dropna()
    assert list(measured) == sorted(measured, reverse=True) and picture.data["measured"].isna().iloc[-1]
    strokes = [line.get_xdata() for line in picture.figure.axes[0].lines if line.get_marker() == "|"]
    assert np.isfinite(np.concatenate(strokes)).sum() == sum(
        run.benchmark == "books" and not run.row.startswith("mule_") for run in runs
    )
    assert _texts(picture).count("not run") == len(table1.not_run())
    lines = [label.get_text() for label in picture.figure.axes[0].get_yticklabels()]
    assert len(lines) == len({*lines}) == len(picture.data) - 1  # one a method, two marks where both conditions ran
    filled, empty = (line for line in picture.figure.axes[0].lines if line.get_marker() == "D")
    assert filled.get_ydata()[0] == lines.index("SFT") < empty.get_ydata()[0] < lines.index("SFT") + 0.5
    assert filled.get_markerfacecolor() != empty.get_markerfacecolor() == "white"
    assert empty.get_xdata()[0] == pytest.approx(table1.cell("sft_standardized", "overall")["measured"], abs=1e-3)
    assert "the best trained rows are MULE" in picture.finding


def test_one_runs_curve_draws_each_term_in_its_own_style():
    """The sum and every term once; first and last loss and which terms fell are in the text."""
    picture = figures.training_curve(LOG, title="MULE")
    assert picture.finding == "From step 2 to step 6 the loss went from 3 to 2.5; 1 of its 2 terms fell (obj1)."
    lines = {line.get_label(): line for line in picture.figure.axes[0].get_lines()}
    assert set(lines) == {"sum of all terms", "obj1", "obj2"} and list(lines["obj2"].get_ydata()) == [2.0, 1.0, 2.25]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 3
    alone = figures.training_curve([{"step": 1, "loss": 2.0, "loss_all": 2.0}] * 2, title="SFT")
    assert len(alone.figure.axes[0].get_lines()) == 1


def test_obedience_is_read_once_per_teacher(runs):
    """MULE's teacher, the one without thought and the ensemble differ; rates carry intervals; the worst is named."""
    picture = figures.teacher_obedience(runs)
    books = picture.data[picture.data["benchmark"] == "books"]
    assert list(dict.fromkeys(books["teacher"])) == ["oracle-cot", "oracle", "ensemble-cot"]
    assert len(books) == 18 and not books.duplicated(["teacher", "objective", "role"]).any()
    assert ((books["low"] <= books["obeyed"]) & (books["obeyed"] <= books["high"])).all()
    assert "without thought: 60 % at Obj1, forget: refuse" in picture.finding and len(picture.figure.axes) == 2
    assert figures.teacher_obedience([]).figure is None


def test_ablation_turns_signs_and_keeps_intervals(runs):
    """A gain is better on every panel; its interval turns with it."""
    table = tables.measured_table("table2", "books", runs)
    picture = figures.ablation(table)
    data = picture.data.set_index(["row", "metric"])
    for metric in METRICS:
        cell, line = table.cell("mule_no_cot", metric), data.loc["mule_no_cot", metric]
        assert line["gain"] == pytest.approx((-1 if metric in ("forget", "asr") else 1) * cell["difference"], abs=1e-3)
        assert line["low"] <= line["gain"] <= line["high"]
    assert data.loc["mule_no_cot", "forget"]["gain"] < 0
    assert _texts(picture).count("not run") == len(table.not_run())


def test_robustness_draws_every_condition_and_row(runs):
    later = beyond.attacks_table(runs, "cyber")
    picture = figures.robustness(later)
    assert {*later.shown["Attack"], "MULE", "Retrained reference"} <= set(_texts(picture))
    assert figures.robustness(beyond.attacks_table(runs, "books")).figure is None


def _cosines():
    lines = [
        (*named, level - 0.01 * (i + j) - 0.02 * named[1], f"obj{i}", f"obj{j}")
        for named in product(("books", "cyber"), (0, 5), ("raw", "raw_prompts", "standardized"))
        for level in (0.8 if named[2] == "standardized" else 0.1,)
        for i, j in product((1, 2, 3), repeat=2)
    ]
    data = pd.DataFrame(lines, columns="benchmark step format cosine objective_a objective_b".split())
    return data.assign(low=data["cosine"] - 0.05, high=data["cosine"] + 0.05)


def test_heat_maps_hold_every_value():
    """A row per benchmark and step, a column per format, every cosine in its cell; one alone and a gap are drawn."""
    data = _cosines()
    picture = cosines.heatmaps(data, "cosine", finding="x")
    cells = [axis for axis in picture.figure.axes if axis.collections and len(axis.texts) == 18]
    written = {text.get_text() for axis in cells for text in axis.texts}
    assert len(cells) == 12 and {report.names.number(value, 2) for value in data["cosine"]} <= written
    assert not any("-" in text or "−0.00" in text for text in written)
    assert picture.figure.get_size_inches()[0] <= figures.WIDTH
    assert [axis.get_title(loc="left") or axis.get_title() for axis in cells[:4]] == [*cosines.FORMATS.values(), ""]
    single = data.query("benchmark == 'books' and step == 0 and format == 'raw'").drop(columns=["benchmark", "step"])
    single = cosines.heatmaps(single.iloc[:-1], "cosine", finding="x").figure
    assert sum(len(axis.texts) for axis in single.axes) == 16
    distances = cosines.heatmaps(data.rename(columns={"cosine": "distance"}), "distance", finding="x")
    assert any("proxy A-distance" in text for text in _texts(distances))


def test_showing_writes_the_same_files_and_gives_the_alt_text(table1, tmp_path, capsys):
    """PNG, PDF, CSV and alt text are byte-identical when drawn again; the notebook's picture has the finding as alt."""
    for folder in ("a", "b"):
        report.show(figures.radar(table1), tmp_path / folder, "figure3")
    for suffix in ("png", "pdf", "csv", "txt"):
        first, second = (tmp_path / folder / f"figure3.{suffix}" for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    picture = figures.radar(table1)
    assert (tmp_path / "a" / "figure3.txt").read_text() == f"{picture.finding}\n"
    content, metadata = DisplayFormatter().format(picture)
    assert content["image/png"] and metadata["image/png"]["alt"] == picture.finding
    report.show(figures.teacher_obedience([]), tmp_path, "nothing")
    assert not (tmp_path / "nothing.png").exists()
    report.show(table1, tmp_path / "tables")
    assert {file.suffix for file in (tmp_path / "tables").iterdir()} == {".csv", ".md", ".tex", ".html", ".txt"}
