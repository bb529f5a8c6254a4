"""The printed numbers: every overall value is reproduced, and every claim's evidence is a printed cell."""

import re

import pytest

from mule_lib import paper

PRINTED = [(table, row) for table, rows in paper.REPORTED.items() for row in rows]


def test_all_rows_are_there():
    assert len(PRINTED) == 22
    assert set(paper.REPORTED["table1"]) == {
        *("base", "ga", "simnpo", "flat", "sft", "ngdiff", "mollm", "ensemble_teacher", "duet", "mule", "upper_bound")
    }
    assert set(paper.REPORTED["table2"]) == {"mule", "mule_duet_loss", "mule_bild_loss"}
    assert set(paper.REPORTED["table1"]) - set(paper.REPORTED["table3"]) == {"ga", "simnpo", "flat"}
    assert set(paper.LABELS) == {row for _, row in PRINTED}


@pytest.mark.parametrize(("table", "row"), PRINTED)
def test_overall_is_the_printed_value(table, row):
    values = paper.REPORTED[table][row]
    assert list(values) == [*paper.METRICS, "overall"]
    assert paper.overall(paper.base_row(table), values) == values["overall"]


def test_overall_rewards_each_metric_in_its_direction():
    zero = dict.fromkeys(paper.METRICS, 0.0)
    gains = {metric: paper.overall(zero, {**zero, metric: 1.5}) for metric in paper.METRICS}
    assert gains == {"forget": -1.5, "general": 1.5, "neighbor": 1.5, "asr": -1.5, "mmlu": 1.5}


def test_overall_needs_all_five():
    with pytest.raises(KeyError, match="mmlu"):
        paper.overall(paper.base_row("table1"), {"forget": 1, "general": 1, "neighbor": 1, "asr": 1})


@pytest.mark.parametrize("claim", paper.CLAIMS, ids=lambda claim: claim.id)
def test_the_evidence_of_a_claim_is_printed(claim):
    assert re.fullmatch(r"[a-z][a-z_]*", claim.id)
    assert claim.claim.endswith(".")
    assert claim.where
    assert claim.reported
    quoted = {float(number) for number in re.findall(r"\d+\.\d+", claim.reported)}
    for table, row, metric in claim.cells:
        assert paper.REPORTED[table][row][metric] in quoted
    if claim.cells:
        cells = {paper.REPORTED[table][row][metric] for table, row, metric in claim.cells}
        # The introduction's 16.0 is in no table (the first inconsistency).
        assert quoted - cells <= {16.0}


def test_claims_have_ids_of_their_own_and_inconsistencies_are_sentences():
    assert len({claim.id for claim in paper.CLAIMS}) == len(paper.CLAIMS)
    assert len(paper.INCONSISTENCIES) == 19
    assert all(text.endswith(".") for text in paper.INCONSISTENCIES)
