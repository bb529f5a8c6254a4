"""Requests, schemas, the reply file, the budget and replay: what needs no server."""

import json
import threading
import time

import pytest

from mule_lib.generators import BudgetError, GeneratorError, Progress, Replay, Request
from mule_lib.generators.budget import Budget, estimate
from mule_lib.generators.cache import ReplyFile
from mule_lib.generators.complete import Completer
from mule_lib.generators.requests import Call, Exchange, Failed, call_of
from mule_lib.generators.structured import find_json, in_prompt, misfit, read, repair, response_format

PAIR = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["question", "answer"],
    "additionalProperties": False,
}
GOOD = {"question": "Where?", "answer": "Here."}


def request(text: str = "Where?", *, id: str | None = None, **more) -> Request:
    return Request(id or text, ({"role": "user", "content": text},), **more)


class Canned:
    """A sender that answers by a function of the last message and notes what it was asked."""

    name = "canned:1"

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    def send(self, calls, *, budget, keep):
        for call in calls:
            tokens = estimate(call)
            budget.reserve(tokens)
            self.asked.append(call)
            outcome = self.reply(call)
            if isinstance(outcome, str):
                outcome = Exchange(outcome, "stop", None, 7, 3)
            keep(call, outcome)
            budget.settle(tokens, 0 if isinstance(outcome, Failed) else outcome.tokens)


def completer(reply, path=None, **options) -> Completer:
    return Completer(Canned(reply), cache=ReplyFile(path), **options)


def last(call: Call) -> str:
    return call.messages[-1]["content"]


# ---- requests ----


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": ()}, "messages are empty"),
        ({"messages": ({"role": "robot", "content": "x"},)}, "role of system, user, assistant"),
        ({"messages": ({"role": "user"},)}, "should have content"),
        ({"messages": ({"role": "user", "content": " \n"},)}, "not blank"),
        ({"messages": ({"role": "user", "content": "a\ud800"},)}, "lone surrogate"),
        ({"messages": ({"role": "assistant", "content": "x"},)}, "should be the user's"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"schema": {"type": "objekt"}}, "schema is no JSON Schema"),
    ],
)
def test_a_bad_request_is_named_before_anything_is_sent(changes, words):
    generator = completer(lambda call: "never")
    bad = Request(**{"id": "bad", "messages": request().messages, **changes})
    with pytest.raises(ValueError, match=words) as error:
        generator.complete([request("good"), bad])
    assert "'bad'" in str(error.value) and "\n" not in str(error.value)
    assert generator.sender.asked == []


def test_an_id_may_stand_once_in_a_batch():
    with pytest.raises(ValueError, match="stands twice"):
        completer(str).complete([request("a", id="x"), request("b", id="x")])


def test_replies_keep_the_order_of_the_requests_and_equal_questions_are_asked_once():
    generator = completer(lambda call: f"{last(call)}!")
    texts = ["b", "a", "b", "c"]
    replies = generator.complete([request(text, id=str(i)) for i, text in enumerate(texts)])
    assert [(r.id, r.text) for r in replies] == [("0", "b!"), ("1", "a!"), ("2", "b!"), ("3", "c!")]
    assert sorted(map(last, generator.sender.asked)) == ["a", "b", "c"]


def test_everything_that_shapes_a_reply_is_in_its_key():
    base = request("a")
    others = [
        request("b"),
        request("a", schema=PAIR),
        request("a", max_tokens=9),
        request("a", temperature=0.5),
        request("a", seed=1),
        Request("a", ({"role": "system", "content": "s"}, *base.messages)),
    ]
    keys = [call_of(r).key("m") for r in [base, *others]] + [call_of(base).key("another model")]
    assert len(set(keys)) == len(keys)
    assert call_of(request("a", id="other")).key("m") == keys[0]


# ---- schemas ----


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1]}',
        'Sure:\n```json\n{"a": [1]}\n```\nDone {really}.',
        '<think>not {this: one}, nor {"b": 2}</think>{"a": [1]}',
        'It is {brace}, then {"a": [1]}',
    ],
)
def test_json_is_found_within_what_models_write_around_it(text):
    assert find_json(text) == {"a": [1]}


@pytest.mark.parametrize("text", ['{"a": [1, {"b": 2}', '{"a": "cut', "no json at all", '{"a": NaN}', ""])
def test_a_part_of_a_cut_off_value_is_never_taken_for_the_whole(text):
    with pytest.raises(ValueError):
        find_json(text)


def test_a_misfit_names_its_place():
    assert misfit(GOOD, PAIR) is None
    assert misfit({"question": 1, "answer": "x"}, PAIR).startswith("$.question: 1 is not of type")
    assert "'answer' is a required property" in misfit({"question": "x"}, PAIR)


def test_strict_is_asked_for_only_where_the_schema_allows_it():
    assert response_format(PAIR)["json_schema"]["strict"] is True
    loose = {**PAIR, "required": ["question"]}
    assert response_format(loose)["json_schema"]["strict"] is False
    inside = {"type": "object", "properties": {"l": {"type": "array", "items": loose}}, "required": ["l"]}
    assert response_format({**inside, "additionalProperties": False})["json_schema"]["strict"] is False


def test_the_schema_is_written_into_a_prompt_once():
    call = call_of(request(schema=PAIR))
    assert json.dumps(PAIR) in in_prompt(call)[-1]["content"]
    again = repair(call, Exchange("nonsense", "stop", None, 1, 1), "no JSON")
    assert in_prompt(again) == again.messages
    assert [m["role"] for m in again.messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("exchange", "refused", "error"),
    [
        (("I cannot help with that.", "stop", None), True, None),
        (("", "stop", "I can't do this."), True, None),
        (("", "content_filter", None), True, None),
        ((json.dumps({"question": "Who?", "answer": "I cannot answer that."}), "stop", None), False, None),
        (('{"question": "Wh', "length", None), False, "cut off at max_tokens=512"),
        (('{"question": "I cannot say"}', "stop", None), False, "'answer' is a required property"),
        (("Paris.", "stop", None), False, "no JSON"),
    ],
)
def test_refusal_data_and_error_exclude_each_other(exchange, refused, error):
    reading = read(call_of(request(schema=PAIR)), Exchange(*exchange, 1, 1))
    assert reading.refused == refused
    assert (reading.error is None) if error is None else (error in reading.error)
    assert (reading.data is not None) == (not refused and error is None)


def test_a_wrong_reply_is_repaired_once():
    replies = {"Where?": "It is here."}
    generator = completer(lambda call: replies.get(last(call), json.dumps(GOOD)))
    reply = generator.complete([request(schema=PAIR)])[0]
    assert (reply.data, reply.error) == (GOOD, None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (14, 6)
    assert generator.sender.asked[1].messages[1] == {"role": "assistant", "content": "It is here."}
    assert (generator.tally.repaired, generator.tally.errors) == (1, 0)


def test_a_reply_that_stays_wrong_is_an_error_with_its_raw_text_and_is_not_paid_again(tmp_path):
    path = tmp_path / "replies.jsonl"
    generator = completer(lambda call: '{"question": 1}', path)
    reply = generator.complete([request(schema=PAIR)])[0]
    assert reply.text == '{"question": 1}' and reply.data is None and not reply.refused
    assert "required property" in reply.error and "asked again" in reply.error
    assert len(generator.sender.asked) == 2
    again = completer(lambda call: json.dumps(GOOD), path)
    assert again.complete([request(schema=PAIR)])[0] == type(reply)(**{**vars(reply), "cached": True})
    assert again.sender.asked == []


def test_refusals_are_counted_and_not_repaired():
    generator = completer(lambda call: "I'm sorry, but I can't help with that.")
    replies = generator.complete([request(schema=PAIR), request("free")])
    assert [r.refused for r in replies] == [True, True] and generator.tally.refused == 2
    assert len(generator.sender.asked) == 2


def test_a_failed_call_is_an_error_reply_and_asked_again_later(tmp_path):
    path = tmp_path / "replies.jsonl"
    replies = completer(lambda call: Failed("down") if last(call) == "b" else "x", path).complete(
        [request("a"), request("b")]
    )
    assert [r.error for r in replies] == [None, "down"] and replies[1].text == ""
    again = completer(lambda call: "y", path)
    assert [(r.text, r.cached) for r in again.complete([request("a"), request("b")])] == [("x", True), ("y", False)]


# ---- the reply file ----


def exchange(text="x", tokens=10) -> Exchange:
    return Exchange(text, "stop", None, tokens, 0)


def test_replies_survive_and_their_tokens_count_by_generator(tmp_path):
    path = tmp_path / "deep" / "replies.jsonl"
    call = call_of(request("é ☃ \n"))
    ReplyFile(path).put("one", call, exchange("ü\u2028\n", 5))
    ReplyFile(path).put("two", call, exchange(tokens=7))
    read_again = ReplyFile(path)
    assert read_again.get(call.key("one")) == exchange("ü\u2028\n", 5)
    assert (read_again.spent("one"), read_again.spent("two"), read_again.generators()) == (5, 7, ["one", "two"])


def test_a_line_that_a_kill_cut_short_is_lost_and_nothing_else(tmp_path):
    path = tmp_path / "replies.jsonl"
    calls = [call_of(request(str(i))) for i in range(3)]
    for call in calls[:2]:
        ReplyFile(path).put("m", call, exchange())
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    cut = ReplyFile(path)
    assert [cut.get(call.key("m")) is not None for call in calls] == [True, False, False]
    cut.put("m", calls[2], exchange("new"))
    assert len(ReplyFile(path)) == 2 and path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("line", [b"{not json", b'{"key": "k"}', b"\xff\xfe", b"[]", b""])
def test_a_damaged_line_is_named_with_its_number(tmp_path, line):
    path = tmp_path / "replies.jsonl"
    ReplyFile(path).put("m", call_of(request()), exchange())
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(GeneratorError, match=r"replies.jsonl, line 2: no recorded reply") as error:
        ReplyFile(path)
    assert "\n" not in str(error.value)


def test_writers_see_each_other_and_lose_nothing(tmp_path, monkeypatch):
    path = tmp_path / "replies.jsonl"
    plain = ReplyFile._read

    def read_and_dawdle(self, file):  # so that without a lock another one writes in between
        plain(self, file)
        time.sleep(0.002)

    monkeypatch.setattr(ReplyFile, "_read", read_and_dawdle)
    files = [ReplyFile(path) for _ in range(4)]

    def write(number: int) -> None:
        for i in range(25):
            files[number].put("m", call_of(request(f"{number} {i}")), exchange())

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(ReplyFile(path)) == 100
    for file in files:
        file.refresh()
        assert len(file) == 100 and file.spent("m") == 1000


def test_a_reply_that_cannot_be_written_stops_the_batch(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(GeneratorError, match="cannot be written"):
        completer(lambda call: "x", path / "replies.jsonl").complete([request()])
    with pytest.raises(GeneratorError, match="is a folder"):
        ReplyFile(tmp_path)


# ---- the budget ----


@pytest.mark.parametrize("limit", [0, -5])
def test_a_budget_of_nothing_is_refused(limit):
    with pytest.raises(ValueError, match=f"budget_tokens={limit}: should be at least 1"):
        completer(str, budget_tokens=limit)


def test_what_is_under_way_counts():
    budget = Budget(100, spent=20)
    assert budget.reserve(50) and not budget.reserve(50)
    budget.settle(50, 10)
    assert budget.reserve(50) and budget.spent == 30
    budget.settle(50, 50)
    with pytest.raises(BudgetError, match="80 are spent and the next request may take 50"):
        budget.reserve(50)


def test_the_budget_stops_hard_and_a_larger_one_goes_on(tmp_path):
    path = tmp_path / "replies.jsonl"
    requests = [request(f"question {i}", max_tokens=20) for i in range(10)]
    most = estimate(call_of(requests[0]))
    small = completer(lambda call: "x", path, budget_tokens=most + 35)
    with pytest.raises(BudgetError) as error:
        small.complete(requests)
    assert "40 are spent" in str(error.value) and f"4 of 10 replies are kept in {path}" in str(error.value)
    assert ReplyFile(path).spent("canned:1") == 40
    with pytest.raises(BudgetError):  # what the first run spent counts in the second
        completer(lambda call: "x", path, budget_tokens=most + 35).complete(requests)
    large = completer(lambda call: "x", path, budget_tokens=1000)
    assert sum(reply.cached for reply in large.complete(requests)) == 4 and len(large.sender.asked) == 6


def test_progress_counts_up_to_the_whole_batch():
    seen: list[Progress] = []
    generator = completer(lambda call: Failed("down") if last(call) == "c" else "x", report=seen.append)
    generator.complete([request("a")])
    generator.complete([request(text) for text in "abc"])
    assert [(p.done, p.total, p.cached, p.failed, p.tokens) for p in seen] == [
        (1, 1, 0, 0, 10),
        (1, 3, 1, 0, 0),
        (2, 3, 1, 0, 10),
        (3, 3, 1, 1, 10),
    ]
    assert seen[-1].seconds_left == 0 and seen[1].seconds_left is None
    assert str(seen[-1]).startswith("3 of 3 replies (1 cached, 1 failed), 10 tokens")


# ---- replay ----


def test_replay_gives_the_recorded_replies_under_the_recorded_name(tmp_path):
    path = tmp_path / "replies.jsonl"
    requests = [request("Where?", schema=PAIR), request("Who?")]
    recorded = completer(lambda call: "no" if last(call) == "Where?" else json.dumps(GOOD), path)
    first = recorded.complete(requests)
    path.chmod(0o444)
    replay = Replay(path)
    assert replay.name == recorded.name and replay.describe()["replies"] == 3
    assert replay.complete(requests) == [type(r)(**{**vars(r), "cached": True}) for r in first]


def test_replay_says_what_it_has_not(tmp_path):
    path = tmp_path / "replies.jsonl"
    with pytest.raises(GeneratorError, match="no such file"):
        Replay(path)
    path.write_text("")
    with pytest.raises(GeneratorError, match="holds no recorded reply"):
        Replay(path)
    ReplyFile(path).put("one", call_of(request("a")), exchange())
    with pytest.raises(GeneratorError, match=r"no reply of one for 1 calls, the first of them 'b'.*1 of 2 replies"):
        Replay(path).complete([request("a"), request("b")])
    ReplyFile(path).put("two", call_of(request("a")), exchange("second"))
    with pytest.raises(GeneratorError, match="replies of one, two; name one"):
        Replay(path)
    assert Replay(path, name="two").complete([request("a")])[0].text == "second"
    with pytest.raises(GeneratorError, match="no replies of 'three'"):
        Replay(path, name="three")
