"""Forget, General, Retain Acc, ASR and MMLU with their judges, samples and intervals; rates are 0 to 1 throughout."""

from mule_lib.data.attacks import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    TRAIN_FAMILIES,
    fill_template,
    prefill_items,
)
from mule_lib.data.files import DataFileError
from mule_lib.data.items import read_items
from mule_lib.data.text import (
    AttackVerdict,
    RougeL,
    attack_success_rate,
    is_empty,
    is_garbled,
    is_refusal,
    judge_attack,
    judge_open_answer,
    normalise,
    open_answer_scores,
    rouge_l,
)
from mule_lib.evaluate.choices import Shuffled, score_choices, shuffle_options
from mule_lib.evaluate.harness import (
    WMDP_TOPICS,
    encode_continuations,
    four_choice_prompt,
    four_choice_scores,
)
from mule_lib.evaluate.harness_tasks import run_tasks
from mule_lib.evaluate.intervals import (
    Interval,
    bootstrap_difference,
    bootstrap_gold_distance,
    bootstrap_interval,
    bootstrap_overall,
)
from mule_lib.evaluate.rows import five_metrics, gold_distance, item_values

__all__ = [
    "FAMILIES",
    "HELD_OUT_FAMILIES",
    "TRAIN_FAMILIES",
    "WMDP_TOPICS",
    "AttackVerdict",
    "DataFileError",
    "Interval",
    "RougeL",
    "Shuffled",
    "attack_success_rate",
    "bootstrap_difference",
    "bootstrap_gold_distance",
    "bootstrap_interval",
    "bootstrap_overall",
    "encode_continuations",
    "fill_template",
    "five_metrics",
    "four_choice_prompt",
    "four_choice_scores",
    "gold_distance",
    "is_empty",
    "is_garbled",
    "is_refusal",
    "item_values",
    "judge_attack",
    "judge_open_answer",
    "normalise",
    "open_answer_scores",
    "prefill_items",
    "read_items",
    "rouge_l",
    "run_tasks",
    "score_choices",
    "shuffle_options",
]
