"""RMU against a loop in float64, with answers of unequal lengths (where a mean over a B x B matrix would show)."""

import math

import pytest
import torch
from test_losses_naive import assert_agrees

from mule_lib import losses

LABELS = torch.tensor([[-100, 4, 7, 2], [-100, -100, 5, -100]])
HIDDEN = torch.tensor(
    [[[0.3, -1.2], [0.8, 0.1], [1.5, -0.4], [-0.7, 0.9]], [[0.2, 0.6], [1.1, -0.3], [0.4, 2.0], [9, 9]]]
)
REFERENCE = torch.tensor(
    [[[0.1, 0.2], [0.5, -0.6], [1.0, 0.3], [-0.2, 0.8]], [[0.9, -0.1], [0.7, 0.4], [-0.5, 1.6], [-9, -9]]]
)
CONTROL = torch.tensor([0.6, 0.8])


def naive(hidden, target):
    rows = []
    for b, row in enumerate(hidden):
        errors = [
            sum((row[t][d] - target[b][t][d]) ** 2 for d in range(2)) / 2 for t in range(4) if LABELS[b][t] != -100
        ]
        rows.append(sum(errors) / len(errors))
    return sum(rows) / len(rows)


def naive_rmu(forget, retain, coefficient, forget_weight, retain_weight):
    target = [[[coefficient * float(c) for c in CONTROL.double()]] * 4] * 2
    return forget_weight * naive(forget, target) + retain_weight * naive(retain, REFERENCE.double())


def rmu(forget, retain, **options):
    return losses.rmu(forget, LABELS, retain, REFERENCE, LABELS, control=CONTROL, **options)


@pytest.mark.parametrize(("coefficient", "forget_weight", "retain_weight"), [(2.0, 1.0, 1.0), (6.5, 0.5, 3.0)])
def test_rmu_agrees_with_the_formula(coefficient, forget_weight, retain_weight):
    options = {"coefficient": coefficient, "forget_weight": forget_weight, "retain_weight": retain_weight}
    retain = HIDDEN.flip(1)
    assert_agrees(lambda f, r: rmu(f, r, **options), lambda f, r: naive_rmu(f, r, **options), HIDDEN, retain)


def test_defaults_limits_and_frozen_reference():
    assert rmu(HIDDEN, HIDDEN) == rmu(HIDDEN, HIDDEN, coefficient=2.0, forget_weight=1.0, retain_weight=1.0)
    assert losses.rmu_retain(HIDDEN, HIDDEN, LABELS) == 0
    assert losses.rmu_forget((3 * CONTROL).expand(2, 4, 2), LABELS, control=CONTROL, coefficient=3.0) < 1e-12
    reference, control = REFERENCE.clone().requires_grad_(), CONTROL.clone().requires_grad_()
    losses.rmu(HIDDEN.clone().requires_grad_(), LABELS, HIDDEN, reference, LABELS, control=control).backward()
    assert reference.grad is None
    assert control.grad is None


def test_padding_and_order_of_rows_change_nothing():
    padded = torch.cat([HIDDEN, torch.full((2, 3, 2), 5.0)], 1).flip(0)
    labels = torch.cat([LABELS, torch.full((2, 3), -100)], 1).flip(0)
    torch.testing.assert_close(
        losses.rmu_forget(padded, labels, control=CONTROL), losses.rmu_forget(HIDDEN, LABELS, control=CONTROL)
    )


def test_bf16_input_is_computed_in_float32():
    value = losses.rmu_retain(HIDDEN.bfloat16(), REFERENCE.bfloat16(), LABELS)
    expected = losses.rmu_retain(HIDDEN.bfloat16().float(), REFERENCE.bfloat16().float(), LABELS)
    assert value.dtype == torch.float32
    assert value == expected


def test_control_vector_is_fixed_by_its_seed():
    direction = losses.control_vector(64, seed=3)
    assert direction.norm().item() == pytest.approx(1.0, abs=1e-6)
    assert (direction >= 0).all()
    assert torch.equal(direction, losses.control_vector(64, seed=3))
    assert not torch.equal(direction, losses.control_vector(64, seed=4))
    with pytest.raises(ValueError, match=r"^size: 0 is not a hidden size"):
        losses.control_vector(0, seed=0)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^control: 3 entries, the hidden states have 2$"):
        losses.rmu_forget(HIDDEN, LABELS, control=torch.ones(3))
    with pytest.raises(ValueError, match=r"^coefficient: inf is not a finite number$"):
        losses.rmu_forget(HIDDEN, LABELS, control=CONTROL, coefficient=math.inf)
    with pytest.raises(ValueError, match=r"^retain_reference_hidden: shape"):
        losses.rmu_retain(HIDDEN, REFERENCE[:1], LABELS)
    with pytest.raises(ValueError, match=r"^retain_labels: rows \[0, 1\] have no supervised token"):
        losses.rmu_retain(HIDDEN, REFERENCE, torch.full_like(LABELS, -100))
    with pytest.raises(ValueError, match=r"^forget_labels: shape \[2, 3\] must equal the first two axes"):
        losses.rmu_forget(HIDDEN, LABELS[:, 1:], control=CONTROL)
    with pytest.raises(ValueError, match=r"^retain_weight: -1.0 is not"):
        rmu(HIDDEN, HIDDEN, retain_weight=-1.0)
