"""What several test files share: small models and tokenizers built in code; no test needs a network."""

import os

from mule_lib.suite.notebook import THREADS

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Two workers on two cores: kernels and other processes that tests start take one each, or they wait for each other.
os.environ.update({name: os.environ.get(name, "1") for name in THREADS})

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "test_real_notebooks" not in item.nodeid)  # the longest first: nobody waits at the end


@pytest.fixture(scope="session")
def fable():
    from mule_lib.data.fable.worlds import build

    return build(0)


@pytest.fixture(scope="session")
def fable_tokenizer(fable):
    """The embedded model's tokenizer, built as its training builds it."""
    from curriculum import corpus
    from encoding import build_tokenizer

    return build_tokenizer(corpus(fable))
