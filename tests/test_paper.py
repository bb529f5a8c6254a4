"""The printed numbers: every overall value is reproduced."""

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
