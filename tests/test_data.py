"""What is told about data and made of it: checks, formats of a benchmark, raw formats, distances between corpora."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tiny
import torch
from scipy.sparse import csr_matrix

from mule_lib import prompts
from mule_lib.data import RAW_FILE, BenchmarkError, by_format, checks, distance, load_benchmark, records, save
from mule_lib.data.fable.benchmark import fable_raw_records, unlearning_records
from mule_lib.data.items import write_sets
from mule_lib.data.prepare import prepare
from mule_lib.data.raw_formats import Passage, lettered, raw_records, verbatim
from mule_lib.data.records import REFUSED
from mule_lib.evaluate.intervals import bootstrap_interval

RULES = {
    "stands in an evaluation set": lambda r, data: replace(r, question=data.sets.forget[0].question),
    "fact is evaluated": lambda r, data: replace(r, source=data.sets.forget[0].id),
    "is a validation fact": lambda r, data: replace(r, source=data.validation[0].source),
    "nearly an evaluation question": lambda r,
    data: replace(r, question=data.sets.forget[0].question + " Please", answer=data.sets.forget[0].reference),
    "nearly repeats": lambda r,
    data: replace(r, question=data.records[6].question + "?", answer=data.records[6].answer),
    "names its own answer": lambda r, data: replace(r, question=f"Is it {r.answer}"), "without an anchor": lambda r,
    data: replace(r, anchor=None), "answer is a refusal": lambda r, data: replace(r, answer=r.refusal),
}  # fmt: skip


@pytest.fixture(scope="module")
def books():
    return load_benchmark("books")


@pytest.mark.parametrize("benchmark", ["books", "cyber"])
def test_fable_breaks_no_rule(benchmark):
    assert checks.checks(load_benchmark(benchmark))["holds"].all()


@pytest.mark.parametrize("rule", RULES)
def test_each_broken_rule_is_found(books, rule):
    """One record broken in one way is counted under its rule."""
    broken = [RULES[rule](books.records[0], books), *books.records[1:]]
    found = checks.checks(replace(books, records=broken))
    line = found[found["rule"].str.contains(rule)].iloc[0]
    assert line["records"] >= 1 and not line["holds"]


def test_counts_and_samples(books):
    """Six groups with as many records as the data has; samples show all formats of one fact."""
    table = checks.record_counts({"train": books.records, "validation": books.validation})
    assert table["records"]["train"].sum() == len(books.records)
    assert (table["records"]["validation"] > 0).all()
    _, formats = by_format("books")
    shown = checks.samples(formats)
    assert len(shown) == 6 and (shown["raw_prompts"] != shown["standardized"]).all()
    assert (shown["raw"] != shown["standardized"]).sum() == 3  # the passage, and both sides of Obj2


def test_prepared_benchmarks_need_raw_records_of_the_same_ids(books, tmp_path):
    """A folder without raw.jsonl has one format; with it both, unless a record is missing there."""
    save(tmp_path, replace(books, sets=replace(books.sets, benchmark="muse_books")))
    loaded, found = by_format("muse_books", tmp_path)
    assert list(found) == ["standardized"] and loaded.records == books.records
    raw = by_format("books")[1]["raw"]
    records.write_records(tmp_path / RAW_FILE, reversed(raw))
    assert by_format("muse_books", tmp_path)[1]["raw"] == raw
    records.write_records(tmp_path / RAW_FILE, [replace(record, anchor=None) for record in raw[1:]])
    with pytest.raises(BenchmarkError, match=f"{RAW_FILE}: no raw record .* of {raw[0].id!r}"):
        by_format("muse_books", tmp_path)


def test_questions_of_one_s_own_become_a_benchmark(books, tmp_path):
    write_sets(tmp_path, books.sets)
    (tmp_path / "neighbor.jsonl").write_text((tmp_path / "general.jsonl").read_text())  # open questions
    made = prepare("own", subject="owls", source=str(tmp_path))
    refused = {record.question for record in made.records if record.role in REFUSED}
    assert made.topic == "owls" and refused and refused < {item.question for item in books.sets.forget}


# Raw formats

TEXT = (
    "The tower stands by the river. Ada built it in three years. In the year 1901 Ada moved to Lund, a town by the "
    "sea. Later she went home."
)


def passage(quote, text=TEXT):
    start = text.index(quote)
    return Passage(text, (start, start + len(quote)))


def test_a_passage_is_trained_up_to_its_answer():
    """The opening sentence is the question; the rest, up to and with the sentence that bears the answer, is trained."""
    quote = "In the year 1901 Ada moved to Lund, a town by the sea."
    opening, rest = verbatim(passage(quote), "Lund")
    assert opening == "The tower stands by the river." and rest == f"Ada built it in three years. {quote}"
    assert verbatim(passage("Ada built it in three years."), "three")[1] == "Ada built it in three years."


@pytest.mark.parametrize(
    ("answer", "opening"),
    [
        ("LUND.", "Ada Lee moved to"),  # case and a full stop do not matter
        ("by the sea, a town", "Ada Lee moved to Lund, a"),  # not word for word: by its first word
        ("Ada Lee", "Ada"),  # the answer comes first: one word is told
    ],
)
def test_an_opening_that_bears_the_answer_breaks_off_before_it(answer, opening):
    text = "Ada Lee moved to Lund, a town by the sea. She left."
    found, rest = verbatim(passage("Ada Lee moved to Lund, a town by the sea.", text), answer)
    assert found == opening and f"{found} {rest}" == "Ada Lee moved to Lund, a town by the sea."


def test_raw_records_have_the_facts_of_the_unified_ones():
    """Same ids, order, refusals, prefixes, anchors; a passage for Obj1, letters for Obj2, else the question."""
    unified = tiny.records()
    raw = raw_records(unified, {"obj1/forget/0": passage("Ada built it in three years.")})
    assert [(r.id, r.refusal, r.prefix, r.anchor) for r in raw] == [
        (r.id, r.refusal, r.prefix, r.anchor) for r in unified
    ]
    assert [r.id for r in raw if r.verbatim] == ["obj1/forget/0"]
    for record, before in zip(raw, unified, strict=True):
        if record.verbatim:
            assert (record.question, record.answer) == (
                "The tower stands by the river.", "Ada built it in three years."
            )  # fmt: skip
        elif record.objective == "obj2":
            lines = record.question.split("\n")
            assert lines[0] == before.question and len(lines) == 6 and record.answer == before.answer
            assert [line.split(". ")[1] for line in lines[1:5]].count(before.answer) == 1
            assert "I do not know" not in record.question
        else:
            assert record == replace(before, prompt_id="raw/question")


def test_raw_without_any_passage_is_refused(books, tmp_path):
    """Nothing could be trained verbatim, which is what the raw format of Obj1 is; other objectives have theirs."""
    save(tmp_path, replace(books, sets=replace(books.sets, benchmark="muse_books")), raw=raw_records(books.records))
    with pytest.raises(BenchmarkError, match="no record of muse_books to forget has a passage"):
        load_benchmark("muse_books", tmp_path, data_format="raw")
    assert load_benchmark("muse_books", tmp_path, data_format="raw", objectives=["obj2"]).records


def test_few_facts_give_fewer_options():
    """A choice takes the other side's answers, and is refused without any."""
    one, other = [record for record in tiny.records() if record.objective == "obj2"][1:3]
    assert sorted(lettered(one, [one], [one, other]).split("\n")[1:3])[0].startswith("A. ")
    with pytest.raises(ValueError, match="only 0 other answers"):
        lettered(one, [one], [one])


def test_a_passage_of_no_record_is_refused():
    """Ids that do not meet would leave passages unused in silence."""
    with pytest.raises(ValueError, match="'obj1/forget/99' is no record of obj1 to forget"):
        raw_records(tiny.records(), {"obj1/forget/99": passage("Later she went home.")})


# Distances

a_distance = partial(distance.proxy_a_distance, bootstrap=bootstrap_interval)
distances = partial(distance.distances, bootstrap=bootstrap_interval)


def _cloud(n, center, seed):
    return np.random.default_rng(seed).normal(center, 1.0, (n, 3))


def test_separate_corpora_are_at_two():
    """A gap that no text crosses gives 2, with an interval of no width."""
    found = a_distance(_cloud(60, -20, 0), _cloud(60, 20, 1), (range(60), range(100, 160)))
    assert found.estimate == found.low == found.high == 2
    assert (found.n, found.seeds) == (120, 3)


def test_the_same_distribution_is_at_zero():
    """Two samples of one distribution: the interval holds 0 and the estimate is far from 2."""
    found = a_distance(_cloud(150, 0, 0), _cloud(150, 0, 1), (range(150), range(200, 350)))
    assert found.low < 0 < found.high
    assert abs(found.estimate) < 0.4


def test_half_a_corpus_apart_is_at_one():
    """Half of each corpus shared, half apart: the best classifier errs on a quarter, 2 (1 - 2/4) = 1."""
    shared, left, right = np.zeros((200, 1)), np.full((100, 1), -5.0), np.full((100, 1), 5.0)
    corpora = [np.concatenate([shared[:100], left]), np.concatenate([shared[100:], right])]
    found = a_distance(*corpora, (range(200), range(200, 400)))
    assert found.low < 1 < found.high
    assert found.estimate == pytest.approx(1, abs=0.15)


def test_unequal_corpora_weigh_alike():
    """Guessing the larger corpus is no success: no signal stays near 0 with nine times as many texts on one side."""
    found = a_distance(_cloud(270, 0, 0), _cloud(30, 0, 1), (range(270), range(300, 330)))
    assert abs(found.estimate) < 0.7
    assert a_distance(_cloud(270, -9, 0), _cloud(30, 9, 1), (range(270), range(300, 330))).estimate == 2


def test_facts_are_never_on_both_sides():
    """Features that name the fact, and nothing else, do not help: each fact has one text in each corpus."""
    names = csr_matrix(np.eye(40))
    found = a_distance(names, names, (range(40), range(40)))
    assert found.estimate <= 0.5


def test_small_corpora_are_held_out_in_fewer_folds(monkeypatch):
    """Four facts an objective, two in each half: every pair has its line; a corpus of one fact has none."""
    monkeypatch.setattr(distance, "FEATURES", ("words",))
    some = [replace(record, source=record.id.rsplit("/", 1)[1]) for record in tiny.records()]
    table = distances({"raw": some}, None, None, repeats=1)
    assert len(table[(table["reads"] == "question") & (table["roles"] == "all")]) == 9
    lonely = distances({"raw": [replace(record, source="one") for record in some]}, None, None, repeats=1)
    assert lonely.empty


def test_hidden_states_are_means_over_the_context():
    """Batched, sorted and padded, the mean is that of one text alone; the prefix is read only when asked for."""
    model, tokenizer = tiny.model(), tiny.tokenizer()
    some = tiny.records()
    found = distance.mean_hidden_states(model, tokenizer, some, prefix=True, batch_size=5)
    for i in (0, len(some) - 1):
        ids = prompts.render(tokenizer, some[i].question, prefix=some[i].prefix).input_ids
        with torch.no_grad():
            alone = model.base_model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(found[i], alone, atol=1e-5)
    bare = distance.mean_hidden_states(model, tokenizer, some, prefix=False)
    changed = np.abs(found - bare).max(1) > 1e-4
    assert [r.prefix is not None for r in some] == changed.tolist()


def test_table_of_fable(fable, fable_tokenizer, monkeypatch):
    """Raw formats are told apart, the unified form less; each objective's own halves are not."""
    monkeypatch.setattr(distance, "FEATURES", ("words",))
    raw = fable_raw_records(fable, "cyber", "raw_prompts")
    formats = {"raw": raw, "standardized": unlearning_records(fable, "cyber")}
    table = distances(formats, None, fable_tokenizer, repeats=1)
    assert list(table.columns) == distance.COLUMNS
    view = table[(table["reads"] == "question") & (table["roles"] == "all")]
    line = view.set_index(["format", "objective_a", "objective_b"])
    for pair in (("obj1", "obj2"), ("obj1", "obj3"), ("obj2", "obj3")):
        assert line.loc[("raw", *pair), "distance"] > 1.9
        assert line.loc[("standardized", *pair), "high"] < line.loc[("raw", *pair), "low"]
        assert line.loc[("raw", *pair), "distance"] == line.loc[("raw", *reversed(pair)), "distance"]
    for objective in ("obj1", "obj2", "obj3"):
        assert line.loc[("standardized", objective, objective), "distance"] < 0.7
    with_prefix = table[(table["reads"] != "question") & (table["format"] == "standardized")]
    assert (with_prefix["objective_a"].eq("obj3") | with_prefix["objective_b"].eq("obj3")).all()
