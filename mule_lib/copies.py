"""Copies of a model that attacks may change; the model that was given stays as it is."""

import copy

from peft import PeftModel


def plain_copy(model):
    """Return a copy in evaluation mode without gradients; a PEFT adapter is merged into its weights.

    A merged model is what its owner would release, and what a quantizer or an attacker with the weights then gets.
    Memory: once more the weights of the model.
    """
    copied = copy.deepcopy(model)
    if isinstance(copied, PeftModel):
        copied = copied.merge_and_unload()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return copied.eval()
