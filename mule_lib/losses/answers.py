"""Find the answer tokens of a batch: labels are un-shifted, and the logits at t predict the label at t + 1."""

import torch
from torch import Tensor

from mule_lib.losses.checks import IGNORED, check_labels, check_sequence, check_supervised


def answer_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Take the logits that predict the supervised tokens, row after row.

    Shapes: logits [B, T, V], labels [B, T] with -100 where not supervised; returns float32 [N, V]. Teacher and student
    prompts may differ in length: each side uses its own labels, and the i-th rows belong together.
    Raises ValueError on shapes that do not fit, a label outside the vocabulary, or no supervised token.
    Source: the alignment of teacher and student answers, MULE Section 3.4.
    """
    check_sequence(logits, labels)
    return logits[:, :-1][labels[:, 1:] != IGNORED].float()


def answer_targets(labels: Tensor) -> Tensor:
    """Take the supervised token ids in the order of `answer_logits`; labels [B, T], returns [N]."""
    check_labels(labels)
    check_supervised(labels)
    return labels[:, 1:][labels[:, 1:] != IGNORED]


def answer_lengths(labels: Tensor) -> Tensor:
    """Count the supervised tokens of each row; labels [B, T], returns [B].

    The sum is the weight of a batch wherever token means of several batches or processes are averaged.
    """
    check_labels(labels)
    return (labels[:, 1:] != IGNORED).sum(dim=1)


def first_position(labels: Tensor) -> Tensor:
    """Keep only the first supervised token of each row, which is DUET's setting.

    Shapes: labels [B, T]; returns new labels [B, T] with -100 everywhere else. After a prefilled prefix (itself -100)
    the first position is the one behind the prefix. Source: DUET, Zhong 2026.
    """
    check_labels(labels)
    supervised = labels != IGNORED
    supervised[:, 0] = False  # no logits predict the first column
    return labels.masked_fill(~(supervised & (supervised.cumsum(dim=1) == 1)), IGNORED)


def pack_answers(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Drop prompt and padding positions, so that an output head is applied to answer positions only.

    Shapes: values [B, T, H] (hidden states or logits), labels [B, T]; returns values [B, A + 1, H] and labels [B, A +
    1], A the longest answer. Position and label keep their relation, so every sequence loss of the packed pair equals
    that of the original one; the last position predicts nothing and is zero, as is padding.
    Raises ValueError if there is no supervised token.
    """
    check_labels(labels)
    check_supervised(labels)
    if values.dim() != 3 or values.shape[:2] != labels.shape:
        raise ValueError(f"values: shape {list(values.shape)} is not [B, T, H] with the [B, T] of labels")
    supervised = labels[:, 1:] != IGNORED
    row, _ = supervised.nonzero(as_tuple=True)
    slot = (supervised.cumsum(dim=1) - 1)[supervised]
    width = int(supervised.sum(dim=1).max()) + 1
    packed = values.new_zeros(len(values), width, values.shape[2]).index_put((row, slot), values[:, :-1][supervised])
    packed_labels = labels.new_full((len(labels), width), IGNORED)
    packed_labels[row, slot + 1] = labels[:, 1:][supervised]
    return packed, packed_labels


def sum_over_rows(values: Tensor, labels: Tensor) -> Tensor:
    """Add up one value per supervised token within each row; values [N], labels [B, T], returns [B]."""
    supervised = labels[:, 1:] != IGNORED
    # A scatter into place instead of index_add: the order of summation is fixed on every device.
    return torch.zeros_like(supervised, dtype=values.dtype).masked_scatter(supervised, values).sum(dim=1)
