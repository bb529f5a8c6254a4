"""Notebook 01's checks find each kind of broken record, and its counts and formats are those of the data."""

from dataclasses import replace

import pytest

from mule_lib import data_overview
from mule_lib.data import RAW_FILE, BenchmarkError, by_format, load, save
from mule_lib.data import records as records_module

RULES = {
    "stands in an evaluation set": lambda r, data: replace(r, question=data.sets.forget[0].question),
    "fact is evaluated": lambda r, data: replace(r, source=data.sets.forget[0].id),
    "is a validation fact": lambda r, data: replace(r, source=data.validation[0].source),
    "nearly an evaluation question": lambda r, data: replace(
        r, question=data.sets.forget[0].question + " Please", answer=data.sets.forget[0].reference
    ),
    "nearly repeats": lambda r, data: replace(
        r, question=data.records[6].question + "?", answer=data.records[6].answer
    ),
    "names its own answer": lambda r, data: replace(r, question=f"Is it {r.answer}"),
    "without an anchor": lambda r, data: replace(r, anchor=None),
    "answer is a refusal": lambda r, data: replace(r, answer=r.refusal),
}


@pytest.fixture(scope="module")
def books():
    return load("books")


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
def test_fable_breaks_no_rule(benchmark):
    assert data_overview.checks(load(benchmark))["holds"].all()


@pytest.mark.parametrize("rule", RULES)
def test_each_broken_rule_is_found(books, rule):
    """One record broken in one way is counted under its rule."""
    broken = [RULES[rule](books.records[0], books), *books.records[1:]]
    found = data_overview.checks(replace(books, records=broken))
    line = found[found["rule"].str.contains(rule)].iloc[0]
    assert line["records"] >= 1 and not line["holds"]


def _distances():
    import pandas as pd

    lines = [
        ("raw", "obj1", "obj2", 2.0, 1.9, 2.0),
        ("raw", "obj1", "obj3", 2.0, 2.0, 2.0),
        ("standardized", "obj1", "obj2", 1.95, 1.8, 2.0),
        ("standardized", "obj1", "obj3", 0.5, 0.1, 0.7),
    ]
    return pd.DataFrame(lines, columns=["format", "objective_a", "objective_b", "distance", "low", "high"])


def test_summary_counts_only_intervals_that_are_apart(books):
    said = data_overview.summary(_distances(), data_overview.checks(books))
    assert "8 of 8 checks hold" in said
    assert "brings 1 of 2 pairs closer" in said
    assert "farthest pair left is obj1 and obj2 (1.95" in said


def test_counts_and_samples(books):
    """Six groups with as many records as the data has; samples show both formats of one fact."""
    table = data_overview.counts({"train": books.records, "validation": books.validation})
    assert table["records"]["train"].sum() == len(books.records)
    assert (table["records"]["validation"] > 0).all()
    _, formats = by_format("books")
    shown = data_overview.samples(formats)
    assert len(shown) == 6 and (shown["raw"] != shown["standardized"]).all()


def test_lengths_by_format(fable_tokenizer):
    _, formats = by_format("books")
    table = data_overview.lengths(formats, fable_tokenizer)
    assert (table["raw"] > table["standardized"]).all()


def test_prepared_benchmarks_need_raw_records_of_the_same_ids(books, tmp_path):
    """A folder without raw.jsonl has one format; with it both, unless a record is missing there."""
    save(tmp_path, replace(books, sets=replace(books.sets, benchmark="muse_books")))
    loaded, found = by_format("muse_books", tmp_path)
    assert list(found) == ["standardized"] and loaded.records == books.records
    raw = by_format("books")[1]["raw"]
    records_module.write(tmp_path / RAW_FILE, reversed(raw))
    assert by_format("muse_books", tmp_path)[1]["raw"] == raw
    records_module.write(tmp_path / RAW_FILE, [replace(record, anchor=None) for record in raw[1:]])
    with pytest.raises(BenchmarkError, match=f"{RAW_FILE}: no raw record .* of {raw[0].id!r}"):
        by_format("muse_books", tmp_path)
