"""Literal tensors and the comparison with a float64 formula that the tests of the losses share."""

import pytest
import torch

# Two rows, vocabulary 3; row 0 has two supervised tokens, row 1 one (its third label, then padding).
LABELS = torch.tensor([[-100, -100, 2, 0], [-100, -100, 1, -100]])
LOGITS = torch.tensor(
    [
        [[0.1, -0.4, 0.9], [1.3, 0.2, -0.5], [0.7, -1.1, 0.0], [2.0, 0.3, -0.8]],
        [[-0.2, 0.5, 1.4], [0.6, 0.9, -1.7], [0.8, 0.1, -0.3], [1.0, -0.6, 0.4]],
    ]
)
REFERENCE = torch.tensor(
    [
        [[0.5, 0.0, -0.3], [-0.8, 1.1, 0.4], [1.6, 0.2, -0.7], [0.0, 0.9, 0.3]],
        [[1.2, -0.5, 0.6], [0.1, -0.2, 0.7], [-1.0, 0.4, 0.8], [0.3, 0.6, -0.9]],
    ]
)
# Template answers of other lengths, for the same two questions.
TEMPLATE_LABELS = torch.tensor([[-100, 1, 0], [-100, -100, 2]])
TEMPLATE = torch.tensor(
    [[[0.4, 0.3, -0.6], [0.2, -0.9, 1.1], [0.0, 0.5, 0.7]], [[-0.1, 1.2, 0.8], [0.9, -0.3, 0.6], [1.5, 0.4, -1.2]]]
)
TEMPLATE_REFERENCE = torch.tensor(
    [[[-0.7, 0.8, 0.2], [1.0, 0.1, -0.4], [0.6, -0.2, 0.3]], [[0.9, 0.0, -0.5], [-0.4, 0.7, 1.3], [0.2, 1.1, 0.5]]]
)


def naive_rows(logits, labels):
    """Log-probabilities of the supervised tokens, one list per row."""
    rows = []
    for row, row_labels in zip(logits, labels, strict=True):
        positions = [t for t in range(len(row) - 1) if row_labels[t + 1] != -100]
        rows.append([row[t][row_labels[t + 1]] - torch.log(sum(torch.exp(z) for z in row[t])) for t in positions])
    return rows


def values_and_gradients(loss, *tensors):
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = loss(*leaves)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


def assert_agrees(loss, naive, *tensors):
    value, gradients = values_and_gradients(loss, *tensors)
    expected, expected_gradients = values_and_gradients(naive, *(tensor.double() for tensor in tensors))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert expected_gradient.abs().max() > 1e-3  # a comparison of zeros would show nothing
        torch.testing.assert_close(gradient.double(), expected_gradient, atol=1e-6, rtol=0)


def reorder_and_pad(logits, labels):
    """The same rows in the other order, with two more padding positions of arbitrary logits."""
    padded = torch.cat([logits, logits.new_full((len(logits), 2, logits.shape[2]), 7.5)], dim=1)
    padded_labels = torch.cat([labels, labels.new_full((len(labels), 2), -100)], dim=1)
    return padded.flip(0), padded_labels.flip(0)


def left_pad(logits, labels):
    """The same rows with one position of arbitrary logits before each prompt."""
    padded = torch.cat([logits.new_full((len(logits), 1, logits.shape[2]), -3.0), logits], dim=1)
    return padded, torch.cat([labels.new_full((len(labels), 1), -100), labels], dim=1)
