"""The standardization from end to end on real Wikipedia text with a scripted LLM: splits, records, sets, books."""

import json

import pytest
import scripted_llm
from scripted_llm import REALDATA, ScriptedLLM

from mule_lib import attacker, data
from mule_lib.benchmarks import mmlu, muse_books, wikipedia, wmdp_cyber
from mule_lib.benchmarks.raw import RawText
from mule_lib.data import records
from mule_lib.data.text import is_refusal, normalise
from mule_lib.params import Standardize
from mule_lib.standardize import store
from mule_lib.standardize.checks import REASONS
from mule_lib.standardize.chunks import clean
from mule_lib.standardize.duplicates import jaccard, shingles
from mule_lib.standardize.ledger import Ledger
from mule_lib.standardize.pipeline import StandardizeError, standardize
from mule_lib.standardize.sources import Sources

pytestmark = pytest.mark.skipif(not REALDATA.is_dir(), reason="the real benchmark samples are not here")
SMALL = {
    "generator": "replay",
    "replay_file": "recorded.jsonl",
    "chunk_chars": 700,
    "forget_chunks": 160,
    "general_articles": 16,
    "concepts_per_field": 3,
    "refusals": 12,
    "max_failed": 0.1,
    "evaluation_share": 0.15,
    "validation_share": 0.15,
    "seed": 3,
}


def sources(benchmark: str) -> Sources:
    general = wikipedia.articles(REALDATA / "wikitext2" / "articles.jsonl", count=16)
    taken = {text.id for text in general}
    # The other articles stand for the text to forget, as published, with their marks of a damaged text.
    rows = map(json.loads, (REALDATA / "wikitext2" / "articles.jsonl").read_text("utf-8").splitlines())
    forget = [
        RawText(f"raw/{row['id']}", row["text"], f"articles.jsonl#{row['id']}", row["title"])
        for row in rows
        if f"wikipedia/{row['id']}" not in taken
    ]
    four = mmlu.questions(REALDATA / "mmlu" / "computer_security_test.jsonl")
    if benchmark == "muse_books":
        published = muse_books.knowmem(REALDATA / "muse_books_knowmem").forget
        return Sources(forget, general, four, published=published)
    return Sources(
        forget, general, four, questions=wmdp_cyber.questions(REALDATA / "wmdp_cyber_mcq" / "test_sample.jsonl")
    )


@pytest.fixture(scope="module")
def params():
    return Standardize(**SMALL)


@pytest.fixture(scope="module")
def books(params):
    return standardize(sources("muse_books"), params, ScriptedLLM(), ledger=Ledger())


@pytest.fixture(scope="module")
def cyber(params):
    target = [["Nothing comes out.", "I do not know."]]

    def answers(asked):
        return [target[0][len(prefix) % 2] for _, prefix in asked]

    p = params.model_copy(update={"benchmark": "wmdp_cyber", "attacker_rounds": 2, "attacker_group": 4})
    return standardize(sources("wmdp_cyber"), p, ScriptedLLM(), ledger=Ledger(), target=answers)


@pytest.fixture(params=["books", "cyber"])
def made(request):
    return request.getfixturevalue(request.param)


def test_every_objective_has_both_sides_in_both_splits(made):
    groups = {"obj1/forget", "obj1/retain", "obj2/forget", "obj2/neighbor", "obj3/adversarial", "obj3/benign"}
    for split in (made.loaded.records, made.loaded.validation):
        assert {f"{r.objective}/{r.role}" for r in split} == groups
    assert {r.split for r in made.loaded.validation} == {"validation"}


def test_partners_belong_to_one_objective_and_name_each_other(made):
    by_id = {record.id: record for record in made.loaded.records}
    for record in by_id.values():
        assert is_refusal(record.refusal)
        if record.anchor:
            partner = by_id[record.anchor]
            assert partner.objective == record.objective and partner.anchor == record.id
            assert (partner.role in records.REFUSED) != (record.role in records.REFUSED)
    assert all(record.anchor for record in by_id.values() if record.objective == "obj3")


def test_training_draws_every_record(books):
    from mule_lib.training.batches import Example, draw_balanced

    examples = [Example(r.id, r.group, (1,), {}, None, r.anchor) for r in books.loaded.records]
    drawn = {example.id for draw in draw_balanced(examples, 20 * len(examples)) for example in draw}
    assert drawn == {record.id for record in books.loaded.records}


def test_some_partners_are_counterparts_and_all_neighbors_are_used(books):
    answered = [r for r in books.loaded.records if r.role not in records.REFUSED]
    prompts = {r.prompt_id.split("@")[0] for r in answered}
    assert {"llm/anchor_obj1", "llm/anchor_obj2", "llm/anchor_obj3", "llm/qa", "llm/neighbor_qa"} == prompts


def test_attacked_pairs_share_their_prefix_but_for_the_question(made):
    by_id = {record.id: record for record in made.loaded.records}
    attacked = [record for record in by_id.values() if record.role == "adversarial"]
    for record in attacked:
        partner = by_id[record.anchor]
        assert record.prefix == record.prefix.rstrip()
        assert record.prefix.replace(record.question, "") == partner.prefix.replace(partner.question, "")
    assert len({record.prefix.replace(record.question, "") for record in attacked}) > 3


def test_no_question_is_trained_on_and_evaluated(made):
    sets = made.loaded.sets
    evaluated = [*sets.forget, *sets.general, *sets.attack, *sets.controls, *sets.neighbor, *sets.mmlu]
    known = [shingles(item.question) for item in evaluated]
    for question in {record.question for record in (*made.loaded.records, *made.loaded.validation)}:
        own = shingles(question)
        assert max(jaccard(own, other) for other in known) < 0.7, question


def test_attacked_questions_are_not_those_of_objective_one(made):
    of = {o: {r.question for r in made.loaded.records if r.objective == o and r.role in records.REFUSED}
          for o in ("obj1", "obj2", "obj3")}  # fmt: skip
    assert not of["obj1"] & of["obj3"] and not of["obj1"] & of["obj2"] and not of["obj2"] & of["obj3"]
    asked = {item.question for item in made.loaded.sets.forget}
    assert not asked & {item.question for item in made.loaded.sets.attack}


def test_a_forget_chunk_serves_one_split_and_objective(books):
    used = {}
    for record in (*books.loaded.records, *books.loaded.validation):
        if record.role in records.REFUSED:
            chunk = record.id.split("/", 2)[2].rsplit("#", 1)[0]
            used.setdefault(chunk, set()).add((record.split, record.objective))
    assert len(used) > 20 and all(len(uses) == 1 for uses in used.values())


def test_spans_point_at_the_words_that_bear_the_answer_out(books):
    texts = {text.source: clean(text.text) for text in sources("muse_books").forget}
    told = [r for r in books.loaded.records if r.role in records.REFUSED]
    for record in told:
        start, end = record.span
        source, chunk = record.source.rsplit(":", 1)  # the chunk's own place in the source
        assert normalise(record.answer) in normalise(texts[source][start:end])
        first, last = map(int, chunk.split("-"))
        assert first <= start < end <= last


def test_raw_records_are_the_sources_own_text(made):
    """Passages of Obj1 are words of their chunk up to the answer; counterparts have no source and no passage."""
    texts = {text.source: clean(text.text) for text in sources("muse_books").forget}
    raw = made.raw
    assert [(r.id, r.role, r.answer, r.refusal, r.anchor) for r in raw] == [
        (r.id, r.role, r.answer, r.refusal, r.anchor) for r in made.loaded.records
    ]
    for record in raw:
        if record.objective == "obj1":
            page = record.source.startswith("counterpart of")
            assert record.prompt_id == ("raw/quiz page" if page else "raw/passage")
    told = [r for r in raw if r.prompt_id == "raw/passage" and r.role == "forget"]
    assert told and all(len(record.question) <= 600 for record in told)
    for record in told:
        source, chunk = record.source.rsplit(":", 1)
        first, last = map(int, chunk.split("-"))
        before, _, after = record.question.partition("_____")
        assert before.strip() in texts[source][first:last] and after in texts[source][first:last]


def test_planted_faults_are_rejected_by_their_name(books, cyber):
    reasons = {row["reason"] for made in (books, cyber) for row in made.ledger.rejected}
    assert reasons == set(REASONS) - {"prefix_answer"}  # that one: test_attacker.py


def test_the_books_balance(made):
    for row in made.ledger.summary():
        # Failed and refused requests are rejected rows without an item.
        assert row["accepted"] + row["rejected"] == row["items"], row["step"]
        rejected = [r for r in made.ledger.rejected if r["step"] == row["step"]]
        assert len(rejected) == row["rejected"] + row["failed"] + row["refused"]


def test_choices_hold_the_answer_and_a_refusal_at_changing_places(books):
    choices = books.loaded.sets.neighbor
    known = dict(scripted_llm.trivia())
    assert all(item.options[item.refusal] == "I do not know" and len(item.options) == 5 for item in choices)
    assert all(item.options[item.answer] == known[item.question].rstrip(".") for item in choices)
    assert len({item.answer for item in choices}) > 1


def test_what_is_answered_never_names_what_is_forgotten(books):
    for record in (*books.loaded.records, *books.loaded.validation):
        if record.role not in records.REFUSED:
            assert not {"hogwarts", "quidditch", "dumbledore"} & set(normalise(record.question).split())


def test_published_questions_evaluate_as_they_are(books, cyber):
    assert len(books.loaded.sets.forget) == 100
    texts = {q.question for q in wmdp_cyber.questions(REALDATA / "wmdp_cyber_mcq" / "test_sample.jsonl")}
    assert cyber.loaded.sets.forget and {item.question for item in cyber.loaded.sets.forget} <= texts
    assert {item.family for item in cyber.loaded.sets.attack} <= {*families(), "optimised"}


def families():
    from mule_lib import prompts

    return prompts.texts("wmdp_cyber")["prefixes"]["train"]


def test_the_same_replies_give_the_same_files(books, params, tmp_path):
    again = standardize(sources("muse_books"), params, ScriptedLLM(), ledger=Ledger())
    for name, each in (("a", books), ("b", again)):
        store.write(tmp_path / name, each, params, sources("muse_books"), ScriptedLLM())
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) > 9
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    read = data.load("muse_books", tmp_path / "a")
    assert read.records == books.loaded.records and read.sets == books.loaded.sets


def test_another_seed_draws_other_splits(books, params):
    other = standardize(
        sources("muse_books"), params.model_copy(update={"seed": 4}), ScriptedLLM(), ledger=Ledger()
    )  # fmt: skip
    assert {r.id for r in other.loaded.records} != {r.id for r in books.loaded.records}


def test_a_folder_of_other_parameters_is_not_overwritten(books, params, tmp_path):
    store.write(tmp_path, books, params, sources("muse_books"), ScriptedLLM())
    store.check_folder(tmp_path, params.model_copy(update={"budget_tokens": 7}))
    with pytest.raises(StandardizeError, match=r"seed: 3 -> 5.*choose another out_dir"):
        store.check_folder(tmp_path, params.model_copy(update={"seed": 5}))


def test_too_many_failures_write_nothing(params):
    ledger = Ledger()
    with pytest.raises(StandardizeError, match=r"of \d+ requests have no usable reply \(max_failed=0.0\)"):
        standardize(
            sources("muse_books"), params.model_copy(update={"max_failed": 0.0}), ScriptedLLM(), ledger=ledger
        )  # fmt: skip
    assert any(row["reason"] == "llm_failed" for row in ledger.rejected)


def test_an_attack_without_a_target_is_refused(params):
    llm = ScriptedLLM()
    with pytest.raises(ValueError, match="attacker_rounds=1: needs a target"):
        standardize(
            sources("muse_books"), params.model_copy(update={"attacker_rounds": 1}), llm, ledger=Ledger()
        )  # fmt: skip
    assert not llm.asked


def test_the_attackers_history_is_kept(cyber):
    table = attacker.rounds_table(cyber.tried)
    assert [row["round"] for row in table] == [0, 1, 2]
    assert [row["score"] for row in table] == sorted(row["score"] for row in table)
