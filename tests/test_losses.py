"""Every loss against loops in float64 that follow the formulas word by word, and what holds for all of them."""

import math
from functools import partial

import pytest
import torch

from mule_lib import losses

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
ALIGNED = losses.answer_logits(REFERENCE, LABELS)
IDK = (TEMPLATE, TEMPLATE_REFERENCE, TEMPLATE_LABELS)


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


DISTILLATION = (losses.bidirectional_topk, losses.duet, losses.bild)
STUDENT = torch.tensor(
    [[2.0, -1.0, 0.5, 3.1, 0.0, -2.2], [-0.3, 1.7, 1.2, -0.9, 4.0, 0.1], [0.6, 0.2, -1.5, 2.4, 1.1, -0.7]],
)  # fmt: skip
TEACHER = torch.tensor(
    [[1.2, -0.4, 2.6, 0.3, -1.1, 0.9], [0.0, 2.1, 1.5, -1.3, 0.8, 3.3], [2.2, 0.5, -0.9, 2.7, 0.4, -2.0]],
)  # fmt: skip


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


@pytest.mark.parametrize("loss", [partial(loss, top_k=3) for loss in DISTILLATION])
class TestEveryDistillationLoss:
    def test_equal_logits_cost_nothing_and_pull_nowhere(self, loss):
        value, (gradient,) = values_and_gradients(lambda s: loss(s, STUDENT), STUDENT)
        assert value == 0
        assert gradient.abs().max() < 1e-7

    def test_teacher_receives_no_gradient(self, loss):
        student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
        loss(student, teacher).backward()
        assert teacher.grad is None
        assert student.grad.abs().sum() > 0

    def test_bf16_input_is_computed_in_float32(self, loss):
        student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
        value, (gradient,) = values_and_gradients(lambda s: loss(s, teacher), student)
        expected, (expected_gradient,) = values_and_gradients(lambda s: loss(s, teacher.float()), student.float())
        assert value.dtype == torch.float32
        assert gradient.dtype == torch.bfloat16
        assert value.item() == pytest.approx(expected.item(), abs=1e-6)
        torch.testing.assert_close(gradient.float(), expected_gradient, atol=1e-3, rtol=1e-2)

    def test_two_dimensions_and_equal_shapes_are_required(self, loss):
        for student, teacher, message in (
            (STUDENT[None], TEACHER, r"^student: shape \[1, 3, 6\] is not \[N, V\]"),
            (STUDENT, TEACHER[0], r"^teacher: shape"),
            (STUDENT, TEACHER[:, :5], r"^teacher: shape \[3, 5\], the student's is \[3, 6\]; use the same tokenizer"),
            (STUDENT, TEACHER[:2], r"^teacher: 2 answer tokens, the student has 3"),
            (STUDENT[:0], TEACHER[:0], r"^student, teacher: no supervised token"),
        ):
            with pytest.raises(ValueError, match=message):
                loss(student, teacher)


def test_gradient_is_bounded_and_doubles_in_the_overlap():
    gen = torch.Generator().manual_seed(1)
    positions, top_k = 5, 4
    student, teacher = 50 * torch.randn(2, positions, 20, generator=gen)
    _, (gradient,) = values_and_gradients(lambda s: losses.bidirectional_topk(s, teacher, top_k=top_k), student)
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
    _, (of_duet,) = values_and_gradients(lambda s: losses.duet(s, teacher, top_k=2), student)
    _, (of_mule,) = values_and_gradients(lambda s: losses.bidirectional_topk(s, teacher, top_k=2), student)
    assert of_duet[0, secret] == 0
    assert of_mule[0, secret] == pytest.approx(0.5)  # descent lowers the logit: 1 / (N K)


def test_raw_logits_are_not_shift_invariant_but_bild_is():
    raw, bild = (partial(loss, teacher=TEACHER, top_k=3) for loss in (losses.bidirectional_topk, losses.bild))
    assert raw(STUDENT + 3) > raw(STUDENT)
    torch.testing.assert_close(bild(STUDENT + 3), bild(STUDENT))


class Kept:
    """A teacher that is read token by token, as the exact cache is."""

    def top(self, top_k):
        values, ids = TEACHER.topk(top_k)
        return ids, values

    def at(self, ids):
        return TEACHER.gather(1, ids)


@pytest.mark.parametrize("loss", DISTILLATION)
def test_a_teacher_read_token_by_token_gives_the_same(loss):
    """One body serves full logits and a cache; too few answer tokens are refused for both."""
    whole, kept = (values_and_gradients(lambda s, t=t: loss(s, t, top_k=3), STUDENT) for t in (TEACHER, Kept()))
    assert whole[0] == kept[0] and torch.equal(*whole[1], *kept[1])
    with pytest.raises(ValueError, match=r"^teacher: 3 answer tokens, the student has 2"):
        loss(STUDENT[:2], Kept(), top_k=3)


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


TOKEN_MEANS = {
    "cross_entropy": lambda lp: -lp,
    "gradient_ascent": lambda lp: lp,
    "unlearning_cross_entropy": lambda lp: -torch.log(1 - torch.exp(lp) / 2),
}


@pytest.mark.parametrize("name", TOKEN_MEANS)
def test_token_means_agree_with_the_formula(name):
    loss = getattr(losses, name)
    assert_agrees(lambda z: loss(z, LABELS), lambda z: naive_mean(naive_rows(z, LABELS), TOKEN_MEANS[name]), LOGITS)


def test_kl_agrees_with_the_formula():
    loss, reference = losses.kl_retain, REFERENCE.double()
    assert_agrees(lambda z: loss(z, ALIGNED, LABELS), lambda z: naive_kl(z, reference, LABELS), LOGITS)


def test_limits():
    zero = torch.zeros(1, 2, 4)
    labels = torch.tensor([[-100, 3]])
    assert losses.cross_entropy(zero, labels).item() == pytest.approx(math.log(4))
    assert losses.kl_retain(LOGITS, losses.answer_logits(LOGITS, LABELS), LABELS) == 0
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


def test_packing_keeps_gradients_and_refuses_what_does_not_fit():
    packed, labels = losses.pack_answers(LOGITS, LABELS)
    assert packed.shape == (2, 3, 3)
    assert labels.tolist() == [[-100, 2, 0], [-100, 1, -100]]
    _, (through_packed,) = values_and_gradients(lambda z: losses.cross_entropy(*losses.pack_answers(z, LABELS)), LOGITS)
    _, (direct,) = values_and_gradients(lambda z: losses.cross_entropy(z, LABELS), LOGITS)
    torch.testing.assert_close(through_packed, direct)
    with pytest.raises(ValueError, match=r"^labels: no supervised token"):
        losses.pack_answers(LOGITS, torch.full_like(LABELS, -100))


def log_sigmoid(x):
    return -torch.log(1 + torch.exp(-x))


def naive_npo(logits, reference, labels, beta):
    rows = zip(naive_rows(logits, labels), naive_rows(reference, labels), strict=True)
    terms = [log_sigmoid(beta * (-sum(row) + sum(of_reference))) for row, of_reference in rows]
    return -2 / beta * sum(terms) / len(terms)


def naive_simnpo(logits, labels, beta, margin):
    terms = [log_sigmoid(beta * (-sum(row) / len(row) - margin)) for row in naive_rows(logits, labels)]
    return -2 / beta * sum(terms) / len(terms)


def naive_idk_dpo(template, logits, beta):
    gain = [
        [sum(now) - sum(before) for now, before in zip(naive_rows(z, y), naive_rows(ref.double(), y), strict=True)]
        for z, ref, y in ((template, TEMPLATE_REFERENCE, TEMPLATE_LABELS), (logits, REFERENCE, LABELS))
    ]
    terms = [log_sigmoid(beta * (idk - forget)) for idk, forget in zip(*gain, strict=True)]
    return -2 / beta * sum(terms) / len(terms)


FORMULAS = {
    "total_variation": lambda e, f: -torch.tanh(e) / 2 + torch.tanh(f) / 2,
    "kl": lambda e, f: -e + torch.exp(f - 1),
    "jensen_shannon": lambda e, f: (
        torch.log(1 + torch.exp(-e)) - math.log(2) + f + torch.log(1 + torch.exp(-f)) - math.log(2)
    ),
    "pearson": lambda e, f: -e + f + f**2 / 4,
}


def naive_flat(template, logits, divergence):
    e, f = (
        [sum(torch.exp(value) for value in row) / len(row) for row in naive_rows(z, y)]
        for z, y in ((template, TEMPLATE_LABELS), (logits, LABELS))
    )
    return sum(FORMULAS[divergence](*pair) for pair in zip(e, f, strict=True)) / len(e)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.5])
def test_preference_losses_agree_with_the_formula(beta):
    assert_agrees(
        lambda z: losses.npo(z, REFERENCE, LABELS, beta=beta),
        lambda z: naive_npo(z, REFERENCE.double(), LABELS, beta),
        LOGITS,
    )
    for margin in (0.0, 0.3):
        assert_agrees(
            lambda z, margin=margin: losses.simnpo(z, LABELS, beta=beta, margin=margin),
            lambda z, margin=margin: naive_simnpo(z, LABELS, beta, margin),
            LOGITS,
        )
    assert_agrees(
        lambda t, z: losses.idk_dpo(t, TEMPLATE_REFERENCE, TEMPLATE_LABELS, z, REFERENCE, LABELS, beta=beta),
        lambda t, z: naive_idk_dpo(t, z, beta),
        TEMPLATE,
        LOGITS,
    )


@pytest.mark.parametrize("divergence", list(FORMULAS))
def test_flat_agrees_with_the_formula_raises_the_template_and_lowers_the_forget_answer(divergence):
    def loss(template, logits):
        return losses.flat(template, TEMPLATE_LABELS, logits, LABELS, divergence=divergence)

    assert_agrees(loss, lambda t, z: naive_flat(t, z, divergence), TEMPLATE, LOGITS)
    _, (of_template, of_forget) = values_and_gradients(loss, TEMPLATE, LOGITS)
    assert of_template[0, 0, TEMPLATE_LABELS[0, 1]] < 0  # descent raises this logit
    assert of_forget[0, 1, LABELS[0, 2]] > 0


def test_a_reference_that_was_scored_once_gives_the_same_losses():
    """One NLL per row stands in for the reference's logits, and is frozen."""
    nll, nll_idk = losses.sequence_nll(REFERENCE, LABELS), losses.sequence_nll(TEMPLATE_REFERENCE, TEMPLATE_LABELS)
    kept = nll.requires_grad_()
    assert losses.npo(LOGITS, kept, LABELS, beta=0.5) == losses.npo(LOGITS, REFERENCE, LABELS, beta=0.5)
    assert losses.idk_dpo(TEMPLATE, nll_idk, TEMPLATE_LABELS, LOGITS, kept, LABELS) == losses.idk_dpo(
        TEMPLATE, TEMPLATE_REFERENCE, TEMPLATE_LABELS, LOGITS, REFERENCE, LABELS
    )


SEQUENCE_LOSSES = {
    "cross_entropy": lambda z, y, _: losses.cross_entropy(z, y),
    "gradient_ascent": lambda z, y, _: losses.gradient_ascent(z, y),
    "unlearning_cross_entropy": lambda z, y, _: losses.unlearning_cross_entropy(z, y),
    "kl_retain": lambda z, y, ref: losses.kl_retain(z, losses.answer_logits(ref, y), y),
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

    def test_bf16_input_is_computed_in_float32(self, name):
        loss, logits, reference = SEQUENCE_LOSSES[name], LOGITS.bfloat16(), REFERENCE.bfloat16()
        value, (gradient,) = values_and_gradients(lambda z: loss(z, LABELS, reference), logits)
        expected = loss(logits.float(), LABELS, reference.float())
        assert (value.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
        assert value.item() == pytest.approx(expected.item(), abs=1e-6)

    def test_bad_sequences_are_refused(self, name):
        nothing = torch.full_like(LABELS, -100)
        for logits, labels, message in (
            (LOGITS, nothing, r"^labels: no supervised token"),
            (LOGITS, nothing.index_fill(1, torch.tensor([0]), 1), r"^labels: no supervised token"),
            (LOGITS, LABELS[:, 1:], r"^logits: shape \[2, 4, 3\] is not \[B, T, V\] with labels of \[2, 3\]$"),
            (LOGITS, LABELS.masked_fill(LABELS == 0, 3), r"^labels: 3 is neither -100 nor a token id below 3"),
            (LOGITS[..., 0], LABELS, r"^logits: shape \[2, 4\] is not \[B, T, V\]"),
        ):
            with pytest.raises(ValueError, match=message):
                SEQUENCE_LOSSES[name](logits, labels, REFERENCE)


@pytest.mark.parametrize("name", ["npo", "simnpo", "idk_dpo", "flat"])
def test_losses_of_whole_answers_need_one_in_each_row(name):
    labels = LABELS.clone()
    labels[1] = -100
    with pytest.raises(ValueError, match=r"labels: rows \[1\] have no supervised token; each row needs at least one"):
        SEQUENCE_LOSSES[name](LOGITS, labels, REFERENCE)


@pytest.mark.parametrize("loss", ["kl_retain", "npo", "idk_dpo"])
def test_references_are_frozen(loss):
    reference = (ALIGNED if loss == "kl_retain" else REFERENCE).clone().requires_grad_()
    idk_reference = TEMPLATE_REFERENCE.clone().requires_grad_()
    refusal = (TEMPLATE, idk_reference, TEMPLATE_LABELS) if loss == "idk_dpo" else ()
    assert not getattr(losses, loss)(*refusal, LOGITS, reference, LABELS).requires_grad


FORGET = (LOGITS, REFERENCE, LABELS)
NARROW, TEMPLATES = REFERENCE[..., :2], (TEMPLATE, TEMPLATE_LABELS)


@pytest.mark.parametrize(
    ("loss", "arguments", "options", "message"),
    [
        (losses.bidirectional_topk, (STUDENT, TEACHER), {"top_k": 0}, r"^top_k: 0 is not an integer from 1 to 6 "),
        (losses.bidirectional_topk, (STUDENT, TEACHER), {"top_k": 7}, r"^top_k: 7 is not an integer from 1 to 6 "),
        (losses.bild, (STUDENT, TEACHER), {"top_k": 1}, r"^top_k: 1 is not an integer from 2 to 6"),
        (losses.duet, (STUDENT, TEACHER), {"top_k": 2, "over_k": "max"}, r"^over_k: 'max' is unknown; use one of mean"),
        *(
            (losses.flat, (*TEMPLATES, LOGITS, LABELS), {"divergence": bad}, rf"^divergence: '{bad}' is .*; use total")
            for bad in ("tv", "reverse_kl", "squared_hellinger", "neyman")
        ),
        (losses.flat, (*(one[:1] for one in TEMPLATES), LOGITS, LABELS), {}, r"^template_logits, rows: shape \[1\]"),
        (losses.idk_dpo, (*(one[:1] for one in IDK), *FORGET), {}, r"^idk_logits, rows: shape \[1\] must be \[2\]$"),
        (losses.idk_dpo, (TEMPLATE, REFERENCE, TEMPLATE_LABELS, *FORGET), {}, r"^reference_logits: shape"),
        (losses.kl_retain, (LOGITS, torch.zeros(1, 3), LABELS), {}, r"^reference_logits: shape \[1, 3\] must be \[3"),
        (losses.npo, (LOGITS, NARROW, LABELS), {}, r"^reference_logits: shape \[2, 4, 2\] must be"),
        (losses.npo, (LOGITS, torch.zeros(1), LABELS), {}, r"^reference_logits: shape \[1\] must be \[2\]$"),
    ],
)
def test_bad_arguments_are_refused_in_one_line_that_names_them(loss, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        loss(*arguments, **options)


@pytest.mark.parametrize("bad", [0, -0.1, math.nan, math.inf])
def test_impossible_scales_are_refused(bad):
    for name, loss in (
        ("beta", partial(losses.bidirectional_topk, STUDENT, TEACHER, top_k=2)),
        ("temperature", partial(losses.bild, STUDENT, TEACHER, top_k=2)),
        ("beta", partial(losses.npo, LOGITS, REFERENCE, LABELS)),
        ("beta", partial(losses.simnpo, LOGITS, LABELS)),
        ("beta", partial(losses.idk_dpo, *IDK, LOGITS, REFERENCE, LABELS)),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: .* is not a finite number above 0$"):
            loss(**{name: bad})
