"""Likelihood losses and answer positions against loops in float64 that follow the formulas word by word."""

import math

import pytest
import torch
from test_losses_naive import (
    LABELS,
    LOGITS,
    REFERENCE,
    TEMPLATE,
    TEMPLATE_LABELS,
    assert_agrees,
    left_pad,
    naive_rows,
    values_and_gradients,
)

from mule_lib import losses


def naive_mean(rows, of_token):
    values = [of_token(value) for row in rows for value in row]
    return sum(values) / len(values)


def naive_kl(logits, reference, labels):
    total, count = 0.0, 0
    for b, row in enumerate(logits):
        for t in range(len(row) - 1):
            if labels[b][t + 1] != -100:
                p, q = torch.softmax(reference[b][t], 0), torch.softmax(row[t], 0)
                total = total + sum(p[v] * (torch.log(p[v]) - torch.log(q[v])) for v in range(len(p)))
                count += 1
    return total / count


def test_token_means_agree_with_the_formula():
    assert_agrees(
        lambda z: losses.cross_entropy(z, LABELS), lambda z: naive_mean(naive_rows(z, LABELS), lambda lp: -lp), LOGITS
    )
    assert_agrees(
        lambda z: losses.gradient_ascent(z, LABELS), lambda z: naive_mean(naive_rows(z, LABELS), lambda lp: lp), LOGITS
    )
    assert_agrees(
        lambda z: losses.unlearning_cross_entropy(z, LABELS),
        lambda z: naive_mean(naive_rows(z, LABELS), lambda lp: -torch.log(1 - torch.exp(lp) / 2)),
        LOGITS,
    )
    assert_agrees(
        lambda z: losses.kl_retain(z, REFERENCE, LABELS), lambda z: naive_kl(z, REFERENCE.double(), LABELS), LOGITS
    )


def test_cross_entropy_is_the_loss_of_transformers():
    from transformers.loss.loss_utils import ForCausalLMLoss

    expected = ForCausalLMLoss(LOGITS, LABELS, vocab_size=3)
    torch.testing.assert_close(losses.cross_entropy(LOGITS, LABELS), expected)
    assert losses.sft is losses.cross_entropy


def test_combinations_are_weighted_sums():
    forget = losses.gradient_ascent(LOGITS, LABELS)
    retain = losses.cross_entropy(TEMPLATE, TEMPLATE_LABELS)
    combined = losses.grad_diff(LOGITS, LABELS, TEMPLATE, TEMPLATE_LABELS)
    torch.testing.assert_close(combined, forget + retain)
    weights = {"forget_weight": 0.125, "retain_weight": 2.0}
    torch.testing.assert_close(
        losses.grad_diff(LOGITS, LABELS, TEMPLATE, TEMPLATE_LABELS, **weights), 0.125 * forget + 2 * retain
    )
    torch.testing.assert_close(losses.weighted_sum(forget, retain, **weights), 0.125 * forget + 2 * retain)


def test_limits():
    zero = torch.zeros(1, 2, 4)
    labels = torch.tensor([[-100, 3]])
    assert losses.cross_entropy(zero, labels).item() == pytest.approx(math.log(4))
    assert losses.kl_retain(LOGITS, LOGITS, LABELS) == 0
    # A policy equal to its reference: log sigmoid(0), and a gradient of plain ascent on the sum of log-probabilities.
    value, (gradient,) = values_and_gradients(lambda z: losses.npo(z, LOGITS, LABELS), LOGITS)
    assert value.item() == pytest.approx(2 / 0.1 * math.log(2), rel=1e-6)
    _, (ascent,) = values_and_gradients(lambda z: -losses.sequence_nll(z, LABELS).mean(), LOGITS)
    torch.testing.assert_close(gradient, ascent)
    sure = torch.tensor([[[0.0, 0.0, 60.0], [0.0, 0.0, 0.0]]])
    for token, bound in ((2, math.log(2)), (0, 0.0)):
        value = losses.unlearning_cross_entropy(sure, torch.tensor([[-100, token]]))
        assert value.item() == pytest.approx(bound, abs=1e-6)


def test_answer_logits_are_those_that_predict_the_labels():
    found = losses.answer_logits(LOGITS, LABELS)
    torch.testing.assert_close(found, torch.stack([LOGITS[0, 1], LOGITS[0, 2], LOGITS[1, 1]]), atol=0, rtol=0)
    assert losses.answer_logits(LOGITS.bfloat16(), LABELS).dtype == torch.float32
    assert losses.answer_targets(LABELS).tolist() == [2, 0, 1]
    assert losses.answer_lengths(LABELS).tolist() == [2, 1]


def test_a_longer_teacher_prompt_pairs_answer_tokens_by_index():
    longer, longer_labels = left_pad(*left_pad(LOGITS, LABELS))
    student, teacher = losses.answer_logits(LOGITS, LABELS), losses.answer_logits(longer, longer_labels)
    assert losses.bidirectional_topk(student, teacher, top_k=2) == 0


def test_first_position_is_the_first_answer_token_with_logits_before_it():
    assert losses.first_position(LABELS).tolist() == [[-100, -100, 2, -100], [-100, -100, 1, -100]]
    assert losses.first_position(torch.tensor([[2, 1, 0], [-100, -100, -100]])).tolist() == [
        [-100, 1, -100],
        [-100, -100, -100],
    ]


def test_packing_keeps_gradients_and_refuses_what_does_not_fit():
    packed, labels = losses.pack_answers(LOGITS, LABELS)
    assert packed.shape == (2, 3, 3)
    assert labels.tolist() == [[-100, 2, 0], [-100, 1, -100]]
    _, (through_packed,) = values_and_gradients(lambda z: losses.cross_entropy(*losses.pack_answers(z, LABELS)), LOGITS)
    _, (direct,) = values_and_gradients(lambda z: losses.cross_entropy(z, LABELS), LOGITS)
    torch.testing.assert_close(through_packed, direct)
    with pytest.raises(ValueError, match=r"^values: shape \[2, 3, 3\] is not"):
        losses.pack_answers(LOGITS[:, 1:], LABELS)
    with pytest.raises(ValueError, match=r"^labels: no supervised token"):
        losses.pack_answers(LOGITS, torch.full_like(LABELS, -100))
