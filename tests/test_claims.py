"""The claims ledger: for every claim a world where it holds, fails, is undecided, lacks a run; and its files."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import run_folders
import yaml
from claims_world import BOOKS, ITEMS, OTHER_WAY, ROWS, SEEDS, World, changes, study

from mule_lib import paper
from mule_lib.evaluate.intervals import bootstrap_difference, bootstrap_overall, counts
from mule_lib.evaluate.result import ResultError
from mule_lib.paper import METRICS, REPORTED
from mule_lib.report import ledger
from mule_lib.report.claims import judge
from mule_lib.report.evidence import FABLE, Estimate, Measured, NotMeasuredError, Studied, load_pilot
from mule_lib.report.results import load_runs
from mule_lib.suite.notebook import run_notebook

ROOT = Path(__file__).resolve().parent.parent
RESAMPLES = 2000
BY_ID = {claim.id: claim for claim in ledger.CLAIMS}
TESTED = [claim.id for claim in ledger.CLAIMS if claim.test]
# Alternatives: one of several parts is enough.
SOME_PARTS_SUFFICE = {"balanced_cyber", "naive_extension_fails"}
PAIR = ("obj1", "obj2")
PRINTED = {value for rows in REPORTED.values() for row in rows.values() for value in row.values()}


def comparisons(claim):
    return [one for part in BY_ID[claim].test for one in part]


def rows_of(claim):
    """The (benchmark, row) pairs that the comparisons of a claim read."""
    return {(FABLE[one.table], row) for one in comparisons(claim) for row in one.arguments.values() if row in [*ROWS]}


def judged(claim, change=None, *, without=None, pilot=True, items=None, seeds=None):
    """The verdict on one claim after some changes to the world, or with a row or the pilot study taken away."""
    points, studied = changes(change or {})
    world = World(items=items or ITEMS, seeds=seeds or SEEDS)
    world.points.update(points)
    runs = [run for run in world.runs() if (run.benchmark, run.row) != without]
    return judge(BY_ID[claim], Measured(runs, study(studied) if pilot else {}, resamples=RESAMPLES))


def all_judged(runs, resamples=RESAMPLES):
    evidence = Measured(runs, study(), resamples=resamples)
    return [judge(claim, evidence) for claim in ledger.CLAIMS]


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """Each world draws its items anew by the same streams: what a stream gives is kept."""
    kept = {}

    def draw(rng, *sizes):
        key = (str(rng.bit_generator.state), *sizes)
        if key not in kept:
            kept[key] = counts(rng, *sizes).astype(np.int16)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mule_lib.report.evidence.counts", draw)
        yield


@pytest.fixture(scope="module")
def as_claimed():
    return {one.claim.id: one for one in all_judged(World().runs())}


@pytest.fixture(scope="module")
def mixed():
    """Verdicts of all three kinds, some for want of a run."""
    world = World()
    for claim in ("best_overall_cyber", "lowest_prefill_asr", "efficient"):
        world.points.update(changes(OTHER_WAY[claim]["fails"])[0])
    world.points.update(changes(OTHER_WAY["student_term_helps"]["undecided"])[0])
    return all_judged(run for run in world.runs() if run.row != "mule_no_anchors")


@pytest.mark.parametrize("claim", ledger.CLAIMS, ids=lambda claim: claim.id)
def test_a_claim_has_a_test_or_a_reason_and_quotes_printed_numbers(claim):
    """Every decimal that a claim quotes stands in the tables; the introduction's 16.0 does not (inconsistency 1)."""
    assert re.fullmatch(r"[a-z][a-z_]*", claim.id) and claim.claim.endswith(".") and claim.where
    assert bool(claim.test) != bool(claim.not_measured)
    quoted = {float(number) for number in re.findall(r"\d+\.\d+(?!\d| %)", claim.reported)}
    assert quoted - PRINTED <= {16.0}


def test_claims_are_tried_both_ways_and_inconsistencies_quote_printed_numbers():
    assert len(BY_ID) == len(ledger.CLAIMS) == 30 and {*OTHER_WAY} == {*TESTED}
    assert len(ledger.INCONSISTENCIES) == 19 and all(text.endswith(".") for text in ledger.INCONSISTENCIES)
    quoted = {float(number) for text in ledger.INCONSISTENCIES for number in re.findall(r"(?<!Section )\d+\.\d+", text)}
    # The introduction's ASR, and a loss of 1.0 that is a difference.
    assert quoted - PRINTED == {16.0, 1.0}


@pytest.mark.parametrize("claim", TESTED)
def test_it_holds_in_a_world_as_claimed(as_claimed, claim):
    one = as_claimed[claim]
    assert one.verdict == "holds", one.explanation
    assert one.explanation.startswith("holds: ") and one.margin.low > 0
    every = all(reading.margin.verdict == "holds" for part in one.readings for reading in part)
    assert every or claim in SOME_PARTS_SUFFICE


@pytest.mark.parametrize("way", ["fails", "undecided"])
@pytest.mark.parametrize("claim", TESTED)
def test_it_fails_when_one_thing_is_otherwise_and_is_undecided_near_the_threshold(claim, way):
    """The line shows the comparison that decides, and it alone has the verdict too."""
    one = judged(claim, OTHER_WAY[claim][way])
    assert one.verdict == one.decisive.margin.verdict == way, one.explanation
    assert one.margin.low <= 0 and (one.margin.high < 0) == (way == "fails")


@pytest.mark.parametrize("claim", [claim for claim in TESTED if rows_of(claim)])
def test_a_missing_run_is_named(claim):
    needed = sorted(rows_of(claim))[-1]
    one = judged(claim, without=needed)
    assert one.verdict == "undecided" and one.decisive is None
    assert f"not run: {'/'.join(needed)}" in one.explanation


@pytest.mark.parametrize("claim", [c for c in TESTED if {one.measure for one in comparisons(c)} & {"cosine", "rise"}])
def test_without_the_pilot_study_nothing_is_guessed(claim):
    one = judged(claim, pilot=False)
    assert one.verdict == "undecided"
    assert re.search(r"the pilot study \((gain in )?cosine between objectives\) was not run", one.explanation)


def test_what_nothing_measures_is_undecided_with_the_reason(as_claimed):
    for claim in {*BY_ID} - {*TESTED}:
        assert as_claimed[claim].explanation.startswith(f"undecided: {BY_ID[claim].not_measured}")


def test_a_sure_failure_is_still_undecided_while_a_run_is_missing():
    """No verdict depends on which rivals happened to be run."""
    one = judged("best_overall_books", OTHER_WAY["best_overall_books"]["fails"], without=("books", "ga"))
    assert one.verdict == "undecided"
    assert "not run: books/ga" in one.explanation and "1 fails" in one.explanation


def test_few_items_one_seed_and_an_ignorant_base_are_said():
    assert "20 items; 30 are needed" in judged("forgets_target", items=20).explanation
    assert "1 seed, so without the spread between seeds" in judged("best_overall_books", seeds=1).explanation
    alone = judged("efficient", seeds=1)
    assert alone.verdict == "holds" and alone.beside[0].missing.endswith("books/mule (1 seeds, 3 are needed)")
    assert "nothing to remove" in judged("forgets_target", {"books": {"base": {"forget": 0}}}).explanation


def test_the_papers_own_numbers_meet_its_claims_but_for_four(as_claimed):
    """ASR is not the lowest, SFT is not secure, gradient editing pays, and SFT pays less than MULE."""
    meets = {claim: one.reported_meets for claim, one in as_claimed.items()}
    assert {claim for claim, word in meets.items() if word == "no"} == {
        *("lowest_prefill_asr", "sft_over_refuses", "sft_collapses_cyber", "gradient_editing_keeps_utility_cyber")
    }
    assert {claim for claim, word in meets.items() if word == "not printed"} == {
        *("baseline_gradients_orthogonal", "standardization_aligns_gradients", "standardization_tightens_bound"),
        *("domain_gap_is_the_cause", "anchors_sharpen_boundary", "efficient"),
        *("topk_spares_vocabulary", "extended_benchmarks"),
    }


def test_more_comparisons_widen_the_end_by_which_a_claim_fails(as_claimed):
    """All have to hold, so each holds by its own interval; one of alternatives may hold by chance, and one of all fail.
    An interval without resamples widens as a normal's."""
    wider = {}
    for claim in ("best_overall_books", "best_overall_cyber"):
        estimate = as_claimed[claim].decisive.ours
        alone = estimate.at(0.95)
        assert estimate.low == alone.low
        wider[claim] = (estimate.high - estimate.value) / (alone.high - alone.value)
    assert 1.1 < wider["best_overall_cyber"] < wider["best_overall_books"] < 1.7
    for part in as_claimed["naive_extension_fails"].readings:
        lost, _, left = part
        assert lost.ours.low < lost.ours.at(0.95).low and left.ours.high > left.ours.at(0.95).high
    estimate, wider = Estimate(0.5, 0.4, 0.8), 2.5758 / 1.96
    assert estimate.at(0.95).ends == pytest.approx((0.5, 0.4, 0.8))
    assert estimate.at(0.99).ends == pytest.approx((0.5, 0.5 - 0.1 * wider, 0.5 + 0.3 * wider), abs=1e-4)


def test_broken_text_and_low_forget_alone_no_longer_pass():
    """What the opposite behaviour used to pass: a student that only loops, a loss, a printed number at the bound."""
    broken = {"books": {"mule": {"kinds_forget": 0, "forget": 0}}}
    assert judged("student_internalizes_intention", broken).verdict == "fails"
    loops = {"books": {"duet": {"asr": 0}}}
    assert judged("duet_keeps_trade_offs", loops).verdict == "holds"
    for claim, row in (
        ("student_term_helps", "mule_duet_loss_tuned"),
        ("magnitudes_beat_rankings", "mule_bild_loss_tuned"),
    ):
        at_its_own = {"books": {row: {"forget": 0, "asr": 0}, "mule": {"forget": 12}}}
        assert judged(claim, at_its_own).verdict == "fails"
    kept = next(one for one in comparisons("no_over_refusal") if one.table == "table3")
    assert kept.meets(Estimate(*[96.3 - 88.8] * 3)) and not kept.meets(Estimate(*[7.6] * 3))


def test_an_open_verdict_says_what_would_have_been_told_apart():
    """1.43 half widths: a true difference of that size has 80 % power. Settled verdicts say nothing of the kind."""
    one, settled = judged("forgets_target", OTHER_WAY["forgets_target"]["undecided"]), judged("forgets_target")
    half = (one.decisive.ours.high - one.decisive.ours.low) / 2
    assert one.told_apart == pytest.approx(1.43 * half) and "beyond it would be told apart" in one.measured
    assert settled.told_apart is None and "told apart" not in settled.measured


def test_what_a_run_does_not_have_is_not_measured():
    """Drift, operations and kinds come with newer runs; wall time stands beside the verdict and decides nothing."""
    world = World()
    world.points["books", "mule", "seconds"] = 9
    for run in (runs := world.runs()):
        run.values.pop("drift")
        run.timing.pop("step_flops", None)
        run.kinds.clear()
    found = {one.claim.id: one.explanation for one in all_judged(runs) if one.verdict == "undecided"}
    assert "not measured: drift of books/mule" in found["topk_spares_vocabulary"]
    assert "not measured: step_flops of books/mule" in found["efficient"]
    assert "Beside the verdict: time of a step, MULE over SFT, 9.00 on Fable-Books." in found["efficient"]
    assert "not measured: kinds of answers of books/mule" in found["student_internalizes_intention"]


def test_claims_rows_were_trained_on_the_data_that_the_claims_name():
    """Gradient editing without standardized data, single-goal methods on Obj1's raw text, forms as their names say."""
    rows = yaml.safe_load((ROOT / "params" / "04_training" / "fable.yaml").read_text())["rows"]
    raw = {row for row in rows if rows[row].get("data_format") == "raw"}
    assert raw == {"ngdiff", "mollm", "ga", "simnpo", "flat", "mule_no_standardization"}
    assert {row for row in rows if rows[row].get("objectives") == ["obj1"]} == {"ga", "simnpo", "flat"}
    assert {row for claim in TESTED for _, row in rows_of(claim)} <= {*rows}


def test_draws_agree_with_the_intervals_of_the_tables(tmp_path):
    """The joint draws give the differences and overalls of `evaluate.intervals`, up to chance of the resampling."""
    runs = load_runs(run_folders.write_runs(tmp_path, rows=("base", "mule", "sft"), benchmarks=("books",)))
    values = {row: {m: [r.values[m] for r in runs if r.row == row] for m in METRICS} for row in ("base", "mule", "sft")}
    evidence = Measured(runs, {}, resamples=20_000)
    ours = evidence.gap("table1", "asr", "mule", "sft")
    theirs = bootstrap_difference(values["mule"]["asr"], values["sft"]["asr"], resamples=20_000)
    assert ours.value == pytest.approx(100 * theirs.estimate)
    assert (ours.low, ours.high) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=0.7)
    ours = evidence.value("table1", "overall", "mule")
    theirs = bootstrap_overall({m: values["base"][m][0] for m in METRICS}, values["mule"], resamples=20_000)
    assert ours.value == pytest.approx(theirs.estimate)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1.2)
    assert (sum(ours.items.values()), ours.seeds) == (theirs.n, 3)


def test_rows_that_tie_tie_in_every_draw():
    """Sums of 0 and 1 are exact, so no rounding turns a tie into a win."""
    runs = World(items=37, seeds=3).runs()
    for run in runs:
        run.values["asr"] = [0.0, 1.0] * 18 + [float(run.row == "duet")]
    evidence = Measured(runs, {}, resamples=RESAMPLES)
    assert evidence.gap("table3", "asr", "mule", "sft").draws.tolist() == [0.0] * RESAMPLES


def write_pilot(suite):
    """Files as notebooks 01 and 02 leave them: two steps, and views of the distances beside the main one."""
    files = {
        "02_gradient_cosine/cosines.csv": [],
        "02_gradient_cosine/changes.csv": [],
        "01_data/books/distances.csv": [],
    }
    for step, (a, b) in ((step, pair) for step in (0, 10) for pair in (("obj1", "obj1"), PAIR, PAIR[::-1])):
        line = {"benchmark": "books", "step": step, "objective_a": a, "objective_b": b}
        for form, c in (("raw", 0.0), ("standardized", 0.8)):
            ends = {"cosine": c + step / 100, "low": c - 0.1, "high": c + 0.1 + step / 100}
            files["02_gradient_cosine/cosines.csv"].append({**line, "format": form, **ends})
        files["02_gradient_cosine/changes.csv"].append({**line, "gain": 0.8, "low": 0.7 - step / 100, "high": 0.9})
    for features, distance in (("hidden", 1.5), ("words", 0.1)):
        view = {"features": features, "reads": "question", "roles": "all", "format": "raw", "benchmark": "books"}
        ends = {"distance": distance, "low": distance - 0.1, "high": distance + 0.1}
        files["01_data/books/distances.csv"].append({**view, "objective_a": PAIR[1], "objective_b": PAIR[0], **ends})
    for name, lines in files.items():
        (suite / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(lines).to_csv(suite / name, index=False)


def test_the_pilot_study_is_read_step_by_step(tmp_path):
    """Never pooled: a claim has to stand at each step; a step that was not studied is named."""
    write_pilot(tmp_path)
    evidence = Measured([], load_pilot(tmp_path))
    assert evidence.cosine("table1", "standardized", 0, PAIR).ends == pytest.approx((0.8, 0.7, 0.9))
    assert evidence.cosine("table1", "standardized", 10, PAIR).ends == pytest.approx((0.9, 0.7, 1.0))
    assert evidence.rise("table1", 10, PAIR[::-1]).ends == pytest.approx((0.8, 0.6, 0.9))
    assert evidence.pilot[Studied("distance", "books", "raw", None, frozenset(PAIR))].ends == pytest.approx(
        (1.5, 1.4, 1.6)
    )
    with pytest.raises(NotMeasuredError, match="not measured: cosine between objectives, books, raw, step 5"):
        evidence.cosine("table1", "raw", 5, PAIR)
    with pytest.raises(NotMeasuredError, match="not measured: cosine between objectives, cyber, raw"):
        evidence.cosine("table3", "raw", 0, PAIR)
    with pytest.raises(NotMeasuredError, match="not measured: distance between objectives, books, standardized"):
        evidence.fall("table1", PAIR)


def test_a_pilot_that_was_not_run_or_is_broken_says_so(tmp_path):
    with pytest.raises(NotMeasuredError, match=r"the pilot study \(cosine between objectives\) was not run"):
        Measured([], load_pilot(tmp_path)).cosine("table1", "raw", 0, PAIR)
    (tmp_path / "02_gradient_cosine").mkdir(exist_ok=True)
    (tmp_path / "02_gradient_cosine" / "cosines.csv").write_text("format,cosine\nraw,0.1\n")
    with pytest.raises(ResultError, match=r"cosines.csv: lacks the columns benchmark, objective_a"):
        load_pilot(tmp_path)


def test_the_ledger_has_its_columns_and_its_numbers(as_claimed):
    data = ledger.data([*as_claimed.values()])
    assert list(data.columns[:8]) == ["id", "claim", "where", "reported", "measured", "low", "high", "verdict"]
    assert list(data["id"]) == [*BY_ID]
    data = data.set_index("id")
    line = data.loc["best_overall_books"]
    rows = {row: dict(zip(METRICS, values, strict=True)) for row, values in BOOKS.items()}
    rivals = {one.arguments["rival"] for one in comparisons("best_overall_books")}
    overall = {row: paper.overall(rows["base"], rows[row]) for row in rivals}
    best = max(overall, key=overall.get)
    assert line["test"] == f"Overall, MULE minus {ledger.WORDS[best]}"
    assert line["measured"] == pytest.approx(paper.overall(rows["base"], rows["mule"]) - overall[best])
    assert line["low"] < line["measured"] < line["high"]
    assert (line["n"], line["seeds"], line["benchmark"]) == (5 * ITEMS, 3, "books")
    assert data.loc["forgets_target", "benchmark"] == "books+cyber"
    assert np.isnan(data.loc["extended_benchmarks", "measured"])


def test_comparisons_show_reported_beside_measured(as_claimed):
    data = ledger.comparisons([*as_claimed.values()])
    line = data[data["comparison"] == "Forget, MULE with BiLD's loss minus MULE"].iloc[0]
    assert (line["reported"], line["measured"]) == pytest.approx((1.2, 12))
    assert (data.groupby("id").size() == [len(comparisons(claim)) for claim in sorted(TESTED)]).all()


def test_the_same_runs_give_the_same_ledger_and_order_does_not_matter():
    runs = World(items=50, seeds=2).runs()
    assert ledger.data(all_judged(runs)).equals(ledger.data(all_judged(runs[::-1])))


def test_all_forms_hold_the_same_verdicts_and_the_finding_counts(mixed, as_claimed, tmp_path):
    ledger.table(mixed).write(tmp_path)
    verdicts = [one.verdict for one in mixed]
    assert list(pd.read_csv(tmp_path / "claims.csv")["verdict"]) == verdicts and len({*verdicts}) == 3
    html, tex, md = ((tmp_path / f"claims.{form}").read_text() for form in ("html", "tex", "md"))
    for verdict in {*verdicts}:
        assert (
            len(re.findall(rf'class="[^"]*\b{verdict}\b', html)) == md.count(f"| {verdict} ") == verdicts.count(verdict)
        )
        assert len(re.findall(rf"& [^&]*\b{verdict}\}}* &", tex)) == verdicts.count(verdict)
    assert "not run: books/mule\\_no\\_anchors" in tex and tex.isascii()
    text = ledger.finding([*as_claimed.values()])
    assert "Of 30 claims of the paper, 29 hold, 0 fail and 1 are undecided on Fable-Books and Fable-Cyber" in text


def test_the_figure_has_a_tile_per_claim_and_scale(mixed, monkeypatch, tmp_path):
    """By section; the paper's numbers and this suite's, and another scale's where its reference is committed."""
    picture = ledger.figure(mixed)
    axis, data = picture.figure.axes[0], picture.data
    assert [label.get_text() for label in axis.get_yticklabels()] == [*("§" + data["section"] + "  " + data["claim"])]
    assert list(data["section"]) == sorted(data["section"]) and len(data) == len({*data["claim"]}) == len(mixed)
    words = [text.get_text() for text in axis.texts]
    assert words == data[["paper's numbers", "Fable"]].to_numpy().ravel().tolist()
    lines = data.set_index("id")
    assert lines.loc["anchors_sharpen_boundary", "Fable"] == "not measured" and words.count("fails") >= 4
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    ledger.table(mixed).write(tmp_path / "outputs" / "reference_smollm2" / "tables")
    both = ledger.figure(mixed[:5]).data
    assert list(both["SmolLM2"]) == [one.verdict for one in ledger.by_section(mixed[:5])]


@pytest.mark.slow
def test_the_notebook_judges_a_suite(no_kernel, tmp_path):
    """Under papermill on made-up run folders: ledger, figure and provenance are there, and the text counts them."""
    suite = run_folders.write_runs(tmp_path / "suite")
    write_pilot(suite)
    executed = tmp_path / "executed.ipynb"
    run_notebook(ROOT / "notebooks" / "08_claims.ipynb", executed, overrides={"out_dir": str(suite)})
    table = pd.read_csv(suite / "tables" / "claims.csv").set_index("id")
    assert len(table) == 30 and set(table["verdict"]) <= {"holds", "fails", "undecided"}
    assert table.loc["standardization_aligns_gradients", "verdict"] == "undecided"  # cyber has no cosines
    for name in ("figures/claims.png", "figures/claims.pdf", "figures/claims.txt", "tables/inconsistencies.html"):
        assert (suite / name).stat().st_size > 0
    provenance = json.loads((suite / "08_claims" / "provenance.json").read_text())
    assert len(provenance["runs"]) == len(load_runs(suite))
    assert f"Of 30 claims of the paper, {(table['verdict'] == 'holds').sum()} hold" in executed.read_text()
