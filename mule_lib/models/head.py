"""The output head at answer positions only: a causal LM's logits where they are needed, row by row of the head.

At a vocabulary of 128 thousand the logits of prompt positions would take most of the memory and serve nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mule_lib.losses import pack_answers

MAX_GATHERED = 2**23  # float32 values of the head or of its logits at a time (32 MiB)
HEAD_ROWS = 2**13  # head rows widened to float32 at a time
# Largest difference to the live logits, relative to the largest of them, by what the model computes in.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}


@contextmanager
def answers_only(
    model, labels: Tensor, keep: Callable[[Tensor], Any] | None = None, *, most: int | None = None
) -> Iterator[None]:
    """Within, the forward applies its head to answer positions only: logits are [B, A + 1, V] as `pack_answers`.

    labels [B, T] must be those of the forward's input. `keep` is called with what the head multiplies, [B, A + 1,
    H]; with `most` the head itself sees that many rows and positions of it only. A hook on the head module works alike
    under PEFT, DDP, autocast and activation checkpointing, which slicing outside of the wrapped forward does not.
    `model` is the unwrapped model.
    """

    def pack(_, args):
        packed, _ = pack_answers(args[0], labels)
        if keep is not None:
            keep(packed)
        return (packed[:most, :most], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(pack)
    try:
        yield
    finally:
        handle.remove()


class _Rows(torch.autograd.Function):
    """Products of states [N, H] with chosen rows [N, K] of a head, some positions at a time.

    Backward adds into one gradient of the head; autograd's own would make one of the head's size for every piece.
    """

    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(states, weight, rows)
        ctx.dtype, ctx.step = dtype, max(1, MAX_GATHERED // (rows.shape[1] * weight.shape[1]))
        pieces = zip(rows.split(ctx.step), states.to(dtype).split(ctx.step), strict=True)
        return torch.cat([torch.bmm(weight[ids].to(dtype), own.unsqueeze(2)).squeeze(2).float() for ids, own in pieces])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        states, weight, rows = ctx.saved_tensors
        of_states, of_weight = [], torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        pieces = (each.split(ctx.step) for each in (gradient.to(ctx.dtype), states.to(ctx.dtype), rows))
        for given, own, ids in zip(*pieces, strict=True):
            of_states.append(torch.bmm(given.unsqueeze(1), weight[ids].to(ctx.dtype)).squeeze(1))
            if of_weight is not None:
                products = given.unsqueeze(2) * own.unsqueeze(1)
                of_weight.index_add_(0, ids.flatten(), products.flatten(0, 1).to(weight.dtype))
        return torch.cat(of_states).to(states.dtype), of_weight, None, None


def head_logits(
    hidden: Tensor, weight: Tensor, rows: Tensor, bias: Tensor | None = None, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Logits of chosen tokens only: the rows of the head that are asked for, times the hidden states.

    Shapes: hidden [N, H], weight [V, H], rows [N, K] token ids, bias [V]; returns float32 [N, K], multiplied in
    `dtype`. Equal to gathering from `full_logits`, at N K H instead of N V H products.
    """
    logits = _Rows.apply(hidden, weight, rows, dtype)
    return logits if bias is None else logits + bias[rows].float()


def full_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Logits of the whole vocabulary; hidden [..., H], weight [V, H], bias [V]; returns float32 [..., V]."""
    states = hidden.float()
    logits = torch.cat([states @ part.float().T for part in weight.split(HEAD_ROWS)], dim=-1)
    return logits if bias is None else logits + bias.float()


@dataclass(frozen=True)
class HeadLogits:
    """A student's logits [N, V] at its answer tokens that are never all there: a loss asks for what it needs of them.

    states [N, H], weight [V, H], bias [V]. Products are taken in `dtype`, as the head would, and widened to float32.
    Gradients reach states, weight and bias; `top` chooses without one.
    """

    states: Tensor
    weight: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    @classmethod
    def of(cls, head: nn.Linear, states: Tensor) -> "HeadLogits":
        """What a head would give for states [N, H], in the precision of the code around the call."""
        mixed, kind = torch.is_autocast_enabled(states.device.type), states.device.type
        return cls(states, head.weight, head.bias, torch.get_autocast_dtype(kind) if mixed else states.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.states), len(self.weight)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, positions: Tensor | slice) -> "HeadLogits":
        """Some of the positions, in their order."""
        return replace(self, states=self.states[positions])

    def whole(self, tokens: slice = slice(None)) -> Tensor:
        """All logits of some tokens, float32 [N, v]."""
        logits = (self.states.to(self.dtype) @ self.weight[tokens].to(self.dtype).T).float()
        return logits if self.bias is None else logits + self.bias[tokens].float()

    @torch.no_grad()
    def top(self, top_k: int) -> tuple[Tensor, Tensor]:
        """The largest logits, descending: ids [N, K] and logits [N, K], by a running top-K over the vocabulary.

        Which of tokens with equal logits are taken is open, as in `torch.topk`.
        """
        step, found = max(top_k, MAX_GATHERED // len(self)), []
        for start in range(0, self.shape[1], step):
            some = self.whole(slice(start, start + step))
            values, ids = some.topk(min(top_k, some.shape[1]), dim=1)
            found.append((values, ids + start))
        values, order = torch.cat([values for values, _ in found], dim=1).topk(top_k, dim=1)
        return torch.cat([ids for _, ids in found], dim=1).gather(1, order), values

    def at(self, ids: Tensor) -> Tensor:
        """Logits of any tokens, ids [N, K]; returns float32 [N, K]."""
        return head_logits(self.states, self.weight, ids, self.bias, dtype=self.dtype)

    def nll(self, targets: Tensor) -> Tensor:
        """Negative log-likelihood of one token per position, targets [N]; returns float32 [N], in nats."""
        nll = lambda part, some: F.cross_entropy(part.whole(), targets[some], reduction="none")  # noqa: E731
        return self._in_parts(len(self.weight), nll)

    def kl(self, reference: Any) -> Tensor:
        """KL(reference || student) of each position [N], in nats; `reference.logits(slice)` gives float32 logits."""

        def divergence(part: HeadLogits, some: slice) -> Tensor:
            log_q, log_p = (F.log_softmax(logits, dim=1) for logits in (part.whole(), reference.logits(some)))
            return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)

        return self._in_parts(self.shape[1], divergence)

    def _in_parts(self, each: int, work: Callable[["HeadLogits", slice], Tensor]) -> Tensor:
        """`work` on some positions at a time, `each` values per position, done again for backward instead of kept."""
        step = max(1, MAX_GATHERED // each)
        parts = [slice(start, start + step) for start in range(0, len(self), step)]
        if len(parts) == 1:
            return work(self, parts[0])
        once = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.cat([checkpoint(lambda some: work(self.take(some), some), some, **once) for some in parts])


def padded(sequences: Sequence[tuple[Sequence[int], Sequence[int]]], *, pad_id: int = 0) -> dict[str, Tensor]:
    """Pad (context, answer) ids on the right: input_ids, attention_mask and un-shifted labels, each [B, T]."""
    width = max(len(context) + len(answer) for context, answer in sequences)
    input_ids, labels = (torch.full((len(sequences), width), value) for value in (pad_id, -100))
    mask = torch.zeros_like(input_ids)
    for row, (context, answer) in enumerate(sequences):
        end = len(context) + len(answer)
        input_ids[row, :end] = torch.tensor([*context, *answer])
        labels[row, len(context) : end] = torch.tensor(answer)
        mask[row, :end] = 1
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
