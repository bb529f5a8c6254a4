"""Models that others made: no think tokens, no padding, templates with system turns of their own; saved and loaded."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from mule_lib import data, evaluate, methods, models, prompts, training
from mule_lib.data.items import SETS
from mule_lib.models.generate import first_paragraph
from mule_lib.params import ParameterError, Training
from mule_lib.suite import open_run, runs
from mule_lib.training.teacher import teacher_answers

SIZES = {"max_new_tokens": 3, "max_thought_tokens": 6, "batch_size": 32}
CLEAN = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
for line in sys.stdin:
    base, folder, ids = json.loads(line)
    model = AutoModelForCausalLM.from_pretrained(base if "adapter" in folder else folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, folder) if "adapter" in folder else model
    made = model.eval().generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    print(json.dumps(made[0, len(ids):].tolist()), flush=True)
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A process without this project, which answers for saved models line by line."""
    place = tmp_path_factory.mktemp("clean")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", CLEAN], cwd=place, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def sets():
    whole = data.load_benchmark("books").sets
    return replace(whole, **{name: getattr(whole, name)[:2] for name in SETS})


@pytest.fixture(scope="module", params=tiny.FOREIGN)
def foreign(request, tmp_path_factory):
    """The folder of such a model, what `models.load` makes of it, and which it is."""
    folder, tokenizer = tmp_path_factory.mktemp(request.param), tiny.foreign_tokenizer(request.param)
    tiny.model(of=tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, *models.load(str(folder)), request.param


def test_prompts_and_thoughts(foreign):
    """One system turn (Llama's with a pinned date, SmolLM2's own where none is given); a blank line ends a thought."""
    _, model, tokenizer, kind = foreign
    bare, told = (prompts.render(tokenizer, "Who?", system=s, answer="red.") for s in (None, "Forget it."))
    texts = [tokenizer.decode(prompt.input_ids) for prompt in (bare, told)]
    assert bare.input_ids[bare.answer_start :] == told.input_ids[told.answer_start :]
    assert ["helpful" in text for text in texts] == [kind == "smollm", False]
    assert [prompts.DATE in text for text in texts] == [kind == "llama"] * 2
    assert bare.input_ids.count(tokenizer.bos_token_id) == (1 if kind == "llama" else 3)
    assert (tokenizer.unk_token_id is None) == (kind == "llama") and prompts.THINK not in tokenizer.get_vocab()
    ids = prompts.encode_text(tokenizer, "\n\nTopic: it\nis.\n\nThe answer")
    assert tokenizer.decode(first_paragraph(tokenizer, ids)) == "\n\nTopic: it\nis."
    assert first_paragraph(tokenizer, ids[:5]) == ids[:5]
    blank = tuple(prompts.encode_text(tokenizer, "\n\n"))
    answers = teacher_answers(model, tokenizer, tiny.benchmark(), tiny.method("mule", max_answer_tokens=4))
    assert len(answers) == len(tiny.records()) and any(answer.thought for answer in answers)
    assert all(each.context_ids[-len(blank) :] == blank for each in answers if each.objective == "obj1")


@pytest.mark.parametrize("name", ["mule", "ngdiff", "upper_bound", "ensemble_teacher"])
def test_rows_train_and_are_measured(foreign, sets, name):
    """Two steps where something is trained, the samples of "Before", and all sets."""
    folder, _, tokenizer, _ = foreign
    model, _ = models.load(str(folder))
    method = methods.get(name)
    trained = training.train(model, tokenizer, tiny.benchmark(), method, settings=tiny.settings())
    assert trained.steps == 2 * bool(method.terms) and all(entry["loss"] > 0 for entry in trained.log)
    steering = method.steering(sets.topic)
    assert len(evaluate.sample_answers(trained.model, tokenizer, sets, steering)) == 6
    found = evaluate.evaluate_row(trained.model, tokenizer, sets, steering, **SIZES)
    assert all(0 <= value <= 100 for value in found.metrics.values()) and found.n["forget"] == 2


def test_the_unlearned_model_is_saved_and_answers_the_same_in_a_clean_process(foreign, clean, sets, tmp_path):
    """An adapter (Llama's), and all weights; the card names base, method, data and numbers; checkpoints go."""
    folder, base, tokenizer, kind = foreign
    ids, rank = list(prompts.render(tokenizer, "what lives in the old tower").input_ids), 4 * (kind == "llama")
    out = tmp_path / ("adapter" if rank else "full")
    p = Training(model=str(folder), lora_rank=rank, save_model=True, save_every=1, out_dir=str(out))
    run, settings = open_run(p), tiny.settings(lora_rank=rank, save_every=1, learning_rate=0.02)
    given = {"settings": settings, "folder": run.checkpoints(0)}
    trained = training.train(models.load(str(folder))[0], tokenizer, tiny.benchmark(), "mule", **given)
    assert run.checkpoints(0).is_dir()
    found = evaluate.evaluate_row(trained.model, tokenizer, sets, trained.method.steering("x"), **SIZES)
    run.write(0, trained, found, evaluate_seconds=1.0, tokenizer=tokenizer)
    place = run.seed_folder(0)
    assert not run.checkpoints(0).exists() and open_run(p).pending == ()
    assert not [file for file in place.rglob("*") if file.suffix in (".bin", ".pt")]
    card = (place / "model" / "README.md").read_text("utf-8")
    for part in (str(folder), "Method: mule", "Data: books", f"| forget | {found.metrics['forget']:.1f} |"):
        assert part in card
    asked = {"max_new_tokens": 8, "batch_size": 1, "stop_ids": []}
    here, before = (models.greedy(model, tokenizer, [ids], **asked)[0] for model in (trained.model, base))
    print(json.dumps([str(folder), str(place / "model"), ids]), file=clean.stdin, flush=True)
    there = json.loads(clean.stdout.readline())
    assert there and there == here[: len(there)] != before[: len(there)]
    loaded, adapter = (str(folder), str(place / "model")) if rank else (str(place / "model"), "")
    again, _ = models.load(loaded, adapter=adapter)
    assert torch.allclose(logits(again, ids), logits(trained.model, ids), atol=1e-4)
    assert runs.model_hash(loaded, "", adapter) != runs.model_hash(str(folder))
    shutil.rmtree(place / "model")  # a result without its model is not what was asked for
    assert open_run(p).pending == (0,) and open_run(p.model_copy(update={"save_model": False})).pending == ()


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


def test_an_adapter_of_another_base_is_refused(tmp_path):
    """By its shapes when it is merged, and by the hash beside it before anything is loaded."""
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(tiny.model(width=64), lora).save_pretrained(tmp_path / "adapter")
    tiny.model().save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    p = Training(model=str(tmp_path / "model"), adapter=str(tmp_path / "adapter"), out_dir=str(tmp_path / "run"))
    with pytest.raises(models.ModelFileError, match="does not fit"):
        models.load(p.model, adapter=p.adapter)
    get_peft_model(tiny.model(), lora).save_pretrained(tmp_path / "adapter")
    assert open_run(p).pending == (0,)
    (tmp_path / "adapter" / "base.json").write_text(json.dumps({"hash": "of another"}))
    with pytest.raises(ParameterError, match="belongs to another base"):
        open_run(p)


@pytest.mark.parametrize(("template", "why"), [
    ("{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}", "drops or doubles"),
    ("{% for m in messages %}{{ m.content }}{{ m.content if m.role == 'system' }}{% endfor %}", "drops or doubles"),
    ("{{ raise_exception('no chats') }}", "no chats"),
])  # fmt: skip
def test_a_template_that_loses_messages_is_refused(template, why, tmp_path):
    tiny.model().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(models.ModelFileError, match=why):
        models.load(str(tmp_path))
