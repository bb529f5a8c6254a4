"""Memory and hours before loading: exact counts, activations against what autograd keeps, and what is refused."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib import memory, preflight
from mule_lib.memory import GIB, Work
from mule_lib.training_params import TrainingParams

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


@pytest.fixture(scope="module")
def llama():
    return memory.shape_of(LlamaConfig(**LLAMA_3B))


def kept_bytes(layers, precision, rank, *, rows=4, tokens=64):
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
def test_activations_are_what_autograd_keeps(precision, rank):
    """The bytes that two more layers keep, measured, lie within a fifth of the estimate."""
    measured = kept_bytes(4, precision, rank) - kept_bytes(2, precision, rank)
    shape = memory.shape_of(LlamaConfig(num_hidden_layers=2, **SMALL))
    work = Work(precision=precision, lora_rank=rank, sequences=4, tokens=64)
    assert memory.activation_bytes(shape, work) == pytest.approx(measured, rel=0.2)


def test_counts_are_exact(llama):
    """Llama-3.2-3B has 3,212,749,824 parameters; an adapter's size is what PEFT builds."""
    assert llama.parameters == 3_212_749_824
    config = LlamaConfig(num_hidden_layers=2, **SMALL)
    with torch.device("meta"):
        model = get_peft_model(
            LlamaForCausalLM(config), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert memory.trained_parameters(memory.shape_of(config), Work(lora_rank=16)) == trained


def test_full_tuning_needs_what_adamw_needs(llama):
    """Float32 weights, gradients and two moments: 16 bytes a parameter; a rule holds further gradients."""
    found = memory.estimate(llama, Work(precision="fp32"))
    exact = sum(found.parts[part] for part in ("weights", "gradients", "optimizer"))
    assert exact == 16 * llama.parameters
    more = memory.estimate(llama, Work(precision="fp32", held_gradients=3))
    assert more.parts["gradients"] == 4 * found.parts["gradients"]


def test_llama_on_the_two_cards(llama):
    """LoRA fits 24 GB, full tuning 80 GB and not 24; a whole gradient per term does not fit 80."""
    lora = Work(lora_rank=16, checkpointing=True)
    full = Work(checkpointing=True)
    assert memory.estimate(llama, lora).total < 22 * GIB
    assert 24 * GIB < memory.estimate(llama, full).total < 74 * GIB
    assert memory.estimate(llama, Work(checkpointing=True, held_gradients=5)).total > 80 * GIB
    less = memory.activation_bytes(llama, lora)
    assert less < memory.activation_bytes(llama, Work(lora_rank=16)) / 5


def test_what_does_not_fit_is_refused_in_one_line(llama):
    """The parts, what the device has, and what would help."""
    found = memory.estimate(llama, Work())
    memory.check_fits(found, found.total)
    with pytest.raises(memory.NotEnoughMemoryError) as caught:
        memory.check_fits(found, 24 * GIB, device="NVIDIA A10G")
    line = str(caught.value)
    assert "optimizer 23.9" in line and "NVIDIA A10G has 24.0 GiB free" in line and "lora_rank: 16" in line
    assert "\n" not in line


def test_hours_follow_tokens_and_are_marked_estimated(llama):
    """Twice the steps take twice the training; checkpointing costs a third more; half the speed twice the time."""
    work = Work(steps=100)
    once, twice = memory.hours(llama, work), memory.hours(llama, Work(steps=200))
    assert twice.parts["training"] == pytest.approx(2 * once.parts["training"])
    assert once.parts["training"] == pytest.approx(6 * llama.parameters * 100 * 18 * 128 / 1e14 / 3600)
    dear = memory.hours(llama, Work(steps=100, checkpointing=True))
    assert dear.parts["training"] == pytest.approx(4 / 3 * once.parts["training"])
    assert memory.hours(llama, work, tflops=50, bandwidth=500).total == pytest.approx(2 * once.total)
    assert "estimated, not measured" in once.line()
    assert "teacher" not in memory.hours(llama, work, teacher=False).parts
    assert list(memory.hours(llama, Work(trains=False)).parts) == ["evaluation"]


def params(tmp_path, **more):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_3B, "model_type": "llama"}), "utf-8")
    return TrainingParams(model=str(tmp_path), precision="bf16", **more)


def test_a_run_is_refused_before_its_model_is_loaded(tmp_path, monkeypatch):
    """A folder with nothing but config.json is enough for the refusal, and for the line where it fits."""
    monkeypatch.setattr(preflight, "free_memory", lambda: ("a card", 24 * GIB))
    with pytest.raises(memory.NotEnoughMemoryError, match=r"a card has 24\.0 GiB free"):
        preflight.before_loading(params(tmp_path), records=3000)
    line = preflight.before_loading(params(tmp_path, lora_rank=16, activation_checkpointing=True), records=3000)
    assert "memory, estimated:" in line and "GPU hours" in line
    assert preflight.before_loading(TrainingParams(), records=500) == ""
    name, free = preflight.free_memory()
    assert name and free > 0


def test_work_follows_the_method(tmp_path):
    """Rules hold a gradient per term; preference rows read two texts; accumulation cuts the micro-batch."""
    assert preflight.work_of(params(tmp_path, method="ngdiff"), records=9).held_gradients == 5
    assert preflight.work_of(params(tmp_path, method="mule"), records=9).sequences == 18
    assert preflight.work_of(params(tmp_path, method="mule", accumulation=3), records=9).sequences == 6
    assert preflight.work_of(params(tmp_path, method="flat", train_batch_size=6), records=9).sequences == 12
    assert not preflight.work_of(params(tmp_path, method="base"), records=9).trains


def test_a_model_that_cannot_be_had_is_named(tmp_path):
    """Offline and not cached: page and command, nothing loaded."""
    with pytest.raises(RuntimeError) as caught:
        memory.config_of("mule-tests/never-published", "abc")
    line = str(caught.value)
    assert "https://huggingface.co/mule-tests/never-published" in line and "\n" not in line
    assert "`hf download mule-tests/never-published --revision abc --local-dir models/never-published`" in line
