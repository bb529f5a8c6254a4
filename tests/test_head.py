"""A head read in parts gives the numbers of the head read whole: losses, gradients and trained weights."""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from mule_lib.methods import Answers
from mule_lib.models import head
from mule_lib.models.head import HeadLogits
from mule_lib.training import batches, trainer
from mule_lib.training.batches import encode, frozen_cache
from mule_lib.training.teacher import teacher_answers


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(head, "MAX_GATHERED", 8000)
    monkeypatch.setattr(head, "HEAD_ROWS", 50)


def changed(kind: str):
    model = tiny.model(tied=kind == "tied", dtype=torch.bfloat16 if kind == "bf16" else torch.float32)
    if kind == "bias":
        model.lm_head.bias = nn.Parameter(torch.randn(len(model.lm_head.weight)))
    if kind == "scaled":
        model.lm_head.register_forward_hook(lambda _, args, logits: 30 * torch.tanh(logits / 30))
    if kind == "LoRA":
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False))
    return model


@pytest.mark.parametrize("name", ["mule", "mule_bild_loss", "duet", "sft", "simnpo", "flat", "npo", "idk_dpo", "mollm"])
@pytest.mark.parametrize("kind", ["tied", "untied", "bias", "LoRA", "bf16", "scaled"])
def test_every_loss_and_its_gradient_are_those_of_the_whole_head(kind, name, monkeypatch):
    model, method, data, seen = changed(kind), tiny.method(name, max_answer_tokens=6), tiny.benchmark(), []
    answers = teacher_answers(model, tiny.tokenizer(), data, method, max_thought_tokens=4) if method.distils else []
    examples = encode(tiny.tokenizer(), data.records, method, answers)
    other = tiny.model(seed=1, dtype=model.dtype)  # so that no loss is 0
    cache = frozen_cache(other, examples, method, copy_head=True)
    monkeypatch.setattr(trainer, "Answers", lambda *given: seen.append(type(given[0])) or Answers(*given))
    found = []
    for most in (2**40, 0):
        monkeypatch.setattr(trainer, "WHOLE", most)
        losses = trainer.term_losses(model, examples, method.terms, method, cache)
        parts = torch.autograd.grad(sum(losses), trainer.trained_parameters(model), materialize_grads=True)
        found.append((torch.stack(losses).detach(), torch.cat([part.float().flatten() for part in parts])))
    assert set(seen) == {torch.Tensor, torch.Tensor if kind in ("scaled", "LoRA") else HeadLogits}
    # bfloat16 logits are often equal, and which of equal ones are the largest K is open.
    close, (value, gradient), (again, own) = 1e-1 if kind == "bf16" else 1e-5, *found
    torch.testing.assert_close(again, value, rtol=close, atol=close)
    assert (own - gradient).norm() <= close * gradient.norm() > 0


def test_a_running_top_k_is_the_top_k_with_ties():
    states, weight = torch.randn(40, 8), torch.randn(3000, 8)
    weight[1500:] = weight[:1500]  # each logit twice, in distant pieces
    for top_k in (1, 3, 10, 3000):
        ids, logits = HeadLogits(states, weight, None, torch.float32).top(top_k)
        for same in ((states @ weight.T).topk(top_k).values, (states @ weight.T).gather(1, ids)):
            torch.testing.assert_close(logits, same)
        assert all(len(set(row)) == top_k for row in ids.tolist())


def test_the_next_seed_takes_what_the_frozen_model_said_before_but_no_other_model(monkeypatch):
    method, data, asked = tiny.method("mule", max_answer_tokens=6), tiny.benchmark(), []
    answers = teacher_answers(tiny.model(), tiny.tokenizer(), data, method, max_thought_tokens=4)
    examples = encode(tiny.tokenizer(), data.records, method, answers)
    build = batches.build_cache
    monkeypatch.setattr(batches, "build_cache", lambda *given, **more: asked.append(1) or build(*given, **more))
    monkeypatch.setitem(batches._LAST, "asked", None)
    nudged = tiny.model()
    nudged.model.norm.weight.data[0] += 1e-6
    caches = [frozen_cache(each, examples, method, copy_head=True) for each in (tiny.model(), tiny.model(), nudged)]
    assert len(asked) == 2 and caches[0].spans == caches[1].spans
    for part in ("hidden", "weight", "nll", "top_ids", "top_logits"):
        assert torch.equal(getattr(caches[0], part), getattr(caches[1], part)), part
