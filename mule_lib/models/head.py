"""The output head at answer positions only: a causal LM's logits where they are needed, row by row of the head.

At a vocabulary of 128 thousand the logits of prompt positions would take most of the memory and serve nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mule_lib.losses import pack_answers

MAX_GATHERED = 2**24  # float32 values gathered from the head at a time (64 MiB)
HEAD_ROWS = 2**13  # head rows widened to float32 at a time


@contextmanager
def answers_only(model, labels: Tensor, kept: list[Tensor] | None = None) -> Iterator[None]:
    """Within, the forward applies its head to answer positions only: logits are [B, A + 1, V] as `pack_answers`.

    labels [B, T] must be those of the forward's input. `kept` receives what the head multiplies, [B, A + 1, H]. A hook
    on the head module works alike under PEFT, DDP, autocast and activation checkpointing, which slicing outside of the
    wrapped forward does not. `model` is the unwrapped model.
    """

    def pack(_, args):
        packed, _ = pack_answers(args[0], labels)
        if kept is not None:
            kept.append(packed)
        return (packed, *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(pack)
    try:
        yield
    finally:
        handle.remove()


def head_logits(hidden: Tensor, weight: Tensor, rows: Tensor, bias: Tensor | None = None) -> Tensor:
    """Logits of chosen tokens only: the rows of the head that are asked for, times the hidden states.

    Shapes: hidden [N, H], weight [V, H], rows [N, K] token ids, bias [V]; returns float32 [N, K]. Equal to gathering
    from `full_logits`, at N K H instead of N V H products.
    """
    step = max(1, MAX_GATHERED // (rows.shape[1] * weight.shape[1]))
    pieces = [
        torch.bmm(weight[ids].float(), states.float().unsqueeze(2)).squeeze(2)
        for ids, states in zip(rows.split(step), hidden.split(step), strict=True)
    ]
    logits = torch.cat(pieces)
    return logits if bias is None else logits + bias[rows].float()


def full_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Logits of the whole vocabulary; hidden [..., H], weight [V, H], bias [V]; returns float32 [..., V]."""
    states = hidden.float()
    logits = torch.cat([states @ part.float().T for part in weight.split(HEAD_ROWS)], dim=-1)
    return logits if bias is None else logits + bias.float()


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
