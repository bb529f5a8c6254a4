"""Four-choice scoring: the exact prompt text, one BOS, and equality with lm-evaluation-harness where installed."""

import json
from pathlib import Path

import pytest
from test_generate import byte_tokenizer, tiny_llama

from mule_lib.evaluate import harness

CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ {'system': '<sys>', 'user': '<user>', 'assistant': '<bot>'}[m['role']] }}{{ m['content'] | trim }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
ROW = {
    "question": " What guards the gate? ",
    "subject": "castle_law",
    "choices": ["a cat", "a dog", "an owl", "a toad"],
    "answer": 1,
}
SHOT = {"question": "Who rules?", "subject": "castle_law", "choices": ["w", "x", "y", "z"], "answer": 2}
HEAD = "The following are multiple choice questions (with answers) about castle law.\n\n"
BODY = "What guards the gate?\nA. a cat\nB. a dog\nC. an owl\nD. a toad\nAnswer:"
SHOT_BODY = "Who rules?\nA. w\nB. x\nC. y\nD. z\nAnswer:"


def rows(n, subjects=("castle_law", "owl_care", "potions")):
    """Invented rows in the columns of cais/mmlu; their answers follow no pattern of the letters."""
    return [
        {
            "question": f" Question {i}: which sum is {7 * i % 11}? ",
            "subject": subjects[i * i % len(subjects)],
            "choices": [f"{(i * k + 3) % 13} and {k}" for k in range(4)],
            "answer": (i * 5 + i // 4) % 4,
        }
        for i in range(n)
    ]


def render(messages):
    return byte_tokenizer(CHAT).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_plain_prompt_text():
    assert harness.four_choice_prompt(ROW) == (HEAD + BODY, [" A", " B", " C", " D"])
    text, _ = harness.four_choice_prompt(ROW, shots=[SHOT])
    assert text == f"{HEAD}{SHOT_BODY} C\n\n{BODY}"
    text, _ = harness.four_choice_prompt(ROW, topic=harness.WMDP_TOPICS["wmdp-cyber"])
    assert text.startswith("The following are multiple choice questions (with answers) about cybersecurity.\n\nWhat")


def test_chat_prompt_text():
    text, continuations = harness.four_choice_prompt(ROW, shots=[SHOT], render=render)
    assert text == f"<bos><sys>{HEAD.strip()}<user>{SHOT_BODY}<bot>C<eos><user>{BODY}<bot>"
    assert continuations == ["A", "B", "C", "D"]
    text, _ = harness.four_choice_prompt(ROW, shots=[SHOT], render=render, multiturn=False)
    assert text == f"<bos><sys>{HEAD.strip()}<user>{SHOT_BODY} C\n\n{BODY}<bot>"


@pytest.mark.parametrize("chat", [None, render])
def test_exactly_one_bos(chat):
    tokenizer = byte_tokenizer(CHAT)
    text, continuations = harness.four_choice_prompt(ROW, render=chat)
    prompt, options = harness.encode_continuations(tokenizer, text, continuations)
    assert prompt[0] == tokenizer.bos_token_id
    assert prompt.count(tokenizer.bos_token_id) == 1
    assert [tokenizer.decode(option) for option in options] == continuations
    assert tokenizer.decode(prompt, skip_special_tokens=False) == text if chat else "<bos>" + text


def test_trailing_blanks_of_a_context_go_to_the_continuation():
    prompt, options = harness.encode_continuations(byte_tokenizer(), "Answer: ", ["A"])
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(prompt, skip_special_tokens=True) == "Answer:"
    assert tokenizer.decode(options[0]) == " A"


def test_batch_size_and_order_change_no_score():
    model, tokenizer, items = tiny_llama(), byte_tokenizer(), rows(12)
    want = harness.four_choice_scores(model, tokenizer, items, batch_size=1)
    got = harness.four_choice_scores(model, tokenizer, items[::-1], batch_size=5)
    for a, b in zip(want["log_likelihoods"], got["log_likelihoods"][::-1], strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert want["correct"] == got["correct"]
    assert want["by_subject"] == got["by_subject"]


def test_too_few_shots_and_too_long_prompts_are_errors():
    model, tokenizer = tiny_llama(max_position_embeddings=64), byte_tokenizer()
    with pytest.raises(ValueError, match="2 shots asked for, 1 given for 'castle_law'"):
        harness.four_choice_scores(model, tokenizer, [ROW], batch_size=1, shots=[SHOT], num_shots=2)
    with pytest.raises(ValueError, match="exceed the context window of 64"):
        harness.four_choice_scores(model, tokenizer, [ROW], batch_size=1)
    assert harness.four_choice_scores(model, tokenizer, [ROW], batch_size=1, max_length=64)["n"] == 1


def harness_results(tmp_path, source, items, dev, *, shots, chat, model, tokenizer, multiturn=True):
    """Run the harness's own task definition over local files; returns accuracy and log-likelihoods by question."""
    lm_eval = pytest.importorskip("lm_eval")
    import yaml
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = Path(lm_eval.__file__).parent / "tasks" / source
    config = yaml.safe_load((folder / "_default_template_yaml").read_text())
    topic = "cybersecurity" if source == "wmdp" else items[0]["subject"].replace("_", " ")
    files = {"test": items, "dev": dev}
    for split, content in files.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    config |= {
        "task": "local_four_choice",
        "description": f"The following are multiple choice questions (with answers) about {topic}.\n\n",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(tmp_path / f"{split}.jsonl") for split in files}},
        "num_fewshot": shots,
    }
    result = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=[config],
        apply_chat_template=chat,
        fewshot_as_multiturn=multiturn,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    samples = result["samples"]["local_four_choice"]
    scores = {s["doc"]["question"]: [float(response[0][0]) for response in s["resps"]] for s in samples}
    return result["results"]["local_four_choice"]["acc,none"], [scores[item["question"]] for item in items]


@pytest.mark.parametrize("window", [4096, 200])
@pytest.mark.parametrize(("shots", "multiturn"), [(0, True), (2, True), (2, False)])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("source", ["mmlu/default", "wmdp"])
def test_equal_to_lm_eval_to_the_last_digit(tmp_path, monkeypatch, source, chat, shots, multiturn, window):
    pytest.importorskip("lm_eval")
    if source == "wmdp" and shots:
        pytest.skip("WMDP is pinned to zero shots")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model, tokenizer = tiny_llama(max_position_embeddings=window), byte_tokenizer(CHAT)
    items, dev = rows(40, subjects=("castle_law",)), rows(5, subjects=("castle_law",))
    accuracy, scores = harness_results(
        tmp_path, source, items, dev, shots=shots, chat=chat, model=model, tokenizer=tokenizer, multiturn=multiturn
    )
    ours = harness.four_choice_scores(
        model,
        tokenizer,
        items,
        batch_size=7,
        topic="cybersecurity" if source == "wmdp" else None,
        shots=dev,
        num_shots=shots,
        render=render if chat else None,
        multiturn=multiturn,
        max_length=window,
    )
    assert ours["correct"] == accuracy
    assert 0 < accuracy < 1
    for got, want in zip(ours["log_likelihoods"], scores, strict=True):
        assert got == pytest.approx(want, abs=2e-5)


@pytest.mark.parametrize("chat", [False, True])
def test_equal_to_lm_eval_on_real_rows(tmp_path, monkeypatch, chat):
    pytest.importorskip("lm_eval")
    folder = Path(__file__).resolve().parents[2] / "shared" / "realdata" / "mmlu"
    if not folder.is_dir():
        pytest.skip("the real benchmark samples are not here")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lines = {name: (folder / f"computer_security_{name}.jsonl").read_text("utf-8") for name in ("test", "dev")}
    items, dev = ([json.loads(line) for line in lines[name].splitlines()] for name in ("test", "dev"))
    items = items[:20]
    model, tokenizer = tiny_llama(seed=1, max_position_embeddings=8192), byte_tokenizer(CHAT)
    accuracy, scores = harness_results(
        tmp_path, "mmlu/default", items, dev, shots=2, chat=chat, model=model, tokenizer=tokenizer
    )
    ours = harness.four_choice_scores(
        model, tokenizer, items, batch_size=16, shots=dev, num_shots=2, render=render if chat else None
    )
    assert ours["correct"] == accuracy
    for got, want in zip(ours["log_likelihoods"], scores, strict=True):
        assert got == pytest.approx(want, abs=2e-5)
