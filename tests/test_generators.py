"""Language models that write data: forms, the reply cache, the budget, replay, and a server that fails and lies."""

import json
import logging
import os
import threading
from collections import Counter

import pytest
from pydantic import BaseModel, ConfigDict
from scripted import Act, ScriptedServer, answer, asked, status

from mule_lib.data.standardize import generators
from mule_lib.data.standardize.generators import CachedGenerator, Completion, GeneratorError, Request, interpret, local

KEY = "sk-scripted-7f3a9c51d2"


class Pair(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    question: str
    answer: str


GOOD = {"question": "Where?", "answer": "Here."}


def request(text: str = "Where?", *, id: str | None = None, **more) -> Request:
    return Request(id or text, ({"role": "user", "content": text},), **{"form": Pair, **more})


def canned(reply, path="replies.jsonl", **options) -> CachedGenerator:
    """A generator that answers by a function of the last message, and notes in `asked` what it was asked."""
    noted = []

    def respond(requests):
        noted.extend(requests)
        values = [reply(request.messages[-1]["content"]) for request in requests]
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
        return [Completion(text, "stop", 7, 3) for text in texts]

    generator = CachedGenerator("canned:1", respond, path=path, **options)
    generator.asked = noted
    return generator


def endpoint(model="scripted", **options) -> CachedGenerator:
    return generators.endpoint(model, **{"path": "replies.jsonl"} | options)


def test_replies_keep_the_order_of_the_requests_and_equal_questions_are_asked_once():
    generator = canned(lambda text: {**GOOD, "answer": f"{text}!"}, concurrency=3)
    replies = generator.complete([request(text, id=str(i)) for i, text in enumerate("babc")])
    assert [r.data.answer for r in replies] == ["b!", "a!", "b!", "c!"]
    assert sorted(r.messages[-1]["content"] for r in generator.asked) == ["a", "b", "c"]


def test_everything_that_shapes_a_reply_is_in_its_key():
    class Other(Pair):
        source: str

    base, system = request("a"), {"role": "system", "content": "s"}
    changes = [{"form": Other}, {"max_tokens": 9}, {"temperature": 0.5}, {"seed": 1}]
    others = [request("b"), Request("a", (system, *base.messages), Pair), *(request("a", **more) for more in changes)]
    keys = {each.key("m") for each in (base, *others)} | {base.key("another model")}
    assert len(keys) == 2 + len(others)
    assert request("a", id="other").key("m") == base.key("m")


@pytest.mark.parametrize(
    ("text", "finish", "refused", "error"),
    [
        (json.dumps(GOOD), "stop", False, None),
        (f"Sure:\n```json\n{json.dumps(GOOD)}\n```\nDone.", "stop", False, None),
        (f"<think>not {{this}}</think>{json.dumps(GOOD)}", "stop", False, None),
        ('{"question": "Who?", "answer": "I cannot answer that."}', "stop", False, None),
        ("I cannot help with that.", "stop", True, None),
        ("", "content_filter", True, None),
        ('{"question": "Wh', "length", False, "cut off at max_tokens=512"),
        ('{"question": "Who?", "answer": 3}', "stop", False, "answer: Input should be a valid string"),
        (json.dumps({**GOOD, "more": 1}), "stop", False, "more: Extra inputs"),
        ("Paris.", "stop", False, "the reply: Invalid JSON"),
    ],
)
def test_data_refusal_and_error_exclude_each_other(text, finish, refused, error):
    reply = interpret(request(), Completion(text, finish, 1, 1))
    why, known = reply.error, reply.data is not None
    assert reply.refused == refused and (why is None if error is None else error in why and "\n" not in why)
    assert known == (not refused and error is None)


def kept(path, name="canned:1") -> CachedGenerator:
    """What a file holds for a generator that asks nothing."""
    return CachedGenerator(name, None, path)


@pytest.mark.parametrize("damage", [b'{"key": "cut', b'{"key": "k"}', b"\xff\xfe"])
def test_a_damaged_line_is_said_and_costs_nothing_but_itself(tmp_path, caplog, damage):
    path = tmp_path / "replies.jsonl"
    canned(lambda text: GOOD, path).complete([request("a"), request("b")])
    first, second = path.read_bytes().split(b"\n")[1:]
    path.write_bytes(b"\n" + first + b"\n" + damage)  # the second line is lost, or was cut short by a kill
    again = canned(lambda text: GOOD, path)
    assert "a line holds no reply" in caplog.text
    assert again.complete([request("a"), request("b")]) and again.asked == [request("b")]
    assert len(kept(path).kept) == 2 and path.read_bytes().endswith(second)


def test_a_reply_that_cannot_be_written_stops_the_batch(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GeneratorError, match="cannot be written"):
        canned(lambda text: GOOD, tmp_path / "file" / "replies.jsonl").complete([request()])


def test_an_interrupt_keeps_what_was_paid_for(tmp_path):
    """Ctrl-C while three threads are asking: nothing new is sent, and what is under way is waited for and kept."""
    path, gate = tmp_path / "replies.jsonl", threading.Barrier(3)

    def reply(text):
        if text in "bcd":  # all three are under way
            gate.wait()
        if text == "b":
            raise KeyboardInterrupt
        return GOOD

    generator = canned(reply, path, concurrency=3)
    with pytest.raises(KeyboardInterrupt):
        generator.complete([request(text) for text in "abcdefghij"])
    paid = kept(path).kept
    assert {request(text).key("canned:1") for text in "acd"} <= set(paid)
    assert len(paid) == len(generator.asked) - 1 < 9


def test_the_budget_stops_hard_and_a_larger_one_goes_on(tmp_path):
    path = tmp_path / "replies.jsonl"
    first, rest = [request("first", max_tokens=20)], [request(f"question {i}", max_tokens=20) for i in range(10)]
    limit = first[0].prompt_tokens() + 20 + 35
    for _ in range(2):  # what the first run spent counts in the second
        small = canned(lambda text: GOOD, path, budget_tokens=limit)
        assert small.complete(first)[0].data
        with pytest.raises(GeneratorError, match=rf"budget_tokens={limit}: 10 are spent and the next requests"):
            small.complete(rest)
    large = canned(lambda text: GOOD, path, budget_tokens=10_000)
    assert len(large.complete(first + rest)) == 11 and len(large.asked) == 10


def test_a_local_model_writes_in_batches():
    sizes = []

    def write(chats, most):
        sizes.append((len(chats), most))
        return [json.dumps({**GOOD, "answer": chat[-1]["content"]}) for chat in chats]

    generator = local("tiny@1", write, batch_size=4, path="replies.jsonl")
    replies = generator.complete([request(str(i)) for i in range(9)])
    assert generator.name == "local:tiny@1" and [reply.data.answer for reply in replies] == list("012345678")
    assert sizes == [(4, 512), (4, 512), (1, 512)] and all(reply.prompt_tokens for reply in replies)


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    # The client's own waits between its retries; Retry-After is its business too.
    monkeypatch.setattr("openai._base_client.time.sleep", lambda seconds: None)


@pytest.fixture
def serve(monkeypatch):
    """Start a scripted server and point OPENAI_BASE_URL at it."""
    running = []

    def start(script, **options) -> ScriptedServer:
        server = ScriptedServer(script, **options).__enter__()
        running.append(server)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        return server

    yield start
    for server in running:
        server.__exit__()


def ask(generator, *texts, **more):
    return generator.complete([request(text, **more) for text in texts or ["Where?"]])


def test_several_requests_are_under_way_at_a_time_and_each_says_what_was_asked(serve):
    gate = threading.Barrier(4)

    def script(body, number):
        if number:  # the first goes alone
            gate.wait(60)
        return answer({**GOOD, "question": asked(body)})

    server = serve(script)
    texts = [f"q{i}" for i in range(13)]
    replies = ask(endpoint(concurrency=4), *texts, max_tokens=77, temperature=0.3, seed=5)
    assert [reply.data.question for reply in replies] == texts and replies[0].prompt_tokens == 10
    sent = server.asked[0]
    assert (sent["model"], sent["max_tokens"], sent["temperature"], sent["seed"]) == ("scripted", 77, 0.3, 5)
    assert sent["response_format"]["json_schema"]["schema"] == Pair.model_json_schema()
    assert sent["response_format"]["json_schema"]["strict"] and sent["key"] == f"Bearer {KEY}"


def test_a_server_that_does_not_count_is_counted_for(serve):
    serve(lambda *_: answer(GOOD, usage=False))
    reply = ask(endpoint(), "y" * 30)[0]
    assert (reply.prompt_tokens, reply.completion_tokens) == (84, len(json.dumps(GOOD)) // 3 + 1)


@pytest.mark.parametrize(
    "act", [status(500, "oops"), status(429, headers={"Retry-After": "1"}), status(408), Act(cut=True)]
)
def test_a_passing_failure_costs_one_more_request(serve, act):
    server = serve(lambda body, number: answer(GOOD) if number else act)
    reply = ask(endpoint())[0]
    assert (reply.data.model_dump(), reply.error, len(server.asked)) == (GOOD, None, 2)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (status(400, "maximum context length is 10; max_tokens", code="context_length_exceeded"), "maximum context"),
        (status(422, "temperature must be at most 1", param="temperature"), "must be at most 1"),
        (Act(body=b"[1, 2, 3]"), "no chat completion"),
        (Act(body=b"<html>", headers={"Content-Type": "text/html"}), "no chat completion"),
    ],
    ids=["context", "range", "nonsense", "page"],
)
def test_a_request_that_always_fails_is_an_error_reply_and_the_rest_is_answered(serve, act, words):
    server = serve(lambda body, number: act if asked(body) == "b" else answer(GOOD))
    for _ in range(2):  # and asked again later
        replies = ask(endpoint(), "a", "b", "c")
        assert [reply.error is None for reply in replies] == [True, False, True]
        assert words in replies[1].error and "\n" not in replies[1].error
    assert Counter(map(asked, server.asked)) == {"a": 1, "b": 2, "c": 1}


@pytest.mark.parametrize(
    ("act", "words"), [(status(500, "oops"), "500.*oops"), (Act(hangs=True), "timed out")], ids=["500", "hangs"]
)
def test_an_endpoint_that_fails_for_good_ends_the_batch_and_the_rest_is_kept(serve, monkeypatch, act, words):
    monkeypatch.setattr(generators, "RETRIES", 1)
    monkeypatch.setattr(generators, "TIMEOUT", 0.5 if act.hangs else 60)
    server = serve(lambda body, number: answer(GOOD) if number < 3 else act)
    with pytest.raises(GeneratorError, match=f"cannot be reached .*{words}") as error:
        ask(endpoint(concurrency=1), *(str(i) for i in range(90)))
    assert 4 < len(server.asked) < 10 and len(kept("replies.jsonl").kept) == 3 and "\n" not in str(error.value)


def test_a_server_without_structured_output_is_asked_without_from_then_on(serve):
    act = status(422, "Unexpected fields in the request: {'response_format'}")
    server = serve(lambda body, number: act if "response_format" in body else answer(GOOD))
    assert [reply.data.model_dump() for reply in ask(endpoint(), *"abc")] == [GOOD] * 3
    assert ["response_format" in body for body in server.asked] == [True, False, False, False]


def test_an_endpoint_that_hangs(serve, monkeypatch):
    monkeypatch.setattr(generators, "PROBE_SECONDS", 0.2)
    server = serve(lambda *_: answer("x"), probe=Act(hangs=True))
    with pytest.raises(GeneratorError, match="cannot be reached"):
        ask(endpoint())
    assert server.asked == []


FATAL = [
    (status(401, f"Incorrect API key provided: {KEY}"), r"refuses 'other': .*401.*\[key\].*check OPENAI_API_KEY"),
    (
        status(404, "The model `other` does not exist"),
        r"refuses 'other': .*exist.*\(with its /v1\) and generator_model",
    ),
    (status(400, "no such model", code="model_not_found"), "refuses 'other': .*no such model"),
    (status(403, "not for you"), "refuses 'other': .*not for you"),
    (status(503, "loading"), "cannot be reached .*503.*loading"),
    (status(429, "You exceeded your quota", code="insufficient_quota"), "exceeded your quota"),
]


@pytest.mark.parametrize("probed", [True, False])
@pytest.mark.parametrize(("act", "words"), FATAL)
def test_a_refused_key_an_unknown_model_and_a_spent_quota_end_the_batch_at_once(serve, monkeypatch, act, words, probed):
    monkeypatch.setattr(generators, "RETRIES", 0)
    server = serve(lambda *_: act, probe=act if probed else None)
    with pytest.raises(GeneratorError, match=words) as error:
        ask(endpoint("other"), *"abcdef")
    assert KEY not in str(error.value) and "\n" not in str(error.value) and len(server.asked) == (not probed)


def test_the_key_reaches_the_server_and_nothing_else(serve, monkeypatch, tmp_path, caplog, capfd):
    monkeypatch.setattr(generators, "RETRIES", 0)
    caplog.set_level(logging.DEBUG)
    acts = {"fail": status(400, f"bad key {KEY}"), "tell": answer({**GOOD, "answer": f"your key is {KEY}"})}
    serve(lambda body, number: acts[asked(body)])
    path = tmp_path / "replies.jsonl"
    generator = endpoint(path=path)
    replies = ask(generator, "fail", "tell")
    assert replies[1].data.answer == "your key is [key]"
    out, err = capfd.readouterr()
    written = path.read_text() + repr(replies) + out + err + caplog.text + repr(generator)
    assert KEY not in written and "HTTP" in caplog.text


def test_a_full_cache_needs_neither_key_nor_endpoint(serve, monkeypatch, tmp_path):
    serve(lambda *_: answer(GOOD))
    path = tmp_path / "replies.jsonl"
    first = ask(endpoint(path=path), "a", "b")
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    again = ask(endpoint(path=path), "a", "b")
    assert [reply.data for reply in again] == [reply.data for reply in first]
