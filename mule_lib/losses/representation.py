"""RMU: misdirect the hidden states of forget answers and keep those of retain answers."""

import torch
from torch import Tensor

from mule_lib.losses.checks import (
    IGNORED,
    check_every_row,
    check_finite,
    check_labels,
    check_logits,
    check_same_shape,
    check_weight,
)


def control_vector(size: int, *, seed: int) -> Tensor:
    """Draw RMU's fixed random direction: uniform in [0, 1) per axis, then unit length; float32 [size], on the CPU.

    Raises ValueError if size < 1.
    """
    if size < 1:
        raise ValueError(f"size: {size} is not a hidden size of at least 1")
    direction = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    return direction / direction.norm()


def rmu(
    forget_hidden: Tensor,
    forget_labels: Tensor,
    retain_hidden: Tensor,
    retain_reference_hidden: Tensor,
    retain_labels: Tensor,
    *,
    control: Tensor,
    coefficient: float = 2.0,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
) -> Tensor:
    """Weighted sum of `rmu_forget` and `rmu_retain`; shapes, defaults and errors as there.

    Raises ValueError also on a negative weight. Peers call the weights gamma and alpha; the WMDP authors use a retain
    weight of 1200 with coefficient 6.5 for Zephyr-7B. Source: RMU as in open-unlearning.
    """
    check_weight("forget_weight", forget_weight)
    check_weight("retain_weight", retain_weight)
    forget = rmu_forget(forget_hidden, forget_labels, control=control, coefficient=coefficient)
    return forget_weight * forget + retain_weight * rmu_retain(retain_hidden, retain_reference_hidden, retain_labels)


def rmu_forget(hidden: Tensor, labels: Tensor, *, control: Tensor, coefficient: float = 2.0) -> Tensor:
    """Mean squared distance of forget hidden states to `coefficient` times the control direction.

    Shapes: hidden [B, T, H] of one layer, labels [B, T], control [H]; returns a float32 scalar. The states are those of
    the answer tokens themselves (label not -100, no shift). Mean over H and the answer tokens of a row, then over rows.
    Raises ValueError on shapes that do not fit, a row without supervised token, or a coefficient that is not finite.
    """
    check_finite("coefficient", coefficient)
    check_logits("control", control, "[H]")
    if control.shape[0] != hidden.shape[-1]:
        raise ValueError(f"control: {control.shape[0]} entries, the hidden states have {hidden.shape[-1]}")
    target = coefficient * control.detach().float().to(hidden.device)
    return _row_mean_square(hidden, target.expand(hidden.shape), labels, name="forget")


def rmu_retain(hidden: Tensor, reference_hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of retain hidden states to those of the frozen reference, which is detached.

    Shapes: hidden, reference_hidden [B, T, H] of the same layer, labels [B, T]; returns a float32 scalar, reduced as
    `rmu_forget`. Raises ValueError on unequal shapes or a row without supervised token.
    """
    check_same_shape("retain_reference_hidden", reference_hidden, "retain_hidden", hidden)
    return _row_mean_square(hidden, reference_hidden.detach(), labels, name="retain")


def _row_mean_square(hidden: Tensor, target: Tensor, labels: Tensor, *, name: str) -> Tensor:
    check_logits(f"{name}_hidden", hidden, "[B, T, H]")
    check_labels(labels, name=f"{name}_labels")
    if hidden.shape[:2] != labels.shape:
        raise ValueError(
            f"{name}_labels: shape {list(labels.shape)} must equal the first two axes of {name}_hidden, "
            f"{list(hidden.shape[:2])}"
        )
    supervised = labels != IGNORED
    counts = supervised.sum(dim=1)
    check_every_row(counts, name=f"{name}_labels")
    difference = hidden[supervised].float() - target[supervised].float()
    per_token = torch.zeros(labels.shape, device=hidden.device).masked_scatter(
        supervised, difference.square().mean(dim=1)
    )
    return (per_token.sum(dim=1) / counts).mean()
