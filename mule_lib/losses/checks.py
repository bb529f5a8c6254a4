"""Refuse bad input to a loss in one line that names the argument and says what would be right."""

import math
from numbers import Integral, Real

from torch import Tensor

IGNORED = -100  # label of a token without supervision, as in transformers


def check_logits(name: str, logits: Tensor, axes: str) -> None:
    """Raise ValueError unless `logits` is floating point with the axes written in `axes`, such as "[N, V]"."""
    if logits.dim() != axes.count(",") + 1:
        raise ValueError(f"{name}: shape {list(logits.shape)} is not {axes}")
    if not logits.is_floating_point():
        raise ValueError(f"{name}: dtype {logits.dtype} is not floating point")


def check_same_shape(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless both tensors have the same shape."""
    if tensor.shape != other.shape:
        raise ValueError(f"{name}: shape {list(tensor.shape)} must equal that of {other_name}, {list(other.shape)}")


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError unless student and teacher are aligned answer logits [N, V] with N >= 1."""
    check_logits("student", student, "[N, V]")
    check_logits("teacher", teacher, "[N, V]")
    if student.shape[0] == 0 or teacher.shape[0] == 0:
        raise ValueError("student, teacher: no supervised token; give at least one row of answer logits")
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"teacher: vocabulary of {teacher.shape[1]} tokens, the student's has {student.shape[1]}; "
            "both need the same tokenizer"
        )
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"teacher: {teacher.shape[0]} answer tokens, the student has {student.shape[0]}; "
            "both must score the same answer ids"
        )


def check_top_k(top_k: int, vocabulary: int, *, smallest: int = 1) -> None:
    """Raise ValueError unless `top_k` is an integer from `smallest` to the vocabulary size."""
    if isinstance(top_k, bool) or not isinstance(top_k, Integral) or not smallest <= top_k <= vocabulary:
        raise ValueError(f"top_k: {top_k!r} is not an integer from {smallest} to {vocabulary} (the vocabulary size)")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is unknown; use one of {', '.join(allowed)}")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number above zero."""
    if not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name}: {value!r} is not a finite number above 0")


def check_weight(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number, zero or above."""
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: {value!r} is not a finite number of 0 or more")


def check_finite(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number."""
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is not a finite number")


def check_labels(labels: Tensor, *, name: str = "labels") -> None:
    """Raise ValueError unless `labels` is an integer tensor [B, T]."""
    if labels.dim() != 2:
        raise ValueError(f"{name}: shape {list(labels.shape)} is not [B, T]")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name}: dtype {labels.dtype} is not an integer type")


def check_sequence(logits: Tensor, labels: Tensor, *, names: tuple[str, str] = ("logits", "labels")) -> None:
    """Raise ValueError unless un-shifted logits [B, T, V] go with labels [B, T] that hold token ids or -100."""
    check_logits(names[0], logits, "[B, T, V]")
    check_labels(labels, name=names[1])
    if logits.shape[:2] != labels.shape:
        raise ValueError(
            f"{names[1]}: shape {list(labels.shape)} must equal the first two axes of {names[0]}, "
            f"{list(logits.shape[:2])}"
        )
    outside = (labels != IGNORED) & ((labels < 0) | (labels >= logits.shape[-1]))
    if outside.any():
        found = int(labels[outside][0])
        raise ValueError(
            f"{names[1]}: {found} is neither {IGNORED} nor a token id below {logits.shape[-1]} (the vocabulary size)"
        )
    check_supervised(labels, name=names[1])


def check_supervised(labels: Tensor, *, name: str = "labels") -> None:
    """Raise ValueError if no token from the second column on is supervised (the first has no logits before it)."""
    if not (labels[:, 1:] != IGNORED).any():
        raise ValueError(
            f"{name}: no supervised token; at least one label after the first column must not be {IGNORED}"
        )


def check_every_row(counts: Tensor, *, name: str = "labels") -> None:
    """Raise ValueError if a row has no supervised token, from the rows' counts [B]; per-row losses need one in each."""
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"{name}: rows {empty} have no supervised token; each row needs at least one")
