"""Batched greedy generation and option log-likelihoods from already rendered prompts; nothing here scores."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig

from mule_lib import shared_prefix

Ids = Sequence[int]


def greedy(
    model,
    tokenizer,
    prompts: Sequence[Ids],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_ids: int | Ids | None = None,
) -> list[list[int]]:
    """Continue every prompt greedily and return the new ids of each, in the order of `prompts`.

    The stop token and everything after it are cut off, so an empty list means that the model stopped at once.
    `stop_ids=None` takes the end tokens of the model's generation config (an id or a list) and of the tokenizer;
    `stop_ids=[]` never stops. Sampling, penalties and forced tokens of the generation config are ignored.
    Raises `ValueError` for an empty prompt or one that leaves no room in the context window; any error of the model
    propagates, because an empty answer would count as forgetting.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, should be at least 1")
    _check(model, prompts, max_new_tokens)
    stops = _stop_ids(model, tokenizer, stop_ids)
    pad_id = _pad_id(tokenizer, stops)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad_id,
    )
    answers: list[list[int]] = [[] for _ in prompts]
    with _evaluating(model), _plain_generation(model):
        for rows in shared_prefix.batches(prompts, batch_size):
            inputs, _ = _inputs(model, [prompts[i] for i in rows], pad_id)
            width = inputs["input_ids"].shape[1]
            output = model.generate(**inputs, generation_config=config)[:, width:].tolist()
            for i, ids in zip(rows, output, strict=True):
                end = next((t for t, token in enumerate(ids) if token in stops), len(ids))
                answers[i] = ids[:end]
    return answers


def option_log_likelihoods(
    model,
    prompts: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    *,
    batch_size: int,
) -> list[list[float]]:
    """Return the summed natural log-likelihood of each option's ids after its prompt, in float32.

    `options[i]` are the continuations of `prompts[i]`; their number and lengths may differ from item to item. Options
    that agree but for their last token are one, so single-token options (letters) cost one pass a prompt.
    Raises `ValueError` for an empty prompt, no options, an empty option or a sequence longer than the context window.
    """
    if len(prompts) != len(options):
        raise ValueError(f"{len(prompts)} prompts but {len(options)} lists of options")
    for i, candidates in enumerate(options):
        if not candidates or any(len(option) == 0 for option in candidates):
            raise ValueError(f"item {i} has no options or an empty one")
    _check(model, prompts, 0)
    longest = [max(len(option) for option in candidates) - 1 for candidates in options]
    _check(model, [[*prompt, *[0] * more] for prompt, more in zip(prompts, longest, strict=True)], 0)
    # Per prompt: the options' tokens but the last, and which options share them.
    heads: list[dict[tuple[int, ...], list[int]]] = []
    for candidates in options:
        heads.append({})
        for j, option in enumerate(candidates):
            heads[-1].setdefault(tuple(option[:-1]), []).append(j)
    scores = [[0.0] * len(candidates) for candidates in options]
    # A batch holds as many prompts as their options fit into it.
    most = max((len(each) for each in heads), default=1)
    with _evaluating(model):
        for rows in shared_prefix.batches(prompts, max(1, batch_size // most), more=longest):
            passes = sorted(((b, i, head) for b, i in enumerate(rows) for head in heads[i]), key=lambda p: -len(p[2]))
            inputs, shared = _inputs(model, [prompts[i] for i in rows], pad_id=0)
            # forward, unlike generate, takes only what the cache does not hold yet.
            inputs |= {name: inputs[name][:, shared:] for name in ("input_ids", "position_ids") if name in inputs}
            for start, log_probs in _along(model, inputs, [(b, head) for b, _, head in passes]):
                n, width = log_probs.shape[:2]
                wanted = [
                    (row, place, token, i, j)
                    for row, (_, i, head) in enumerate(passes[:n])
                    for j in heads[i][head]
                    for place, token in enumerate(options[i][j][start : start + width])
                ]
                at = torch.tensor([each[:3] for each in wanted], device=log_probs.device)
                picked = log_probs[at[:, 0], at[:, 1], at[:, 2]].tolist()
                for (*_, i, j), value in zip(wanted, picked, strict=True):
                    scores[i][j] += value
    return scores


def _along(model, inputs: dict, passes: Sequence[tuple[int, Ids]]) -> Iterator[tuple[int, torch.Tensor]]:
    """Log-probabilities after prompt `b` and along each head, for passes of (b, head), the longest head first.

    Yields (start, [n, width, V]): what follows the heads' first `start`, `start + 1`, ... ids, for the n passes whose
    heads are that long. Each prompt is read once; its keys and values are shared by all of its heads. Heads are read
    in pieces of growing width, so that a short one costs little beside a long one.
    """
    rows = torch.tensor([b for b, _ in passes], device=inputs["input_ids"].device)
    lengths = [len(head) for _, head in passes]
    keep = {"logits_to_keep": 1} if _accepts(model, "logits_to_keep") else {}
    read = model(**inputs, **keep, use_cache=lengths[0] > 0)
    yield 0, read.logits[:, -1:].float().log_softmax(-1)[rows]
    cache, mask, done = read.past_key_values, inputs["attention_mask"], 0
    while n := sum(length > done for length in lengths):
        width = min(max(1, done), lengths[0] - done)
        # The first selection gives each pass the keys and values of its prompt, later ones drop the heads that ended.
        chosen = rows[:n] if not done else torch.arange(n, device=rows.device)
        cache.batch_select_indices(chosen)
        pieces = [list(head[done : done + width]) for _, head in passes[:n]]
        ids = torch.tensor([piece + [0] * (width - len(piece)) for piece in pieces], device=rows.device)
        real = [[1] * len(piece) + [0] * (width - len(piece)) for piece in pieces]
        positions = mask[chosen].sum(1, keepdim=True) + torch.arange(width, device=rows.device)
        mask = torch.cat([mask[chosen], torch.tensor(real, device=rows.device)], 1)
        more = {"position_ids": positions} if "position_ids" in inputs else {}
        read = model(input_ids=ids, past_key_values=cache, attention_mask=mask, **more)
        yield done + 1, read.logits.float().log_softmax(-1)
        done += width


def decode(tokenizer, answers: Sequence[Ids]) -> list[str]:
    """Turn generated ids into stripped text without special tokens."""
    return [tokenizer.decode(list(ids), skip_special_tokens=True).strip() for ids in answers]


@contextmanager
def _evaluating(model) -> Iterator[None]:
    # generate() in train mode with activation checkpointing returns wrong text; adapters may train while the base
    # does not, so each module's own flag comes back.
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _plain_generation(model) -> Iterator[None]:
    # generate() fills unset fields from the model's own config (temperature, penalties) and warns about them.
    # peft copies the wrapper's config to the model inside, hence both.
    holders = [model] if _core(model) is model else [model, _core(model)]
    saved = [holder.generation_config for holder in holders]
    for holder in holders:
        holder.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for holder, config in zip(holders, saved, strict=True):
            holder.generation_config = config


def _core(model):
    unwrap: Callable | None = getattr(model, "get_base_model", None)
    return unwrap() if unwrap else model


def _accepts(model, argument: str) -> bool:
    return argument in inspect.signature(_core(model).forward).parameters


def _check(model, sequences: Sequence[Ids], new_tokens: int) -> None:
    window = getattr(_core(model).config, "max_position_embeddings", None)
    for i, ids in enumerate(sequences):
        if len(ids) == 0:
            raise ValueError(f"prompt {i} is empty")
        if window and len(ids) + new_tokens > window:
            raise ValueError(f"prompt {i}: {len(ids)} + {new_tokens} new tokens exceed the context window of {window}")


def _inputs(model, sequences: Sequence[Ids], pad_id: int) -> tuple[dict, int]:
    """What `generate` takes for a batch, and how many leading ids of all its cache holds; padding follows those."""
    shared, width = shared_prefix.shared_length(sequences), max(len(ids) for ids in sequences)
    device = next(model.parameters()).device
    padded = [[*ids[:shared], *[pad_id] * (width - len(ids)), *ids[shared:]] for ids in sequences]
    real = [[1] * shared + [0] * (width - len(ids)) + [1] * (len(ids) - shared) for ids in sequences]
    mask = torch.tensor(real, device=device)
    inputs = {"input_ids": torch.tensor(padded, device=device), "attention_mask": mask}
    if shared:
        inputs["past_key_values"] = shared_prefix.read(model, sequences[0][:shared], len(sequences))
    if _accepts(model, "position_ids"):
        # Models with absolute positions give other logits when padding shifts them.
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return inputs, shared


def _stop_ids(model, tokenizer, stop_ids: int | Ids | None) -> set[int]:
    if stop_ids is not None:
        return {stop_ids} if isinstance(stop_ids, int) else set(stop_ids)
    found: set[int] = set()
    for value in (_core(model).generation_config.eos_token_id, tokenizer.eos_token_id):
        found.update([value] if isinstance(value, int) else value or [])
    return found


def _pad_id(tokenizer, stops: set[int]) -> int:
    # generate() pads finished rows with it; those positions lie after the stop token and are cut off.
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    return min(stops, default=0)
