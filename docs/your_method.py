"""A method of your own, complete: copy its four parts to the places that docs/your_method.md names.

Try it before that: `python -m pytest docs/your_method.py`. The example copies the teacher's whole distribution.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import create_model
from torch import Tensor

from mule_lib import methods
from mule_lib.params.options import Above0, DistilledOptions


# 1. The loss, for mule_lib/losses.py: tensors and options in, a scalar out; no model, no file.
def full_kl(student: Tensor, teacher, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) over the whole vocabulary, in nats, mean over the N positions.

    Shapes: student [N, V], teacher [N, V] or an answer cache of N positions; returns a float32 scalar.
    """
    teacher = teacher if isinstance(teacher, Tensor) else teacher.logits()
    log_p, log_q = (F.log_softmax(logits.float() / temperature, dim=1) for logits in (teacher.detach(), student))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


# 2. Its options, for mule_lib/params/options.py. There, METHOD_OPTIONS gets the line  "full_kl": FullKLOptions,
FullKLOptions = create_model("FullKLOptions", __base__=DistilledOptions, temperature=(Above0, 1.0))

# 3. The entry, for METHODS in mule_lib/methods.py: `student` and `frozen` are what the loss takes of each answer.
LOSS = methods._term_loss(full_kl, ("student", "frozen"), "temperature")
ENTRY = {"full_kl": methods.Method("Full KL", methods._distil(LOSS), FullKLOptions(), source="mine")}


# 4. The test, for tests/test_losses.py: the formula once more, in float64 and word by word.
def naive_full_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Loops over positions and tokens, without log_softmax."""
    total = 0.0
    for s, t in zip(student / temperature, teacher / temperature, strict=True):
        p, q = t.exp() / sum(math.exp(x) for x in t), s.exp() / sum(torch.exp(x) for x in s)
        total = total + sum(p[v] * torch.log(p[v] / q[v]) for v in range(len(p)))
    return total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_full_kl_agrees_with_the_formula(temperature):
    student, teacher = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    mine, naive = student.clone().requires_grad_(), student.double().requires_grad_()
    value, expected = (
        full_kl(mine, teacher, temperature=temperature),
        naive_full_kl(naive, teacher.double(), temperature),
    )
    value.backward()
    expected.backward()
    assert value.dtype == torch.float32 and value.item() == pytest.approx(expected.item(), abs=1e-6)
    assert naive.grad.abs().max() > 1e-3  # a comparison of zeros would show nothing
    torch.testing.assert_close(mine.grad.double(), naive.grad, atol=1e-6, rtol=0)
    assert full_kl(teacher, teacher, temperature=temperature).item() == pytest.approx(0, abs=1e-6)
