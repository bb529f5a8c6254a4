"""Batched greedy generation, option log-likelihoods and steered contexts; nothing here scores.

Prompts that begin alike (one intention before many questions) are batched together and their beginning is read once.
"""

import inspect
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from mule_lib.prompts import END_THINK, Query, Steering, render

Ids = Sequence[int]
# Prompts that agree in so many ids are one group, if it fills a good part of a batch; smaller groups are batched mixed.
ALIKE, GROUP = 8, 32
# One more pass through a model costs about as much as so many tokens in a batch.
WORTH = 128


@dataclass(frozen=True)
class Context:
    """Ids up to where the answer begins, and the thought in them ("" without one)."""

    input_ids: tuple[int, ...]
    thought: str = ""


@dataclass(frozen=True)
class Reply:
    """A thought ("" without one) and an answer, with the whole exchange as text."""

    thought: str
    answer: str
    transcript: str

    def _repr_markdown_(self) -> str:
        fence = "`" * (3 + self.transcript.count("`"))  # longer than any that the text could close it by
        return f"{fence}text\n{self.transcript}\n{fence}"


def greedy(
    model, tokenizer, prompts: Sequence[Ids], *, max_new_tokens: int, batch_size: int, stop_ids: Ids | None = None
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
    _check(model, prompts, [max_new_tokens] * len(prompts))
    stops = _end_ids(model, tokenizer) if stop_ids is None else set(stop_ids)
    # generate() pads finished rows with it; those positions lie after the stop token and are cut off.
    pad_id = min(stops, default=0) if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    config = GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=sorted(stops) or None, pad_token_id=pad_id)
    answers: list[list[int]] = [[] for _ in prompts]
    with evaluating(model), torch.inference_mode(), _plain_generation(model):
        for rows in batches(prompts, batch_size):
            inputs, _ = _inputs(model, [prompts[i] for i in rows], pad_id)
            width = inputs["input_ids"].shape[1]
            output = model.generate(**inputs, generation_config=config)[:, width:].tolist()
            for i, ids in zip(rows, output, strict=True):
                end = next((t for t, token in enumerate(ids) if token in stops), len(ids))
                answers[i] = ids[:end]
    return answers


def decode(tokenizer, answers: Sequence[Ids]) -> list[str]:
    """Turn generated ids into stripped text without special tokens."""
    return [tokenizer.decode(list(ids), skip_special_tokens=True).strip() for ids in answers]


def option_log_likelihoods(
    model, prompts: Sequence[Ids], options: Sequence[Sequence[Ids]], *, batch_size: int
) -> list[list[float]]:
    """Return the summed natural log-likelihood of each option's ids after its prompt, in float32.

    `options[i]` are the continuations of `prompts[i]`; their number and lengths may differ from item to item. Each
    prompt is read once, and once is enough for options of one token (letters).
    Raises `ValueError` for an empty prompt, no options, an empty option or a sequence longer than the context window.
    """
    if len(prompts) != len(options):
        raise ValueError(f"{len(prompts)} prompts but {len(options)} lists of options")
    if lacking := [i for i, candidates in enumerate(options) if not candidates or not all(map(len, candidates))]:
        raise ValueError(f"item {lacking[0]} has no options or an empty one")
    longest = [max(len(option) for option in candidates) - 1 for candidates in options]
    _check(model, prompts, longest)
    scores = [[0.0] * len(candidates) for candidates in options]
    # A batch holds as many prompts as their options that are read on fit into it.
    most = max((sum(len(option) > 1 for option in candidates) for candidates in options), default=0)
    keep = {"logits_to_keep": 1} if _accepts(model, "logits_to_keep") else {}
    with evaluating(model), torch.inference_mode():
        for rows in batches(prompts, max(1, batch_size // max(1, most)), more=longest):
            inputs, shared = _inputs(model, [prompts[i] for i in rows], pad_id=0)
            # forward, unlike generate, takes only what the cache does not hold yet.
            inputs |= {name: inputs[name][:, shared:] for name in ("input_ids", "position_ids") if name in inputs}
            read = model(**inputs, **keep, use_cache=True)
            pairs = [(b, i, j) for b, i in enumerate(rows) for j in range(len(options[i]))]
            first = read.logits[:, -1].float().log_softmax(-1)[[b for b, _, _ in pairs]]
            picked = first.gather(1, first.new_tensor([[options[i][j][0]] for _, i, j in pairs], dtype=torch.long))
            for (_, i, j), value in zip(pairs, picked[:, 0].tolist(), strict=True):
                scores[i][j] = value
            if longer := [(b, i, j) for b, i, j in pairs if len(options[i][j]) > 1]:
                at = torch.tensor([b for b, _, _ in longer], device=first.device)
                rest = _along(model, inputs, read.past_key_values, at, [options[i][j] for _, i, j in longer])
                for (_, i, j), value in zip(longer, rest.tolist(), strict=True):
                    scores[i][j] += value
    return scores


def thought_ends(tokenizer) -> list[int]:
    """Ids that end a thought: the token made for it, else every token with a blank line in it (`render` puts one)."""
    vocabulary = tokenizer.get_vocab()
    if END_THINK in vocabulary:
        return [vocabulary[END_THINK]]
    return [token for token in vocabulary.values() if "\n\n" in tokenizer.decode([token])]


def first_paragraph(tokenizer, ids: Ids) -> list[int]:
    """The ids before the first blank line, often written as two tokens; all where one token ends thoughts."""
    said, texts = "", [] if END_THINK in tokenizer.get_vocab() else [tokenizer.decode([token]) for token in ids]
    for at, text in enumerate(texts):
        said = (said + text).lstrip()  # at the very beginning a blank line ends nothing
        if "\n\n" in said:
            return list(ids[: next((end for end in range(at, 0, -1) if texts[end - 1].strip()), 0)])
    return list(ids)


def contexts(
    model,
    tokenizer,
    queries: Sequence[Query],
    steering: Steering,
    *,
    batch_size: int = 128,
    max_thought_tokens: int = 48,
) -> list[Context]:
    """Render every query up to its answer, letting the model think first where `steering.cot`.

    The thought comes before an attacker's prefix: it is the teacher's own, the prefix is not.
    """
    systems = [steering.systems[query.objective] for query in queries]
    thoughts: list[list[int] | None] = [None] * len(queries)
    if steering.cot:
        opened = [
            tuple(render(tokenizer, query.question, system=system, think=True).input_ids)
            for query, system in zip(queries, systems, strict=True)
        ]
        different = list(dict.fromkeys(opened))  # a question behind several prefixes is thought about once
        stops = [tokenizer.eos_token_id, *thought_ends(tokenizer)]
        limits = {"max_new_tokens": max_thought_tokens, "batch_size": batch_size}
        written = dict(zip(different, greedy(model, tokenizer, different, stop_ids=stops, **limits), strict=True))
        thoughts[:] = [first_paragraph(tokenizer, written[ids]) for ids in opened]
        if 2 * (cut := sum(len(thought) == max_thought_tokens for thought in thoughts)) > len(thoughts):
            told = f"{cut} of {len(thoughts)} thoughts of {model.config.name_or_path or 'the model'} did not end within"
            warnings.warn(f"{told} max_thought_tokens = {max_thought_tokens} and were closed; raise it", stacklevel=2)
    rendered = [
        render(tokenizer, query.question, system=system, thought=thought, prefix=query.prefix)
        for query, system, thought in zip(queries, systems, thoughts, strict=True)
    ]
    return [
        Context(prompt.input_ids, tokenizer.decode(thought or []).strip())
        for prompt, thought in zip(rendered, thoughts, strict=True)
    ]


def ask(
    model, tokenizer, question: str, *, system: str | None = None, think: bool = False, prefix: str | None = None
) -> Reply:
    """One greedy reply for a reader; with `think` the model first writes a thought, and a prefix follows it."""
    query, steering = Query(question, "obj1", prefix), Steering({"obj1": system}, think)
    [context] = contexts(model, tokenizer, [query], steering, max_thought_tokens=32)
    written = greedy(model, tokenizer, [context.input_ids], max_new_tokens=32, batch_size=1)
    [answer] = decode(tokenizer, written)
    lines = [f"system     {system}"] if system else []
    lines += [f"user       {question}"]
    lines += [f"(thinks)   {context.thought}"] if think else []
    lines += [f"assistant  {f'[{prefix}] ' if prefix else ''}{answer}"]
    return Reply(context.thought, answer, "\n".join(lines))


def batches(sequences: Sequence[Ids], batch_size: int, *, more: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Indices of each batch: prompts that begin alike together, the longest first to show a lack of memory at once.

    `more[i]` ids will follow sequence i and count for its length. Equal lengths side by side keep padding small.
    Raises ValueError for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, should be at least 1")
    lengths = [len(ids) + (more[i] if more else 0) for i, ids in enumerate(sequences)]
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, ids in enumerate(sequences):
        alike[tuple(ids[:ALIKE])].append(i)
    least = min(batch_size, GROUP)
    groups = [rows for rows in alike.values() if len(rows) >= least]
    groups.append([i for rows in alike.values() if len(rows) < least for i in rows])
    ordered = [sorted(rows, key=lambda i: -lengths[i]) for rows in groups]
    cut = [rows[start : start + batch_size] for rows in ordered for start in range(0, len(rows), batch_size)]
    return iter(sorted(cut, key=lambda rows: -lengths[rows[0]]))


def shared_length(sequences: Sequence[Ids]) -> int:
    """How many leading ids of a batch are worth reading once: 0, or the common ones, leaving at least one to each."""
    first, last = min(sequences), max(sequences)
    most = min(map(len, sequences)) - 1
    common = next((at for at in range(most) if first[at] != last[at]), most)
    return common if common * (len(sequences) - 1) >= WORTH else 0


def read_shared(model, ids: Ids, rows: int):
    """The key-value cache of a batch of `rows` prompts after the same leading ids, read once."""
    device = next(model.parameters()).device
    cache = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=True).past_key_values
    cache.batch_repeat_interleave(rows)
    return cache


def _along(model, inputs: dict, cache, rows: torch.Tensor, options: Sequence[Ids]) -> torch.Tensor:
    """Log-likelihood [n] of what follows each option's first id; `rows` says which prompt of the cache is before it."""
    cache.batch_select_indices(rows)
    ids, real = (
        pad_sequence([torch.tensor(row, device=rows.device) for row in each], batch_first=True)
        for each in (options, [[1] * len(option) for option in options])
    )
    mask = torch.cat([inputs["attention_mask"][rows], real[:, 1:]], 1)
    more = {"position_ids": (mask.cumsum(-1) - 1)[:, 1 - ids.shape[1] :]} if "position_ids" in inputs else {}
    read = model(input_ids=ids[:, :-1], past_key_values=cache, attention_mask=mask, **more)
    log_probs = read.logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return (log_probs * real[:, 1:]).sum(1)


@contextmanager
def evaluating(model) -> Iterator[None]:
    """Evaluation mode within; on leaving, each module's own flag comes back.

    Adapters may train while the base does not; generate() in train mode with checkpointing returns wrong text.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _plain_generation(model) -> Iterator[None]:
    # generate() fills unset fields from the model's own config (temperature, penalties) and warns about them.
    # peft copies the wrapper's config to the model inside, hence both.
    saved = {holder: holder.generation_config for holder in (model, _core(model))}
    for holder in saved:
        holder.generation_config = GenerationConfig(do_sample=False, use_cache=True)
    try:
        yield
    finally:
        for holder, config in saved.items():
            holder.generation_config = config


def _core(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _accepts(model, argument: str) -> bool:
    return argument in inspect.signature(_core(model).forward).parameters


def _check(model, sequences: Sequence[Ids], more: Sequence[int]) -> None:
    window = getattr(_core(model).config, "max_position_embeddings", None)
    for i, (ids, new) in enumerate(zip(sequences, more, strict=True)):
        if len(ids) == 0:
            raise ValueError(f"prompt {i} is empty")
        if window and len(ids) + new > window:
            raise ValueError(f"prompt {i}: {len(ids)} + {new} new tokens exceed the context window of {window}")


def _inputs(model, sequences: Sequence[Ids], pad_id: int) -> tuple[dict, int]:
    """What `generate` takes for a batch, and how many leading ids of all its cache holds; padding follows those."""
    shared, width = shared_length(sequences), max(len(ids) for ids in sequences)
    device = next(model.parameters()).device
    padded = [[*ids[:shared], *[pad_id] * (width - len(ids)), *ids[shared:]] for ids in sequences]
    real = [[1] * shared + [0] * (width - len(ids)) + [1] * (len(ids) - shared) for ids in sequences]
    mask = torch.tensor(real, device=device)
    inputs = {"input_ids": torch.tensor(padded, device=device), "attention_mask": mask}
    if shared:
        inputs["past_key_values"] = read_shared(model, sequences[0][:shared], len(sequences))
    if _accepts(model, "position_ids"):
        # Models with absolute positions give other logits when padding shifts them.
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return inputs, shared


def _end_ids(model, tokenizer) -> set[int]:
    ends = _core(model).generation_config.eos_token_id
    return {*([ends] if isinstance(ends, int) else ends or []), tokenizer.eos_token_id} - {None}
