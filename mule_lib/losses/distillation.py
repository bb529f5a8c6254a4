"""Distil a steered teacher's raw logits: MULE (Eq. 3), DUET and BiLD on aligned answer logits [N, V]."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mule_lib.losses.checks import check_choice, check_logits, check_pair, check_positive, check_same_shape, check_top_k

OVER_K = ("mean", "sum")
MAX_PAIR_VALUES = 2**24  # 64 MiB of float32 per tensor of pairwise differences


def bidirectional_topk(
    student: Tensor, teacher: Tensor, *, top_k: int, beta: float = 1.0, over_k: str = "mean"
) -> Tensor:
    """Pull the student's raw logits to the teacher's on the teacher's top-K and on the student's own top-K.

    Shapes: student, teacher [N, V]; returns a float32 scalar. Smooth-L1 with its quadratic part below `beta` (in
    logits), mean or sum over K (`over_k`; Eq. 3 is printed as a sum), the two terms added with weight 1, mean over the
    N positions. A token in both sets counts twice. The sets are chosen anew at each call and not differentiated; the
    teacher is detached. The gradient per logit is at most 1 / (N K), 2 / (N K) in the overlap (without the K for a
    sum).
    Raises ValueError on unequal shapes, no position, K outside 1 to V, beta <= 0, or an unknown `over_k`.
    Source: MULE Eq. 3.
    """
    check_pair(student, teacher)
    check_top_k(top_k, student.shape[1])
    teacher_set = _top_k_set(teacher, top_k)
    student_set = _top_k_set(student, top_k)
    return sum(
        smooth_l1_at(student, chosen, teacher.gather(1, chosen), beta=beta, over_k=over_k)
        for chosen in (teacher_set, student_set)
    )


def duet(student: Tensor, teacher: Tensor, *, top_k: int, beta: float = 1.0, over_k: str = "mean") -> Tensor:
    """Pull the student's raw logits to the teacher's on the teacher's top-K only.

    Shapes, reductions and errors as in `bidirectional_topk`. DUET itself trains on the first answer position: take the
    logits with `first_position(labels)`. Source: DUET Eq. 3, Zhong 2026.
    """
    check_pair(student, teacher)
    check_top_k(top_k, student.shape[1])
    teacher_set = _top_k_set(teacher, top_k)
    return smooth_l1_at(student, teacher_set, teacher.gather(1, teacher_set), beta=beta, over_k=over_k)


def bild(student: Tensor, teacher: Tensor, *, top_k: int = 8, temperature: float = 3.0) -> Tensor:
    """Match the softmax over pairwise logit differences on the teacher's top-K (t-LD) and on the student's (s-LD).

    Shapes: student, teacher [N, V]; returns a float32 scalar: KL(teacher || student) of both sets added, mean over the
    N positions. No factor temperature^2 and no KL on prompt positions (the authors' trainer adds the latter). Memory
    grows with N K (K - 1) / 2 up to a fixed limit, above which positions are worked off in recomputed pieces.
    Raises ValueError on unequal shapes, no position, K outside 2 to V, or temperature <= 0.
    Source: BiLD, Li 2025 (arXiv 2406.13555).
    """
    check_pair(student, teacher)
    check_top_k(top_k, student.shape[1], smallest=2)
    teacher_set = _top_k_set(teacher, top_k)
    student_set = _top_k_set(student, top_k)
    return sum(
        pairwise_kl_at(student, chosen, teacher.gather(1, chosen), temperature=temperature)
        for chosen in (teacher_set, student_set)
    )


def smooth_l1_at(
    student: Tensor, chosen: Tensor, teacher_values: Tensor, *, beta: float = 1.0, over_k: str = "mean"
) -> Tensor:
    """Smooth-L1 between student and teacher on given tokens, for teachers whose full logits are not at hand.

    One term of Eq. 3. Shapes: student [N, V], chosen [N, K] (token ids), teacher_values [N, K] (the teacher's logits of
    these tokens); returns a float32 scalar, reduced as in `bidirectional_topk`. Raises ValueError as there.
    Source: MULE Eq. 3.
    """
    _check_gathered(student, chosen, teacher_values)
    check_positive("beta", beta)
    check_choice("over_k", over_k, OVER_K)
    distance = F.smooth_l1_loss(
        student.gather(1, chosen).float(), teacher_values.detach().float(), beta=beta, reduction="none"
    )
    per_position = distance.mean(dim=1) if over_k == "mean" else distance.sum(dim=1)
    return per_position.mean()


def pairwise_kl_at(
    student: Tensor,
    chosen: Tensor,
    teacher_values: Tensor,
    *,
    temperature: float = 3.0,
    max_pair_values: int = MAX_PAIR_VALUES,
) -> Tensor:
    """KL(teacher || student) of the softmax over pairwise differences on given tokens: one term of BiLD.

    Shapes: student [N, V], chosen [N, K] (token ids, the leader's descending order), teacher_values [N, K]; returns a
    float32 scalar, mean over positions. Raises ValueError as `bild`. Source: BiLD, Li 2025.
    """
    _check_gathered(student, chosen, teacher_values)
    check_positive("temperature", temperature)
    check_top_k(chosen.shape[1], student.shape[1], smallest=2)
    first, second = torch.triu_indices(chosen.shape[1], chosen.shape[1], offset=1, device=chosen.device)

    def summed_kl(student_part: Tensor, teacher_part: Tensor) -> Tensor:
        of_student = F.log_softmax((student_part[:, first] - student_part[:, second]) / temperature, dim=1)
        of_teacher = F.log_softmax((teacher_part[:, first] - teacher_part[:, second]) / temperature, dim=1)
        return F.kl_div(of_student, of_teacher, reduction="sum", log_target=True)

    student_values = student.gather(1, chosen).float()
    teacher_values = teacher_values.detach().float()
    rows = max(1, max_pair_values // len(first))
    if len(student) <= rows:
        return summed_kl(student_values, teacher_values) / len(student)
    pieces = zip(student_values.split(rows), teacher_values.split(rows), strict=True)
    total = sum(checkpoint(summed_kl, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces)
    return total / len(student)


def _top_k_set(logits: Tensor, top_k: int) -> Tensor:
    """Token ids [N, K] of the largest logits, in descending order; outside the graph."""
    return logits.detach().topk(top_k, dim=1).indices


def _check_gathered(student: Tensor, chosen: Tensor, teacher_values: Tensor) -> None:
    check_logits("student", student, "[N, V]")
    check_logits("teacher_values", teacher_values, "[N, K]")
    check_same_shape("chosen", chosen, "teacher_values", teacher_values)
    if len(student) != len(chosen) or chosen.numel() == 0:
        raise ValueError(f"chosen: shape {list(chosen.shape)} is not [N, K] with N = {len(student)} >= 1 and K >= 1")
