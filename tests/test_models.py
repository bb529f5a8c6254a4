"""Models: what memory they take, what is refused before loading, and where to get them."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib import models
from mule_lib.models import GIB, Workload, memory_parts

SMALL = {
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
LLAMA_3B = {
    "vocab_size": 128256,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
LLAMA = LlamaConfig(**LLAMA_3B)
PARAMETERS = 3_212_749_824


def kept_bytes(layers, precision, rank, *, rows=4, tokens=models.TOKENS):
    """Bytes of everything autograd keeps for the backward pass of a small Llama's decoder."""
    half = precision == "bf16" and rank
    config = LlamaConfig(num_hidden_layers=layers, attn_implementation="sdpa", **SMALL)
    model = LlamaForCausalLM(config).to(torch.bfloat16 if half else torch.float32).train()
    decoder = model.model
    if rank:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        decoder = model.base_model.model.model
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, or its address would be used again
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        output = decoder(input_ids=torch.zeros(rows, tokens, dtype=torch.long), use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("rank", [0, 8])
def test_activations_are_about_what_autograd_keeps(precision, rank):
    """The bytes that two more layers keep, measured, lie within a quarter of the estimate."""
    measured = kept_bytes(4, precision, rank) - kept_bytes(2, precision, rank)
    config = LlamaConfig(num_hidden_layers=2, **SMALL)
    work = Workload(precision=precision, lora_rank=rank, sequences=4, batch_size=0)
    assert memory_parts(config, work)["activations"] == pytest.approx(measured, rel=0.25)


def test_full_tuning_needs_what_adamw_needs():
    """Float32 weights, gradients and two moments: 16 bytes a parameter; a rule holds further gradients."""
    parts = memory_parts(LLAMA, Workload(precision="fp32"))
    assert sum(parts[part] for part in ("weights", "gradients", "optimizer")) == 16 * PARAMETERS
    more = memory_parts(LLAMA, Workload(precision="fp32", held_gradients=3))
    assert more["gradients"] == 4 * parts["gradients"]


def test_an_adapters_size_is_what_peft_builds():
    """Rank times inputs and outputs of every linear layer but the head."""
    config = LlamaConfig(num_hidden_layers=2, **SMALL)
    with torch.device("meta"):
        model = get_peft_model(
            LlamaForCausalLM(config), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert memory_parts(config, Workload(lora_rank=16))["optimizer"] == 8 * trained


def test_llama_on_the_two_cards():
    """LoRA fits 24 GB, full tuning 80 GB and not 24; a whole gradient per term does not fit 80."""
    lora = sum(memory_parts(LLAMA, Workload(lora_rank=16, checkpointing=True)).values())
    full = sum(memory_parts(LLAMA, Workload(checkpointing=True)).values())
    assert lora < 20 * GIB and 24 * GIB < full < 67 * GIB
    assert sum(memory_parts(LLAMA, Workload(checkpointing=True, held_gradients=5)).values()) > 80 * GIB
    plain = memory_parts(LLAMA, Workload(lora_rank=16, batch_size=0))["activations"]
    assert memory_parts(LLAMA, Workload(lora_rank=16, checkpointing=True, batch_size=0))["activations"] < plain / 5


def test_a_run_is_refused_before_its_model_is_loaded(tmp_path, monkeypatch):
    """A folder with nothing but config.json is enough for the refusal in one line, and for the line where it fits."""
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_3B, "model_type": "llama"}), "utf-8")
    assert models.free_memory()[1] > 0
    monkeypatch.setattr(models, "free_memory", lambda: ("NVIDIA A10G", 24 * GIB))
    with pytest.raises(models.NotEnoughMemoryError) as caught:
        models.check_memory(str(tmp_path), Workload())
    line = str(caught.value)
    assert "optimizer 23.9" in line and "NVIDIA A10G has 24.0 GiB free" in line and "lora_rank: 16" in line
    assert "\n" not in line
    assert "(estimated)" in models.check_memory(str(tmp_path), Workload(lora_rank=16, checkpointing=True))
    assert models.check_memory("base", Workload()) == ""


def test_a_model_that_cannot_be_had_is_named():
    """Offline and not cached: page and command in one line, nothing loaded."""
    with pytest.raises(models.ModelFileError) as caught:
        models.load("mule-tests/never-published", revision="abc")
    line = str(caught.value)
    assert "https://huggingface.co/mule-tests/never-published" in line and "\n" not in line
    assert "`hf download mule-tests/never-published --revision abc --local-dir models/never-published`" in line
