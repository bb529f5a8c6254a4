"""The proxy A-distance on corpora whose distance is known, and on Fable's formats with a random model."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from scipy.sparse import csr_matrix

from mule_lib import domain_distance as distance
from mule_lib.data.fable.benchmark import raw_records, unlearning_records


def _cloud(n, center, seed):
    return np.random.default_rng(seed).normal(center, 1.0, (n, 3))


def test_separate_corpora_are_at_two():
    """A gap that no text crosses gives 2, with an interval of no width."""
    found = distance.proxy_a_distance(_cloud(60, -20, 0), _cloud(60, 20, 1), (range(60), range(100, 160)))
    assert found.estimate == found.low == found.high == 2
    assert (found.n, found.seeds) == (120, 3)


def test_the_same_distribution_is_at_zero():
    """Two samples of one distribution: the interval holds 0 and the estimate is far from 2."""
    found = distance.proxy_a_distance(_cloud(150, 0, 0), _cloud(150, 0, 1), (range(150), range(200, 350)))
    assert found.low < 0 < found.high
    assert abs(found.estimate) < 0.4


def test_half_a_corpus_apart_is_at_one():
    """Half of each corpus shared, half apart: the best classifier errs on a quarter, 2 (1 - 2/4) = 1."""
    shared, left, right = np.zeros((200, 1)), np.full((100, 1), -5.0), np.full((100, 1), 5.0)
    corpora = [np.concatenate([shared[:100], left]), np.concatenate([shared[100:], right])]
    found = distance.proxy_a_distance(*corpora, (range(200), range(200, 400)))
    assert found.low < 1 < found.high
    assert found.estimate == pytest.approx(1, abs=0.15)


def test_unequal_corpora_weigh_alike():
    """Guessing the larger corpus is no success: no signal stays near 0 with nine times as many texts on one side."""
    found = distance.proxy_a_distance(_cloud(270, 0, 0), _cloud(30, 0, 1), (range(270), range(300, 330)))
    assert abs(found.estimate) < 0.7
    assert distance.proxy_a_distance(_cloud(270, -9, 0), _cloud(30, 9, 1), (range(270), range(300, 330))).estimate == 2


def test_facts_are_never_on_both_sides():
    """Features that name the fact, and nothing else, do not help: each fact has one text in each corpus."""
    names = csr_matrix(np.eye(40))
    found = distance.proxy_a_distance(names, names, (range(40), range(40)))
    assert found.estimate <= 0.5


def test_too_few_facts_are_refused():
    with pytest.raises(ValueError, match="3 facts in a corpus cannot be held out in 5 folds"):
        distance.proxy_a_distance(_cloud(9, 0, 0), _cloud(9, 1, 1), ([0, 1, 2] * 3, range(9)))


def test_small_corpora_are_held_out_in_fewer_folds(monkeypatch):
    """Four facts an objective, two in each half: every pair has its line; a corpus of one fact has none."""
    monkeypatch.setattr(distance, "FEATURES", ("words",))
    records = [replace(record, source=record.id.rsplit("/", 1)[1]) for record in tiny.records()]
    table = distance.distances({"raw": records}, None, None, repeats=1)
    assert len(table[(table["reads"] == "question") & (table["roles"] == "all")]) == 9
    lonely = distance.distances({"raw": [replace(record, source="one") for record in records]}, None, None, repeats=1)
    assert lonely.empty


def test_words_see_words_and_their_order():
    table = distance.word_counts(["red blue", "blue red", "red blue"]).toarray()
    assert (table[0] == table[2]).all()
    assert (table[0] != table[1]).any()


def test_hidden_states_are_means_over_the_context():
    """Batched, sorted and padded, the mean is that of one text alone; the prefix is read only when asked for."""
    import torch

    from mule_lib import prompts

    model, tokenizer = tiny.model(), tiny.tokenizer()
    records = tiny.records()
    found = distance.mean_hidden_states(model, tokenizer, records, prefix=True, batch_size=5)
    for i in (0, len(records) - 1):
        ids = prompts.render(tokenizer, records[i].question, prefix=records[i].prefix).input_ids
        with torch.no_grad():
            alone = model.base_model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(found[i], alone, atol=1e-5)
    bare = distance.mean_hidden_states(model, tokenizer, records, prefix=False)
    changed = np.abs(found - bare).max(1) > 1e-4
    assert [r.prefix is not None for r in records] == changed.tolist()


def test_table_of_fable(fable, fable_tokenizer, monkeypatch):
    """Raw formats are told apart, the unified form less; each objective's own halves are not."""
    monkeypatch.setattr(distance, "FEATURES", ("words",))
    formats = {"raw": raw_records(fable, "cyber"), "standardized": unlearning_records(fable, "cyber")}
    table = distance.distances(formats, None, fable_tokenizer, repeats=1)
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
