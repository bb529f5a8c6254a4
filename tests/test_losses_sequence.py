"""What holds for every sequence loss: ragged answers, padding, order of rows, bf16, refusal of bad input."""

import pytest
import torch
from test_losses_naive import LABELS, LOGITS, REFERENCE, left_pad, reorder_and_pad, values_and_gradients

from mule_lib import losses

SEQUENCE_LOSSES = {
    "cross_entropy": lambda z, y, _: losses.cross_entropy(z, y),
    "gradient_ascent": lambda z, y, _: losses.gradient_ascent(z, y),
    "unlearning_cross_entropy": lambda z, y, _: losses.unlearning_cross_entropy(z, y),
    "kl_retain": lambda z, y, ref: losses.kl_retain(z, ref, y),
    "npo": lambda z, y, ref: losses.npo(z, ref, y, beta=1.0),
    "simnpo": lambda z, y, _: losses.simnpo(z, y, beta=1.0),
    "idk_dpo": lambda z, y, ref: losses.idk_dpo(z, ref, y, ref, z, y, beta=1.0),
    "flat": lambda z, y, ref: losses.flat(z, y, ref, y),
}


@pytest.mark.parametrize("name", list(SEQUENCE_LOSSES))
class TestEverySequenceLoss:
    def test_padding_and_order_of_rows_change_nothing(self, name):
        loss = SEQUENCE_LOSSES[name]
        expected = loss(LOGITS, LABELS, REFERENCE)
        for change in (reorder_and_pad, left_pad, losses.pack_answers):
            logits, labels = change(LOGITS, LABELS)
            reference, _ = change(REFERENCE, LABELS)
            torch.testing.assert_close(loss(logits, labels, reference), expected, atol=1e-6, rtol=0)

    def test_unsupervised_positions_get_no_gradient(self, name):
        _, (gradient,) = values_and_gradients(lambda z: SEQUENCE_LOSSES[name](z, LABELS, REFERENCE), LOGITS)
        supervised = torch.tensor([[False, True, True, False], [False, True, False, False]])
        assert (gradient[~supervised] == 0).all()
        assert (gradient[supervised].abs().sum(dim=-1) > 0).all()

    def test_bf16_input_is_computed_in_float32(self, name):
        loss, logits, reference = SEQUENCE_LOSSES[name], LOGITS.bfloat16(), REFERENCE.bfloat16()
        value, (gradient,) = values_and_gradients(lambda z: loss(z, LABELS, reference), logits)
        expected = loss(logits.float(), LABELS, reference.float())
        assert (value.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
        assert value.item() == pytest.approx(expected.item(), abs=1e-6)

    def test_bad_sequences_are_refused(self, name):
        loss = SEQUENCE_LOSSES[name]
        with pytest.raises(ValueError, match=r"no supervised token"):
            loss(LOGITS, torch.full_like(LABELS, -100), REFERENCE)
        first_column_only = torch.full_like(LABELS, -100)
        first_column_only[:, 0] = 1
        with pytest.raises(ValueError, match=r"no supervised token"):
            loss(LOGITS, first_column_only, REFERENCE)
        with pytest.raises(
            ValueError, match=r"labels: shape \[2, 3\] must equal the first two axes of .*logits, \[2, 4\]"
        ):
            loss(LOGITS, LABELS[:, 1:], REFERENCE)
        with pytest.raises(ValueError, match=r"labels: 3 is neither -100 nor a token id below 3"):
            loss(LOGITS, LABELS.masked_fill(LABELS == 0, 3), REFERENCE)
        with pytest.raises(ValueError, match=r"labels: dtype torch.float32 is not an integer type"):
            loss(LOGITS, LABELS.float(), REFERENCE)
        with pytest.raises(ValueError, match=r"logits: shape \[2, 4\] is not \[B, T, V\]"):
            loss(LOGITS[..., 0], LABELS, REFERENCE[..., 0])


@pytest.mark.parametrize("name", ["npo", "simnpo", "idk_dpo", "flat"])
def test_losses_of_whole_answers_need_one_in_each_row(name):
    labels = LABELS.clone()
    labels[1] = -100
    with pytest.raises(ValueError, match=r"labels: rows \[1\] have no supervised token; each row needs at least one"):
        SEQUENCE_LOSSES[name](LOGITS, labels, REFERENCE)


@pytest.mark.parametrize("name", ["kl_retain", "npo"])
def test_reference_is_frozen_and_must_have_the_same_shape(name):
    reference = REFERENCE.clone().requires_grad_()
    logits = LOGITS.clone().requires_grad_()
    SEQUENCE_LOSSES[name](logits, LABELS, reference).backward()
    assert reference.grad is None
    with pytest.raises(
        ValueError, match=r"^reference_logits: shape \[2, 4, 2\] must equal that of logits, \[2, 4, 3\]$"
    ):
        SEQUENCE_LOSSES[name](LOGITS, LABELS, REFERENCE[..., :2])
