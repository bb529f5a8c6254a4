"""Every loss of the suite as a pure function: float32 inside whatever dtype comes in, gradients to the student only.

Distillation losses take aligned answer logits [N, V], from `answer_logits`; sequence losses take un-shifted logits [B,
T, V] and labels [B, T], -100 where a token is not supervised. Each returns a scalar to be minimised.
"""

from mule_lib.losses.answers import answer_lengths, answer_logits, answer_targets, first_position, pack_answers
from mule_lib.losses.distillation import bidirectional_topk, bild, duet, pairwise_kl_at, smooth_l1_at
from mule_lib.losses.divergence import flat
from mule_lib.losses.likelihood import (
    cross_entropy,
    grad_diff,
    gradient_ascent,
    kl_retain,
    sequence_nll,
    sft,
    token_nll,
    unlearning_cross_entropy,
    weighted_sum,
)
from mule_lib.losses.preference import idk_dpo, idk_dpo_from_nll, npo, npo_from_nll, reference_nll, simnpo
from mule_lib.losses.representation import control_vector, rmu, rmu_forget, rmu_retain

__all__ = [
    "answer_lengths",
    "answer_logits",
    "answer_targets",
    "bidirectional_topk",
    "bild",
    "control_vector",
    "cross_entropy",
    "duet",
    "first_position",
    "flat",
    "grad_diff",
    "gradient_ascent",
    "idk_dpo",
    "idk_dpo_from_nll",
    "kl_retain",
    "npo",
    "npo_from_nll",
    "pack_answers",
    "pairwise_kl_at",
    "reference_nll",
    "rmu",
    "rmu_forget",
    "rmu_retain",
    "sequence_nll",
    "sft",
    "simnpo",
    "smooth_l1_at",
    "token_nll",
    "unlearning_cross_entropy",
    "weighted_sum",
]
