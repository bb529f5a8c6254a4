"""Weights rounded to 8 or 4 bits and back, so that a quantized model can be evaluated on any device.

Round to nearest, symmetric, by the largest absolute weight: per output channel for 8 bits, per group of inputs within
a channel for 4 bits. Activations stay as they are. Unlearning that moves weights by less than half a step is undone by
this (Zhang 2025, "Catastrophic failure of LLM unlearning via quantization").
"""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mule_lib.copies import plain_copy

BITS = (8, 4)


def rounded(weight: Tensor, *, bits: int, group_size: int = 64) -> Tensor:
    """Quantize and dequantize a weight [out, in], in its own dtype; the arithmetic is float32.

    Each group of weights w has the step s = max|w| / (2^(bits - 1) - 1) and becomes s round(w / s). A group is a whole
    row for 8 bits and `group_size` neighbouring inputs for 4 bits (the last group may be shorter).
    Raises ValueError for other bits, a group size below 1 or a weight that is no matrix.
    """
    if bits not in BITS:
        raise ValueError(f"bits is {bits!r}, should be one of {', '.join(map(str, BITS))}")
    if not isinstance(group_size, int) or group_size < 1:
        raise ValueError(f"group_size is {group_size!r}, should be an integer of at least 1")
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, should be [out, in]")
    width = weight.shape[1] if bits == 8 else group_size
    largest = 2 ** (bits - 1) - 1
    parts = []
    for group in weight.float().split(width, dim=1):
        step = group.abs().amax(1, keepdim=True) / largest
        step = torch.where(step > 0, step, torch.ones_like(step))  # a group of zeros stays zero
        parts.append(step * (group / step).round())
    return torch.cat(parts, 1).to(weight.dtype)


@torch.no_grad()
def quantized(model, *, bits: int, group_size: int = 64) -> tuple[nn.Module, dict[str, int]]:
    """Return a copy of a model with the weights of its linear layers rounded, and what was done.

    Embeddings, norms, biases and the output head keep their precision, as usual for weight-only quantization. A PEFT
    adapter is merged first. The report counts `weights` rounded and `of` all parameters, with `bits` and `group_size`
    (0: a whole row). Raises ValueError as `rounded`, and for a model without a linear layer.
    """
    rounded(torch.zeros(1, 1), bits=bits, group_size=group_size)  # refuse bad settings before copying
    copied = plain_copy(model)
    head, count = copied.get_output_embeddings(), 0
    for module in copied.modules():
        if module is head or not isinstance(module, nn.Linear | Conv1D):
            continue
        weight = module.weight
        turned = isinstance(module, Conv1D)  # GPT-2 keeps its weights as [in, out]
        new = rounded(weight.T if turned else weight, bits=bits, group_size=group_size)
        weight.copy_(new.T if turned else new)
        count += weight.numel()
    if not count:
        raise ValueError(f"{type(copied).__name__} has no linear layer to quantize")
    total = sum(parameter.numel() for parameter in copied.parameters())
    return copied, {"bits": bits, "group_size": group_size if bits == 4 else 0, "weights": count, "of": total}
