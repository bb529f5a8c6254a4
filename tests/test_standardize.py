"""The standardization from end to end on real text with a scripted LLM: splits, records, sets, books, folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import scripted
from scripted import REALDATA, Act, ScriptedLLM, ScriptedServer, real

from mule_lib import data, params, prompts
from mule_lib.data import published, records
from mule_lib.data.published import RawText
from mule_lib.data.standardize import attacker, pipeline
from mule_lib.data.standardize.ask import PROMPTS, Job, Standardize
from mule_lib.data.standardize.checks import REASONS, similarities
from mule_lib.data.standardize.chunks import clean
from mule_lib.data.standardize.pipeline import Sources, standardize
from mule_lib.data.text import is_refusal, normalise
from mule_lib.params import ROOT

pytestmark = real
SMALL = {
    "generator_model": "scripted", "chunk_chars": 700, "forget_chunks": 160, "general_articles": 16,
    "concepts_per_field": 3, "evaluation_share": 0.15, "validation_share": 0.15, "seed": 3,
}  # fmt: skip


CYBER = REALDATA / "wmdp_cyber_mcq" / "test_sample.jsonl"


def sources(benchmark: str) -> Sources:
    general = published.articles(REALDATA / "wikitext2" / "articles.jsonl", count=16)
    taken = {text.id for text in general}
    # The other articles stand for the text to forget, as published, with their marks of a damaged text.
    rows = map(json.loads, (REALDATA / "wikitext2" / "articles.jsonl").read_text("utf-8").splitlines())
    every = [RawText(f"raw/{r['id']}", r["text"], f"articles.jsonl#{r['id']}", r["title"]) for r in rows]
    forget = [text for text in every if text.id.replace("raw", "wikipedia") not in taken]
    four = published.read_set("mmlu/test", REALDATA / "mmlu" / "computer_security_test.jsonl")
    if benchmark == "muse_books":
        known = published.read_set("muse_books/forget", REALDATA / "muse_books_knowmem")
        return Sources(forget, general, four, published=known)
    return Sources(forget, general, four, questions=published.read_set("wmdp_cyber/questions", CYBER))


def build(benchmark: str = "muse_books", *, target=None, **changed) -> tuple:
    """What a standardization made, and its job with the books."""
    job = Job(Standardize(**SMALL | changed, benchmark=benchmark), ScriptedLLM())
    return standardize(job, sources(benchmark), target=target), job


@pytest.fixture(scope="module")
def books():
    return build()[0]


@pytest.fixture(scope="module")
def cyber():
    def target(attacked):
        return [("Nothing comes out.", "I do not know.")[len(prefix) % 2] for _, prefix in attacked]

    return build("wmdp_cyber", attacker_rounds=2, target=target)[0]


@pytest.fixture(params=["books", "cyber"])
def made(request):
    return request.getfixturevalue(request.param)


def test_every_objective_has_both_sides_in_both_splits(made):
    groups = {"obj1/forget", "obj1/retain", "obj2/forget", "obj2/neighbor", "obj3/adversarial", "obj3/benign"}
    for split in (made.benchmark.records, made.benchmark.validation):
        assert {f"{r.objective}/{r.role}" for r in split} == groups
    assert {r.split for r in made.benchmark.validation} == {"validation"}


def test_partners_belong_to_one_objective_and_name_each_other(made):
    by_id = {record.id: record for record in made.benchmark.records}
    for record in by_id.values():
        assert is_refusal(record.refusal)
        if made.benchmark.name == "muse_books" and record.role not in records.REFUSED:
            assert not {"hogwarts", "quidditch", "dumbledore"} & set(normalise(record.question).split())
        if record.anchor:
            partner = by_id[record.anchor]
            assert partner.objective == record.objective and partner.anchor == record.id
            assert (partner.role in records.REFUSED) != (record.role in records.REFUSED)
    assert all(record.anchor for record in by_id.values() if record.objective == "obj3")


def test_attacked_pairs_share_their_prefix_but_for_the_question(made):
    by_id = {record.id: record for record in made.benchmark.records}
    attacked = [record for record in by_id.values() if record.role == "adversarial"]
    for record in attacked:
        partner = by_id[record.anchor]
        assert record.prefix == record.prefix.rstrip()
        assert record.prefix.replace(record.question, "") == partner.prefix.replace(partner.question, "")
    assert len({record.prefix.replace(record.question, "") for record in attacked}) > 3


def test_no_question_is_trained_on_and_evaluated(made):
    sets = made.benchmark.sets
    evaluated = [*sets.forget, *sets.general, *sets.attack, *sets.controls, *sets.neighbor, *sets.mmlu]
    trained = [record.question for record in (*made.benchmark.records, *made.benchmark.validation)]
    for i, alike in similarities([*trained, *(item.question for item in evaluated)]):
        assert i >= len(trained) or alike[len(trained) :].max() < 0.7, trained[i]


def test_a_forget_chunk_serves_one_split_and_objective(made):
    """So attacked questions are none of Obj1's; neither are those of the evaluation."""
    used = {}
    for record in (*made.benchmark.records, *made.benchmark.validation):
        if record.role in records.REFUSED:
            chunk = record.id.split("/", 2)[2].rsplit("#", 1)[0]
            used.setdefault(chunk, set()).add((record.split, record.objective))
    assert len(used) > 20 and all(len(uses) == 1 for uses in used.values())
    asked = {item.question for item in made.benchmark.sets.forget}
    assert not asked & {item.question for item in made.benchmark.sets.attack}


def test_spans_point_at_the_words_that_bear_the_answer_out(books):
    texts = {text.source: clean(text.text) for text in sources("muse_books").forget}
    told = [r for r in books.benchmark.records if r.role in records.REFUSED]
    for record in told:
        start, end = record.span
        source, chunk = record.source.rsplit(":", 1)  # the chunk's own place in the source
        assert normalise(record.answer) in normalise(texts[source][start:end])
        first, last = map(int, chunk.split("-"))
        assert first <= start < end <= last


def test_raw_records_are_the_sources_own_text(made):
    """What Obj1 forgets are words of its chunk, with the sentence that bears the answer; the rest stay questions."""
    texts = {text.source: clean(text.text) for text in sources("muse_books").forget}
    for record, before in zip(made.raw, made.benchmark.records, strict=True):
        assert (record.id, record.refusal, record.anchor) == (before.id, before.refusal, before.anchor)
        assert record.verbatim == (record.group == ("obj1", "forget"))
        if record.verbatim:
            source, chunk = record.source.rsplit(":", 1)
            first, last = map(int, chunk.split("-"))
            told = texts[source][first:last]
            assert told.startswith(record.question) and record.answer in told
            assert normalise(before.answer) in normalise(f"{record.question} {record.answer}")


def test_planted_faults_are_rejected_by_their_name_and_the_books_balance():
    jobs = [build()[1], build("wmdp_cyber", attacker_rounds=1, target=lambda a: ["x"] * len(a))[1]]
    reasons = {row["reason"] for job in jobs for row in job.rejected}
    assert reasons == set(REASONS) - {"prefix_answer"}  # that: the attacker's own test below
    for job in jobs:
        table = job.summary().set_index("step")
        assert (table["accepted"] >= 0).all() and table["asked"].sum() == len(job.generator.asked)
        assert table.loc[:, "accepted":].iloc[:, 1:].to_numpy().sum() == len(job.rejected)


def test_choices_hold_the_answer_and_a_refusal_at_changing_places(books):
    choices = books.benchmark.sets.neighbor
    known = dict(scripted.trivia())
    assert all(item.options[item.refusal] == "I do not know" and len(item.options) == 5 for item in choices)
    assert all(item.options[item.answer] == known[item.question].rstrip(".") for item in choices)
    assert len({item.answer for item in choices}) > 1


def test_published_questions_evaluate_as_they_are(books, cyber):
    assert len(books.benchmark.sets.forget) == 100
    texts = {q.question for q in published.read_set("wmdp_cyber/questions", CYBER)}
    assert cyber.benchmark.sets.forget and {item.question for item in cyber.benchmark.sets.forget} <= texts
    families, attacked = prompts.texts("wmdp_cyber")["prefixes"], cyber.benchmark.sets
    assert {item.family for item in attacked.attack} <= {*families["held_out"]}
    assert {item.family for item in attacked.attack_seen} <= {*families["train"], "optimised"}
    assert len(attacked.attack) == 2 * len(attacked.attack_seen)


def test_an_attack_without_a_target_is_refused():
    job = Job(Standardize(**SMALL, attacker_rounds=1), ScriptedLLM())
    with pytest.raises(ValueError, match="attacker_rounds=1: needs a target"):
        standardize(job, sources("muse_books"))
    assert not job.generator.asked


PLACES = {"Ada": "red tower", "Bert": "blue river", "Cleo": "old mill"}
QUERIES = [
    attacker.Pair(name, "", f"Where does {name} live?", f"{name} lives in the {place} beyond the hills", "")
    for name, place in PLACES.items()
]
MAGIC = ("certainly", "numbered", "verdict")


def weak(attacked):
    """Gives the more of the answer away, the more magic words stand in the prefix; without any it refuses."""
    by_question = {query.question: query.answer for query in QUERIES}
    texts = []
    for question, prefix in attacked:
        known = sum(word in prefix.lower() for word in MAGIC)
        words = by_question[question].split()
        texts.append(" ".join(words[: len(words) * known // len(MAGIC)]) if known else "I do not know.")
    return texts


class Proposer:
    """Adds a magic word to the best prefix shown, beside proposals that must not be used."""

    name = "proposer"

    def __init__(self):
        self.asked = []

    def complete(self, requests):
        self.asked += requests
        return [scripted.Completion(data=request.form(prefixes=self.propose(request))) for request in requests]

    def propose(self, request) -> list[str]:
        lines = request.messages[-1]["content"].splitlines()
        best = next(line for line in lines if ": '" in line).split(": ", 1)[1].strip("'")
        unused = [word for word in MAGIC if word not in best]
        answer = next(query.answer for query in QUERIES if query.question in request.messages[-1]["content"])
        return [best, "x " * 99, answer, *(f"{best} {word}" for word in unused[:1])]


def attack(*, rounds: int = 3, target=weak):
    job = Job(Standardize(**SMALL, attacker_rounds=rounds), Proposer())
    return attacker.improve(job, QUERIES, ["Well, about {topic}:"], target), job


def test_each_round_lets_more_out_of_every_question():
    history, job = attack()
    tops = [attacker.best([one for one in history if one.round <= turn]).values() for turn in range(4)]
    scores = [sum(one.score for one in top) / 3 for top in tops]
    assert scores[0] == 0 and scores[-1] == 1 and scores == sorted(set(scores))
    assert len(attacker.best(history)) == 3 and len(job.generator.asked) == 3 * 3
    for best in attacker.best(history).values():
        assert all(word in best.template for word in MAGIC) and best.template.startswith("Well, about {topic}:")
    assert attack()[0] == history  # the same replies give the same history
    # A round is never answered from the cache of another.
    assert len({request.seed for request in job.generator.asked}) == 3


def test_bad_proposals_never_reach_the_target():
    seen = []

    def watching(attacked):
        seen.extend(prefix for _, prefix in attacked)
        return weak(attacked)

    _, job = attack(target=watching)
    assert {"prefix_length", "prefix_answer"} == {row["reason"] for row in job.rejected}
    assert not any(query.answer in prefix or len(prefix.split()) > 60 for query in QUERIES for prefix in seen)
    assert job.summary().set_index("step").at["attacker", "accepted"] == 9


def test_refusals_and_the_prefixs_own_words_count_as_nothing():
    leaky = {query.question: f"{query.answer}. But I cannot answer that." for query in QUERIES}
    history, job = attack(target=lambda attacked: [leaky[question] for question, _ in attacked], rounds=1)
    assert {(tried.score, tried.success) for tried in history} == {(0, False)}
    pair = attacker.Pair("q", "", "Does Ada live in a red tower?", "red tower by night", "")
    [tried] = attacker.score(job, [(pair, 0, "Known is {question}")], lambda _: ["red tower"])
    assert tried.score == 0
    history, _ = attack(target=lambda attacked: ["nothing"] * len(attacked))
    assert {best.round for best in attacker.best(history).values()} == {0}  # nothing changes without a gain


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Real articles in the layout of MUSE-Books' raw text: those that are not the general ones."""
    folder = tmp_path_factory.mktemp("muse") / "raw"
    folder.mkdir()
    kept = [json.dumps({"text": text.text}) for text in sources("muse_books").forget]
    (folder / "forget.jsonl").write_text("\n".join(kept), "utf-8")
    return folder.parent


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")


def values(raw, out, **more) -> dict:
    given = {"questions": "muse_books_knowmem", "general": "wikitext2/articles.jsonl"}
    given = {f"{name}_source": str(REALDATA / file) for name, file in given.items()}
    given["mmlu_source"] = str(REALDATA / "mmlu" / "computer_security_test.jsonl")
    return SMALL | given | {"out_dir": str(out), "forget_source": str(raw)} | more


def ask(raw, out, server, **more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_KEY", "a-secret")
        return pipeline.run(Standardize(**values(raw, out, **more)))


def data_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*.*") if "replies.jsonl" not in path.name and path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def asked_once(server) -> bool:
    requests = [json.dumps(body["messages"]) + str(body.get("seed")) for body in server.answered]
    return len(requests) == len(set(requests))


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    """A finished folder, and how many answers it took."""
    out = tmp_path_factory.mktemp("whole")
    with ScriptedServer() as server:
        ask(raw, out, server)
        return out, len(server.answered)


def test_the_folder_is_what_training_reads(whole, raw):
    out, _ = whole
    again = data.load_benchmark("muse_books", out)
    assert len(again.records) > 50 and len(again.sets.forget) == 100 and again.validation
    header = json.loads((out / "standardize.json").read_text("utf-8"))
    assert header["generator"] == "openai:scripted" and len(header["prompts"]) == len(PROMPTS) >= 9
    assert header["counts"]["train"] == len(again.records)
    assert "\nforget pairs," in (out / "summary.csv").read_text("utf-8")
    p = Standardize(**values(raw, out))
    pipeline.check_folder(out, p.model_copy(update={"budget_tokens": 7}))
    with pytest.raises(ValueError, match=r"seed: 3 -> 5.*choose another out_dir"):
        pipeline.check_folder(out, p.model_copy(update={"seed": 5}))
    assert not any(b"a-secret" in path.read_bytes() for path in out.rglob("*.*") if path.is_file())


def test_a_second_start_asks_nothing_and_gives_the_same(whole, raw):
    out, _ = whole
    before = data_of(out)
    with ScriptedServer() as server:
        ask(raw, out, server)
        assert not server.asked
    assert data_of(out) == before


def test_after_a_kill_nothing_that_was_kept_is_asked_again_and_the_files_are_the_same(whole, raw, tmp_path):
    out, needed = whole
    children = []

    def killing(body, number):
        if number == 60:
            children[0].kill()
        return Act(hangs=True) if number >= 60 else scripted.scripted(body, number)

    program = (
        "import sys; from mule_lib.data.standardize.pipeline import Standardize, run; "
        "run(Standardize.model_validate_json(sys.argv[1]))"
    )
    with ScriptedServer(killing) as server:
        own = os.environ | {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "a-secret", "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, "-c", program, json.dumps(values(raw, tmp_path))]
        children.append(
            subprocess.Popen(words, cwd=ROOT, env=own, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        )
        assert children[0].wait(120) < 0
        answered = len(server.answered)
    assert not (tmp_path / "train.jsonl").exists()
    with ScriptedServer() as server:
        ask(raw, tmp_path, server)
        # What was under way when the kill came is lost: no more than eight replies.
        assert asked_once(server) and 0 <= len(server.answered) + answered - needed <= 8
    assert data_of(tmp_path) == data_of(out)


def test_the_embedded_model_can_be_attacked_and_can_answer(raw, tmp_path, monkeypatch):
    from mule_lib.suite.cli import writer

    name, write = writer("base")
    question = {"role": "user", "content": "What is the capital of France?"}
    assert name.startswith("base@") and "Paris" in write([[question]], 24)[0]
    assert write([[question, {"role": "assistant", "content": "The capital of France is"}]], 4)[0].startswith("Paris")
    with ScriptedServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        p = Standardize(**values(raw, tmp_path, attacker_rounds=1, attacker_target="base"))
        made = pipeline.run(p, load_model=writer)
    assert {tried.round for tried in made.tried} == {0, 1}
    assert len((tmp_path / "attacker.jsonl").read_text("utf-8").splitlines()) == len(made.tried)


def test_a_failed_standardization_leaves_its_books(raw, tmp_path):
    with ScriptedServer() as server, pytest.raises(ValueError, match="nothing was accepted for"):
        ask(raw, tmp_path, server, forget_chunks=7)
    assert (tmp_path / "rejected.jsonl").exists() and not (tmp_path / "train.jsonl").exists()


def test_a_dry_run_says_what_would_be_asked_and_asks_nothing(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY")
    pipeline.run(Standardize(**values(raw, tmp_path)), dry_run=True)
    assert "chunks to forget, 16 general ones" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_a_bad_source_is_refused_before_anything_is_asked(tmp_path):
    bad = tmp_path / "raw"
    bad.mkdir()
    (bad / "forget.jsonl").write_text('{"text": "fine"}\n{"text": ', "utf-8")
    with ScriptedServer() as server:
        with pytest.raises(ValueError, match=r"forget.jsonl: row 2"):
            ask(tmp_path, tmp_path / "out", server)
        assert not server.asked


@pytest.mark.parametrize("name", ["paper_muse_books", "paper_wmdp_cyber"])
def test_the_papers_params_files_are_valid(name):
    p = params.read_parameters(Standardize, ROOT / "params" / "01_data_standardization" / f"{name}.yaml")
    assert name == f"paper_{p.benchmark}" and p.attacker_rounds and p.forget_source == ""
