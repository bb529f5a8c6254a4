"""`mule show-prompt`: what is shown is what is evaluated and trained on, and every refusal is one line."""

import re
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib import cli, prompts, show, training_run
from mule_lib.data import load
from mule_lib.evaluate import evaluate_row
from mule_lib.methods import METHODS


@pytest.fixture(scope="module")
def model(fable_tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fable_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=fable_tokenizer.eos_token_id,
        pad_token_id=fable_tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(autouse=True)
def small(monkeypatch, model, fable_tokenizer):
    monkeypatch.setattr(training_run, "load_model", lambda p: (model, fable_tokenizer))


@pytest.fixture(scope="module")
def data():
    return load("books")


@pytest.mark.parametrize(("row", "objective"), [("upper_bound", "obj3"), ("ensemble_teacher", "obj1"), ("ga", "obj3")])
def test_an_open_prompt_is_the_evaluated_one(model, fable_tokenizer, data, row, objective):
    """Prompt and output of the evaluation's own sample, special tokens shown, the output between the marks."""
    name = show.SETS[objective]
    alone = {each: () for each in ("forget", "general", "neighbor", "attack", "mmlu", "controls")}
    sets = type(data.sets)("b", data.topic, **{**alone, name: getattr(data.sets, name)[2:3]})
    sample = evaluate_row(model, fable_tokenizer, sets, METHODS[row].steering(data.topic), partial=True).samples[0]
    head, text, compared = show.row_prompts(row, objective=objective, item=2)
    prompt, output = re.fullmatch(r"(.*)⟪(.*)⟫", text, re.DOTALL).groups()
    assert sample["id"] in head
    assert prompt == sample["prompt"]
    assert prompt.startswith("<|bos|>") and prompt.count("<|bos|>") == 1
    assert output.strip() == sample["output"]
    assert compared == f"compared with: {sample['reference']}"
    assert ("<|system|>" in prompt) is (row != "ga")


def test_every_option_of_a_choice_is_scored(model, fable_tokenizer, data):
    """One marked line an option, the likeliest one that of the evaluation."""
    for part in ("neighbor", "mmlu"):
        for style in prompts.CHOICE_STYLES:
            item = getattr(data.sets, part)[1]
            alone = {each: () for each in ("forget", "general", "neighbor", "attack", "mmlu", "controls")}
            sets = type(data.sets)("b", data.topic, **{**alone, part: (item,)})
            how = METHODS["base"].steering(data.topic)
            sample = evaluate_row(model, fable_tokenizer, sets, how, choice_style=style, partial=True).samples[0]
            lines = show.row_prompts("base", part=part, item=1, choice_style=style)
            options = [line for line in "\n".join(lines).split("\n") if line.startswith("  ⟪")]
            assert len(options) == len(item.options)
            assert sum("likeliest" in line for line in options) == 1
            likeliest = next(line for line in options if "likeliest" in line)
            assert re.search("⟪ ?(.*)⟫", likeliest)[1] == sample["output"]
            assert " right" in options[item.answer]
            assert item.refusal is None or " refusal" in options[item.refusal]


@pytest.mark.parametrize("row", [name for name, method in METHODS.items() if method.terms])
@pytest.mark.parametrize("objective", ["obj1", "obj3"])
def test_every_trained_row_shows_its_training_prompts(row, objective):
    """Student and frozen model end in the same scored tokens; the student never sees a system message."""
    lines = show.row_prompts(row, objective=objective, stage="training")
    students = [line for line in lines if ", student, " in line]
    others = [line for line in lines if ", teacher, " in line or ", frozen model, " in line]
    if not students:  # the row reads the other objective only
        assert lines[-1] == f"{METHODS[row].label} does not use this group"
        return
    assert not any("<|system|>" in line for line in students)
    scored = {line.split(", ")[2].split(":")[0]: re.search("⟪(.*)⟫", line, re.DOTALL)[1] for line in students}
    for line in others:
        assert re.search("⟪(.*)⟫", line, re.DOTALL)[1] == scored[line.split(", ")[2].split(":")[0]]
    teachers = [line for line in others if ", teacher, " in line]
    assert all("<|system|>" in line for line in teachers)
    assert bool(teachers) == METHODS[row].distils


def test_a_variant_is_found_by_its_file():
    """Its options count: without the chain of thought the teacher's context holds no thought."""
    assert show.row_params("mule_no_cot").options == {"cot": False}
    teacher = next(line for line in show.row_prompts("mule_no_cot", stage="training") if ", teacher, " in line)
    assert prompts.THINK not in teacher
    teacher = next(line for line in show.row_prompts("mule", stage="training") if ", teacher, " in line)
    assert prompts.THINK in teacher


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "muel"], "--row muel: method = 'muel': did you mean 'mule'?"),
        (["--row", "mule", "--set", "mlu"], "--set mlu: no such set here; there are forget, general"),
        (["--row", "mule", "--stage", "training", "--set", "retainn"], "--set retainn: no such role here; there are"),
        (["--row", "mule", "--item", "999"], "--item 999: forget has 109 items, 0 to 108"),
        (["--row", "mule", "--item", "-1"], "--item -1: forget has"),
        (["--row", "base", "--stage", "training"], "base trains nothing"),
        (["--row", "mule", "--benchmark", "bokks"], "did you mean 'books'?"),
        (["--row", "mule", "Who?"], "give either a question or --row"),
        ([], "give either a question or --row"),
    ],
)
def test_refusals_are_one_line(monkeypatch, words, message):
    """On standard error with exit status 1, before a model is loaded."""

    def never(p):
        raise AssertionError("loaded")

    monkeypatch.setattr(training_run, "load_model", never)
    monkeypatch.setattr(sys, "argv", ["mule", "show-prompt", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_question_of_ones_own(monkeypatch, capsys):
    """As before: system message, prefix, and the answer between the marks."""
    words = ["Who?", "--system", "Forget it.", "--prefix", "Sure:", "--answer", "copper."]
    monkeypatch.setattr(sys, "argv", ["mule", "show-prompt", *words])
    cli.main()
    printed = capsys.readouterr().out
    assert printed.strip().endswith("Sure:⟪ copper.<|end|>⟫")
    assert "<|system|> Forget it." in printed
