"""Prompts with one beginning: batched together, read once, and the same answers and scores as one by one."""

import pytest
import torch
from test_generate import byte_tokenizer, one_by_one, score_alone, tiny_llama
from transformers import GPT2Config, GPT2LMHeadModel

from mule_lib import generate, shared_prefix, teacher_cache

INTENTION = [1, *range(20, 60)]
QUESTIONS = [[70 + i, *range(100, 101 + i % 7)] for i in range(40)]
PROMPTS = [[*INTENTION, *question] for question in QUESTIONS] + [[1, 9, 10 + i] for i in range(5)]


def reads(model, monkeypatch) -> list:
    """Shapes of what the model is asked to read from here on."""
    seen, forward = [], model.forward

    def counting(*args, **kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    monkeypatch.setattr(generate, "_accepts", lambda model, argument: True)
    return seen


def test_each_prompt_is_in_one_batch_and_those_that_begin_alike_stand_together():
    cut = list(shared_prefix.batches(PROMPTS, 32))
    assert sorted(i for rows in cut for i in rows) == list(range(45))
    assert [len(rows) for rows in cut] == [32, 8, 5]
    assert set(cut[-1]) == set(range(40, 45))
    lengths = [[len(PROMPTS[i]) for i in rows] for rows in cut]
    assert all(row == sorted(row, reverse=True) for row in lengths)


def test_ids_that_follow_count_for_the_length():
    assert [rows[0] for rows in shared_prefix.batches([[1, 2], [3, 4], [5]], 1, more=[0, 3, 9])] == [2, 1, 0]
    with pytest.raises(ValueError, match="batch_size is 0, should be at least 1"):
        shared_prefix.batches([[1]], 0)


def test_what_is_shared_leaves_an_id_to_each_and_has_to_be_worth_it():
    assert shared_prefix.shared_length(PROMPTS[:40]) == len(INTENTION)
    assert shared_prefix.shared_length([INTENTION] * 9) == len(INTENTION) - 1
    assert shared_prefix.shared_length(PROMPTS[:2]) == 0
    assert shared_prefix.shared_length(PROMPTS) == 0


@pytest.mark.parametrize("batch_size", [7, 32, 64])
def test_answers_are_those_of_one_by_one(batch_size):
    model = tiny_llama()
    got = generate.greedy(model, byte_tokenizer(), PROMPTS, max_new_tokens=5, batch_size=batch_size, stop_ids=[])
    assert got == [one_by_one(model, prompt, 5) for prompt in PROMPTS]


def test_absolute_positions_are_kept_too():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=262, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)).eval()
    got = generate.greedy(model, byte_tokenizer(), PROMPTS, max_new_tokens=4, batch_size=32, stop_ids=[])
    assert got == [one_by_one(model, prompt, 4) for prompt in PROMPTS]


@pytest.mark.parametrize("batch_size", [40, 200])
def test_option_scores_are_those_of_one_by_one(batch_size):
    """Options of one to six ids: heads that end early and heads that go on."""
    model = tiny_llama()
    options = [[[5], [6, 7], [8, 9, 10], [11] * 6][: 2 + i % 3] for i in range(len(PROMPTS))]
    got = generate.option_log_likelihoods(model, PROMPTS, options, batch_size=batch_size)
    for prompt, row, candidates in zip(PROMPTS, got, options, strict=True):
        assert row == pytest.approx([score_alone(model, prompt, option) for option in candidates], abs=1e-4)


def test_the_beginning_is_read_once(monkeypatch):
    model = tiny_llama()
    seen = reads(model, monkeypatch)
    generate.greedy(model, byte_tokenizer(), PROMPTS[:40], max_new_tokens=1, batch_size=64, stop_ids=[])
    assert seen == [(1, len(INTENTION)), (40, 8)]


def test_short_heads_do_not_wait_for_long_ones(monkeypatch):
    """Heads of 0, 1, 2 and 5 ids after one prompt: 1 + 1 + 2 + 1 ids, for three, two, one and one of them."""
    model = tiny_llama()
    seen = reads(model, monkeypatch)
    options = [[[5], [6, 7], [8, 9, 10], [11] * 6]]
    generate.option_log_likelihoods(model, [[1, 40, 41]], options, batch_size=8)
    assert seen == [(1, 3), (3, 1), (2, 1), (1, 2), (1, 1)]


def test_the_teachers_states_are_the_same_with_and_without(monkeypatch):
    model = tiny_llama()
    sequences = {i: (prompt, [5, 6 + i % 3, 2][: 1 + i % 3]) for i, prompt in enumerate(PROMPTS)}
    together = teacher_cache.build_cache(model, sequences, top_k=4)
    monkeypatch.setattr(shared_prefix, "shared_length", lambda sequences: 0)
    alone = teacher_cache.build_cache(model, sequences, top_k=4)
    assert together.spans == alone.spans
    for name in ("hidden", "nll", "top_logits"):
        assert torch.allclose(getattr(together, name), getattr(alone, name), atol=1e-4)
    assert torch.equal(together.top_ids, alone.top_ids)
