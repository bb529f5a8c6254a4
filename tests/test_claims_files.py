"""The ledger from and to files: the pilot study's tables, the inconsistencies, tables, figure, notebook 08."""

import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import run_folders
from claims_world import OTHER_WAY, FakePilot, World, changes

from mule_lib import claims, claims_tables, figures_claims
from mule_lib.claims_evidence import Measured, NotMeasuredError, from_interval
from mule_lib.claims_inconsistencies import CHECKS, TEXT_ALONE, recomputed
from mule_lib.claims_pilot import Pilot, PilotError, load_pilot
from mule_lib.domain_distance import MAIN
from mule_lib.evaluate.intervals import bootstrap_difference, bootstrap_overall
from mule_lib.paper import INCONSISTENCIES, REPORTED
from mule_lib.params import ParameterError, validate
from mule_lib.report.results import load_runs
from mule_lib.run import run_notebook

ROOT = Path(__file__).resolve().parent.parent
PAIR = ("obj1", "obj2")


@pytest.fixture(scope="module")
def mixed():
    """Verdicts of all three kinds, some for want of a run."""
    world = World()
    for claim in ("best_overall_cyber", "lowest_prefill_asr", "efficient"):
        world.points.update(changes(OTHER_WAY[claim][0])[0])
    world.points.update(changes(OTHER_WAY["student_term_helps"][1])[0])
    runs = [run for run in world.runs() if run.row != "mule_no_anchors"]
    return claims.judge(Measured(runs, pilot=FakePilot(), resamples=5000))


def test_draws_agree_with_the_intervals_of_the_tables(tmp_path):
    """The joint draws give the differences and overalls of `evaluate.intervals`, up to chance of the resampling."""
    suite = run_folders.write_runs(tmp_path, rows=("base", "mule", "sft"), benchmarks=("books",))
    runs = load_runs(suite)
    evidence = Measured(runs, resamples=20_000)
    values = {row: {m: [r.values[m] for r in runs if r.row == row] for m in runs[0].values} for row in ("mule", "sft")}
    base = {metric: runs[0].values[metric] for metric in runs[0].values}
    ours = evidence.metric("table1", "mule", "asr") - evidence.metric("table1", "sft", "asr")
    theirs = bootstrap_difference(values["mule"]["asr"], values["sft"]["asr"], resamples=20_000)
    assert ours.estimate == pytest.approx(100 * theirs.estimate)
    assert ours.interval(0.95) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=0.7)
    ours, theirs = (
        evidence.metric("table1", "mule", "overall"),
        bootstrap_overall(base, values["mule"], resamples=20_000),
    )
    assert ours.estimate == pytest.approx(theirs.estimate)
    assert ours.interval(0.95) == pytest.approx((theirs.low, theirs.high), abs=1.2)
    assert (ours.n, ours.seeds) == (theirs.n, 3)


def test_an_interval_becomes_draws_with_the_same_ends():
    sample = from_interval(0.5, 0.4, 0.8, resamples=100_000, key="a")
    assert sample.estimate == 0.5
    assert sample.interval(0.95) == pytest.approx((0.4, 0.8), abs=0.01)


def test_rows_with_other_items_are_refused():
    runs = World(items=40, seeds=1).runs()
    runs[-1].values["asr"] = runs[-1].values["asr"][:-1]
    with pytest.raises(ValueError, match=r"cyber/asr: rows should share their items.*upper_bound 39"):
        Measured(runs).metric("table3", "mule", "asr")


def write_pilot(suite):
    """Files as notebooks 01 and 02 leave them: two steps, and views of the distances beside the main one."""
    lines = [
        {"benchmark": "books", "format": form, "objective_a": a, "objective_b": b, "cosine": c + step / 100,
         "low": c - 0.1, "high": c + 0.1 + step / 100, "step": step}
        for form, c in (("raw", 0.0), ("standardized", 0.8)) for step in (0, 10)
        for a, b in (("obj1", "obj1"), PAIR, PAIR[::-1])
    ]  # fmt: skip
    (suite / "figures").mkdir(parents=True)
    pd.DataFrame(lines).to_csv(suite / "figures" / "figure2.csv", index=False)
    views = [(MAIN, 1.5), ({**MAIN, "features": "words"}, 0.1)]
    gains = [{"benchmark": "books", "step": step, "objective_a": PAIR[0], "objective_b": PAIR[1], "gain": 0.8,
              "low": 0.7 - step / 100, "high": 0.9} for step in (0, 10)]  # fmt: skip
    (suite / "02_gradient_cosine").mkdir()
    pd.DataFrame(gains).to_csv(suite / "02_gradient_cosine" / "changes.csv", index=False)
    named = {"benchmark": "books", "format": "raw", "objective_a": PAIR[1], "objective_b": PAIR[0]}
    distances = [{**view, **named, "distance": d, "low": d - 0.1, "high": d + 0.1} for view, d in views]
    (suite / "01_data" / "books").mkdir(parents=True)
    pd.DataFrame(distances).to_csv(suite / "01_data" / "books" / "distances.csv", index=False)


def test_the_pilot_study_is_read_over_all_early_steps(tmp_path):
    write_pilot(tmp_path)
    pilot = load_pilot(tmp_path)
    assert pilot.cosine("books", "standardized", PAIR) == pytest.approx((0.85, 0.7, 1.0))
    assert pilot.gain("books", PAIR[::-1]) == pytest.approx((0.8, 0.6, 0.9))
    assert pilot.distance("books", "raw", PAIR) == pytest.approx((1.5, 1.4, 1.6))
    with pytest.raises(NotMeasuredError, match="not measured: cosine between objectives, cyber, raw"):
        pilot.cosine("cyber", "raw", PAIR)
    with pytest.raises(NotMeasuredError, match="not measured: distance between objectives, books, standardized"):
        pilot.distance("books", "standardized", PAIR)


def test_a_pilot_that_was_not_run_or_is_broken_says_so(tmp_path):
    for read in (Pilot().cosine, load_pilot(tmp_path).distance):
        with pytest.raises(NotMeasuredError, match="was not run"):
            read("books", "raw", PAIR)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "figure2.csv").write_text("format,cosine\nraw,0.1\n")
    with pytest.raises(PilotError, match=r"figure2.csv: lacks the columns benchmark, objective_a"):
        load_pilot(tmp_path)


def test_inconsistencies_are_confirmed_by_the_printed_tables():
    table = recomputed()
    assert list(table["inconsistency"]) == list(INCONSISTENCIES)
    assert [number - 1 for number in table.loc[table["status"] == "confirmed", "number"]] == sorted(CHECKS)
    assert set(table["status"]) == {"confirmed", TEXT_ALONE}
    assert "MMLU 59.2 and 58.2, Overall 80.82 and 79.82; sums right: 2 of 2" in table.loc[1, "recomputed"]


REPAIRS = {
    0: [("table3", "mule", "asr", 16.0)],
    1: [("table2", "mule", "mmlu", 59.2), ("table2", "mule", "overall", 80.82)],
    2: [("table3", "base", "mmlu", 60.8)],
    4: [("table3", "sft", "asr", 2.0)],
    5: [("table3", "ngdiff", "general", 88.0)],
    6: [("table1", "ngdiff", "neighbor", 57.0)],
    7: [("table3", "mule", "neighbor", 96.0)],
    8: [("table1", "mule", "neighbor", 50.0)],
    10: [("table1", "ga", "forget", 1.0)],
    12: [("table1", "duet", "neighbor", 30.0)],
    13: [("table2", "mule_duet_loss", "asr", 20.0)],
}


@pytest.mark.parametrize("place", REPAIRS)
def test_another_table_would_not_confirm_them(place):
    """Each check can fail: with the numbers that would have been consistent it does."""
    tables = copy.deepcopy(REPORTED)
    for table, row, metric, value in REPAIRS[place]:
        tables[table][row][metric] = value
    assert recomputed(tables).loc[place, "status"] == "not confirmed"


def test_rows_and_decimals_are_counted():
    tables = copy.deepcopy(REPORTED)
    for row in ("ga", "simnpo", "flat"):
        tables["table3"][row] = dict(tables["table1"][row])
    for rows in tables.values():
        for values in rows.values():
            values.update({metric: round(value, 1) for metric, value in values.items() if metric != "overall"})
    status = recomputed(tables)["status"]
    assert (status[17], status[18]) == ("not confirmed", "not confirmed")


def test_all_four_forms_hold_the_same_verdicts(mixed, tmp_path):
    written = claims_tables.write(mixed, tmp_path)
    assert all(file.stat().st_size > 200 for file in written)
    table = pd.read_csv(tmp_path / "claims.csv")
    verdicts = [one.verdict for one in mixed]
    assert list(table["verdict"]) == verdicts and len(set(verdicts)) == 3
    html, tex, md = ((tmp_path / f"claims.{form}").read_text() for form in ("html", "tex", "md"))
    for verdict in set(verdicts):
        assert html.count(f'class="{verdict}"') == tex.count(f"& {verdict} &") == verdicts.count(verdict)
        assert md.count(f"| {verdict} ") == verdicts.count(verdict)
    assert "Not run: books/mule\\_no\\_anchors" in tex
    assert tex.count(r" \\") == len(mixed) + 2  # the head stands on the first page and on every other
    inconsistencies = pd.read_csv(tmp_path / "inconsistencies.csv")
    assert len(inconsistencies) == len(INCONSISTENCIES)
    again = {file.name: file.read_bytes() for file in written}
    assert {file.name: file.read_bytes() for file in claims_tables.write(mixed, tmp_path)} == again


def test_latex_special_characters_are_escaped():
    table = pd.DataFrame({"a": ["5 % of $x_1$ & <y>"]})
    text = claims_tables.latex(table, caption="c#", label="l", widths=[1])
    assert r"5 \% of \$x\_1\$ \& $<$y$>$ \\" in text
    assert r"\caption{c\#}" in text


def test_the_figure_shows_every_claim_once_and_what_is_missing(mixed):
    data = figures_claims.verdicts_data(mixed)
    figure = figures_claims.claim_verdicts(data)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [figures_claims.title(name) for name in data["id"]]
    words = [text.get_text() for text in axis.texts]
    for verdict, number in claims.counts(mixed).items():
        assert f"{verdict} ({number})" in words
    assert "not run: books/mule_no_anchors" in words
    assert words.count("no") == 3
    shown = data[data["missing"] == ""]
    assert (shown.loc[shown["verdict"] == "holds", "low"] > 0).all()
    assert (shown.loc[shown["verdict"] == "fails", "high"] < 0).all()
    plt.close(figure)


def test_ids_become_titles():
    assert figures_claims.title("sft_collapses_cyber") == "SFT collapses cyber"
    assert figures_claims.title("lowest_prefill_asr") == "Lowest prefill ASR"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"benchmarks": ["cyber", "books"]}, "benchmarks = .*books or muse_books, then cyber or wmdp_cyber"),
        ({"benchmarks": ["books"]}, "give two"),
        ({"resamples": 100}, "resamples = 100: .*greater than or equal to 5000"),
        ({"nam": "x"}, "unknown parameter 'nam'; did you mean 'name'"),
    ],
)
def test_bad_parameters_are_refused(values, message):
    with pytest.raises(ParameterError, match=message) as error:
        validate("08_claims", values)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_notebook_judges_a_suite(tmp_path):
    """Under papermill on made-up run folders: ledger, figure and provenance are there, and the text counts them."""
    suite = run_folders.write_runs(tmp_path / "suite")
    write_pilot(suite)
    executed = tmp_path / "executed.ipynb"
    run_notebook(ROOT / "notebooks" / "08_claims.ipynb", executed, overrides={"out_dir": str(suite)})
    table = pd.read_csv(suite / "tables" / "claims.csv")
    assert len(table) == 30
    assert set(table["verdict"]) <= {"holds", "fails", "undecided"}
    assert (
        table.set_index("id").loc["standardization_aligns_gradients", "verdict"] == "undecided"
    )  # cyber has no cosines
    for name in ("claims.png", "claims.pdf", "claims.csv", "claims.txt"):
        assert (suite / "figures" / name).stat().st_size > 0
    provenance = json.loads((suite / "08_claims" / "provenance.json").read_text())
    assert len(provenance["runs"]) == len(load_runs(suite))
    number = (table["verdict"] == "holds").sum()
    assert f"Of 30 claims of the paper, {number} hold" in executed.read_text()
