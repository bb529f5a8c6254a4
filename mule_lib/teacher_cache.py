"""The frozen model's side of every loss, from one pass before training: exact logits at every answer position.

Eq. 3 needs the teacher's logits also at the student's moving top-K, so a stored top-K is not enough. What the output
head multiplies is kept instead, and only the head's rows that are asked for are multiplied: exact, and no teacher
forward while training.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mule_lib.losses import answer_targets
from mule_lib.models import frozen
from mule_lib.models.generate import batches, read_shared, shared_length
from mule_lib.models.head import answers_only, full_logits, head_logits, padded

# Largest difference to the live logits, relative to the largest of them, by what the model computes in.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}


class CacheError(RuntimeError):
    """The model's logits are not its output head times a hidden state, so they cannot be cached exactly."""


@dataclass(frozen=True)
class AnswerCache:
    """Hidden states of M answer positions and the head as it was.

    hidden [M, H] is what the head multiplies; weight [V, H] and bias [V] belong to the head; nll [M] is each token's
    negative log-likelihood in nats; top_ids and top_logits [M, K] are the model's own largest logits in descending
    order. `spans` says which positions belong to which sequence.
    """

    spans: dict[Hashable, range]
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    nll: Tensor
    top_ids: Tensor
    top_logits: Tensor

    def at(self, positions: Tensor) -> "CachedAnswers":
        """The positions of a batch, in the order of its answer tokens; positions [N], indices below M."""
        return CachedAnswers(self, positions.to(self.hidden.device))

    def teacher_logits(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits of the tokens `rows` [N, K], or of all, for hidden states [N, H]; returns float32 [N, K] or [N, V]."""
        if rows is None:
            return full_logits(hidden, self.weight, self.bias)
        return head_logits(hidden, self.weight, rows, self.bias)


@dataclass(frozen=True)
class CachedAnswers:
    """The frozen model at N answer positions of a batch, all float32."""

    cache: AnswerCache
    positions: Tensor

    def top(self, top_k: int) -> tuple[Tensor, Tensor]:
        """Its own top-K: ids [N, K] and logits [N, K]. Raises ValueError beyond the K that was stored."""
        stored = self.cache.top_ids.shape[1]
        if top_k > stored:
            raise ValueError(f"top_k={top_k}: {stored} were stored; build the cache with top_k={top_k}")
        return self.cache.top_ids[self.positions, :top_k], self.cache.top_logits[self.positions, :top_k]

    def at(self, rows: Tensor) -> Tensor:
        """Its logits of any tokens, rows [N, K]; returns [N, K]."""
        return self.cache.teacher_logits(self.hidden, rows)

    def logits(self) -> Tensor:
        """Its logits of the whole vocabulary, [N, V]: for losses that need them all, N answer positions at a time."""
        return self.cache.teacher_logits(self.hidden)

    @property
    def hidden(self) -> Tensor:
        """The kept hidden states [N, H]."""
        return self.cache.hidden[self.positions]

    @property
    def nll(self) -> Tensor:
        """Negative log-likelihood of each answer token, [N], in nats."""
        return self.cache.nll[self.positions]


def build_cache(
    model,
    sequences: Mapping[Hashable, tuple[Sequence[int], Sequence[int]]],
    *,
    top_k: int = 0,
    dtype: torch.dtype | None = None,
    copy_head: bool = True,
    batch_size: int = 32,
) -> AnswerCache:
    """Run the frozen base once over (context ids, answer ids) and keep what losses ask of it at the answer tokens.

    `dtype` of the kept states, the model's own by default. `copy_head=False` shares the head's weight, right only while
    nothing trains it.
    Raises ValueError for no sequence or an empty answer, CacheError where head times states are not the live logits
    (soft-capped or scaled heads).
    """
    if not sequences:
        raise ValueError("sequences: none given; there is nothing to cache")
    empty = [key for key, (context, answer) in sequences.items() if not context or not answer]
    if empty:
        raise ValueError(f"sequences: {empty[0]!r} has an empty context or answer")
    keys = list(sequences)
    more = [len(answer) for _, answer in sequences.values()]
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    parts: dict[str, list[Tensor]] = {"hidden": [], "nll": [], "ids": [], "logits": []}
    spans: dict[Hashable, range] = {}
    start = 0
    with frozen(model):
        weight, bias = (t.detach().clone() if copy_head and t is not None else t for t in (head.weight, bias))
        for rows in batches([context for context, _ in sequences.values()], batch_size, more=more):
            for i in rows:
                spans[keys[i]] = range(start, start := start + more[i])
            _keep(model, [sequences[keys[i]] for i in rows], (weight, bias), top_k, dtype, parts)
    hidden, nll, ids, logits = (torch.cat(values) for values in parts.values())
    return AnswerCache(spans, hidden, weight.detach(), bias, nll, ids, logits)


def _keep(model, sequences, head, top_k: int, dtype, parts: dict[str, list[Tensor]]) -> None:
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in padded(sequences).items()}
    # What all contexts begin with is read once; the mask goes over it, ids and labels begin after it.
    shared = shared_length([context for context, _ in sequences])
    ids, labels, kept = batch["input_ids"][:, shared:], batch["labels"][:, shared:], []
    cache = read_shared(model, sequences[0][0][:shared], len(sequences)) if shared else None
    with answers_only(model, labels, kept):
        output = model(
            input_ids=ids,
            attention_mask=batch["attention_mask"],
            past_key_values=cache,
            use_cache=cache is not None,
        )
    supervised = labels[:, 1:] != -100
    packed = torch.arange(kept[0].shape[1], device=device) < supervised.sum(1, keepdim=True)
    states = kept[0][packed]
    logits = full_logits(states, *head)
    live = output.logits[packed].float()
    worst = (live - logits).abs().max() / live.abs().max()
    if worst > TOLERANCE.get(kept[0].dtype, 1e-4):
        raise CacheError(
            f"the model's logits differ from its output head times the hidden states by {worst:.1e} of their size: "
            "soft-capping, scaling or an adapter on the head; such a teacher cannot be cached"
        )
    top = logits.topk(min(top_k, logits.shape[1]), dim=1)
    parts["hidden"].append(states if dtype is None else states.to(dtype))
    parts["nll"].append(cross_entropy(logits, answer_targets(labels), reduction="none"))
    parts["ids"].append(top.indices)
    parts["logits"].append(top.values)
