"""The paper's claims and inconsistencies as data, in our own words; verdicts belong to the claims ledger."""

from dataclasses import dataclass

Cell = tuple[str, str, str]


@dataclass(frozen=True)
class Claim:
    """One claim: where it stands, the evidence reported for it, and the cells (table, row, metric) behind that."""

    id: str
    claim: str
    where: str
    reported: str
    cells: tuple[Cell, ...] = ()


def _cells(table: str, rows: str, metrics: str) -> tuple[Cell, ...]:
    return tuple((table, row, metric) for row in rows.split() for metric in metrics.split())


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "best_overall_books",
        "On MUSE-Books the method has the highest Overall Performance of all trained methods.",
        "Abstract; Section 5.2, Table 1",
        "80.82 against 50.52 (NGDiff) and 48.92 (SFT), the next best trained rows",
        _cells("table1", "mule ngdiff sft", "overall"),
    ),
    Claim(
        "best_overall_cyber",
        "On WMDP-Cyber the method has the highest Overall Performance of all trained methods.",
        "Abstract; Section 5.2, Figure 3; Table 3",
        "106.50 against 71.70 (DUET), the next best trained row",
        _cells("table3", "mule duet", "overall"),
    ),
    Claim(
        "near_upper_bound",
        "The method comes close to a teacher with an oracle prompt router; on retention it matches that bound.",
        "Section 5.2; Appendix A.1",
        "neighbour 58.5 and 58.5, overall 80.82 and 90.72 (Table 1); overall 106.50 and 118.60 (Table 3)",
        _cells("table1", "mule upper_bound", "neighbor overall") + _cells("table3", "mule upper_bound", "overall"),
    ),
    Claim(
        "forgets_target",
        "The method removes the target knowledge.",
        "Section 5.2; Appendix A.1",
        "Forget 32.1 to 2.7 (Table 1), 68.5 to 8.1 (Table 3)",
        _cells("table1", "base mule", "forget") + _cells("table3", "base mule", "forget"),
    ),
    Claim(
        "lowest_prefill_asr",
        "The method lowers the success of prefilling attacks to a level not reached before.",
        "Section 1, contribution 4; Section 5.2; Appendix A.1",
        "16.0 in the introduction (in no table); 70.5 to 12.5 (Table 1), 60.7 to 5.1 (Table 3)",
        _cells("table1", "base mule", "asr") + _cells("table3", "base mule", "asr"),
    ),
    Claim(
        "asr_below_gradient_editing",
        "Against prefilling attacks the method beats gradient editing by a wide margin.",
        "Section 5.2; Appendix A.1",
        "ASR 12.5 against 17.9 (NGDiff) and 69.2 (MOLLM); 5.1 against 40.0 and 35.3",
        _cells("table1", "mule ngdiff mollm", "asr") + _cells("table3", "mule ngdiff mollm", "asr"),
    ),
    Claim(
        "no_over_refusal",
        "The method does not refuse questions about neighbouring domains.",
        "Abstract; Section 1, contribution 4; Section 5.2; Appendix A.1",
        "Retain Acc 57.28 to 58.5 (Table 1), 96.3 to 88.8 (Table 3)",
        _cells("table1", "base mule", "neighbor") + _cells("table3", "base mule", "neighbor"),
    ),
    Claim(
        "keeps_general_utility",
        "The method keeps general knowledge and MMLU.",
        "Abstract; Section 5.2; Appendix A.1",
        "General 84.3 to 78.1, MMLU 60.8 to 59.2 (Table 1); 88.1 to 89.1, 59.9 to 56.9 (Table 3)",
        _cells("table1", "base mule", "general mmlu") + _cells("table3", "base mule", "general mmlu"),
    ),
    Claim(
        "balanced_cyber",
        "On WMDP-Cyber only this method is good on all five axes at once.",
        "Section 5.2, Figure 3",
        "Forget 8.1, General 89.1, neighbour 88.8, ASR 5.1, MMLU 56.9 (Table 3)",
        _cells("table3", "mule", "forget general neighbor asr mmlu"),
    ),
    Claim(
        "baseline_gradients_orthogonal",
        "With raw, unequal data formats the gradients of the three objectives are nearly orthogonal.",
        "Section 3.1, Figure 2 (Baseline)",
        "cosines near zero over the last three decoder layers of Llama 3.2 3B Instruct",
    ),
    Claim(
        "standardization_aligns_gradients",
        "After data standardization the gradients of the objectives are strongly and positively correlated.",
        "Section 3.2, Figure 2 (Ours)",
        "+92.29 % between Obj1 and Obj2",
    ),
    Claim(
        "domain_gap_is_the_cause",
        "What blocks joint unlearning is the gap between the data domains of the objectives, not only the losses.",
        "Section 1; Section 3.1",
        "argued from Figure 2, where the optimization method is the same on both sides",
    ),
    Claim(
        "standardization_tightens_bound",
        "A common question-and-answer form lowers the divergence between the objectives and so the bound of Eq. 2.",
        "Section 3.2, Eq. 2",
        "argued; no divergence is reported",
    ),
    Claim(
        "objectives_become_cooperative",
        "The method turns objectives that look unrelated into ones that help each other.",
        "Abstract; Section 1, contribution 3",
        "Figure 2; overall 80.82 (Table 1) and 106.50 (Table 3)",
        _cells("table1", "mule", "overall") + _cells("table3", "mule", "overall"),
    ),
    Claim(
        "naive_extension_fails",
        "Single-goal methods put to several goals lose general utility or do not withstand elicitation.",
        "Section 1; Section 3.1",
        "MMLU 36.45 (GA); General 43.1, ASR 70.5 (SimNPO); General 58.3, neighbour 42.7 (FLAT)",
        _cells("table1", "ga", "mmlu")
        + _cells("table1", "simnpo", "general asr")
        + _cells("table1", "flat", "general neighbor"),
    ),
    Claim(
        "anchors_sharpen_boundary",
        "Contrastive anchor pairs keep the forgetting signal out of neighbouring domains.",
        "Section 3.3",
        "argued; no ablation is reported",
    ),
    Claim(
        "cot_teacher_sets_boundary",
        "A teacher steered by a goal's intention with a chain of thought draws safe, contextual boundaries.",
        "Section 3.4",
        "argued; no ablation is reported",
    ),
    Claim(
        "student_internalizes_intention",
        "The student learns the steered behaviour from the input alone, without the intention prompt.",
        "Section 3.4",
        "Ours against Upper Bound: Forget 2.7 and 2.1 (Table 1), 8.1 and 6.7 (Table 3)",
        _cells("table1", "mule upper_bound", "forget") + _cells("table3", "mule upper_bound", "forget"),
    ),
    Claim(
        "student_term_helps",
        "The student's own top-K, absent from DUET's one-way loss, is needed to suppress the target knowledge.",
        "Section 3.4; Section 5.3, Table 2",
        "overall 79.82 against 74.33 with the DUET loss; Forget 2.7 and 3.19; ASR 12.5 and 12.5",
        _cells("table2", "mule mule_duet_loss", "overall forget asr"),
    ),
    Claim(
        "magnitudes_beat_rankings",
        "Matching the size of logits (Smooth L1) forgets and resists better than matching normalized differences.",
        "Section 5.3, Table 2",
        "Forget 2.7 against 3.9 and ASR 12.5 against 23.5 with the BiLD loss",
        _cells("table2", "mule mule_bild_loss", "forget asr"),
    ),
    Claim(
        "ensemble_prompts_interfere",
        "One instruction of all intentions together serves each of them worse than the right one alone.",
        "Section 5.2",
        "Ensemble Teacher against Upper Bound: General 60.9 and 80.1, neighbour 26.8 and 58.5 (Table 1)",
        _cells("table1", "ensemble_teacher upper_bound", "general neighbor"),
    ),
    Claim(
        "ensemble_teacher_loses_utility",
        "On WMDP-Cyber the ensemble prompt costs general knowledge, and distilling from it stays open to attacks.",
        "Appendix A.1",
        "General 64.4 (ET); ASR 24.7 (DUET)",
        _cells("table3", "ensemble_teacher", "general") + _cells("table3", "duet", "asr"),
    ),
    Claim(
        "duet_keeps_trade_offs",
        "Distilling from the ensemble teacher leaves attacks successful and lowers MMLU.",
        "Section 5.2",
        "ASR 39.5 and MMLU 49.9 (Table 1)",
        _cells("table1", "duet", "asr mmlu"),
    ),
    Claim(
        "sft_over_refuses",
        "Refusal tuning forgets and resists but pays with over-refusal and general utility.",
        "Section 5.2",
        "Forget 0.3, ASR 1.5, General 49.6, neighbour 50.7, MMLU 50.2 (Table 1)",
        _cells("table1", "sft", "forget asr general neighbor mmlu"),
    ),
    Claim(
        "gradient_editing_unlearns_less",
        "Gradient editing without standardized data keeps utility because it does not remove enough.",
        "Section 5.2",
        "Forget 13.6 and 19.9, ASR 17.9 and 69.2, MMLU 60.8 and 60.8 (NGDiff, MOLLM; Table 1)",
        _cells("table1", "ngdiff mollm", "forget asr mmlu"),
    ),
    Claim(
        "sft_collapses_cyber",
        "On WMDP-Cyber refusal tuning is secure and collapses on retention.",
        "Section 5.2, Figure 3",
        "the table says ASR 44.7, General 87.1, neighbour 95.3 (Table 3)",
        _cells("table3", "sft", "asr general neighbor"),
    ),
    Claim(
        "gradient_editing_keeps_utility_cyber",
        "On WMDP-Cyber gradient editing keeps utility and is weak on forgetting and attacks.",
        "Section 5.2, Figure 3; Appendix A.1",
        "General 63.8 and 66.3, Forget 17.3 and 17.2, ASR 40.0 and 35.3 (NGDiff, MOLLM; Table 3)",
        _cells("table3", "ngdiff mollm", "general forget asr"),
    ),
    Claim(
        "topk_spares_vocabulary",
        "Distilling only the two top-K sets unlearns without distorting the distribution over the whole vocabulary.",
        "Section 3.4",
        "argued; no ablation over K or positions is reported",
    ),
    Claim(
        "extended_benchmarks",
        "The benchmarks are extended by training data and evaluation sets for neighbours, over-refusal and prefilling.",
        "Section 1, contribution 5",
        "stated; no sizes are given",
    ),
    Claim(
        "efficient",
        "The method is light and unlearns, preserves and resists in one efficient training.",
        "Section 1; Section 3.4",
        "stated; no time or memory is reported",
    ),
)

INCONSISTENCIES: tuple[str, ...] = (
    "The introduction gives a prefilling ASR of 16.0 %; Table 1 has 12.5, Table 3 has 5.1, and SFT has 1.5 in Table 1.",
    "Ours on Books has MMLU 59.2 and overall 80.82 in Table 1, but 58.2 and 79.82 in Table 2; both sums are right.",
    "The base model's MMLU is 60.8 in Table 1 and 59.9 in Table 3; only one base model is named, for Figure 2.",
    "Section 3.2 cites Table 2 for the gradient cosines of Figure 2; a relative gain over a cosine near zero is not"
    " well defined.",
    "The text on WMDP says that SFT is secure and collapses on retention; Table 3 has ASR 44.7 and a loss of 1.0 each"
    " on General and neighbour.",
    "The text on WMDP says that NGDiff and MOLLM keep utility and unlearn badly; Table 3 has General 63.8 and 66.3"
    " (base 88.1) and Forget better than DUET's and SFT's.",
    "The text on Books says that NGDiff keeps retention and is weak against attacks; its neighbour accuracy falls from"
    " 57.28 to 37.7 and its ASR of 17.9 is among the lowest.",
    "The high neighbour integrity of Ours on WMDP (88.8) is the lowest of all trained rows of Table 3.",
    "Ours matches the Upper Bound on Books in neighbour accuracy only, not in General, ASR or Forget.",
    "The tables' General is called Retain in the text, and Retain Acc is the neighbour column.",
    "GA raises Forget and General on Books while MMLU falls by 24; the marks after GA, SimNPO and FLAT are lost.",
    "FLAT's row appears to be carried over from another paper with another base MMLU.",
    "ET and DUET share one neighbour accuracy (26.8, Table 1), DUET and SFT another (95.3, Table 3).",
    "With the DUET loss ASR and MMLU equal those of Ours; the gain comes mostly from General, not from suppression.",
    "Gradient editing is cited to a distillation loss, GA to two different works, and MOLLM's common descent direction"
    " is called an orthogonal projection.",
    "Section 3.4 motivates a distance of probabilities and Eq. 3 compares raw logits; the loss is called bidirectional"
    " and asymmetric although both terms use one symmetric distance.",
    "Section 3.3 describes positive anchors as things to preserve or to reject, and negative ones as safe.",
    "Section 5.3 has a broken sentence where the loss is defined; Table 3 and Figure 3 leave out GA, SimNPO and FLAT.",
    "Some cells have two decimals and most have one, which points to mixed sources.",
)
