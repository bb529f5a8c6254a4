"""Losses of the likelihood of answer tokens: cross-entropy, its ascent, MOLLM's bounded form, and retain terms."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mule_lib.losses.answers import answer_lengths, answer_logits, answer_targets, sum_over_rows
from mule_lib.losses.checks import check_every_row, check_same_shape, check_sequence, check_weight


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each supervised token, row after row.

    Shapes: logits [B, T, V], labels [B, T]; returns float32 [N], in nats. Raises ValueError as `answer_logits`.
    """
    return F.cross_entropy(answer_logits(logits, labels), answer_targets(labels), reduction="none")


def sequence_nll(logits: Tensor, labels: Tensor, *, names: tuple[str, str] = ("logits", "labels")) -> Tensor:
    """Negative log-likelihood of each row's answer, summed over its supervised tokens.

    Shapes: logits [B, T, V], labels [B, T]; returns float32 [B], in nats. `names` are used in error messages.
    Raises ValueError as `answer_logits`, and if a row has no supervised token.
    """
    check_sequence(logits, labels, names=names)
    check_every_row(answer_lengths(labels), name=names[1])
    return sum_over_rows(token_nll(logits, labels), labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood over all supervised tokens of the batch; also the loss of SFT refusal tuning.

    Shapes: logits [B, T, V], labels [B, T]; returns a float32 scalar, in nats. Raises ValueError as `answer_logits`.
    Source: the loss of causal language models; for SFT, refusals and retain answers in one batch as TOFU's `idk`.
    """
    return token_nll(logits, labels).mean()


sft = cross_entropy


def gradient_ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """Negated cross-entropy on forget answers, unbounded below.

    Shapes, units and errors as in `cross_entropy`. Source: GA, Jang 2023.
    """
    return -cross_entropy(logits, labels)


def unlearning_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log(1 - p / 2) over supervised tokens, to be minimised: it falls as p(label) goes to 0.

    Shapes: logits [B, T, V], labels [B, T]; returns a float32 scalar in 0 to log 2. Raises ValueError as
    `answer_logits`.
    Source: MOLLM, Pan 2025 (arXiv 2412.20412).
    """
    return -torch.log1p(-torch.exp(-token_nll(logits, labels)) / 2).mean()


def kl_retain(logits: Tensor, reference_logits: Tensor, labels: Tensor) -> Tensor:
    """KL(reference || model) over the whole vocabulary, mean over the supervised tokens of the batch.

    Shapes: logits, reference_logits [B, T, V], labels [B, T]; returns a float32 scalar, in nats. The reference is
    detached. Peers average over prompt and padding too, or divide by B; this one is masked to answers.
    Raises ValueError as `answer_logits`, and on unequal shapes. Source: the retain term R of GradDiff.
    """
    check_same_shape("reference_logits", reference_logits, "logits", logits)
    of_model = F.log_softmax(answer_logits(logits, labels), dim=1)
    of_reference = F.log_softmax(answer_logits(reference_logits.detach(), labels), dim=1)
    return F.kl_div(of_model, of_reference, reduction="batchmean", log_target=True)


def weighted_sum(
    forget_loss: Tensor, retain_loss: Tensor, *, forget_weight: float = 1.0, retain_weight: float = 1.0
) -> Tensor:
    """Add a forget loss and a retain loss, both minimised, as in NPO or SimNPO with a retain term.

    Peers call the two weights gamma and alpha, in either order. Raises ValueError on a negative or non-finite weight.
    SimNPO's authors use forget_weight 0.125 on TOFU forget10.
    """
    check_weight("forget_weight", forget_weight)
    check_weight("retain_weight", retain_weight)
    return forget_weight * forget_loss + retain_weight * retain_loss


def grad_diff(
    forget_logits: Tensor,
    forget_labels: Tensor,
    retain_logits: Tensor,
    retain_labels: Tensor,
    *,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
) -> Tensor:
    """Ascend on forget answers and descend on retain answers: -forget_weight CE_f + retain_weight CE_r.

    Shapes: logits [B, T, V], labels [B, T], each pair with its own B and T; returns a float32 scalar. For a KL retain
    term use `weighted_sum(gradient_ascent(...), kl_retain(...))`. Raises ValueError as both parts.
    Source: GradDiff.
    """
    return weighted_sum(
        gradient_ascent(forget_logits, forget_labels),
        cross_entropy(retain_logits, retain_labels),
        forget_weight=forget_weight,
        retain_weight=retain_weight,
    )
