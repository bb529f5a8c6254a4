"""Forget, General, Retain Acc, ASR and MMLU with their judges, samples and intervals; rates are 0 to 1 throughout."""

from mule_lib.benchmarks.item_files import read_items
from mule_lib.benchmarks.schema import DataFileError
from mule_lib.evaluate.asr import AttackVerdict, attack_success_rate, judge_attack
from mule_lib.evaluate.attacks import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    TRAIN_FAMILIES,
    Attack,
    Family,
    fill_template,
    prefill_items,
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
from mule_lib.evaluate.judge_errors import judge_error_rates
from mule_lib.evaluate.judges import is_empty, is_garbled, is_refusal, normalise
from mule_lib.evaluate.rouge import RougeL, judge_open_answer, open_answer_scores, rouge_l
from mule_lib.evaluate.rows import five_metrics, gold_distance, item_values
from mule_lib.evaluate.samples import Sample, read_samples, shown, write_samples

__all__ = [
    "FAMILIES",
    "HELD_OUT_FAMILIES",
    "TRAIN_FAMILIES",
    "WMDP_TOPICS",
    "Attack",
    "AttackVerdict",
    "DataFileError",
    "Family",
    "Interval",
    "RougeL",
    "Sample",
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
    "judge_error_rates",
    "judge_open_answer",
    "normalise",
    "open_answer_scores",
    "prefill_items",
    "read_items",
    "read_samples",
    "rouge_l",
    "run_tasks",
    "score_choices",
    "shown",
    "shuffle_options",
    "write_samples",
]
