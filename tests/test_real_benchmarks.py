"""The published benchmarks' own rows, from files to a trained and evaluated model; skipped where they are absent."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib import data
from mule_lib.benchmarks import mmlu, muse_books, rwku, tofu, wikipedia, wmdp_cyber
from mule_lib.data.files import DataFileError
from mule_lib.data.records import REFUSED
from mule_lib.embedded.tokenizer import build_tokenizer
from mule_lib.evaluate.row import evaluate_row
from mule_lib.prepare import Questions, assemble, title_questions
from mule_lib.prepare_sources import prepared_rwku, read_refusals
from mule_lib.prompts import steering
from mule_lib.training import Settings, train

REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"
pytestmark = pytest.mark.skipif(not REALDATA.is_dir(), reason="the real benchmark samples are not here")
MUSE, WMDP = REALDATA / "muse_books_knowmem", REALDATA / "wmdp_cyber_mcq" / "test_sample.jsonl"
MMLU, SECURITY = (REALDATA / "mmlu" / f"{n}.jsonl" for n in ("validation_3_per_subject", "computer_security_test"))


def refusals():
    with pytest.warns(UserWarning, match="left out, no refusals to the judge"):
        return read_refusals(REALDATA / "refusals" / "polite_refusal_responses_copyright.csv")


def test_muse_books_questions():
    """All four splits, questions and answers as published."""
    sets = muse_books.knowmem(MUSE)
    counts = [len(part) for part in (sets.forget, sets.retain, sets.forget_shots, sets.retain_shots)]
    assert counts == [100, 100, 10, 10]
    assert sets.forget[1].reference == "Transfiguration"
    assert len({item.id for item in (*sets.forget, *sets.retain)}) == 200


def test_muse_books_reads_the_old_split_names(tmp_path):
    """`retain2_qa` of older revisions is the retain split, in the Hub's layout of shards."""
    names = {"forget_qa": "forget_qa", "retain_qa": "retain2_qa"}
    names |= {f"{key}_icl": f"{value}_icl" for key, value in names.items()}
    (tmp_path / "knowmem").mkdir()
    for new, old in names.items():
        (tmp_path / "knowmem" / f"{old}-00000-of-00001.json").write_bytes((MUSE / f"{new}.json").read_bytes())
    assert muse_books.knowmem(tmp_path) == muse_books.knowmem(MUSE)


def test_wmdp_questions_and_those_that_stand_without_options():
    """75 questions; the open ones name no options, ask for no exception, and have a short answer."""
    items = wmdp_cyber.questions(WMDP)
    assert len(items) == 75 and all(len(item.options) == 4 for item in items)
    opened = wmdp_cyber.open_questions(items)
    assert 30 <= len(opened) <= 60
    assert not any("following" in item.question or item.reference.startswith("All of") for item in opened)
    by_id = {item.id: item for item in items}
    assert all(item.reference == by_id[item.id].options[by_id[item.id].answer].strip() for item in opened)


def test_mmlu_by_subject_and_its_published_columns():
    """57 subjects with three questions; a subject that is not there is named; the columns come back as they were."""
    items = mmlu.questions(MMLU, split="validation")
    assert len(items) == 171 and len({item.subject for item in items}) == 57
    assert len(mmlu.questions(MMLU, subjects=["virology"])) == 3
    with pytest.raises(DataFileError, match="has no questions of alchemy"):
        mmlu.questions(MMLU, subjects=["alchemy"])
    assert mmlu.four_choice_row(items[0])["choices"] == ["4", "8", "12", "6"]


def test_wikipedia_sample_is_seeded_and_clean():
    """The same seed draws the same articles, another seed others; nothing of WikiText's marks is left."""
    draw = wikipedia.articles(REALDATA / "wikitext2", count=12, seed=1, min_chars=200)
    assert draw == wikipedia.articles(REALDATA / "wikitext2", count=12, seed=1, min_chars=200)
    assert draw != wikipedia.articles(REALDATA / "wikitext2", count=12, seed=2, min_chars=200)
    for article in draw:
        assert not any(mark in article.text for mark in ("<unk>", "@-@", " ,", " ."))
        assert len(article.text) >= 200 and article.title and article.role == "retain"
    with pytest.raises(DataFileError, match="usable articles of 100000 characters or more, 5 asked for"):
        wikipedia.articles(REALDATA / "wikitext2", count=5, min_chars=100_000)


def test_rwku_and_tofu():
    """Probes by person and neighbour, general questions once, TOFU's JSON Lines in a `.json`-like file."""
    assert len(rwku.probes(REALDATA / "rwku")) == 70
    near = rwku.probes(REALDATA / "rwku", subject="Stephen King", near=True)
    assert near and near[0].subject == "The Shawshank Redemption"
    with pytest.raises(DataFileError, match="has no subject 'Nobody'; it has Stephen King"):
        rwku.probes(REALDATA / "rwku", subject="Nobody")
    general = rwku.general(REALDATA / "rwku")
    assert len({item.question for item in general}) == len(general) == 120
    assert len(tofu.pairs(REALDATA / "tofu")) == 40


def test_rwku_is_prepared_saved_and_loaded(tmp_path):
    """A person's data comes back from its folder as it was; nothing to forget is asked twice."""
    made = prepared_rwku("Stephen King", source=str(REALDATA / "rwku"), mmlu_source=str(MMLU), levels=(2,))
    data.save(tmp_path / "rwku", made)
    assert data.load("rwku", tmp_path / "rwku") == made
    trained = {record.question for record in made.records if record.role in REFUSED}
    asked = {item.question for item in made.sets.forget}
    attacked = {item.question for item in made.sets.attack}
    assert trained and asked and attacked
    assert not (trained & asked or trained & attacked or asked & attacked)


def questions_of(benchmark):
    """Real rows of one benchmark: what to forget, neighbours, general knowledge from Wikipedia, MMLU."""
    articles = wikipedia.articles(REALDATA / "wikitext2", count=20, min_chars=200)
    if benchmark == "muse_books":
        forget, near = muse_books.knowmem(MUSE).forget, rwku.probes(REALDATA / "rwku", near=True)
    else:
        forget = wmdp_cyber.open_questions(wmdp_cyber.questions(WMDP))
        near = wmdp_cyber.open_questions(mmlu.questions(SECURITY))
    return Questions(forget, near, title_questions(articles, words=30), mmlu.questions(MMLU)[::20], refusals())


@pytest.mark.parametrize("benchmark", ["muse_books", "wmdp_cyber"])
def test_real_rows_from_files_to_metrics(benchmark, tmp_path):
    """Loaders, records, teacher, two steps of MULE, five metrics: only size differs from the paper's run."""
    made = assemble(benchmark, "the forbidden subject", questions_of(benchmark), prompt_name="rwku")
    data.save(tmp_path, made)
    loaded = replace(made, prompt_name=benchmark)
    assert data.load(benchmark, tmp_path) == loaded
    texts = [record.question + record.answer for record in loaded.records]
    torch.manual_seed(0)
    tokenizer = build_tokenizer([*texts, tiny.REFUSAL], vocab_size=600)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    few = random.Random(0).sample(sorted({record.anchor for record in loaded.records if record.role in REFUSED}), 12)
    records = [record for record in loaded.records if record.id in few or record.anchor in few]
    assert {record.objective for record in records} == {"obj1", "obj2", "obj3"}
    settings = Settings(steps=2, batch_size=6, learning_rate=1e-3, max_thought_tokens=4, log_every=1, min_obedience=0)
    trained = train(
        model,
        tokenizer,
        records,
        "mule",
        topic=loaded.topic,
        settings=settings,
        prompt_name=benchmark,
        options={"max_answer_tokens": 8},
    )
    assert trained.steps == 2 and all(entry["loss"] >= 0 for entry in trained.log)
    assert any(not torch.equal(value, before[name]) for name, value in trained.model.state_dict().items())
    names = ("forget", "general", "neighbor", "attack", "mmlu", "controls")
    sets = replace(loaded.sets, **{name: getattr(loaded.sets, name)[:4] for name in names})
    result = evaluate_row(trained.model, tokenizer, sets, steering("none", loaded.topic), max_new_tokens=8)
    assert set(result.metrics) == {"forget", "general", "neighbor", "asr", "mmlu"}
    assert all(0 <= value <= 100 for value in result.metrics.values())
    assert len(result.samples) == sum(len(getattr(sets, name)) for name in names) >= 18
    assert all(sample["prompt"].count(tokenizer.bos_token) == 1 for sample in result.samples)
