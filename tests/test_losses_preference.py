"""NPO, SimNPO, IdkDPO and FLAT against loops in float64 that follow the formulas word by word."""

import math

import pytest
import torch
from test_losses_naive import (
    LABELS,
    LOGITS,
    REFERENCE,
    TEMPLATE,
    TEMPLATE_LABELS,
    TEMPLATE_REFERENCE,
    assert_agrees,
    naive_rows,
    values_and_gradients,
)

from mule_lib import losses


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


def naive_flat(template, logits, divergence, official):
    if official:
        e, f = (
            sum(torch.exp(value) for row in naive_rows(z, y) for value in row) / (len(y) * (len(y[0]) - 1))
            for z, y in ((template, TEMPLATE_LABELS), (logits, LABELS))
        )
        return FORMULAS[divergence](e, f)
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


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("divergence", list(FORMULAS))
def test_flat_agrees_with_the_formula(divergence, official):
    assert_agrees(
        lambda t, z: losses.flat(t, TEMPLATE_LABELS, z, LABELS, divergence=divergence, official=official),
        lambda t, z: naive_flat(t, z, divergence, official),
        TEMPLATE,
        LOGITS,
    )


@pytest.mark.parametrize("divergence", list(FORMULAS))
def test_flat_raises_the_template_and_lowers_the_forget_answer(divergence):
    _, (of_template, of_forget) = values_and_gradients(
        lambda t, z: losses.flat(t, TEMPLATE_LABELS, z, LABELS, divergence=divergence), TEMPLATE, LOGITS
    )
    assert of_template[0, 0, TEMPLATE_LABELS[0, 1]] < 0  # descent raises this logit
    assert of_forget[0, 1, LABELS[0, 2]] > 0


def test_idk_dpo_freezes_both_references():
    idk_reference, reference = TEMPLATE_REFERENCE.clone().requires_grad_(), REFERENCE.clone().requires_grad_()
    _, gradients = values_and_gradients(
        lambda t, z: losses.idk_dpo(t, idk_reference, TEMPLATE_LABELS, z, reference, LABELS), TEMPLATE, LOGITS
    )
    assert idk_reference.grad is None
    assert reference.grad is None
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    with pytest.raises(ValueError, match=r"^idk_reference_logits: shape"):
        losses.idk_dpo(TEMPLATE, REFERENCE, TEMPLATE_LABELS, LOGITS, REFERENCE, LABELS)
    with pytest.raises(ValueError, match=r"^forget_reference_logits: shape"):
        losses.idk_dpo(TEMPLATE, TEMPLATE_REFERENCE, TEMPLATE_LABELS, LOGITS, TEMPLATE, LABELS)


def test_kept_reference_scores_give_the_same_losses():
    kept, kept_idk = losses.reference_nll(REFERENCE, LABELS), losses.reference_nll(TEMPLATE_REFERENCE, TEMPLATE_LABELS)
    nll, nll_idk = losses.sequence_nll(LOGITS, LABELS), losses.sequence_nll(TEMPLATE, TEMPLATE_LABELS)
    assert losses.npo_from_nll(nll, kept, beta=0.5) == losses.npo(LOGITS, REFERENCE, LABELS, beta=0.5)
    assert losses.idk_dpo_from_nll(nll_idk, kept_idk, nll, kept, beta=0.5) == losses.idk_dpo(
        TEMPLATE, TEMPLATE_REFERENCE, TEMPLATE_LABELS, LOGITS, REFERENCE, LABELS, beta=0.5
    )
    frozen = kept.clone().requires_grad_()
    assert not losses.reference_nll(REFERENCE.clone().requires_grad_(), LABELS).requires_grad
    assert not losses.npo_from_nll(nll, frozen).requires_grad
    assert not losses.idk_dpo_from_nll(nll_idk, frozen, nll, frozen).requires_grad
    with pytest.raises(ValueError, match=r"^nll_of_reference: shape \[1\] must equal that of nll, \[2\]$"):
        losses.npo_from_nll(nll, kept[:1])
    with pytest.raises(ValueError, match=r"^forget_nll: shape \[1\] must equal that of idk_nll, \[2\]$"):
        losses.idk_dpo_from_nll(nll_idk, kept_idk, nll[:1], kept[:1])


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan])
@pytest.mark.parametrize(
    "loss",
    [
        lambda beta: losses.npo(LOGITS, REFERENCE, LABELS, beta=beta),
        lambda beta: losses.simnpo(LOGITS, LABELS, beta=beta),
        lambda beta: losses.idk_dpo(LOGITS, REFERENCE, LABELS, LOGITS, REFERENCE, LABELS, beta=beta),
    ],
)
def test_impossible_beta_is_refused(loss, bad):
    with pytest.raises(ValueError, match=r"^beta: .* is not a finite number above 0$"):
        loss(bad)


def test_impossible_margin_and_weights_are_refused():
    with pytest.raises(ValueError, match=r"^margin: nan is not a finite number$"):
        losses.simnpo(LOGITS, LABELS, beta=1.0, margin=math.nan)
    for name in ("forget_weight", "retain_weight"):
        with pytest.raises(ValueError, match=rf"^{name}: -1 is not a finite number of 0 or more$"):
            losses.grad_diff(LOGITS, LABELS, LOGITS, LABELS, **{name: -1})


@pytest.mark.parametrize("divergence", ["reverse_kl", "squared_hellinger", "neyman"])
def test_divergences_that_push_the_wrong_way_are_refused_with_the_reason(divergence):
    with pytest.raises(
        ValueError, match=rf"^divergence: '{divergence}' is refused, its released form lowers the template"
    ):
        losses.flat(TEMPLATE, TEMPLATE_LABELS, LOGITS, LABELS, divergence=divergence)


def test_unknown_divergence_and_unpaired_rows_are_refused():
    with pytest.raises(ValueError, match=r"^divergence: 'tv' is unknown; use one of total_variation, kl, "):
        losses.flat(TEMPLATE, TEMPLATE_LABELS, LOGITS, LABELS, divergence="tv")
    with pytest.raises(ValueError, match=r"^template_logits: 1 rows must pair with 2 rows of forget_logits$"):
        losses.flat(TEMPLATE[:1], TEMPLATE_LABELS[:1], LOGITS, LABELS)
    with pytest.raises(ValueError, match=r"^idk_logits: 1 rows must pair with 2 rows of forget_logits$"):
        losses.idk_dpo(TEMPLATE[:1], TEMPLATE[:1], TEMPLATE_LABELS[:1], LOGITS, REFERENCE, LABELS)


def test_defaults_are_the_documented_ones():
    refusal = (TEMPLATE, TEMPLATE_REFERENCE, TEMPLATE_LABELS)
    assert losses.npo(LOGITS, REFERENCE, LABELS) == losses.npo(LOGITS, REFERENCE, LABELS, beta=0.1)
    assert losses.simnpo(LOGITS, LABELS, beta=2.5) == losses.simnpo(LOGITS, LABELS, beta=2.5, margin=0.0)
    assert losses.idk_dpo(*refusal, LOGITS, REFERENCE, LABELS) == losses.idk_dpo(
        *refusal, LOGITS, REFERENCE, LABELS, beta=0.1
    )
    assert losses.flat(TEMPLATE, TEMPLATE_LABELS, LOGITS, LABELS) == losses.flat(
        TEMPLATE, TEMPLATE_LABELS, LOGITS, LABELS, divergence="total_variation", official=False
    )
