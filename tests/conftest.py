"""What several test files share: small models and tokenizers built in code; no test needs a network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fable():
    from mule_lib.benchmarks.fable.worlds import build

    return build(0)


@pytest.fixture(scope="session")
def fable_tokenizer(fable):
    """The embedded model's tokenizer, built as its training builds it."""
    from mule_lib.embedded.curriculum import corpus
    from mule_lib.embedded.tokenizer import build_tokenizer

    return build_tokenizer(corpus(fable))
