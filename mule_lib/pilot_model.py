"""The model that notebooks 01 and 02 read: any that `models.load` knows, on the accelerator where there is one."""

import torch

from mule_lib import models
from mule_lib.params import DataStandardization, GradientCosine


def load_model(p: DataStandardization | GradientCosine):
    """Model and tokenizer at the commit and precision of `p`. Raises what `models.load` does."""
    dtype = torch.bfloat16 if p.precision == "bf16" else torch.float32
    return models.load(p.model, dtype=dtype, revision=p.revision)
