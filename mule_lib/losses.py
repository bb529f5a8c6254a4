"""Every loss of the suite as a pure function: float32 inside whatever dtype comes in, gradients to the student only.

Distillation losses take aligned answer logits [N, V], from `answer_logits`; sequence losses take un-shifted logits [B,
T, V] and labels [B, T], -100 where a token is not supervised. Each returns a scalar to be minimised.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # label of a token without supervision, as in transformers; logits at t predict the label at t + 1

Distance = Callable[[Tensor, Tensor], Tensor]


class TeacherLogits(Protocol):
    """A teacher at N answer positions whose logits are read token by token, such as an exact cache."""

    def top(self, top_k: int) -> tuple[Tensor, Tensor]:
        """Its own top-K in descending order: token ids [N, K] and their logits [N, K]."""

    def at(self, ids: Tensor) -> Tensor:
        """Its logits [N, K] of any tokens, ids [N, K]."""


Logits = Tensor | TeacherLogits  # a student's are read with a gradient and know `shape`, `nll` and `kl` besides


def bidirectional_topk(
    student: Logits, teacher: Logits, *, top_k: int, beta: float = 1.0, over_k: str = "mean"
) -> Tensor:
    """Pull the student's raw logits to the teacher's on the teacher's top-K and on the student's own top-K.

    Shapes: student and teacher [N, V], or logits of N positions that are read in parts; a float32 scalar. Smooth-L1
    with its quadratic part below `beta` (in logits), mean or sum over K (`over_k`; Eq. 3 is printed as a sum), the two
    terms added with weight 1, mean over the N positions. A token in both sets counts twice. The sets are chosen anew at
    each call and not differentiated; the teacher is detached. The gradient per logit is at most 1 / (N K), 2 / (N K) in
    the overlap (without the K for a sum).
    Raises ValueError on unequal shapes, no position, K outside 1 to V, beta <= 0, or an unknown `over_k`.
    Source: MULE Eq. 3.
    """
    return _on_sets(student, teacher, top_k, _smooth_l1(beta, over_k), both=True)


def duet(student: Logits, teacher: Logits, *, top_k: int, beta: float = 1.0, over_k: str = "mean") -> Tensor:
    """Pull the student's raw logits to the teacher's on the teacher's top-K only.

    Shapes, reductions and errors as in `bidirectional_topk`. DUET itself trains on the first answer position only.
    Source: DUET Eq. 3, Zhong 2026.
    """
    return _on_sets(student, teacher, top_k, _smooth_l1(beta, over_k), both=False)


def bild(student: Logits, teacher: Logits, *, top_k: int = 8, temperature: float = 3.0) -> Tensor:
    """Match the softmax over pairwise logit differences on the teacher's top-K (t-LD) and on the student's (s-LD).

    Shapes as in `bidirectional_topk`; returns a float32 scalar: KL(teacher || student) of both sets added, mean over
    the N positions. No factor temperature^2 and no KL on prompt positions (the authors' trainer adds the latter).
    Memory grows with N K (K - 1) / 2.
    Raises ValueError on unequal shapes, no position, K outside 2 to V, or temperature <= 0.
    Source: BiLD, Li 2025 (arXiv 2406.13555).
    """
    _check_above_zero(temperature=temperature)

    def pairwise_kl(of_student: Tensor, of_teacher: Tensor) -> Tensor:
        first, second = torch.triu_indices(top_k, top_k, offset=1, device=of_student.device)
        log_q = F.log_softmax((of_student[:, first] - of_student[:, second]) / temperature, dim=1)
        log_p = F.log_softmax((of_teacher[:, first] - of_teacher[:, second]) / temperature, dim=1)
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    return _on_sets(student, teacher, top_k, pairwise_kl, both=True, smallest=2)


def _on_sets(student: Logits, teacher, top_k: int, distance: Distance, *, both: bool, smallest: int = 1) -> Tensor:
    """Distance of the logits [N, K] on the teacher's top-K, plus (`both`) that on the student's; descending order."""
    if len(student.shape) != 2:
        raise ValueError(f"student: shape {list(student.shape)} is not [N, V]")
    whole, parted = isinstance(teacher, Tensor), not isinstance(student, Tensor)
    if whole and teacher.shape[1:] != student.shape[1:]:
        raise ValueError(
            f"teacher: shape {list(teacher.shape)}, the student's is {list(student.shape)}; use the same tokenizer"
        )
    check_top_k(top_k, student.shape[1], smallest=smallest)
    ids, logits = teacher.topk(top_k, dim=1)[::-1] if whole else teacher.top(top_k)
    if len(ids) != len(student):
        raise ValueError(
            f"teacher: {len(ids)} answer tokens, the student has {len(student)}; both must score the same answer ids"
        )
    if len(student) == 0:
        raise ValueError("student, teacher: no supervised token; give at least one row of answer logits")
    sets, targets = [ids], [logits]
    if both:
        own = student.top(top_k)[0] if parted else student.detach().topk(top_k, dim=1).indices
        sets.append(own)
        targets.append(teacher.gather(1, own) if whole else teacher.at(own))
    # Both sets are read at once: each reading of a head leaves a gradient of its whole size.
    read = student.at(torch.cat(sets, dim=1)).split(top_k, dim=1) if parted else [student.gather(1, i) for i in sets]
    return sum(distance(own.float(), other.detach().float()) for own, other in zip(read, targets, strict=True))


def _smooth_l1(beta: float, over_k: str) -> Distance:
    _check_above_zero(beta=beta)
    if over_k not in ("mean", "sum"):
        raise ValueError(f"over_k: {over_k!r} is unknown; use one of mean, sum")

    def distance(of_student: Tensor, of_teacher: Tensor) -> Tensor:
        each = F.smooth_l1_loss(of_student, of_teacher, beta=beta, reduction="none")
        return getattr(each, over_k)(dim=1).mean()

    return distance


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each supervised token, row after row.

    Shapes: logits [B, T, V], labels [B, T]; returns float32 [N], in nats. Raises ValueError as `answer_logits`.
    """
    aligned, targets = answer_logits(logits, labels), answer_targets(labels)
    return F.cross_entropy(aligned, targets, reduction="none") if isinstance(aligned, Tensor) else aligned.nll(targets)


def sequence_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each row's answer, summed over its supervised tokens.

    Shapes: logits [B, T, V], labels [B, T]; returns float32 [B], in nats. Raises ValueError as `answer_logits`, and if
    a row has no supervised token.
    """
    return sum_over_rows(token_nll(logits, labels), labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood over all supervised tokens of the batch; also the loss of SFT refusal tuning.

    Shapes: logits [B, T, V], labels [B, T]; returns a float32 scalar, in nats. Raises ValueError as `answer_logits`.
    For SFT, refusals and retain answers stand in one batch as in TOFU's `idk`.
    """
    return token_nll(logits, labels).mean()


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

    Shapes: logits [B, T, V], labels [B, T], reference_logits aligned answer logits [N, V]; returns a float32 scalar, in
    nats. The reference is detached. Peers average over prompt and padding too, or divide by B; this one is masked to
    answers.
    Raises ValueError as `answer_logits`, and on unequal shapes. Source: the retain term R of GradDiff.
    """
    student = answer_logits(logits, labels)
    if not isinstance(student, Tensor):
        return student.kl(reference_logits).mean()
    _check_shape("reference_logits", reference_logits, student)
    log_q, log_p = F.log_softmax(student, dim=1), F.log_softmax(reference_logits.detach().float(), dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def npo(logits: Tensor, reference_logits: Tensor, labels: Tensor, *, beta: float = 0.1) -> Tensor:
    """Lower the likelihood of forget answers below the reference's, with a gradient that fades once it is done.

    -(2 / beta) log sigmoid(beta (NLL - NLL_ref)) with per-row sums, mean over rows.
    Shapes: logits [B, T, V], labels [B, T], reference_logits [B, T, V] or, from a reference that was scored once and
    kept, its NLL of each row [B] in nats; returns a float32 scalar. The reference is detached.
    Raises ValueError on unequal shapes, a row without supervised token, or beta <= 0.
    Source: NPO as in open-unlearning.
    """
    _check_above_zero(beta=beta)
    return -2 / beta * F.logsigmoid(beta * -_gain(logits, reference_logits, labels)).mean()


def simnpo(logits: Tensor, labels: Tensor, *, beta: float, margin: float = 0.0) -> Tensor:
    """NPO without a reference: the per-row token mean of the NLL inside the log-sigmoid, less a margin.

    -(2 / beta) log sigmoid(beta (NLL / |y| - margin)), mean over rows. Authors' beta: 4.5 on TOFU forget10 (with forget
    weight 0.125), 2.5 on forget05, 0.7 to 0.75 on MUSE; margin 0. At beta 4.5 the gradient is about 1e-6 above NLL 3.
    Shapes: logits [B, T, V], labels [B, T]; returns a float32 scalar. Raises ValueError on shapes that do not fit, a
    row without supervised token, beta <= 0, or a margin that is not finite.
    Source: SimNPO, Fan 2025, as in the authors' TOFU code.
    """
    _check_above_zero(beta=beta)
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
    Per-row sums inside the log-sigmoid, factor 2 / beta, mean over rows; references as in `npo`; a float32 scalar.
    Raises ValueError on unequal shapes, a row without supervised token, or beta <= 0.
    Source: IdkDPO as in open-unlearning.
    """
    _check_above_zero(beta=beta)
    idk_gain = _gain(idk_logits, idk_reference_logits, idk_labels)
    forget_gain = _gain(forget_logits, forget_reference_logits, forget_labels)
    _check_shape("idk_logits, rows", idk_gain, forget_gain)
    return -2 / beta * F.logsigmoid(beta * (idk_gain - forget_gain)).mean()


def _gain(logits: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
    """By how many nats each row's answer is likelier than under the reference, [B]."""
    nll, reference = sequence_nll(logits, labels), reference.detach()
    _check_shape("reference_logits", reference, nll if reference.dim() == 1 else logits)
    return (reference.float() if reference.dim() == 1 else sequence_nll(reference, labels)) - nll


# Per divergence, as functions of mean probabilities: the template's term -g*(P_e) and the forget term f*(g*(P_f)). The
# paper's reverse_kl, squared_hellinger and neyman are left out: as released they lower the template's probability.
DIVERGENCES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "total_variation": (lambda p: -torch.tanh(p) / 2, lambda p: torch.tanh(p) / 2),
    "kl": (lambda p: -p, lambda p: torch.exp(p - 1)),
    "jensen_shannon": (lambda p: F.softplus(-p) - math.log(2), lambda p: p + F.softplus(-p) - math.log(2)),
    "pearson": (lambda p: -p, lambda p: p + p.square() / 4),
}


def flat(
    template_logits: Tensor,
    template_labels: Tensor,
    forget_logits: Tensor,
    forget_labels: Tensor,
    *,
    divergence: str = "total_variation",
) -> Tensor:
    """Exchange the forget answer for a template answer to the same question, without retain data or reference model.

    Shapes: logits [B, T, V], labels [B, T]; templates and forget answers have their own T and the same B, row by row;
    returns a float32 scalar. P is the arithmetic mean of token probabilities over a row's supervised tokens (the
    released code's runs over prompt and padding too), the divergence is taken per row, then the mean over rows.
    Raises ValueError on shapes that do not fit, unpaired rows, a row without supervised token, another divergence.
    Source: FLAT, Wang 2025 (arXiv 2410.11143).
    """
    if divergence not in DIVERGENCES:
        raise ValueError(
            f"divergence: {divergence!r} is unknown or lowers the template's probability; use {', '.join(DIVERGENCES)}"
        )
    template_term, forget_term = DIVERGENCES[divergence]
    template, forget = (
        sum_over_rows(torch.exp(-token_nll(logits, labels)), labels) / answer_lengths(labels)
        for logits, labels in ((template_logits, template_labels), (forget_logits, forget_labels))
    )
    _check_shape("template_logits, rows", template, forget)
    return (template_term(template) + forget_term(forget)).mean()


def answer_logits(logits: Logits, labels: Tensor) -> Logits:
    """Take the logits that predict the supervised tokens, row after row.

    Shapes: logits [B, T, V], labels [B, T] with -100 where not supervised; returns float32 [N, V]. Teacher and student
    prompts may differ in length: each side uses its own labels, and the i-th rows belong together. Logits
    that are read in parts are those of the supervised tokens already, and are checked only.
    Raises ValueError on shapes that do not fit, a label outside the vocabulary, or no supervised token.
    Source: the alignment of teacher and student answers, MULE Section 3.4.
    """
    whole, supervised = isinstance(logits, Tensor), answer_targets(labels)
    if (logits.dim() != 3 or logits.shape[:2] != labels.shape) if whole else len(logits) != len(supervised):
        raise ValueError(f"logits: shape {list(logits.shape)} is not [B, T, V] with labels of {list(labels.shape)}")
    outside = supervised[(supervised < 0) | (supervised >= logits.shape[-1])]
    if len(outside):
        raise ValueError(
            f"labels: {int(outside[0])} is neither {IGNORED} nor a token id below {logits.shape[-1]} (the vocabulary)"
        )
    return logits[:, :-1][labels[:, 1:] != IGNORED].float() if whole else logits


def answer_targets(labels: Tensor) -> Tensor:
    """Take the supervised token ids in the order of `answer_logits`; raises ValueError if there is none."""
    targets = labels[:, 1:][labels[:, 1:] != IGNORED]
    if len(targets) == 0:
        raise ValueError(f"labels: no supervised token; one label after the first column must not be {IGNORED}")
    return targets


def answer_lengths(labels: Tensor) -> Tensor:
    """Count the supervised tokens of each row; labels [B, T], returns [B]."""
    return (labels[:, 1:] != IGNORED).sum(dim=1)


def pack_answers(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Drop prompt and padding positions, so that an output head is applied to answer positions only.

    Shapes: values [B, T, H] (hidden states or logits), labels [B, T]; returns values [B, A + 1, H] and labels [B, A +
    1], A the longest answer. Position and label keep their relation, so every sequence loss of the packed pair equals
    that of the original one; the last position predicts nothing and is zero, as is padding.
    Raises ValueError if there is no supervised token.
    """
    supervised = labels[:, 1:] != IGNORED
    row, _ = supervised.nonzero(as_tuple=True)
    slot = (supervised.cumsum(dim=1) - 1)[supervised]
    width = int(supervised.sum(dim=1).max()) + 1
    packed = values.new_zeros(len(values), width, values.shape[2]).index_put((row, slot), values[:, :-1][supervised])
    packed_labels = labels.new_full((len(labels), width), IGNORED)
    packed_labels[row, slot + 1] = answer_targets(labels)
    return packed, packed_labels


def sum_over_rows(values: Tensor, labels: Tensor) -> Tensor:
    """Add up one value per supervised token within each row; values [N], labels [B, T], returns [B].

    Raises ValueError if a row has no supervised token.
    """
    if empty := (answer_lengths(labels) == 0).nonzero().flatten().tolist():
        raise ValueError(f"labels: rows {empty} have no supervised token; each row needs at least one")
    supervised = labels[:, 1:] != IGNORED
    # A scatter into place instead of index_add: the order of summation is fixed on every device.
    return torch.zeros_like(supervised, dtype=values.dtype).masked_scatter(supervised, values).sum(dim=1)


def check_top_k(top_k: int, vocabulary: int, *, smallest: int = 1) -> None:
    """Raise ValueError unless `top_k` is from `smallest` to the vocabulary size."""
    if not smallest <= top_k <= vocabulary:
        raise ValueError(f"top_k: {top_k!r} is not an integer from {smallest} to {vocabulary} (the vocabulary size)")


def _check_above_zero(**scales: float) -> None:
    for name, value in scales.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: {value!r} is not a finite number above 0")


def _check_shape(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.shape != like.shape:
        raise ValueError(f"{name}: shape {list(tensor.shape)} must be {list(like.shape)}")
