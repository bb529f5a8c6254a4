"""`mule standardize` against a server on loopback: the whole way from files to a folder that training reads."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scripted_llm
from scripted_llm import FAILED, REALDATA, REFUSED
from scripted_server import ScriptedServer, answer, hang

from mule_lib import data, params
from mule_lib.benchmarks import wikipedia
from mule_lib.generators import GeneratorError
from mule_lib.params import ParameterError, Standardize
from mule_lib.standardize import command

pytestmark = pytest.mark.skipif(not REALDATA.is_dir(), reason="the real benchmark samples are not here")
ROOT = Path(__file__).resolve().parents[1]


def script(body, number):
    user = next(message for message in body["messages"] if message["role"] == "user")
    data = scripted_llm.reply([user])
    if data == REFUSED:
        return answer(None, refusal=REFUSED)
    return answer("{" if data is FAILED else data)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Real articles in the layout of MUSE-Books' raw text: those that are not the general ones."""
    folder = tmp_path_factory.mktemp("muse") / "raw"
    folder.mkdir()
    file = REALDATA / "wikitext2" / "articles.jsonl"
    taken = {text.id for text in wikipedia.articles(file, count=16)}
    rows = map(json.loads, file.read_text("utf-8").splitlines())
    kept = [json.dumps({"text": row["text"]}) for row in rows if f"wikipedia/{row['id']}" not in taken]
    (folder / "forget.jsonl").write_text("\n".join(kept), "utf-8")
    return folder.parent


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")


def values(raw, out, **more) -> dict:
    return {
        "out_dir": str(out),
        "forget_source": str(raw),
        "questions_source": str(REALDATA / "muse_books_knowmem"),
        "general_source": str(REALDATA / "wikitext2" / "articles.jsonl"),
        "mmlu_source": str(REALDATA / "mmlu" / "computer_security_test.jsonl"),
        "general_articles": 16,
        "chunk_chars": 700,
        "forget_chunks": 100,
        "concepts_per_field": 3,
        "refusals": 12,
        "max_failed": 0.1,
        "evaluation_share": 0.15,
        "validation_share": 0.15,
        "seed": 3,
        "generator_model": "scripted",
    } | more


def ask(raw, out, server, **more):
    os.environ["OPENAI_BASE_URL"] = server.url
    try:
        return command.run(Standardize(**values(raw, out, **more)), say=lambda line: None)
    finally:
        del os.environ["OPENAI_BASE_URL"]


def data_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*.*") if path.name != "replies.jsonl" and path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def asked_once(server) -> bool:
    requests = [json.dumps(body["messages"]) + str(body.get("seed")) for body in server.answered]
    return len(requests) == len(set(requests))


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    with ScriptedServer(script) as server:
        os.environ["OPENAI_API_KEY"] = "a-secret"
        ask(raw, out, server)
        return out, len(server.answered)


def test_the_folder_is_what_training_reads(whole):
    out, _ = whole
    read_back = data.load("muse_books", out)
    assert len(read_back.records) > 50 and len(read_back.sets.forget) == 100 and read_back.validation
    header = json.loads((out / "standardize.json").read_text("utf-8"))
    assert header["generator"] == "openai:scripted" and len(header["prompts"]) >= 11
    assert header["counts"]["train"] == len(read_back.records) and header["tokens"]["completion"] > 1000
    assert "| forget pairs |" in (out / "summary.md").read_text("utf-8")
    assert not any(b"a-secret" in path.read_bytes() for path in out.rglob("*.*") if path.is_file())


def test_a_second_start_asks_nothing_and_changes_nothing(whole, raw):
    out, _ = whole
    before = data_of(out)
    with ScriptedServer(script) as server:
        ask(raw, out, server)
        assert not server.asked
    assert data_of(out) == before


def test_recorded_replies_give_the_same_data_without_a_server(whole, raw, tmp_path):
    out, _ = whole
    again = values(raw, tmp_path, generator="replay", replay_file=str(out / "replies.jsonl"), generator_model="")
    command.run(Standardize(**again), say=lambda line: None)
    before, after = data_of(out), data_of(tmp_path)
    assert before.pop("standardize.json") != after.pop("standardize.json")  # its parameters name the replay
    assert after == before


def test_after_a_kill_nothing_is_asked_twice_and_the_files_are_the_same(whole, raw, tmp_path):
    out, needed = whole
    with ScriptedServer(lambda body, number: script(body, number) if number < 60 else hang()) as server:
        file = tmp_path / "params.yaml"
        file.write_text(json.dumps(values(raw, tmp_path / "data")), "utf-8")  # JSON is YAML
        own = os.environ | {"OPENAI_BASE_URL": server.url, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "mule_lib.cli", "standardize", "-f", str(file)], cwd=ROOT, env=own,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        cache, begun = tmp_path / "data" / "replies.jsonl", time.time()
        while not cache.exists() or cache.read_bytes().count(b"\n") < 60:
            assert process.poll() is None and time.time() - begun < 120, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        answered = len(server.answered)
    assert not (tmp_path / "data" / "train.jsonl").exists()
    with ScriptedServer(script) as server:
        ask(raw, tmp_path / "data", server)
        assert asked_once(server) and len(server.answered) + answered == needed
    assert data_of(tmp_path / "data") == data_of(out)


def test_a_spent_budget_stops_and_more_goes_on(whole, raw, tmp_path):
    out, needed = whole
    with ScriptedServer(script) as server:
        with pytest.raises(GeneratorError, match=r"budget_tokens=9000: .* are kept in"):
            ask(raw, tmp_path, server, budget_tokens=9_000)
        assert not (tmp_path / "train.jsonl").exists() and server.answered
        ask(raw, tmp_path, server)
        assert asked_once(server) and len(server.answered) == needed
    assert data_of(tmp_path) == data_of(out)


def test_the_embedded_model_can_be_attacked(raw, tmp_path):
    with ScriptedServer(script) as server:
        made = ask(raw, tmp_path, server, attacker_rounds=1, attacker_group=2, attacker_target="base")
    assert {tried.round for tried in made.tried} == {0, 1}
    assert (tmp_path / "attacker.csv").read_text("utf-8").startswith("round,score,asr\n0,")


def test_a_failed_standardization_leaves_its_books(raw, tmp_path):
    with ScriptedServer(script) as server, pytest.raises(ValueError, match=r"max_failed=0.0.*rejected.jsonl"):
        ask(raw, tmp_path, server, max_failed=0.0)
    assert (tmp_path / "rejected.jsonl").exists() and not (tmp_path / "train.jsonl").exists()


def test_a_dry_run_says_what_would_be_asked_and_asks_nothing(raw, tmp_path):
    said = []
    with ScriptedServer(script) as server:
        os.environ["OPENAI_BASE_URL"] = server.url
        command.run(Standardize(**values(raw, tmp_path)), dry_run=True, say=said.append)
        del os.environ["OPENAI_BASE_URL"]
        assert not server.asked
    assert "chunks to forget, 16 general ones" in said[0] and "estimated" in said[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["paper_muse_books", "paper_wmdp_cyber"])
def test_the_papers_params_files_are_valid(name):
    p = params.load("standardize", ROOT / "params" / "01_data_standardization" / f"{name}.yaml")
    assert name == f"paper_{p.benchmark}" and p.attacker_rounds and p.forget_source == ""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"forgt_chunks": 3}, "unknown parameter 'forgt_chunks'; did you mean 'forget_chunks'?"),
        ({"benchmark": "books"}, "benchmark = 'books': did you mean 'muse_books'?"),
        ({"generator_model": ""}, "generator_model = '': name the model for generator 'openai'"),
        ({"generator": "replay"}, "replay_file = '': name the file of recorded replies"),
        ({"anchor_share": 1.0}, "anchor_share = 1.0: Input should be less than 1"),
        ({"seed": "x"}, "seed = 'x': Input should be a valid integer"),
    ],
)
def test_bad_parameters_are_one_line(tmp_path, wrong, message):
    file = tmp_path / "params.yaml"
    file.write_text(json.dumps({"generator_model": "m"} | wrong), "utf-8")
    with pytest.raises(ParameterError) as caught:
        params.load("standardize", file)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_source_is_refused_before_anything_is_asked(raw, tmp_path):
    bad = tmp_path / "raw"
    bad.mkdir()
    (bad / "forget.jsonl").write_text('{"text": "fine"}\n{"text": ', "utf-8")
    with ScriptedServer(script) as server:
        with pytest.raises(ValueError, match=r"forget.jsonl: row 2"):
            ask(raw, tmp_path / "out", server, forget_source=str(tmp_path))
        assert not server.asked
