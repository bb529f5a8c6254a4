"""The cache gives the live teacher's logits, of whichever tokens are asked for."""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from mule_lib import losses
from mule_lib.models.head import answers_only, full_logits, head_logits, padded
from mule_lib.teacher_cache import CacheError, build_cache

SEQUENCES = {
    "short": ((1, 5, 9), (20, 2)),
    "long": ((1, 5, 9, 30, 31, 32, 33), (20, 21, 22, 2)),
    "one": ((1, 7), (2,)),
}


def live_logits(model, name):
    """Full forward of one sequence alone, cut to the answer: what the cache has to give back."""
    context, answer = SEQUENCES[name]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*context, *answer]])).logits[0].float()
    return logits[len(context) - 1 : -1]


@pytest.mark.parametrize("tied", [True, False])
def test_equal_to_the_live_teacher_at_any_token(tied):
    model = tiny.model(tied=tied)
    cache = build_cache(model, SEQUENCES, top_k=5, batch_size=2)
    for name, span in cache.spans.items():
        live = live_logits(model, name)
        answers = cache.at(torch.tensor(span))
        torch.testing.assert_close(answers.logits(), live, atol=1e-5, rtol=1e-5)
        rows = torch.randint(0, live.shape[1], (len(span), 7), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(answers.at(rows), live.gather(1, rows), atol=1e-5, rtol=1e-5)
        ids, values = answers.top(3)
        assert torch.equal(ids, live.topk(3).indices)
        torch.testing.assert_close(values, live.topk(3).values, atol=1e-5, rtol=1e-5)
        nll = nn.functional.cross_entropy(live, torch.tensor(SEQUENCES[name][1]), reduction="none")
        torch.testing.assert_close(answers.nll, nll, atol=1e-5, rtol=1e-5)


def test_the_cache_does_not_follow_a_model_that_trains():
    model = tiny.model()
    before = live_logits(model, "long")
    cache = build_cache(model, SEQUENCES, top_k=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(cache.at(torch.tensor(cache.spans["long"])).logits(), before, atol=1e-5, rtol=1e-5)


def test_eq3_from_the_cache_equals_eq3_on_full_logits():
    model = tiny.model()
    cache = build_cache(model, SEQUENCES, top_k=4)
    span = torch.tensor(cache.spans["long"])
    teacher = live_logits(model, "long")
    student = (teacher + torch.randn(teacher.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    held = cache.at(span)
    gathered = losses.bidirectional_topk(student, held, top_k=4)
    whole = losses.bidirectional_topk(student, teacher, top_k=4)
    torch.testing.assert_close(gathered, whole, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (gathered, whole)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_an_adapter_is_switched_off_and_its_flags_come_back():
    model = get_peft_model(
        tiny.model(), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    )
    flags = [parameter.requires_grad for parameter in model.parameters()]
    model.train()
    cache = build_cache(model, SEQUENCES, copy_head=False)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags and model.training
    assert cache.weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    live = live_logits(tiny.model(), "short")
    torch.testing.assert_close(cache.at(torch.tensor(cache.spans["short"])).logits(), live, atol=1e-5, rtol=1e-5)


def test_kept_in_half_precision_it_is_the_live_teacher_up_to_rounding():
    model = tiny.model(dtype=torch.bfloat16)
    cache = build_cache(model, SEQUENCES)
    assert cache.hidden.dtype == torch.bfloat16
    assert build_cache(model, SEQUENCES, dtype=torch.float32).hidden.dtype == torch.float32
    live, kept = live_logits(model, "long"), cache.at(torch.tensor(cache.spans["long"])).logits()
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept, live, atol=2e-2 * float(live.abs().max()), rtol=0)


def test_a_head_that_is_not_a_plain_product_is_refused():
    class Capped(nn.Linear):
        def forward(self, hidden):
            return 2 * torch.tanh(super().forward(hidden) / 2)

    model = tiny.model(tied=False)
    head = Capped(32, model.config.vocab_size, bias=False)
    head.weight = model.lm_head.weight
    model.set_output_embeddings(head)
    with pytest.raises(CacheError, match=r"soft-capping, scaling or an adapter on the head"):
        build_cache(model, SEQUENCES)


def test_a_bias_on_the_head_is_kept():
    model = tiny.model(tied=False)
    head = nn.Linear(32, model.config.vocab_size)
    model.set_output_embeddings(head)
    answers = build_cache(model, SEQUENCES, top_k=3)
    found = answers.at(torch.tensor(answers.spans["one"]))
    torch.testing.assert_close(found.logits(), live_logits(model, "one"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.at(found.top(3)[0]), found.top(3)[1], atol=1e-5, rtol=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"^sequences: none given"):
        build_cache(tiny.model(), {})
    with pytest.raises(ValueError, match=r"^sequences: 'x' has an empty context or answer"):
        build_cache(tiny.model(), {"x": ((1, 2), ())})
    with pytest.raises(ValueError, match=r"^top_k=9: 2 were stored"):
        build_cache(tiny.model(), SEQUENCES, top_k=2).at(torch.tensor([0])).top(9)


def test_chunks_change_nothing(monkeypatch):
    hidden, weight = torch.randn(5, 8), torch.randn(50, 8)
    rows = torch.randint(0, 50, (5, 3))
    whole, all_rows = full_logits(hidden, weight), head_logits(hidden, weight, rows)
    monkeypatch.setattr("mule_lib.models.head.MAX_GATHERED", 30)
    monkeypatch.setattr("mule_lib.models.head.HEAD_ROWS", 7)
    torch.testing.assert_close(full_logits(hidden, weight), whole)
    torch.testing.assert_close(head_logits(hidden, weight, rows), all_rows)


def test_the_head_works_on_answer_positions_only():
    model, batch = tiny.model(), padded(list(SEQUENCES.values()))
    labels = batch.pop("labels")
    whole = losses.answer_logits(model(**batch).logits, labels)
    with answers_only(model, labels):
        packed = model(**batch).logits
    assert packed.shape[:2] == (3, 5)  # the longest answer and one more
    packed_labels = losses.pack_answers(labels.unsqueeze(2), labels)[1]
    torch.testing.assert_close(losses.answer_logits(packed, packed_labels), whole, atol=1e-5, rtol=1e-5)
    assert model(**batch).logits.shape[:2] == labels.shape
