"""Figures: what they draw is what was measured, missing rows are said, files are the same twice."""

from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from run_folders import made_beyond, write_run, write_runs

matplotlib.use("Agg")

from mule_lib import report
from mule_lib.paper import METRICS, REPORTED
from mule_lib.report import beyond, charts, cosines, figures, results, tables
from mule_lib.report.names import number

ROWS = (
    "base", "gold", "upper_bound", "mule", "sft", "sft_standardized", "duet", "ngdiff", "mule_no_cot",
    "mule_duet_loss",
)  # fmt: skip
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
    picture = charts.radar(table1)
    data = picture.data
    low = data["metric"].isin(["forget", "asr"])
    assert np.allclose(data["outside"], np.where(low, 100 - data["value"], data["value"]))
    assert set(data.loc[data["panel"] == "measured", "row"]) == {"base", "upper_bound", "sft", "ngdiff", "duet", "mule"}
    assert set(data.loc[data["panel"] == "reported", "row"]) == set(REPORTED["table3"])
    assert data.query("panel == 'reported' and row == 'mule' and metric == 'asr'")["outside"].item() == 100 - 12.5
    texts = _texts(picture)
    assert texts.count("Forget ↓") == texts.count("ASR ↓") == 2 and texts.count("MMLU ↑") == texts.count("Far recall ↑")
    assert any(text.startswith("Reported\nMUSE-Books") for text in texts)
    assert picture.finding == f"{charts.RINGS} {table1.finding}"
    alone = charts.radar(tables.measured_table("table3", "wmdp_cyber", []))
    assert set(alone.data["panel"]) == {"reported"} and "Measured" not in alone.finding + "".join(_texts(alone))


def test_small_radars_have_a_method_each(table1):
    """Its numbers stand at its spokes, MULE and Upper Bound are outlines, its twin on MULE's records is dotted."""
    picture = charts.radars(table1)
    shown = [axis for axis in picture.figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["Base Model", "SFT", "NGDiff", "DUET (w/ ET)"]
    assert f"Forget\n{number(table1.cell('sft', 'forget')['measured'])}" in [text.get_text() for text in shown[1].texts]
    named = {line.get_label(): line.get_linestyle() for line in shown[1].lines}
    assert {"MULE", "Upper Bound"} <= set(named) and named[charts.TWIN] == ":"
    alone = charts.radars(tables.measured_table("table3", "wmdp_cyber", []))
    assert set(alone.data["panel"]) == {"reported"} and len(alone.figure.axes) == 6


def test_overall_is_ordered_and_ranked(table1):
    """Best first; ranks here and in the paper; broken text is marked."""
    picture = charts.overall_ranks(table1)
    own, ladder = picture.figure.axes
    first = picture.data[picture.data["condition"] == "paper"]["measured"].dropna()
    assert list(first) == sorted(first, reverse=True) and picture.data["measured"].isna().iloc[-1]
    assert _texts(picture).count("not run") == len(table1.not_run())
    lines = [label.get_text() for label in own.get_yticklabels()]
    assert len(lines) == len({*lines}) == len(picture.data) - 1  # one a method, two marks where both conditions ran
    filled, empty = (line for line in own.lines if line.get_marker() == "D")
    assert filled.get_ydata()[0] == lines.index("SFT") < empty.get_ydata()[0] < lines.index("SFT") + 0.5
    assert filled.get_markerfacecolor() != empty.get_markerfacecolor() == "white"
    assert empty.get_xdata()[0] == pytest.approx(table1.cell("sft_standardized", "overall")["measured"], abs=1e-3)
    ranks = picture.data.set_index("row")[["rank_measured", "rank_reported"]]
    assert ranks.loc["mule"].tolist() == [1, 1] and ranks.loc["duet", "rank_reported"] == 6
    assert "1  MULE 80.82" in [text.get_text() for text in ladder.texts]
    assert [text.get_text() for text in own.texts].count("✗") == len(table1.broken) > 0
    assert picture.finding == table1.finding


def test_trade_offs_and_controls_are_those_of_the_table(table1):
    data = charts.trade_off(table1).data.set_index(["panel", "row"])
    cell = table1.cell("duet", "neighbor_open")["measured"]
    assert data.loc[("Retain, open, measured", "duet"), "retain"] == pytest.approx(cell, abs=1e-3)
    assert data.loc[("Retain Acc, reported", "mule"), ["forget", "retain"]].tolist() == [2.7, 58.5]
    picture = charts.benign_controls(table1)
    assert f"Controls ↑ {number(table1.cell('mule', 'controls')['measured'])} (best" in picture.finding
    assert [axis.get_title(loc="left") for axis in picture.figure.axes] == [
        "Controls ↑",
        "Retain, open ↑",
        "Retain refused ↓",
    ]


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
    assert {*books["teacher"]} == {*[*figures.TEACHERS.values()][:3]}
    assert len(books) == 18 and not books.duplicated(["teacher", "objective", "role"]).any()
    assert "without thought: 60 % at Obj1, forget: refuse" in picture.finding and len(picture.figure.axes) == 2
    assert figures.teacher_obedience([]).figure is None


def test_ablation_turns_signs_and_keeps_intervals(runs):
    """A gain is better on every panel; its interval turns with it."""
    table = tables.measured_table("table2", "books", runs)
    picture = charts.ablation(table)
    data = picture.data.set_index(["row", "metric"])
    for metric in METRICS:
        cell, line = table.cell("mule_no_cot", metric), data.loc["mule_no_cot", metric]
        assert line["gain"] == pytest.approx((-1 if metric in ("forget", "asr") else 1) * cell["difference"], abs=1e-3)
        assert line["low"] <= line["gain"] <= line["high"]
    assert data.loc["mule_no_cot", "forget"]["gain"] < 0
    assert data.loc["mule_duet_loss", "overall"]["reported_gain"] == pytest.approx(74.33 - 79.82)
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
    cells = [axis for axis in picture.figure.axes if axis.collections and len(axis.texts) == 12]
    written = {text.get_text() for axis in cells for text in axis.texts}
    assert len(cells) == 12 and {number(v, 2) for v in data.query("objective_a >= objective_b")["cosine"]} <= written
    assert not any("-" in text or "−0.00" in text for text in written)
    assert picture.figure.get_size_inches()[0] <= figures.WIDTH
    assert [axis.get_title(loc="left") or axis.get_title() for axis in cells[:4]] == [*cosines.FORMATS.values(), ""]
    single = data.query("benchmark == 'books' and step == 0 and format == 'raw'").drop(columns=["benchmark", "step"])
    single = cosines.heatmaps(single.iloc[:-1], "cosine", finding="x").figure
    assert sum(len(axis.texts) for axis in single.axes) == 10
    distances = cosines.heatmaps(data.rename(columns={"cosine": "distance"}), "distance", finding="x")
    assert any("proxy A-distance" in text for text in _texts(distances))


def test_showing_writes_the_same_files_and_gives_the_alt_text(table1, tmp_path, capsys):
    """PNG, PDF, CSV and alt text are byte-identical when drawn again; the notebook's picture has the finding as alt."""
    for folder in ("a", "b"):
        report.show(charts.radar(table1), tmp_path / folder, "figure3")
    for suffix in ("png", "pdf", "csv", "txt"):
        first, second = (tmp_path / folder / f"figure3.{suffix}" for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    picture = charts.radar(table1)
    assert (tmp_path / "a" / "figure3.txt").read_text() == f"{picture.finding}\n"
    content, metadata = DisplayFormatter().format(picture)
    assert content["image/png"] and metadata["image/png"]["alt"] == picture.finding
    report.show(figures.teacher_obedience([]), tmp_path, "nothing")
    assert not (tmp_path / "nothing.png").exists()
    report.show(table1, tmp_path / "tables")
    assert {file.suffix for file in (tmp_path / "tables").iterdir()} == {".csv", ".md", ".tex", ".html", ".txt"}
