"""Models: what memory they take, what is refused before loading, and where to get them."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib import models
from mule_lib.models import GIB, memory_parts

SMALL = {
    "vocab_size": 96, "hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 8,
    "num_key_value_heads": 2,
}  # fmt: skip
LLAMA_3B = {
    "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
    "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA = LlamaConfig(**LLAMA_3B)
PARAMETERS = 3_212_749_824


FULL = {"trains": True, "precision": "fp32", "lora_rank": 0}
LORA = {"trains": True, "precision": "bf16", "lora_rank": 16, "checkpointing": True}


def test_full_tuning_needs_what_adamw_needs():
    """Float32 weights, gradients and two moments: 16 bytes a parameter; a rule holds further gradients."""
    parts = memory_parts(LLAMA, **FULL)
    assert sum(parts[part] for part in ("weights", "gradients", "optimizer")) == 16 * PARAMETERS
    assert memory_parts(LLAMA, **FULL, gradients=4)["gradients"] == 4 * parts["gradients"]
    assert set(memory_parts(LLAMA, **FULL | {"trains": False})) == {"weights", "evaluation"}


def test_an_adapters_size_is_what_peft_builds():
    """Rank times inputs and outputs of every linear layer but the head."""
    config = LlamaConfig(num_hidden_layers=2, **SMALL)
    with torch.device("meta"):
        model = get_peft_model(
            LlamaForCausalLM(config), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert memory_parts(config, **LORA)["optimizer"] == 8 * trained


def test_llama_on_the_two_cards():
    """LoRA fits 24 GB, full tuning 80 GB and not 24; a whole gradient per term does not fit 80."""
    full = {**FULL, "checkpointing": True}
    assert sum(memory_parts(LLAMA, **LORA).values()) < 20 * GIB
    assert 24 * GIB < sum(memory_parts(LLAMA, **full).values()) < 67 * GIB
    assert sum(memory_parts(LLAMA, **full, gradients=6).values()) > 80 * GIB
    plain = memory_parts(LLAMA, **{**LORA, "checkpointing": False})["activations"]
    assert memory_parts(LLAMA, **LORA)["activations"] < plain / 5


def test_a_run_is_refused_before_its_model_is_loaded(tmp_path, monkeypatch):
    """A folder with nothing but config.json is enough for the refusal in one line, and for the line where it fits."""
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_3B, "model_type": "llama"}), "utf-8")
    assert models.free_memory()[1] > 0
    monkeypatch.setattr(models, "free_memory", lambda: ("NVIDIA A10G", 24 * GIB))
    with pytest.raises(models.NotEnoughMemoryError) as caught:
        models.check_memory(str(tmp_path), **FULL)
    line = str(caught.value)
    assert "optimizer 23.9" in line and "NVIDIA A10G has 24.0 GiB free" in line and "lora_rank: 16" in line
    assert "\n" not in line
    assert "(estimated)" in models.check_memory(str(tmp_path), **LORA)
    assert models.check_memory("base", **FULL) == ""


def test_a_model_that_cannot_be_had_is_named():
    """Offline and not cached: page and command in one line, nothing loaded."""
    with pytest.raises(models.ModelFileError) as caught:
        models.load("mule-tests/never-published", revision="abc")
    line = str(caught.value)
    assert "https://huggingface.co/mule-tests/never-published" in line and "\n" not in line
    assert "`hf download mule-tests/never-published --revision abc --local-dir models/never-published`" in line
