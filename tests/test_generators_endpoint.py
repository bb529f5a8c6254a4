"""The OpenAI-compatible back end against a real server on loopback that limits, fails, cuts off, lies and hangs."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from scripted_server import Act, ScriptedServer, answer, asked, completion, hang, status
from test_generators import GOOD, PAIR, request

from mule_lib.generators import BudgetError, GeneratorError, OpenAIEndpoint
from mule_lib.generators.budget import estimate
from mule_lib.generators.cache import ReplyFile
from mule_lib.generators.requests import call_of

KEY = "sk-scripted-7f3a9c51d2"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


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


def once(act: Act):
    """A script that acts so the first time that it is asked each question, and answers from then on."""
    seen: Counter = Counter()

    def script(body, number):
        seen[asked(body)] += 1
        return act if seen[asked(body)] == 1 else answer(GOOD)

    return script


def ask(generator, *texts, **more):
    return generator.complete([request(text, **{"schema": PAIR, **more}) for text in texts or ["Where?"]])


# ---- answers ----


def test_replies_come_in_order_from_several_requests_at_a_time(serve):
    server = serve(lambda body, number: answer(json.dumps({**GOOD, "question": asked(body)}), pause=0.1))
    generator = OpenAIEndpoint("scripted", concurrency=4)
    texts = [f"q{i}" for i in range(13)]
    replies = ask(generator, *texts)
    assert [reply.data["question"] for reply in replies] == texts
    assert server.busiest == 4
    assert server.keys == {f"Bearer {KEY}"}
    assert (generator.name, generator.tally.requests, generator.tally.prompt_tokens) == ("openai:scripted", 13, 130)


def test_a_notebook_with_a_running_loop_may_ask(serve):
    serve(lambda body, number: answer(GOOD))

    async def cell():
        return ask(OpenAIEndpoint("scripted"))

    assert asyncio.run(cell())[0].data == GOOD


def test_what_is_sent_is_what_was_asked(serve):
    server = serve(lambda body, number: answer(GOOD))
    ask(OpenAIEndpoint("scripted"), max_tokens=77, temperature=0.3, seed=5)
    sent = server.asked[0]
    assert (sent["model"], sent["max_tokens"], sent["temperature"], sent["seed"]) == ("scripted", 77, 0.3, 5)
    assert sent["response_format"]["json_schema"]["schema"] == PAIR
    assert sent["messages"] == [{"role": "user", "content": "Where?"}]


def test_a_server_that_does_not_count_is_counted_for(serve):
    body = {**completion("x" * 300), "usage": None}
    serve(lambda *_: Act(body=json.dumps(body).encode()))
    reply = ask(OpenAIEndpoint("scripted"), "y" * 30, schema=None)[0]
    assert (reply.prompt_tokens, reply.completion_tokens) == (11, 101)


# ---- failures that pass ----


@pytest.mark.parametrize(
    "act",
    [
        status(500, "oops"),
        status(503, "loading"),
        status(408),
        Act(body=b'{"choices": [{"message"', missing=400),
        Act(body=b'{"choices": [{"message"'),
        Act(body=b"<html>gateway</html>", headers={"Content-Type": "text/html"}),
        Act(body=b'{"error": {"message": "upstream"}}'),
    ],
    ids=["500", "503", "408", "connection cut", "body cut", "no JSON", "error as 200"],
)
def test_a_passing_failure_costs_one_more_request(serve, act):
    server = serve(once(act))
    reply = ask(OpenAIEndpoint("scripted"))[0]
    assert (reply.data, reply.error, len(server.asked)) == (GOOD, None, 2)


@pytest.mark.parametrize(
    "act", [hang(), Act(body=json.dumps(completion("late")).encode(), drip=0.5)], ids=["hangs", "trickles"]
)
def test_an_answer_that_does_not_end_is_given_up_and_asked_again(serve, act):
    server = serve(once(act))
    begun = time.monotonic()
    assert ask(OpenAIEndpoint("scripted", timeout=1.5))[0].data == GOOD
    assert len(server.asked) >= 2 and time.monotonic() - begun < 60  # either would take more than a minute


def test_retry_after_is_waited_for_and_others_go_on(serve):
    times: dict[str, list[float]] = {}

    def script(body, number):
        times.setdefault(asked(body), []).append(time.monotonic())
        limited = asked(body) == "b" and len(times["b"]) == 1
        return status(429, "slow down", headers={"Retry-After": "1.5"}) if limited else answer(GOOD)

    serve(script)
    replies = ask(OpenAIEndpoint("scripted"), "a", "b", "c")
    assert all(reply.data == GOOD for reply in replies)
    assert times["b"][1] - times["b"][0] >= 1.5
    assert times["c"][0] < times["b"][1]


# ---- failures that stay ----


def test_a_request_that_always_fails_is_an_error_reply_and_the_rest_is_answered(serve, tmp_path):
    broken = {"b"}
    server = serve(lambda body, number: status(500, "oops") if asked(body) in broken else answer(GOOD))
    path = tmp_path / "replies.jsonl"
    replies = ask(OpenAIEndpoint("scripted", retries=1, cache=path), "a", "b", "c")
    assert [reply.error is None for reply in replies] == [True, False, True]
    assert "up to 1 retries): 500, oops" in replies[1].error and "\n" not in replies[1].error
    assert Counter(map(asked, server.asked)) == {"a": 1, "b": 2, "c": 1}
    broken.clear()
    again = ask(OpenAIEndpoint("scripted", cache=path), "a", "b", "c")
    assert [reply.cached for reply in again] == [True, False, True] and again[1].data == GOOD


def test_a_hanging_request_is_an_error_reply_in_time(serve):
    serve(lambda body, number: hang() if asked(body) == "b" else answer(GOOD))
    begun = time.monotonic()
    replies = ask(OpenAIEndpoint("scripted", timeout=2.0, retries=0), "a", "b", "c")
    assert [reply.data for reply in replies] == [GOOD, None, GOOD]
    assert "no whole answer within 2 s" in replies[1].error
    assert time.monotonic() - begun < 60


def test_a_wait_beyond_two_minutes_is_reported_instead_of_slept(serve):
    serve(lambda *_: status(429, "come back", headers={"Retry-After": "600"}))
    begun = time.monotonic()
    reply = ask(OpenAIEndpoint("scripted"))[0]
    assert "429, come back (Retry-After: 600)" in reply.error and time.monotonic() - begun < 60


def test_an_endpoint_that_only_fails_ends_the_batch(serve):
    server = serve(lambda body, number: answer(GOOD) if number < 3 else status(500, "oops"))
    generator = OpenAIEndpoint("scripted", retries=0, give_up_after=4, concurrency=2)
    with pytest.raises(
        GeneratorError, match=r"4 requests in a row failed.*500, oops; 3 of 30 replies are kept"
    ) as error:
        ask(generator, *(str(i) for i in range(30)))
    assert len(server.asked) <= 3 + 4 + 2 and "\n" not in str(error.value)


def test_requests_that_the_server_refuses_do_not_end_the_batch(serve):
    long = status(400, "maximum context length is 10 tokens; max_tokens", code="context_length_exceeded")
    server = serve(lambda body, number: long if "long" in asked(body) else answer(GOOD))
    replies = ask(OpenAIEndpoint("scripted", give_up_after=2), "long 1", "long 2", "long 3", "short")
    assert [reply.error is None for reply in replies] == [False, False, False, True]
    assert "maximum context length" in replies[0].error and len(server.asked) == 4


def test_nonsense_is_kept_as_an_error_reply(serve):
    serve(lambda *_: Act(body=b"[1, 2, 3]"))
    assert "no chat completion: '[1, 2, 3]'" in ask(OpenAIEndpoint("scripted"))[0].error


# ---- schemas ----


def test_a_wrong_schema_is_repaired_once_and_otherwise_kept(serve):
    def script(body, number):
        repaired = len(body["messages"]) == 3 and asked(body).endswith(json.dumps(PAIR))
        return answer(GOOD if repaired and "mend" in body["messages"][0]["content"] else {"question": 3})

    server = serve(script)
    mended, kept = ask(OpenAIEndpoint("scripted"), "mend", "stay")
    assert (mended.data, mended.error, mended.prompt_tokens) == (GOOD, None, 20)
    assert (kept.data, kept.text) == (None, '{"question": 3}') and "required property" in kept.error
    assert len(server.asked) == 4


def test_a_server_without_response_format_gets_the_schema_in_the_prompt(serve):
    def script(body, number):
        refused = status(422, "Unexpected fields in the request: {'response_format'}")
        return refused if "response_format" in body else answer(GOOD)

    server = serve(script)
    assert [r.data for r in ask(OpenAIEndpoint("scripted", concurrency=1), *"abc")] == [GOOD] * 3
    assert ["response_format" in body for body in server.asked] == [True, False, False, False]
    assert all(asked(body).endswith(json.dumps(PAIR)) for body in server.asked[1:])


def test_a_server_that_ignores_response_format_is_found_out(serve):
    server = serve(lambda body, number: answer(GOOD if json.dumps(PAIR) in asked(body) else "It is here."))
    replies = ask(OpenAIEndpoint("scripted", concurrency=1), *"abc")
    assert [reply.data for reply in replies] == [GOOD] * 3
    assert len(server.asked) == 4  # one repair; the others had the schema in the prompt


def test_the_form_of_asking_can_be_fixed(serve):
    server = serve(lambda body, number: answer(GOOD))
    ask(OpenAIEndpoint("scripted", structured="prompt"))
    assert "response_format" not in server.asked[0] and json.dumps(PAIR) in asked(server.asked[0])
    refusing = serve(lambda *_: status(400, "response_format is not supported"))
    reply = ask(OpenAIEndpoint("scripted", structured="json_schema"))[0]
    assert "response_format is not supported" in reply.error and len(refusing.asked) == 1


def test_parameters_that_a_server_does_not_know_are_renamed_or_left_out(serve, caplog):
    def script(body, number):
        if "max_tokens" in body:
            return status(400, "Unsupported parameter: 'max_tokens'. Use another.", param="max_tokens")
        if "temperature" in body:
            return status(400, "Unsupported value: 'temperature' does not support 0.", param="temperature")
        return answer(GOOD)

    server = serve(script)
    generator = OpenAIEndpoint("scripted")
    assert ask(generator)[0].data == GOOD and ask(generator, "again")[0].data == GOOD
    assert len(server.asked) == 4 and server.asked[-1]["max_completion_tokens"] == 512
    assert "takes no temperature" in caplog.text and generator.describe()["not_sent"] == ["temperature"]


def test_a_value_out_of_range_is_not_mistaken_for_an_unknown_parameter(serve):
    server = serve(lambda *_: status(400, "temperature must be at most 1", param="temperature"))
    assert "must be at most 1" in ask(OpenAIEndpoint("scripted"), temperature=1.5)[0].error
    assert len(server.asked) == 1


def test_refusals_are_counted_however_they_are_said(serve):
    says = {
        "a": answer(None, refusal="I can't do that."),
        "b": answer("", finish="content_filter"),
        "c": answer("I'm sorry, but I can't assist with that."),
        "d": answer(GOOD),
    }
    server = serve(lambda body, number: says[asked(body)])
    generator = OpenAIEndpoint("scripted")
    replies = ask(generator, *"abcd")
    assert [reply.refused for reply in replies] == [True, True, True, False]
    assert (generator.tally.refused, generator.tally.errors, len(server.asked)) == (3, 0, 4)
    assert replies[0].text == "I can't do that."


# ---- bad input: one line before any request is paid for ----


def test_an_endpoint_that_is_not_there(monkeypatch):
    with ScriptedServer(lambda *_: answer("x")) as server:
        pass
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    with pytest.raises(GeneratorError, match=r"^http://127.0.0.1:\d+/v1 cannot be reached \(.+\); check") as error:
        ask(OpenAIEndpoint("scripted"))
    assert "\n" not in str(error.value)


def test_an_endpoint_that_hangs_from_the_start(serve):
    server = serve(lambda *_: answer("x"), models_act=hang())
    with pytest.raises(GeneratorError, match=r"cannot be reached \(no answer within 0.3 s\)"):
        ask(OpenAIEndpoint("scripted", timeout=0.3))
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OPENAI_API_KEY", "", "OPENAI_API_KEY is not set.*any word"),
        ("OPENAI_API_KEY", "sk-ünsafe", "outside ASCII"),
        ("OPENAI_API_KEY", "sk-line\n", "white space at an end"),
        ("OPENAI_BASE_URL", "localhost:8000", "OPENAI_BASE_URL is no URL"),
        ("OPENAI_BASE_URL", "http://", "OPENAI_BASE_URL is no URL"),
        ("OPENAI_BASE_URL", "http://me:hunter2@localhost/v1", "holds a user, a query"),
        ("OPENAI_BASE_URL", "http://localhost/v1?key=hunter2", "holds a user, a query"),
        ("OPENAI_BASE_URL", "http://h:99999999/v1", "OPENAI_BASE_URL is no URL"),
    ],
)
def test_a_bad_environment_is_refused(serve, monkeypatch, name, value, words):
    server = serve(lambda *_: answer("x"))
    monkeypatch.setenv(name, value)
    with pytest.raises(GeneratorError, match=words) as error:
        ask(OpenAIEndpoint("scripted"))
    assert server.asked == []
    assert not any(secret in str(error.value) for secret in ("sk-ünsafe", "sk-line", "hunter2"))


def test_a_refused_key_and_an_unknown_model_cost_one_unpaid_request(serve):
    server = serve(lambda *_: status(401, f"Incorrect API key provided: {KEY}"), models_act=status(404))
    with pytest.raises(GeneratorError, match=r"refused the key in OPENAI_API_KEY: 401, .*\[key\]") as error:
        ask(OpenAIEndpoint("scripted"), *"abcdef")
    assert KEY not in str(error.value) and len(server.asked) == 1
    server = serve(lambda *_: answer("x"), models_act=status(401, "no"))
    with pytest.raises(GeneratorError, match="refused the key"):
        ask(OpenAIEndpoint("scripted"))
    assert server.asked == []
    for act in (
        status(404, "The model `other` does not exist"),
        status(400, "Server is pinned to 'scripted'; requested 'other'."),
        status(400, "no such model", code="model_not_found"),
    ):
        server = serve(lambda *_, act=act: act)
        with pytest.raises(GeneratorError, match=r"has no model 'other'.*it lists scripted"):
            ask(OpenAIEndpoint("other"), *"abcdef")
        assert len(server.asked) == 1


def test_a_spent_quota_ends_the_batch(serve):
    serve(lambda *_: status(429, "You exceeded your quota", code="insufficient_quota"))
    with pytest.raises(GeneratorError, match="quota is spent: 429, You exceeded"):
        ask(OpenAIEndpoint("scripted", retries=0), *"abc")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget_tokens": 0}, "budget_tokens=0"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"retries": -1}, "retries=-1"),
        ({"structured": "xml"}, "auto, json_schema, prompt"),
        ({"model": " "}, "model is empty"),
    ],
)
def test_a_bad_option_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        OpenAIEndpoint(**{"model": "scripted", **options})


# ---- the key ----


def test_the_key_reaches_the_server_and_nothing_else(serve, monkeypatch, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)

    def script(body, number):
        if asked(body) == "fail":
            return status(500, f"bad key {KEY}")
        if asked(body) == "page":
            return Act(body=f"<p>{KEY}</p>".encode())
        return answer(f"your key is {KEY}")

    server = serve(script)
    path = tmp_path / "replies.jsonl"
    generator = OpenAIEndpoint("scripted", retries=0, cache=path)
    replies = ask(generator, "fail", "page", "tell", schema=None)
    assert replies[2].text == "your key is [key]"
    out, err = capfd.readouterr()
    written = path.read_text() + repr(replies) + repr(generator.describe()) + out + err + caplog.text + repr(generator)
    assert KEY not in written and "HTTP" in caplog.text
    assert generator.describe()["endpoint"] == server.url and generator.describe()["key"] == "set"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:hunter2@localhost:1/v1?key=hunter2")
    assert generator.describe()["endpoint"] == "http://localhost:1/v1"


# ---- budget, cache, kill ----


def test_the_budget_is_never_passed_and_nothing_paid_is_lost(serve, tmp_path):
    server = serve(lambda body, number: answer(GOOD, pause=0.02))
    path = tmp_path / "replies.jsonl"
    texts = [f"question {i}" for i in range(40)]
    one = estimate(call_of(request(texts[-1], schema=PAIR)))
    cost = 10 + len(json.dumps(GOOD).split())
    # Less than two requests may take at most, and enough for many at what they really cost.
    limit = one + 20 * cost
    with pytest.raises(BudgetError, match=rf"budget_tokens={limit}: .* replies are kept in .*replies.jsonl"):
        ask(OpenAIEndpoint("scripted", budget_tokens=limit, cache=path), *texts)
    answered = len(server.answered)
    assert 20 <= answered < 40 and answered * cost <= limit
    assert len(ReplyFile(path)) == answered
    replies = ask(OpenAIEndpoint("scripted", cache=path), *texts)
    assert sum(reply.cached for reply in replies) == answered and len(server.asked) == 40


def test_a_request_that_does_not_fit_yet_waits_for_those_under_way(serve):
    serve(lambda body, number: answer(GOOD, pause=0.02))
    texts = [f"question {i}" for i in range(20)]
    cost = 10 + len(json.dumps(GOOD).split())
    limit = estimate(call_of(request(texts[-1], schema=PAIR))) + 20 * cost
    assert [reply.data for reply in ask(OpenAIEndpoint("scripted", budget_tokens=limit), *texts)] == [GOOD] * 20


def test_a_budget_below_one_request_sends_nothing(serve):
    server = serve(lambda *_: answer(GOOD))
    with pytest.raises(BudgetError, match="0 are spent and the next request may take"):
        ask(OpenAIEndpoint("scripted", budget_tokens=50))
    assert server.asked == []


def test_a_full_cache_needs_neither_key_nor_endpoint(serve, monkeypatch, tmp_path):
    serve(lambda *_: answer(GOOD))
    path = tmp_path / "replies.jsonl"
    first = ask(OpenAIEndpoint("scripted", cache=path), "a", "b")
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert [reply.data for reply in ask(OpenAIEndpoint("scripted", cache=path), "a", "b")] == [r.data for r in first]


CHILD = """
import json, sys
from mule_lib.generators import OpenAIEndpoint, Request
schema = json.loads(sys.argv[2])
requests = [Request(f"q{i}", ({"role": "user", "content": f"q{i}"},), schema) for i in range(30)]
OpenAIEndpoint("scripted", cache=sys.argv[1], concurrency=3).complete(requests)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_nothing_that_was_kept_is_paid_again(serve, tmp_path, how):
    server = serve(lambda body, number: answer(GOOD, pause=0.2))
    path = tmp_path / "replies.jsonl"
    root = str(Path(__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), json.dumps(PAIR)], env={**os.environ, "PYTHONPATH": root}
    )
    deadline = time.monotonic() + 120
    while len(server.answered) < 8 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(how)
    assert child.wait(timeout=60) != 0
    time.sleep(0.5)  # the server finds out that its client has gone
    kept = len(path.read_bytes().splitlines())
    assert 5 <= kept < 30
    if how == signal.SIGINT:  # what was under way was waited for
        assert kept == len(server.asked) == len(server.answered)
    else:  # at most what was under way is lost
        assert len(server.asked) - kept <= 3
    before = len(server.asked)
    replies = ask(OpenAIEndpoint("scripted", cache=path), *(f"q{i}" for i in range(30)))
    assert all(reply.data == GOOD for reply in replies)
    assert sum(reply.cached for reply in replies) == kept
    again = Counter(map(asked, server.asked[before:]))
    assert len(again) == 30 - kept and max(again.values()) == 1
