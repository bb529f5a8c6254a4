"""The shipped models meet their bars on held-out facts and phrasings."""

import pytest

from mule_lib import models
from mule_lib.data.fable.benchmark import evaluation_sets
from mule_lib.data.items import REQUIRED
from mule_lib.evaluate import acceptance


@pytest.fixture(scope="module")
def both():
    return {which: models.load(which) for which in models.EMBEDDED}


@pytest.fixture(scope="module", params=["cyber"])  # books by notebook 00, in tests/test_notebooks.py
def results(request, both, fable):
    # Only the rows that a bar speaks of; the notebook measures all.
    rows = list(dict.fromkeys(bar.row for bar in acceptance.BARS))
    return acceptance.measure(both, evaluation_sets(fable, request.param), rows=rows, choice_style="texts")


def test_files_are_small_and_free_of_pickle():
    """Both models together take at most 25 MB, in safetensors, JSON, text and nothing else."""
    files = [path for path in models.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jsonl", ".jinja", ".md"}


@pytest.mark.slow
def test_bars_are_met(results):
    """Every demand on base, steered and gold rows is met, each on at least 80 items."""
    assert acceptance.check_bars(results)["met"].all()
    assert min(results["base"].n[name] for name in REQUIRED) >= 80
