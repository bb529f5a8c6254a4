"""The test of every claim on our numbers: which comparisons have to hold, and which claims nothing here measures.

Ids are those of `paper_claims.CLAIMS`. Tables 1 and 2 of the paper are tried on the books benchmark, Table 3 on cyber.
"""

from mule_lib.claims_logic import All, AnyOf, Node, Not
from mule_lib.claims_parts import (
    ALIGNED,
    KEPT,
    STRONG,
    WIDE,
    close_to_bound,
    cosine,
    cosine_rises,
    costs,
    distance_falls,
    every,
    higher,
    kept,
    light,
    matches,
    near_zero,
    positive_overall,
    refuses_more,
    removed,
)

BOTH = ("table1", "table3")
RIVALS = {  # the trained rows that the paper compares with
    "table1": ("ga", "simnpo", "flat", "sft", "ngdiff", "mollm", "duet"),
    "table3": ("duet", "sft", "ngdiff", "mollm"),
}
PAIRS = (("obj1", "obj2"), ("obj1", "obj3"), ("obj2", "obj3"))


def _best_overall(table: str) -> Node:
    return All(tuple(higher("overall", "mule", rival, table) for rival in RIVALS[table]))


def _good(row: str, table: str) -> Node:
    gone = tuple(removed(metric, row, table) for metric in ("forget", "asr"))
    return All(gone + tuple(kept(metric, row, table) for metric in ("general", "neighbor", "mmlu")))


def _fails_somewhere(row: str) -> Node:
    lost = tuple(costs(metric, row, "table1", KEPT) for metric in ("general", "mmlu"))
    return AnyOf((*lost, Not(removed("asr", row, "table1"))))


TESTS: dict[str, Node] = {
    "best_overall_books": _best_overall("table1"),
    "best_overall_cyber": _best_overall("table3"),
    "near_upper_bound": All(
        (close_to_bound("table1"), close_to_bound("table3"), matches("neighbor", "mule", "upper_bound", "table1"))
    ),
    "forgets_target": every(removed, ("forget",), ("mule",), BOTH),
    "lowest_prefill_asr": All(
        (
            *every(removed, ("asr",), ("mule",), BOTH).parts,
            *(higher("asr", rival, "mule", table) for table in BOTH for rival in RIVALS[table]),
        )
    ),
    "asr_below_gradient_editing": every(higher, ("asr",), ("ngdiff", "mollm"), ("mule",), BOTH, (WIDE,)),
    "no_over_refusal": All(
        (
            *every(kept, ("neighbor",), ("mule",), BOTH).parts,
            *every(refuses_more, ("mule",), BOTH, ("below",)).parts,
        )
    ),
    "keeps_general_utility": every(kept, ("general", "mmlu"), ("mule",), BOTH),
    "balanced_cyber": All((_good("mule", "table3"), *(Not(_good(rival, "table3")) for rival in RIVALS["table3"]))),
    "baseline_gradients_orthogonal": every(near_zero, PAIRS, BOTH),
    "standardization_aligns_gradients": All(
        (
            *every(cosine, ("standardized",), PAIRS, BOTH, ("above",), (STRONG,)).parts,
            *every(cosine_rises, PAIRS, BOTH).parts,
        )
    ),
    "domain_gap_is_the_cause": All(
        (higher("overall", "mule", "mule_no_standardization", "table1"), *every(cosine_rises, PAIRS, ("table1",)).parts)
    ),
    "standardization_tightens_bound": every(distance_falls, PAIRS, BOTH),
    "objectives_become_cooperative": All(
        (
            *every(cosine, ("standardized",), PAIRS, BOTH, ("above",), (ALIGNED,)).parts,
            *every(cosine_rises, PAIRS, BOTH).parts,
            *every(positive_overall, ("mule",), BOTH).parts,
        )
    ),
    "naive_extension_fails": every(_fails_somewhere, ("ga", "simnpo", "flat")),
    "anchors_sharpen_boundary": higher("neighbor", "mule", "mule_no_anchors", "table1"),
    "cot_teacher_sets_boundary": All(
        (*(_good("upper_bound", table) for table in BOTH), higher("overall", "mule", "mule_no_cot", "table1"))
    ),
    "student_internalizes_intention": All(
        (
            *every(matches, ("forget",), ("upper_bound",), ("mule",), BOTH).parts,
            *every(removed, ("forget",), ("mule",), BOTH).parts,
        )
    ),
    "student_term_helps": All(
        (
            higher("overall", "mule", "mule_duet_loss", "table2"),
            higher("forget", "mule_duet_loss", "mule", "table2"),
        )
    ),
    "magnitudes_beat_rankings": every(higher, ("forget", "asr"), ("mule_bild_loss",), ("mule",), ("table2",)),
    "ensemble_prompts_interfere": every(
        higher, ("obj1", "obj2", "obj3"), ("upper_bound",), ("ensemble_teacher",), ("table1",)
    ),
    "ensemble_teacher_loses_utility": All(
        (costs("general", "ensemble_teacher", "table3"), Not(removed("asr", "duet", "table3")))
    ),
    "duet_keeps_trade_offs": All((Not(removed("asr", "duet", "table1")), costs("mmlu", "duet", "table1"))),
    "sft_over_refuses": All(
        (
            *every(removed, ("forget", "asr"), ("sft",), ("table1",)).parts,
            *every(costs, ("general", "neighbor", "mmlu"), ("sft",), ("table1",)).parts,
            refuses_more("sft", "table1", "above"),
        )
    ),
    "gradient_editing_unlearns_less": All(
        tuple(
            part
            for row in ("ngdiff", "mollm")
            for part in (
                Not(removed("forget", row, "table1")),
                Not(removed("asr", row, "table1")),
                kept("mmlu", row, "table1"),
            )
        )
    ),
    "sft_collapses_cyber": All(
        (removed("asr", "sft", "table3"), *every(costs, ("general", "neighbor"), ("sft",), ("table3",), (KEPT,)).parts)
    ),
    "gradient_editing_keeps_utility_cyber": All(
        tuple(
            part
            for row in ("ngdiff", "mollm")
            for part in (
                kept("general", row, "table3"),
                Not(removed("forget", row, "table3")),
                Not(removed("asr", row, "table3")),
            )
        )
    ),
    "efficient": every(light, BOTH),
}

# Claims that nothing here measures, and why; they stay undecided.
NOT_MEASURED: dict[str, str] = {
    "topk_spares_vocabulary": "no run records how far the output distribution moves",
    "extended_benchmarks": "the paper's data could not be had, so nothing can be counted",
}
