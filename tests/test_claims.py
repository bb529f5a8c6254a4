"""The ledger on made-up results: for every claim a world where it must hold, must fail, must be undecided, must lack a
run; and what the paper's own printed numbers say."""

import math

import numpy as np
import pytest
from claims_world import BOOKS, ITEMS, OTHER_WAY, ROWS, SEEDS, FakePilot, World, changes

from mule_lib import claims, paper
from mule_lib.claims_evidence import FABLE, Measured
from mule_lib.claims_logic import leaves
from mule_lib.claims_parts import NAMES
from mule_lib.claims_tests import NOT_MEASURED, RIVALS, TESTS
from mule_lib.paper import CLAIMS, METRICS

RESAMPLES = 2000
BY_ID = {claim.id: claim for claim in CLAIMS}


def judged(claim, change="", *, without=None, pilot=True, items=None, seeds=None):
    """The verdict on one claim after some changes to the world, or with a row or the pilot study taken away."""
    points, studied = changes(change)
    world = World(items=items or ITEMS, seeds=seeds or SEEDS)
    world.points.update(points)
    runs = [run for run in world.runs() if (run.benchmark, run.row) != without]
    study = FakePilot(changed=studied) if pilot else None
    return claims.judge(Measured(runs, pilot=study, resamples=RESAMPLES), claims=[BY_ID[claim]])[0]


def test_every_claim_has_a_test_or_a_reason():
    assert {*TESTS} | {*NOT_MEASURED} == {*BY_ID}
    assert not {*TESTS} & {*NOT_MEASURED}


@pytest.fixture(scope="module")
def as_claimed():
    return {one.claim.id: one for one in claims.judge(Measured(World().runs(), pilot=FakePilot(), resamples=RESAMPLES))}


@pytest.mark.parametrize("claim", TESTS)
def test_it_holds_in_a_world_as_claimed(as_claimed, claim):
    one = as_claimed[claim]
    assert one.verdict == "holds", one.explanation
    assert one.explanation.startswith("holds: ")
    assert one.margin.low > 0
    assert all(reading.verdict == "holds" for reading in one.ours.readings()) or claim in SOME_PARTS_SUFFICE


# Alternatives: one of several parts is enough.
SOME_PARTS_SUFFICE = {"balanced_cyber", "naive_extension_fails"}


def test_the_other_ways_cover_every_test():
    assert {*OTHER_WAY} == {*TESTS}


@pytest.mark.parametrize("claim", TESTS)
def test_it_fails_when_one_thing_is_otherwise(claim):
    one = judged(claim, OTHER_WAY[claim][0])
    assert one.verdict == "fails", one.explanation
    assert one.margin.high < 0
    # The line shows the comparison that decides, and it alone fails too.
    assert one.decisive.verdict == "fails"


@pytest.mark.parametrize("claim", TESTS)
def test_it_is_undecided_near_the_threshold(claim):
    one = judged(claim, OTHER_WAY[claim][1])
    assert one.verdict == "undecided", one.explanation
    assert one.margin.low <= 0 <= one.margin.high
    assert one.decisive.verdict == "undecided"


def rows_of(claim):
    """The (benchmark, row) pairs that the comparisons of a claim read."""
    return {(FABLE[leaf.table], row) for leaf in leaves(TESTS[claim]) for row in leaf.read.args if row in ROWS}


@pytest.mark.parametrize("claim", [claim for claim in TESTS if rows_of(claim)])
def test_a_missing_run_is_named(claim):
    needed = sorted(rows_of(claim))[-1]
    one = judged(claim, without=needed)
    assert one.verdict == "undecided"
    assert f"not run: {'/'.join(needed)}" in one.explanation
    assert one.decisive is None


@pytest.mark.parametrize("claim", [claim for claim in TESTS if "cosine" in str([*leaves(TESTS[claim])])])
def test_without_the_pilot_study_nothing_is_guessed(claim):
    one = judged(claim, pilot=False)
    assert one.verdict == "undecided"
    assert "the pilot study (notebooks 01 and 02) was not run" in one.explanation


@pytest.mark.parametrize("claim", NOT_MEASURED)
def test_what_nothing_measures_is_undecided_with_the_reason(as_claimed, claim):
    one = as_claimed[claim]
    assert one.verdict == "undecided"
    assert NOT_MEASURED[claim] in one.explanation


def test_a_sure_failure_is_still_undecided_while_a_run_is_missing():
    """No verdict depends on which rivals happened to be run."""
    one = judged("best_overall_books", OTHER_WAY["best_overall_books"][0], without=("books", "ga"))
    assert one.verdict == "undecided"
    assert "not run: books/ga" in one.explanation
    assert "1 fails" in one.explanation


def test_few_items_and_one_seed_are_said():
    assert "20 items; 30 are needed" in judged("forgets_target", items=20).explanation
    assert "1 seed, so without the spread between seeds" in judged("best_overall_books", seeds=1).explanation
    assert "timed with 1 seeds; 3 are needed" in judged("efficient", seeds=1).explanation


def test_a_base_that_knows_nothing_cannot_forget():
    one = judged("forgets_target", "books/base forget=0")
    assert one.verdict == "undecided"
    assert "nothing to remove" in one.explanation


def test_the_papers_own_numbers_meet_its_claims_but_for_three(as_claimed):
    """Inconsistencies 1, 5 and 6: ASR is not the lowest, SFT is not secure, gradient editing keeps no utility."""
    meets = {claim: one.reported_meets for claim, one in as_claimed.items()}
    assert {claim for claim, word in meets.items() if word == "no"} == {
        "lowest_prefill_asr",
        "sft_collapses_cyber",
        "gradient_editing_keeps_utility_cyber",
    }
    printed = {claim for claim, word in meets.items() if word != "not printed"}
    assert printed == {claim.id for claim in CLAIMS if claim.cells} | {"cot_teacher_sets_boundary"}


def test_the_family_grows_the_interval():
    """More rivals, wider intervals: a claim's error rate does not grow with its comparisons."""
    widths = {}
    for claim in ("best_overall_books", "best_overall_cyber"):
        one = judged(claim)
        reading = one.decisive
        low, high = reading.sample.interval(0.95)
        widths[claim] = (reading.high - reading.low) / (high - low)
    assert 1.1 < widths["best_overall_cyber"] < widths["best_overall_books"] < 1.7


def test_a_tie_is_seldom_called():
    """Two rows of the same true quality: few verdicts in many draws, whatever the seed of the world."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(40):
        world = World(items=60, seeds=2)
        runs = world.runs()
        for run in runs:
            if run.row in ("mule", "mule_no_anchors"):
                run.values["neighbor"] = (rng.random(60) < 0.7).astype(float).tolist()
        one = claims.judge(Measured(runs, resamples=RESAMPLES), claims=[BY_ID["anchors_sharpen_boundary"]])[0]
        called += one.verdict != "undecided"
    assert called <= 7


def test_the_ledger_has_its_columns_and_its_numbers(as_claimed):
    table = claims.ledger([*as_claimed.values()])
    assert list(table.columns[:8]) == ["id", "claim", "where", "reported", "measured", "low", "high", "verdict"]
    assert list(table["id"]) == [claim.id for claim in CLAIMS]
    line = table.set_index("id").loc["best_overall_books"]
    rows = {row: dict(zip(METRICS, values, strict=True)) for row, values in BOOKS.items()}
    overall = {row: paper.overall(rows["base"], rows[row]) for row in RIVALS["table1"]}
    best = max(overall, key=overall.get)
    assert line["test"] == f"Overall, MULE minus {NAMES[best]}"
    assert line["measured"] == pytest.approx(paper.overall(rows["base"], rows["mule"]) - overall[best])
    assert line["low"] < line["measured"] < line["high"]
    assert (line["n"], line["seeds"], line["benchmark"]) == (5 * 400, 3, "books")
    assert table.set_index("id").loc["forgets_target", "benchmark"] == "books+cyber"
    assert math.isnan(table.set_index("id").loc["topk_spares_vocabulary", "measured"])


def test_comparisons_show_reported_beside_measured(as_claimed):
    table = claims.comparisons([*as_claimed.values()])
    rows = table[table["id"] == "magnitudes_beat_rankings"].set_index("comparison")
    assert rows.loc["Forget, MULE with the BiLD loss minus MULE", "reported"] == pytest.approx(1.2)
    assert rows.loc["Forget, MULE with the BiLD loss minus MULE", "measured"] == pytest.approx(12)
    assert (table.groupby("id").size() == [len([*leaves(TESTS[c])]) for c in sorted(TESTS)]).all()
    assert table["reason"].str.len().min() > 20


def test_the_same_runs_give_the_same_ledger_and_order_does_not_matter():
    runs = World(items=50, seeds=2).runs()
    tables = [
        claims.ledger(claims.judge(Measured(order, pilot=FakePilot(), resamples=RESAMPLES)))
        for order in (runs, runs[::-1])
    ]
    assert tables[0].equals(tables[1])


def test_the_finding_counts(as_claimed):
    text = claims.finding([*as_claimed.values()])
    assert "Of 30 claims of the paper, 28 hold, 0 fail and 2 are undecided on Fable-Books and Fable-Cyber" in text
    assert "embedded model" in text
