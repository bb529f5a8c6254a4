"""FLAT: raise the probability of a template answer and lower that of the forget answer by an f-divergence."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mule_lib.losses.answers import answer_lengths, sum_over_rows
from mule_lib.losses.checks import check_choice, check_every_row, check_sequence
from mule_lib.losses.likelihood import token_nll

# Per divergence, as functions of mean probabilities: the template's term -g*(P_e) and the forget term f*(g*(P_f)).
DIVERGENCES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "total_variation": (lambda p: -torch.tanh(p) / 2, lambda p: torch.tanh(p) / 2),
    "kl": (lambda p: -p, lambda p: torch.exp(p - 1)),
    "jensen_shannon": (lambda p: F.softplus(-p) - math.log(2), lambda p: p + F.softplus(-p) - math.log(2)),
    "pearson": (lambda p: -p, lambda p: p + p.square() / 4),
}
REFUSED = {
    "reverse_kl": "its released form lowers the template's probability and raises the forget answer's",
    "squared_hellinger": "its released form lowers the template's probability and raises the forget answer's",
    "neyman": "its released form lowers the template's probability",
}


def flat(
    template_logits: Tensor,
    template_labels: Tensor,
    forget_logits: Tensor,
    forget_labels: Tensor,
    *,
    divergence: str = "total_variation",
    official: bool = False,
) -> Tensor:
    """Exchange the forget answer for a template answer to the same question, without retain data or reference model.

    Shapes: logits [B, T, V], labels [B, T]; templates and forget answers have their own T and the same B, row by row;
    returns a float32 scalar. P is the arithmetic mean of token probabilities over a row's supervised tokens, the
    divergence is taken per row, then the mean over rows. `official=True` follows the released code instead: one P over
    all B (T - 1) positions of the batch, prompt and padding adding 0 to the sum and 1 to the count (so it depends on
    padding).
    Raises ValueError on shapes that do not fit, unpaired rows, a row without supervised token, an unknown divergence,
    and on one whose released form pushes the wrong way.
    Source: FLAT, Wang 2025 (arXiv 2410.11143).
    """
    if divergence in REFUSED:
        raise ValueError(f"divergence: {divergence!r} is refused, {REFUSED[divergence]}; use {', '.join(DIVERGENCES)}")
    check_choice("divergence", divergence, tuple(DIVERGENCES))
    if len(template_logits) != len(forget_logits):
        raise ValueError(
            f"template_logits: {len(template_logits)} rows must pair with {len(forget_logits)} rows of forget_logits"
        )
    template_term, forget_term = DIVERGENCES[divergence]
    template = _mean_probability(template_logits, template_labels, "template", official)
    forget = _mean_probability(forget_logits, forget_labels, "forget", official)
    return (template_term(template) + forget_term(forget)).mean()


def _mean_probability(logits: Tensor, labels: Tensor, name: str, official: bool) -> Tensor:
    """Mean probability of the labels: per row [B], or with `official` one number over all shifted positions."""
    check_sequence(logits, labels, names=(f"{name}_logits", f"{name}_labels"))
    counts = answer_lengths(labels)
    check_every_row(counts, name=f"{name}_labels")
    summed = sum_over_rows(torch.exp(-token_nll(logits, labels)), labels)
    return summed.sum() / labels[:, 1:].numel() if official else summed / counts
