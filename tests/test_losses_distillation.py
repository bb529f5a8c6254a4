"""Distillation losses against loops in float64 that follow the formulas word by word."""

import math

import pytest
import torch
from test_losses_naive import assert_agrees, values_and_gradients

from mule_lib import losses

STUDENT = torch.tensor(
    [
        [2.0, -1.0, 0.5, 3.1, 0.0, -2.2],
        [-0.3, 1.7, 1.2, -0.9, 4.0, 0.1],
        [0.6, 0.2, -1.5, 2.4, 1.1, -0.7],
    ]
)
TEACHER = torch.tensor(
    [
        [1.2, -0.4, 2.6, 0.3, -1.1, 0.9],
        [0.0, 2.1, 1.5, -1.3, 0.8, 3.3],
        [2.2, 0.5, -0.9, 2.7, 0.4, -2.0],
    ]
)


def naive_set(row, top_k):
    return sorted(range(len(row)), key=lambda token: -row[token].item())[:top_k]


def naive_smooth_l1(student, teacher, leaders, top_k, beta, over_k):
    total = 0.0
    for z_s, z_t, leader in zip(student, teacher, leaders, strict=True):
        summed = 0.0
        for token in naive_set(leader, top_k):
            gap = abs(z_s[token] - z_t[token])
            summed = summed + (gap**2 / (2 * beta) if gap < beta else gap - beta / 2)
        total = total + (summed / top_k if over_k == "mean" else summed)
    return total / len(student)


def naive_bidirectional(student, teacher, top_k, beta, over_k):
    return naive_smooth_l1(student, teacher, teacher, top_k, beta, over_k) + naive_smooth_l1(
        student, teacher, student, top_k, beta, over_k
    )


def naive_bild(student, teacher, top_k, temperature):
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        for leader in (z_t, z_s):
            chosen = naive_set(leader, top_k)
            pairs = [(chosen[i], chosen[j]) for i in range(top_k) for j in range(i + 1, top_k)]
            weight_s = [torch.exp((z_s[i] - z_s[j]) / temperature) for i, j in pairs]
            weight_t = [torch.exp((z_t[i] - z_t[j]) / temperature) for i, j in pairs]
            for of_s, of_t in zip(weight_s, weight_t, strict=True):
                p, q = of_t / sum(weight_t), of_s / sum(weight_s)
                total = total + p * torch.log(p / q)
    return total / len(student)


def value_and_gradient(loss, student):
    value, (gradient,) = values_and_gradients(loss, student)
    return value, gradient


@pytest.mark.parametrize("top_k", [1, 2, 4, 6])
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("over_k", ["mean", "sum"])
def test_smooth_l1_losses_agree_with_the_formula(top_k, beta, over_k):
    options = {"top_k": top_k, "beta": beta, "over_k": over_k}
    teacher = TEACHER.double()
    assert_agrees(
        lambda s: losses.bidirectional_topk(s, TEACHER, **options),
        lambda s: naive_bidirectional(s, teacher, **options),
        STUDENT,
    )
    assert_agrees(
        lambda s: losses.duet(s, TEACHER, **options),
        lambda s: naive_smooth_l1(s, teacher, leaders=teacher, **options),
        STUDENT,
    )


@pytest.mark.parametrize(("top_k", "temperature"), [(3, 3.0), (4, 3.0), (6, 1.0)])
def test_bild_agrees_with_the_formula(top_k, temperature):
    options = {"top_k": top_k, "temperature": temperature}
    assert_agrees(
        lambda s: losses.bild(s, TEACHER, **options), lambda s: naive_bild(s, TEACHER.double(), **options), STUDENT
    )


def test_values_worked_out_by_hand():
    student, teacher = torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.0, 1.5]])
    # Teacher's top-2 is {2, 0}: 0.5 ** 2 / 2 and 2.5 - 0.5. The student's is {0, 2}, the same tokens once more.
    assert losses.duet(student, teacher, top_k=2).item() == pytest.approx((0.125 + 2.0) / 2)
    assert losses.bidirectional_topk(student, teacher, top_k=2).item() == pytest.approx(0.125 + 2.0)
    assert losses.bidirectional_topk(student, teacher, top_k=1, over_k="sum").item() == pytest.approx(0.125 + 2.0)
    # One pair has a softmax of 1 on both sides, whatever its difference.
    assert losses.bild(student, teacher, top_k=2).item() == 0.0


def test_defaults_are_the_documented_ones():
    gen = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 12, generator=gen)
    explicit = losses.bild(student, teacher, top_k=8, temperature=3.0)
    assert losses.bild(student, teacher) == explicit
    for loss in (losses.duet, losses.bidirectional_topk):
        assert loss(student, teacher, top_k=3) == loss(student, teacher, top_k=3, beta=1.0, over_k="mean")


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t: losses.bidirectional_topk(s, t, top_k=3),
        lambda s, t: losses.duet(s, t, top_k=3),
        lambda s, t: losses.bild(s, t, top_k=3),
    ],
)
class TestEveryDistillationLoss:
    def test_equal_logits_cost_nothing_and_pull_nowhere(self, loss):
        value, gradient = value_and_gradient(lambda s: loss(s, STUDENT), STUDENT)
        assert value == 0
        assert gradient.abs().max() < 1e-7

    def test_teacher_receives_no_gradient(self, loss):
        student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
        loss(student, teacher).backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0

    def test_order_of_positions_changes_nothing(self, loss):
        order = [2, 0, 1]
        value, gradient = value_and_gradient(lambda s: loss(s, TEACHER), STUDENT)
        shuffled, shuffled_gradient = value_and_gradient(lambda s: loss(s, TEACHER[order]), STUDENT[order])
        torch.testing.assert_close(shuffled, value)
        torch.testing.assert_close(shuffled_gradient, gradient[order])

    def test_bf16_input_is_computed_in_float32(self, loss):
        student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
        value, gradient = value_and_gradient(lambda s: loss(s, teacher), student)
        expected, expected_gradient = value_and_gradient(lambda s: loss(s, teacher.float()), student.float())
        assert value.dtype == torch.float32
        assert gradient.dtype == torch.bfloat16
        assert value.item() == pytest.approx(expected.item(), abs=1e-6)
        torch.testing.assert_close(gradient.float(), expected_gradient, atol=1e-3, rtol=1e-2)

    def test_tokens_outside_both_sets_do_not_matter(self, loss):
        lowest = STUDENT.argsort(dim=1)[:, :1]  # the last of six tokens on both sides in rows 0 and 2 only
        row = 2
        assert lowest[row] not in TEACHER[row].topk(3).indices
        changed = STUDENT.clone()
        changed[row, lowest[row]] -= 5
        assert loss(changed[row : row + 1], TEACHER[row : row + 1]) == loss(
            STUDENT[row : row + 1], TEACHER[row : row + 1]
        )

    def test_two_dimensions_and_equal_shapes_are_required(self, loss):
        with pytest.raises(ValueError, match=r"^student: shape \[1, 3, 6\] is not \[N, V\]"):
            loss(STUDENT[None], TEACHER[None])
        with pytest.raises(ValueError, match=r"^teacher: shape"):
            loss(STUDENT, TEACHER[0])
        with pytest.raises(ValueError, match=r"^teacher: vocabulary of 5 tokens, the student's has 6.*same tokenizer"):
            loss(STUDENT, TEACHER[:, :5])
        with pytest.raises(ValueError, match=r"^teacher: 2 answer tokens, the student has 3"):
            loss(STUDENT, TEACHER[:2])
        with pytest.raises(ValueError, match=r"^student, teacher: no supervised token"):
            loss(STUDENT[:0], TEACHER[:0])
        with pytest.raises(ValueError, match=r"^student: dtype torch.int64 is not floating point"):
            loss(STUDENT.long(), TEACHER)


def test_gradient_is_bounded_and_doubles_in_the_overlap():
    gen = torch.Generator().manual_seed(1)
    positions, top_k = 5, 4
    student, teacher = 50 * torch.randn(2, positions, 20, generator=gen)
    _, gradient = value_and_gradient(lambda s: losses.bidirectional_topk(s, teacher, top_k=top_k), student)
    unit = 1 / (positions * top_k)
    of_student, of_teacher = (torch.zeros_like(z).scatter(1, z.topk(top_k).indices, 1.0) for z in (student, teacher))
    assert (gradient.abs() <= unit * (of_student + of_teacher) + 1e-7).all()
    overlap = (of_student + of_teacher) == 2
    assert overlap.any()
    # Gaps of some ten logits are on the linear part, where the bound is reached.
    assert gradient[overlap].abs().max().item() == pytest.approx(2 * unit)
    assert gradient[(of_student + of_teacher) == 1].abs().max().item() == pytest.approx(unit)


def test_only_the_bidirectional_loss_pushes_down_what_the_student_alone_ranks_high():
    student, teacher = torch.tensor([[8.0, 1.0, 0.0, 0.0]]), torch.tensor([[-3.0, 1.0, 2.0, 0.0]])
    secret = 0
    _, of_duet = value_and_gradient(lambda s: losses.duet(s, teacher, top_k=2), student)
    _, of_mule = value_and_gradient(lambda s: losses.bidirectional_topk(s, teacher, top_k=2), student)
    assert of_duet[0, secret] == 0
    assert of_mule[0, secret] == pytest.approx(0.5)  # descent lowers the logit: 1 / (N K)


def test_raw_logits_are_not_shift_invariant_but_bild_is():
    assert losses.bidirectional_topk(STUDENT + 3, TEACHER, top_k=3) > losses.bidirectional_topk(
        STUDENT, TEACHER, top_k=3
    )
    torch.testing.assert_close(losses.bild(STUDENT + 3, TEACHER, top_k=3), losses.bild(STUDENT, TEACHER, top_k=3))


def test_gathered_teacher_values_are_enough():
    of_teacher, of_student = TEACHER.topk(3).indices, STUDENT.topk(3).indices
    for joint, term in ((losses.bidirectional_topk, losses.smooth_l1_at), (losses.bild, losses.pairwise_kl_at)):
        parts = sum(term(STUDENT, chosen, TEACHER.gather(1, chosen)) for chosen in (of_teacher, of_student))
        assert joint(STUDENT, TEACHER, top_k=3) == parts


def test_bild_in_recomputed_pieces_is_the_same():
    chosen = TEACHER.topk(4).indices
    teacher_values = TEACHER.gather(1, chosen)

    def in_pieces(limit):
        return value_and_gradient(
            lambda s: losses.pairwise_kl_at(s, chosen, teacher_values, max_pair_values=limit), STUDENT
        )

    value, gradient = in_pieces(2**20)
    for limit in (1, 13):  # one position, and two of six pairs each, at a time
        piecewise, piecewise_gradient = in_pieces(limit)
        torch.testing.assert_close(piecewise, value)
        torch.testing.assert_close(piecewise_gradient, gradient)


@pytest.mark.parametrize("top_k", [0, -1, 7, 2.0, True])
@pytest.mark.parametrize("loss", [losses.bidirectional_topk, losses.duet, losses.bild])
def test_impossible_k_is_refused(loss, top_k):
    with pytest.raises(ValueError, match=r"^top_k: .* is not an integer from [12] to 6 \(the vocabulary size\)$"):
        loss(STUDENT, TEACHER, top_k=top_k)


def test_bild_needs_a_pair():
    with pytest.raises(ValueError, match=r"^top_k: 1 is not an integer from 2 to 6"):
        losses.bild(STUDENT, TEACHER, top_k=1)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf])
def test_impossible_scales_are_refused(bad):
    for loss in (losses.bidirectional_topk, losses.duet):
        with pytest.raises(ValueError, match=r"^beta: .* is not a finite number above 0$"):
            loss(STUDENT, TEACHER, top_k=2, beta=bad)
    with pytest.raises(ValueError, match=r"^temperature: .* is not a finite number above 0$"):
        losses.bild(STUDENT, TEACHER, top_k=2, temperature=bad)


def test_unknown_reduction_is_refused():
    for loss in (losses.bidirectional_topk, losses.duet):
        with pytest.raises(ValueError, match=r"^over_k: 'max' is unknown; use one of mean, sum$"):
            loss(STUDENT, TEACHER, top_k=2, over_k="max")


def test_gathered_values_that_do_not_fit_are_refused():
    chosen = TEACHER.topk(3).indices
    for term in (losses.smooth_l1_at, losses.pairwise_kl_at):
        with pytest.raises(ValueError, match=r"^chosen: shape"):
            term(STUDENT, chosen, TEACHER)
        with pytest.raises(ValueError, match=r"^chosen: shape"):
            term(STUDENT[:2], chosen, TEACHER.gather(1, chosen))
