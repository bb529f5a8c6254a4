"""What several test files share: small models and tokenizers built in code; no test needs a network."""

import gc
import os
import signal

from mule_lib.suite.notebook import THREADS

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Two workers on two cores: kernels and other processes that tests start take one each, or they wait for each other.
os.environ.update({name: os.environ.get(name, "1") for name in THREADS})

import pytest
import torch
from in_process import InProcess
from papermill.engines import NBClientEngine, papermill_engines

from mule_lib.suite import cli

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "test_real_notebooks" not in item.nodeid)  # the longest first: nobody waits at the end


def pytest_collection_finish():
    gc.freeze()  # each training collects garbage twice: half a second, with all that torch and others made on import


@pytest.fixture
def no_kernel():
    """Papermill runs notebooks in this process."""
    papermill_engines.register(None, InProcess)
    yield
    papermill_engines.register(None, NBClientEngine)


@pytest.fixture
def mule(monkeypatch):
    """Run the command in this process; returns what it exits with, None for success."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["mule", *map(str, words)])
        try:
            return cli.main()
        except SystemExit as ended:
            return ended.code

    return run


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
