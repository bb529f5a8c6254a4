"""Generation and option scores: the same numbers for every batch size, padding, order and shared beginning."""

import copy
import warnings

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from mule_lib import prompts
from mule_lib.models import ask, generate
from mule_lib.models.generate import batches, shared_length
from mule_lib.training import teacher

PROMPTS = [
    [1, 40, 41], [1, 50], [1, *range(60, 100)], [1, 9], [1, 7, 8, 9, 10, 11], [1, *range(100, 117)],
]  # fmt: skip


INTENTION = [1, *range(20, 60)]
# Forty prompts that begin alike, and five that do not.
ALIKE = [[*INTENTION, 70 + i, *range(100, 101 + i % 7)] for i in range(40)] + [[1, 9, 10 + i] for i in range(5)]


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def one_by_one(model, prompt, steps):
    """Greedy decoding without cache, padding or batch: the definition."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("sequences", [PROMPTS, ALIKE])
def test_greedy_equals_the_definition(model, sequences, batch_size, side):
    """Whatever the batch, a shared beginning, and the tokenizer's padding side, which is not asked."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.padding_side = side
    got = generate.greedy(model, tokenizer, sequences[::-1], max_new_tokens=5, batch_size=batch_size, stop_ids=[])
    assert got[::-1] == [one_by_one(model, prompt, 5) for prompt in sequences]
    assert tokenizer.padding_side == side


@pytest.mark.parametrize("sequences", [PROMPTS, ALIKE])
def test_absolute_positions_are_not_shifted_by_padding(sequences):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=262, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3)
    gpt2 = GPT2LMHeadModel(config).eval()
    got = generate.greedy(gpt2, tiny.tokenizer(), sequences, max_new_tokens=4, batch_size=32, stop_ids=[])
    assert got == [one_by_one(gpt2, prompt, 4) for prompt in sequences]


def test_every_stop_token_of_a_list_cuts(tokenizer):
    model = tiny.model()
    free = one_by_one(model, PROMPTS[2], 10)
    first, second = free[3], free[6]
    assert first not in free[:3]
    cut = generate.greedy(model, tokenizer, [PROMPTS[2]], max_new_tokens=10, batch_size=1, stop_ids=[second, first])
    assert cut == [free[: min(3, free.index(second))]]
    assert generate.greedy(model, tokenizer, [PROMPTS[2]], max_new_tokens=4, batch_size=1, stop_ids=free[:1]) == [[]]
    model.generation_config.eos_token_id = [2, first]
    assert generate.greedy(model, tokenizer, [PROMPTS[2]], max_new_tokens=10, batch_size=1) == [free[:3]]


def test_the_models_sampling_settings_are_ignored_silently_and_come_back(tokenizer, capfd):
    model = tiny.model()
    config = model.generation_config
    config.do_sample, config.temperature, config.top_p, config.repetition_penalty = True, 3.0, 0.1, 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = generate.greedy(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=2, stop_ids=[])
    assert got == [one_by_one(model, prompt, 6) for prompt in PROMPTS]
    assert capfd.readouterr().err == ""
    assert model.generation_config is config
    assert config.temperature == 3.0


def test_a_training_model_with_checkpointing_generates_the_same_and_trains_on(tokenizer):
    model = tiny.model()
    want = generate.greedy(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=3)
    model.activation_checkpointing_enable()
    model.train()
    model.model.layers[0].eval()
    assert generate.greedy(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=3) == want
    assert model.training
    assert not model.model.layers[0].training


def test_an_adapter_generates_and_keeps_both_configs(tokenizer):
    base = tiny.model()
    want = generate.greedy(base, tokenizer, PROMPTS, max_new_tokens=5, batch_size=3)
    config = base.generation_config
    config.temperature = 0.5
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert generate.greedy(adapted, tokenizer, PROMPTS, max_new_tokens=5, batch_size=3) == want
    assert adapted.get_base_model().generation_config is config
    scores = generate.option_log_likelihoods(adapted, PROMPTS[:2], [[[5], [6]]] * 2, batch_size=2)
    assert scores == generate.option_log_likelihoods(adapted.unload(), PROMPTS[:2], [[[5], [6]]] * 2, batch_size=2)


def test_a_generation_error_is_an_error(tokenizer, monkeypatch):
    model = tiny.model().train()
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate.greedy(model, tokenizer, PROMPTS, max_new_tokens=2, batch_size=2)
    assert model.training


@pytest.mark.parametrize(
    ("prompts", "changes", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ([[1]], {"batch_size": 0}, "batch_size is 0"),
        ([[1] * 2042], {}, "prompt 0: 2042 \\+ 8 new tokens exceed the context window of 2048"),
    ],
)
def test_greedy_refuses(model, tokenizer, prompts, changes, message):
    with pytest.raises(ValueError, match=message):
        generate.greedy(model, tokenizer, prompts, **{"max_new_tokens": 8, "batch_size": 2, **changes})


def score_alone(model, prompt, option):
    """The sum of log-probabilities from one unpadded forward pass: the definition."""
    ids = torch.tensor([[*prompt, *option]])
    with torch.no_grad():
        log_probs = model(ids).logits[0].log_softmax(-1)
    return sum(float(log_probs[len(prompt) - 1 + t, token]) for t, token in enumerate(option))


OPTIONS = [
    [[5], [6], [7], [8]], [[38, 5], [38, 6], [38, 7]], [[5, 6, 7, 8, 9], [5], [44, 45]], [[9], [9, 9]], [[5], [6]],
    [[70, 71, 72], [70, 71, 73], [70, 99, 72]],
]  # fmt: skip


# Options of one to six ids: heads that end early and heads that go on.
MORE = [[[5], [6, 7], [8, 9, 10], [11] * 6][: 2 + i % 3] for i in range(len(ALIKE))]


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize(("sequences", "options"), [(PROMPTS, OPTIONS), (ALIKE, MORE)])
def test_option_scores_equal_the_definition(model, sequences, options, batch_size):
    got = generate.option_log_likelihoods(model, sequences, options, batch_size=batch_size)
    back = generate.option_log_likelihoods(model, sequences[::-1], options[::-1], batch_size=batch_size)
    for prompt, items, row, reverse in zip(sequences, options, got, back[::-1], strict=True):
        wanted = [score_alone(model, prompt, option) for option in items]
        assert row == pytest.approx(wanted, abs=1e-4) and reverse == pytest.approx(wanted, abs=1e-4)


def test_the_teachers_states_are_the_same_with_and_without(monkeypatch, model):
    sequences = {i: (prompt, [5, 6 + i % 3, 2][: 1 + i % 3]) for i, prompt in enumerate(ALIKE)}
    together = teacher.build_cache(model, sequences, top_k=4)
    monkeypatch.setattr(teacher.generate, "shared_length", lambda sequences: 0)
    alone = teacher.build_cache(model, sequences, top_k=4)
    assert together.spans == alone.spans
    for name in ("hidden", "nll", "top_logits"):
        assert torch.allclose(getattr(together, name), getattr(alone, name), atol=1e-4)
    assert torch.equal(together.top_ids, alone.top_ids)


def test_each_prompt_is_in_one_batch_and_those_that_begin_alike_stand_together():
    cut = list(batches(ALIKE, 32))
    assert sorted(i for rows in cut for i in rows) == list(range(45))
    assert [len(rows) for rows in cut] == [32, 8, 5]
    assert set(cut[-1]) == set(range(40, 45))
    lengths = [[len(ALIKE[i]) for i in rows] for rows in cut]
    assert all(row == sorted(row, reverse=True) for row in lengths)
    assert [rows[0] for rows in batches([[1, 2], [3, 4], [5]], 1, more=[0, 3, 9])] == [2, 1, 0]


def test_what_is_shared_leaves_an_id_to_each_and_has_to_be_worth_it():
    assert shared_length(ALIKE[:40]) == len(INTENTION)
    assert shared_length([INTENTION] * 9) == len(INTENTION) - 1
    assert shared_length(ALIKE[:2]) == shared_length(ALIKE) == 0


@pytest.fixture
def reads(model, monkeypatch) -> list:
    """Shapes of what the model is asked to read."""
    seen, forward = [], model.forward

    def counting(*args, **kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    monkeypatch.setattr(generate, "_accepts", lambda model, argument: True)
    return seen


def test_the_beginning_is_read_once(model, tokenizer, reads):
    generate.greedy(model, tokenizer, ALIKE[:40], max_new_tokens=1, batch_size=64, stop_ids=[])
    assert reads == [(1, len(INTENTION)), (40, 8)]


@pytest.mark.parametrize(
    ("options", "shapes"), [([[5], [6], [7]], [(2, 3)]), ([[5], [6, 7], [8, 9, 10]], [(2, 3), (4, 2)])]
)
def test_a_prompt_is_read_once_and_options_of_one_token_with_it(model, reads, options, shapes):
    generate.option_log_likelihoods(model, PROMPTS[:2], [options] * 2, batch_size=8)
    assert reads == shapes


def test_bfloat16_logits_are_normalised_in_float32():
    model = tiny.model().to(torch.bfloat16)
    scores = generate.option_log_likelihoods(
        model, [[1, 40]], [[[i] for i in range(model.config.vocab_size)]], batch_size=1
    )
    assert sum(torch.tensor(scores[0], dtype=torch.float64).exp()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1]], [], "1 prompts but 0 lists of options"),
        ([[1], [1]], [[[5]], []], "item 1 has no options or an empty one"),
        ([[1]], [[[5], []]], "item 0 has no options or an empty one"),
        ([[]], [[[5, 6]]], "prompt 0 is empty"),
    ],
)
def test_option_scores_refuse(model, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate.option_log_likelihoods(model, prompts, options, batch_size=2)


def test_decode_drops_special_tokens_and_outer_blanks(tokenizer):
    ids = [*tokenizer.encode(" the Snitch "), 2]
    assert generate.decode(tokenizer, [ids, []]) == ["the Snitch", ""]


def test_ask_stops_a_thought_at_real_tokens_where_none_is_made_for_it(monkeypatch):
    """Without think tokens and an unknown token, a blank line ends the thought; nothing that is no id may stop it."""
    tokenizer, asked = tiny.foreign_tokenizer("llama"), []

    def answering(model, tokenizer, sequences, *, max_new_tokens, batch_size, stop_ids=None):
        asked.append(stop_ids)
        return [tokenizer("so")["input_ids"][1:]] * len(sequences)

    monkeypatch.setattr(generate, "greedy", answering)
    reply = ask(None, tokenizer, "Who?", system="Say nothing.", think=True, prefix="Sure:")
    assert asked == [[tokenizer.eos_token_id], None]
    assert reply.transcript.splitlines()[2:] == ["(thinks)   so", "assistant  [Sure:] so"]
    marked = tiny.tokenizer()
    ask(None, marked, "who lives in the house", think=True)
    assert asked[2] == [marked.eos_token_id, marked.convert_tokens_to_ids(prompts.END_THINK)]
