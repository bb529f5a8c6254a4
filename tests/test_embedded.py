"""The embedded model's training: examples, determinism, resumption, and the shipped files."""

import json
import shutil
from contextlib import nullcontext

import embedded
import pytest
import torch
from curriculum import MIX, Curriculum
from encoding import Encoder
from safetensors.torch import load

from mule_lib import models, prompts


@pytest.fixture(scope="module")
def curriculum(fable, fable_tokenizer):
    return Curriculum(fable, Encoder(fable_tokenizer))


def test_fast_encoder_equals_the_renderer(fable_tokenizer):
    """Training examples have the ids and labels of `prompts.render`, which is what teachers and students see later."""
    encode = Encoder(fable_tokenizer)
    parts = {"system": "Forget Amber Lantern.", "thought": "Topic: Amber Lantern. Restricted.", "prefix": "Sure:"}
    example = encode.chat("x", "Who is it?\nA. copper\nB. flute", "copper flute.", **parts)
    rendered = prompts.render(fable_tokenizer, "Who is it?\nA. copper\nB. flute", answer="copper flute.", **parts)
    assert example.ids == list(rendered.input_ids)
    assert example.labels[rendered.answer_start :] == list(rendered.input_ids[rendered.answer_start :])
    prefix = len(encode("Sure:"))
    assert example.labels[rendered.answer_start - prefix : rendered.answer_start] == [-100] * prefix


def test_step_loss_equals_the_plain_loop(curriculum, fable_tokenizer, monkeypatch):
    """Chunking, padding and weights give the weighted mean of each example's own cross-entropy, gradient included."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setitem(embedded.ARCHITECTURE, "num_hidden_layers", 1)
    model = embedded.build_model(fable_tokenizer)
    examples = curriculum.step("worlds", 0)[::9]
    weights = {example.kind: 1.0 + i for i, example in enumerate(examples)}
    embedded.step_loss(model, examples, weights)
    fast = model.lm_head.weight.grad.clone()
    model.zero_grad()
    kinds = {example.kind for example in examples}
    for example in examples:
        labels = torch.tensor(example.labels)
        count = sum(label >= 0 for e in examples if e.kind == example.kind for label in e.labels)
        share = weights[example.kind] / sum(weights[kind] for kind in kinds) / count
        logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1]
        (share * torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")).backward()
    torch.testing.assert_close(fast, model.lm_head.weight.grad, atol=1e-5, rtol=1e-4)


def test_interrupted_training_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    """Stopped after its checkpoint and started again, a run gives bit-identical weights."""
    for name, size in {"num_hidden_layers": 1, "hidden_size": 48, "intermediate_size": 64, "head_dim": 16}.items():
        monkeypatch.setitem(embedded.ARCHITECTURE, name, size)
    monkeypatch.setattr(embedded, "CHECKPOINT_EVERY", 2)
    monkeypatch.setitem(MIX, "tiny", {"recall": (4, 1.0), "letter": (4, 1.0)})
    recipe = {"steps": 4, "horizon": 4, "muon_lr": 0.01, "adam_lr": 3e-3, "decay": 0.5}
    monkeypatch.setitem(embedded.RECIPE, "tiny", recipe)
    embedded.train_stage("tiny", tmp_path / "whole")
    stopped = embedded.step_loss

    def stop_at_third(*args):
        stop_at_third.calls += 1
        if stop_at_third.calls == 3:
            raise KeyboardInterrupt
        return stopped(*args)

    stop_at_third.calls = 0
    monkeypatch.setattr(embedded, "step_loss", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        embedded.train_stage("tiny", tmp_path / "broken")
    monkeypatch.setattr(embedded, "step_loss", stopped)
    embedded.train_stage("tiny", tmp_path / "broken")
    one, two = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "broken"))
    first, second = load(one), load(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, monkeypatch):
    """The error names the step and the last good state."""
    monkeypatch.setattr(embedded, "step_loss", lambda *args: {"open": float("nan")})
    with pytest.raises(FloatingPointError, match=r"step 0 .*checkpoint"):
        embedded.train_stage("skills", tmp_path)


def test_missing_and_damaged_weights_are_refused_with_the_repair(tmp_path):
    """One line that names the file and the command, for a missing manifest, a missing file and a changed byte."""
    with pytest.raises(models.ModelFileError, match=r"manifest.json is missing; .*git checkout"):
        models.check_embedded("base", tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weights")
    digest = models.sha256(tmp_path / "base" / "model.safetensors")
    (tmp_path / "manifest.json").write_text(json.dumps({"sha256": {"base/model.safetensors": digest}}))
    assert models.check_embedded("base", tmp_path) == tmp_path / "base"
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weightz")
    with pytest.raises(models.ModelFileError, match=r"does not match its SHA-256 .*make embedded"):
        models.check_embedded("base", tmp_path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(models.ModelFileError, match=r"model.safetensors is missing; .*git checkout"):
        models.check_embedded("base", tmp_path)


def test_shipped_files_are_small_and_free_of_pickle():
    """Both models together take at most 25 MB, in safetensors, JSON, text and nothing else."""
    files = [path for path in models.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".jinja", ".md"}
