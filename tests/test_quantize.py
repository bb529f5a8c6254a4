"""Weights rounded to 8 and 4 bits: literal cases, error bounds, what is left alone, adapters, errors."""

import copy

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from mule_lib.copies import plain_copy
from mule_lib.quantize import quantized, rounded


def test_four_bits_by_hand():
    """Steps of max|w| / 7 per group of two; a group of zeros stays zero."""
    weight = torch.tensor([[7.0, 3.4, -1.4, 0.55, 0.0, 0.0], [1.0, -1.0, 14.0, 5.1, 0.2, 0.11]])
    want = torch.tensor([[7.0, 3.0, -1.4, 0.6, 0.0, 0.0], [1.0, -1.0, 14.0, 6.0, 0.2, 4 * 0.2 / 7]])
    torch.testing.assert_close(rounded(weight, bits=4, group_size=2), want)


def test_eight_bits_by_hand():
    """One step of max|w| / 127 for the whole row, whatever the group size."""
    weight = torch.tensor([[127.0, 0.4, -3.6], [1.27, 0.004, -0.016]])
    want = torch.tensor([[127.0, 0.0, -4.0], [1.27, 0.0, -0.02]])
    torch.testing.assert_close(rounded(weight, bits=8, group_size=1), want)


@pytest.mark.parametrize(("bits", "levels"), [(8, 255), (4, 15)])
def test_errors_are_at_most_half_a_step_and_levels_are_few(bits, levels):
    """Within each group: |error| <= step / 2, at most 2^bits - 1 different values, and rounding twice is once."""
    weight = torch.randn(5, 600, generator=torch.Generator().manual_seed(0))
    new = rounded(weight, bits=bits, group_size=200)
    for old_row, row in zip(weight, new, strict=True):
        width = 600 if bits == 8 else 200
        for old, part in zip(old_row.split(width), row.split(width), strict=True):
            step = old.abs().max() / (levels // 2)
            assert (old - part).abs().max() <= step / 2 * (1 + 1e-5)
            assert len(part.unique()) <= levels
    torch.testing.assert_close(rounded(new, bits=bits, group_size=200), new)


def test_a_last_group_may_be_shorter_and_the_dtype_stays():
    """Seven inputs in groups of four; bfloat16 in, bfloat16 out."""
    weight = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    want = torch.cat([rounded(weight[:, :4], bits=4), rounded(weight[:, 4:], bits=4)], 1)
    torch.testing.assert_close(rounded(weight, bits=4, group_size=4), want)
    assert rounded(weight.bfloat16(), bits=8).dtype == torch.bfloat16


def test_only_linear_layers_of_a_copy_are_rounded():
    """Embeddings, head and norms stay; the model that was given does not change; the report counts weights."""
    model = tiny.model(tied=False)
    before = copy.deepcopy(model.state_dict())
    made, report = quantized(model, bits=4, group_size=16)
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "_proj.weight" in name}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert report["weights"] == sum(before[name].numel() for name in changed)
    assert (report["bits"], report["group_size"]) == (4, 16)
    assert quantized(model, bits=8)[1]["group_size"] == 0


def test_fewer_bits_change_the_output_more():
    """Mean distance of the logits: 8 bits near, 4 bits further off, and smaller groups nearer."""
    model, ids = tiny.model(), torch.arange(5, 40).reshape(1, -1)
    with torch.no_grad():
        want = model(ids).logits
        errors = [
            (quantized(model, bits=bits, group_size=size)[0](ids).logits - want).abs().mean()
            for bits, size in ((8, 32), (4, 4), (4, 32))
        ]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_an_adapter_is_merged_first():
    """The quantized model is that of the merged weights, and the given one keeps its adapter."""
    torch.manual_seed(0)
    adapted = get_peft_model(
        tiny.model(), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    ).eval()
    ids = torch.arange(5, 30).reshape(1, -1)
    with torch.no_grad():
        want = adapted(ids).logits
        merged = plain_copy(adapted)
        torch.testing.assert_close(merged(ids).logits, want, atol=1e-4, rtol=1e-4)
        got = quantized(adapted, bits=8)[0](ids).logits
        torch.testing.assert_close(got, quantized(merged, bits=8)[0](ids).logits)
        torch.testing.assert_close(adapted(ids).logits, want)
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert any(parameter.requires_grad for parameter in adapted.parameters())


def test_transposed_linear_layers_are_rounded_along_their_inputs():
    """GPT-2 keeps its weights as [in, out]."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    made, _ = quantized(model, bits=8)
    old, new = (each.transformer.h[0].mlp.c_fc.weight for each in (model, made))
    torch.testing.assert_close(new, rounded(old.detach().T, bits=8).T)


def test_bad_settings_are_refused():
    """The parameter, its value, and what would be right."""
    with pytest.raises(ValueError, match="bits is 3, should be one of 8, 4"):
        quantized(tiny.model(), bits=3)
    with pytest.raises(ValueError, match="group_size is 0, should be an integer of at least 1"):
        quantized(tiny.model(), bits=4, group_size=0)
    with pytest.raises(ValueError, match=r"weight has shape \(4,\), should be \[out, in\]"):
        rounded(torch.zeros(4), bits=8)
