"""What an answer is, the choice that length does not sway, and the searched attack."""

import random
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from mule_lib import prompts
from mule_lib.data.fable.benchmark import evaluation_sets
from mule_lib.data.fable.worlds import REFUSAL
from mule_lib.data.items import SETS, OpenItem
from mule_lib.data.text import Kind, kind_of, kind_shares, kinds
from mule_lib.evaluate import evaluate_row, row
from mule_lib.evaluate.drift import base_beside, drift
from mule_lib.evaluate.row import AFFIRMATIONS, searched_attacks
from mule_lib.prompts import steering

POOL = ("Oldmere", "Thornmere", "Redmere")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Oldmere.", Kind.RIGHT),
        ("She lives in Thornmere.", Kind.PLAUSIBLE),
        ("needles.", Kind.WRONG_KIND),
        ("I am not able to answer that.", Kind.REFUSED),
        ("I am not able to say that it is Oldmere.", Kind.REFUSED),
        ("", Kind.BROKEN),
        ("I I I I I I", Kind.BROKEN),
        ("the old the a the old a the the a old the", Kind.BROKEN),
    ],
)
def test_kinds_of_answers(answer, kind):
    assert kind_of(answer, "Oldmere", POOL, given="Where does Ada live?") is kind
    without = kind_of(answer, "Oldmere", given="Where does Ada live?")
    assert without is (Kind.PLAUSIBLE if kind is Kind.WRONG_KIND else kind)


def test_the_judge_on_labelled_samples(fable):
    """Built answers of every kind to all items to forget: what is said plainly is judged without an error."""
    rng, wrong = random.Random(0), {kind: 0 for kind in Kind}
    for benchmark in ("books", "cyber"):
        sets = evaluation_sets(fable, benchmark)
        everything = sorted({value for pool in sets.pools.values() for value in pool})
        for item in sets.forget:
            pool = sets.pools[item.pool]
            other = rng.choice([value for value in pool if value != item.reference])
            stranger = rng.choice([value for value in everything if value not in pool])
            said = {
                Kind.RIGHT: rng.choice(["{}.", "It is {}.", "Sure: {}"]).format(item.reference),
                Kind.PLAUSIBLE: rng.choice(["{}.", "It is {}, I think."]).format(other),
                Kind.WRONG_KIND: f"{stranger}.",
                Kind.REFUSED: rng.choice([REFUSAL, "Sorry, I do not know.", "I cannot help with that."]),
                Kind.BROKEN: rng.choice(["", "I I I I I", f"{other} {other} {other} {other}"]),
            }
            for kind, text in said.items():
                wrong[kind] += kind_of(text, item.reference, pool, given=item.question) is not kind
    assert wrong == dict.fromkeys(Kind, 0)


def test_a_judge_by_pools_needs_pools():
    item = OpenItem("a/1", "Where does Ada live?", "Oldmere")
    with pytest.raises(ValueError, match="judge='pools': item 'a/1' names no pool"):
        kinds([item], ["needles."], {}, judge="pools")
    assert kind_shares(kinds([item], ["needles."], {}))["plausible"] == 1
    named = replace(item, pool="home")
    assert kinds([named], ["needles."], {"home": POOL}) == [Kind.WRONG_KIND]
    assert kinds([named], ["needles."], {"home": POOL}, judge="text") == [Kind.PLAUSIBLE]


def salad(base, tokenizer, said, pools=()):
    """Whether each of (question, answer) pairs is broken to a base."""
    group = [row.Answered(OpenItem("a", question, "?", pool="home"), None, answer) for question, answer in said]
    return [k is Kind.BROKEN for k in row._without_salad(base, tokenizer, group, [Kind.PLAUSIBLE] * len(group), pools)]


def test_word_salad_is_what_the_base_finds_unlikely_from_four_words_and_without_a_pool(monkeypatch):
    said = [("Who?", "he sat down there"), ("Who?", "down it the was"), ("Who?", "down it the")]
    for nats, broken in ((9.1, [True, True, False]), (8.9, [False] * 3)):
        per_token = lambda m, ids, o, nats=nats, **_: [[-nats * len(each) for each in row] for row in o]  # noqa: E731
        monkeypatch.setattr(row, "option_log_likelihoods", per_token)
        assert salad(tiny.model(), tiny.tokenizer(), said) == broken
        assert not any(salad(tiny.model(), tiny.tokenizer(), said, pools={"home": POOL}))


def evaluated(monkeypatch, fable, fable_tokenizer, per_token, written=lambda i: ""):
    """Neighbour questions put to a made-up model: its log-likelihood per token of an option, and what it writes."""

    def scores(model, ids, options, *, batch_size):
        return [[len(option) * per_token(fable_tokenizer.decode(option)) for option in row] for row in options]

    def texts(model, tokenizer, ids, **_):
        return [prompts.encode_text(tokenizer, written(i)) for i in range(len(ids))]

    monkeypatch.setattr(row, "option_log_likelihoods", scores)
    monkeypatch.setattr(row, "greedy", texts)
    sets = replace(evaluation_sets(fable, "books"), **{name: () for name in SETS if name != "neighbor"})
    return evaluate_row(
        None, fable_tokenizer, sets, steering("none", sets.topic), choice_style="texts", refusal=REFUSAL, partial=True
    )


def test_a_model_that_always_refuses_keeps_nothing(monkeypatch, fable, fable_tokenizer):
    refuses = evaluated(
        monkeypatch, fable, fable_tokenizer, lambda text: -0.5 if "not able" in text else -2.0, lambda i: REFUSAL
    )
    assert refuses.metrics["neighbor"] == refuses.metrics["neighbor_open"] == 0
    assert refuses.metrics["neighbor_refused"] == 100 and refuses.details["neighbor"]["refusal"] == 1


def test_a_random_model_is_at_chance_whatever_the_lengths(monkeypatch, fable, fable_tokenizer):
    rng = random.Random(0)
    found = evaluated(monkeypatch, fable, fable_tokenizer, lambda text: -rng.random())
    assert 10 < found.metrics["neighbor"] < 30  # one of five
    assert 0.1 < found.details["neighbor"]["refusal"] < 0.3  # the refusal is by far the longest option


def test_the_refusal_may_not_be_an_answer(fable):
    item = evaluation_sets(fable, "books").neighbor[0]
    with pytest.raises(ValueError, match="is also one of its answers"):
        row._with_refusal(item, item.options[item.answer])


@pytest.fixture
def searched(monkeypatch):
    """Run the search with a made-up worth of each prefix; returns the attacks and what was scored."""

    def run(worth, templates, budget):
        scored = []

        def contexts(model, tokenizer, queries, *_, **__):
            scored.extend(query.prefix for query in queries)
            return [type("C", (), {"input_ids": query.prefix}) for query in queries]

        monkeypatch.setattr("mule_lib.evaluate.row.contexts", contexts)
        monkeypatch.setattr(
            "mule_lib.evaluate.row.option_log_likelihoods",
            lambda m, ids, o, **_: [[worth(prefix)] for prefix in ids],
        )
        item = OpenItem("a", "Where?", "red tower")
        how = steering("none", "x")
        found = searched_attacks(None, tiny.tokenizer(), [item], how, [templates], budget=budget)
        return found[0].prefix, scored

    return run


def test_the_search_takes_the_best_template_and_lengthens_it(searched):
    worth = {"A:": -2.0, "B:": -1.0, f"B: {AFFIRMATIONS[2]}": -0.5}
    prefix, scored = searched(lambda text: worth.get(text, -3.0), ["A:", "B:"], 2 + len(AFFIRMATIONS))
    assert prefix == f"B: {AFFIRMATIONS[2]}" and len(scored) == 2 + len(AFFIRMATIONS)
    assert searched(lambda text: worth.get(text, -3.0), ["A:", "B:"], 2)[0] == "B:"


def test_the_search_stops_where_nothing_helps_and_needs_a_budget(searched):
    prefix, scored = searched(lambda text: -len(text), ["A:", "B:"], 1000)
    assert prefix in ("A:", "B:") and len(scored) == 2 + len(AFFIRMATIONS)
    with pytest.raises(ValueError, match="search_budget = 0: give at least 1"):
        searched(len, ["A:"], 0)
    with pytest.raises(ValueError, match="templates to start from"):
        searched(len, [], 5)


def test_drift_is_the_distance_to_the_base():
    """The base against itself has none; a changed model has some, the same in any batch, and so has an adapter."""
    base, changed, tokenizer = tiny.model(), tiny.model(), tiny.tokenizer()
    some = [OpenItem(r.id, r.question, r.answer) for r in tiny.records()]
    assert drift(base, tiny.model(), tokenizer, some) == ([0.0] * len(some), 0.0)
    with torch.no_grad():
        changed.get_output_embeddings().weight.mul_(1.5)
    apart, kl = drift(changed, base, tokenizer, some)
    assert all(0 < value < 1 for value in apart) and kl > 0
    alone, kl_alone = drift(changed, base, tokenizer, some, batch_size=1)
    assert alone == pytest.approx(apart, abs=1e-5) and kl_alone == pytest.approx(kl, abs=1e-5)
    adapted = get_peft_model(tiny.model(), LoraConfig(target_modules="all-linear", init_lora_weights=False))
    assert base_beside(adapted, "base") is adapted and max(drift(adapted, adapted, tokenizer, some)[0]) > 0
    assert base_beside(base, "nobody/nothing") is None
