"""Forget, General, Retain Acc, ASR and MMLU with their judges, samples and intervals; rates are 0 to 1 throughout."""

from mule_lib.evaluate.asr import AttackVerdict, attack_success_rate, judge_attack
from mule_lib.evaluate.choices import Shuffled, score_choices, shuffle_options
from mule_lib.evaluate.harness import (
    WMDP_TOPICS,
    encode_continuations,
    four_choice_prompt,
    four_choice_scores,
    run_lm_eval,
)
from mule_lib.evaluate.judge_errors import judge_error_rates
from mule_lib.evaluate.judges import is_empty, is_garbled, is_refusal, normalise
from mule_lib.evaluate.rouge import RougeL, judge_open_answer, open_answer_scores, rouge_l

__all__ = [
    "WMDP_TOPICS",
    "AttackVerdict",
    "RougeL",
    "Shuffled",
    "attack_success_rate",
    "encode_continuations",
    "four_choice_prompt",
    "four_choice_scores",
    "is_empty",
    "is_garbled",
    "is_refusal",
    "judge_attack",
    "judge_error_rates",
    "judge_open_answer",
    "normalise",
    "open_answer_scores",
    "rouge_l",
    "run_lm_eval",
    "score_choices",
    "shuffle_options",
]
