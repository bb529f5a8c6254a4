"""Preference losses over whole answers: NPO, SimNPO and IdkDPO."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mule_lib.losses.answers import answer_lengths
from mule_lib.losses.checks import check_finite, check_positive, check_same_shape
from mule_lib.losses.likelihood import sequence_nll


def npo(logits: Tensor, reference_logits: Tensor, labels: Tensor, *, beta: float = 0.1) -> Tensor:
    """Lower the likelihood of forget answers below the reference's, with a gradient that fades once it is done.

    -(2 / beta) log sigmoid(beta (NLL - NLL_ref)) with per-row sums, mean over rows.
    Shapes: logits, reference_logits [B, T, V], labels [B, T]; returns a float32 scalar. The reference is detached.
    Raises ValueError on unequal shapes, a row without supervised token, or beta <= 0.
    Source: NPO as in open-unlearning.
    """
    check_same_shape("reference_logits", reference_logits, "logits", logits)
    return npo_from_nll(sequence_nll(logits, labels), reference_nll(reference_logits, labels), beta=beta)


def npo_from_nll(nll: Tensor, nll_of_reference: Tensor, *, beta: float = 0.1) -> Tensor:
    """NPO from per-row sums, for a reference that was scored once and kept.

    Shapes: nll, nll_of_reference [B], in nats; returns a float32 scalar. Raises ValueError on unequal shapes or beta <=
    0.
    """
    check_positive("beta", beta)
    check_same_shape("nll_of_reference", nll_of_reference, "nll", nll)
    margin = nll.float() - nll_of_reference.detach().float()
    return -2 / beta * F.logsigmoid(beta * margin).mean()


def simnpo(logits: Tensor, labels: Tensor, *, beta: float, margin: float = 0.0) -> Tensor:
    """NPO without a reference: the per-row token mean of the NLL inside the log-sigmoid, less a margin.

    -(2 / beta) log sigmoid(beta (NLL / |y| - margin)), mean over rows. Authors' beta: 4.5 on TOFU forget10 (with forget
    weight 0.125), 2.5 on forget05, 0.7 to 0.75 on MUSE; margin 0. At beta 4.5 the gradient is about 1e-6 above NLL 3.
    Shapes: logits [B, T, V], labels [B, T]; returns a float32 scalar. Raises ValueError on shapes that do not fit, a
    row without supervised token, beta <= 0, or a margin that is not finite.
    Source: SimNPO, Fan 2025, as in the authors' TOFU code.
    """
    check_positive("beta", beta)
    check_finite("margin", margin)
    mean_nll = sequence_nll(logits, labels) / answer_lengths(labels)
    return -2 / beta * F.logsigmoid(beta * (mean_nll - margin)).mean()


def idk_dpo(
    idk_logits: Tensor,
    idk_reference_logits: Tensor,
    idk_labels: Tensor,
    forget_logits: Tensor,
    forget_reference_logits: Tensor,
    forget_labels: Tensor,
    *,
    beta: float = 0.1,
) -> Tensor:
    """Prefer a refusal to the forget answer of the same question, measured against the reference model.

    Shapes: logits [B, T, V], labels [B, T]; refusals and forget answers have their own T and the same B, row by row.
    Per-row sums inside the log-sigmoid, factor 2 / beta, mean over rows; references detached; a float32 scalar.
    Raises ValueError on unequal shapes, a row without supervised token, or beta <= 0.
    Source: IdkDPO as in open-unlearning.
    """
    check_same_shape("idk_reference_logits", idk_reference_logits, "idk_logits", idk_logits)
    check_same_shape("forget_reference_logits", forget_reference_logits, "forget_logits", forget_logits)
    if len(idk_logits) != len(forget_logits):
        raise ValueError(
            f"idk_logits: {len(idk_logits)} rows must pair with {len(forget_logits)} rows of forget_logits"
        )
    return idk_dpo_from_nll(
        sequence_nll(idk_logits, idk_labels, names=("idk_logits", "idk_labels")),
        reference_nll(idk_reference_logits, idk_labels),
        sequence_nll(forget_logits, forget_labels, names=("forget_logits", "forget_labels")),
        reference_nll(forget_reference_logits, forget_labels),
        beta=beta,
    )


def idk_dpo_from_nll(
    idk_nll: Tensor,
    idk_nll_of_reference: Tensor,
    forget_nll: Tensor,
    forget_nll_of_reference: Tensor,
    *,
    beta: float = 0.1,
) -> Tensor:
    """IdkDPO from per-row sums, for a reference that was scored once and kept.

    Shapes: four times [B], in nats; returns a float32 scalar. Raises ValueError on unequal shapes or beta <= 0.
    """
    check_positive("beta", beta)
    check_same_shape("idk_nll_of_reference", idk_nll_of_reference, "idk_nll", idk_nll)
    check_same_shape("forget_nll", forget_nll, "idk_nll", idk_nll)
    check_same_shape("forget_nll_of_reference", forget_nll_of_reference, "forget_nll", forget_nll)
    idk_gain = idk_nll_of_reference.detach().float() - idk_nll.float()
    forget_gain = forget_nll_of_reference.detach().float() - forget_nll.float()
    return -2 / beta * F.logsigmoid(beta * (idk_gain - forget_gain)).mean()


@torch.no_grad()
def reference_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Per-row NLL of a frozen reference, outside the graph; shapes and errors as `sequence_nll`."""
    return sequence_nll(logits, labels)
