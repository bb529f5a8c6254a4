"""Forget, General, Retain Acc, ASR and MMLU with their judges, samples and intervals; rates are 0 to 1 throughout."""

from mule_lib.evaluate.asr import AttackVerdict, attack_success_rate, judge_attack
from mule_lib.evaluate.choices import Shuffled, score_choices, shuffle_options
from mule_lib.evaluate.judge_errors import judge_error_rates
from mule_lib.evaluate.judges import is_empty, is_garbled, is_refusal, normalise
from mule_lib.evaluate.rouge import RougeL, judge_open_answer, open_answer_scores, rouge_l

__all__ = [
    "AttackVerdict",
    "RougeL",
    "Shuffled",
    "attack_success_rate",
    "is_empty",
    "is_garbled",
    "is_refusal",
    "judge_attack",
    "judge_error_rates",
    "judge_open_answer",
    "normalise",
    "open_answer_scores",
    "rouge_l",
    "score_choices",
    "shuffle_options",
]
