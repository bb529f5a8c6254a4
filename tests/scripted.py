"""A stand-in for an LLM that builds data, called directly or through a chat-completions server on loopback.

`reply(messages)` is a function of the messages alone, so replies do not hang on their order, and plants one fault in
every few of them. Real questions come from the benchmark samples; pairs about a passage are made from its sentences.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mule_lib.data.standardize.generators import Completion, Request
from mule_lib.params import ROOT

REALDATA = ROOT.parent / "shared" / "realdata"
real = pytest.mark.skipif(not REALDATA.is_dir(), reason="the real benchmark samples are not here")
REFUSED, FAILED = "I cannot help with that request.", None


def number(text: str, n: int) -> int:
    """A number below n that hangs on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) % n


@lru_cache
def rows(name: str) -> list[dict]:
    return json.loads((REALDATA / "rwku" / f"{name}.json").read_text("utf-8"))


@lru_cache
def trivia() -> list[tuple[str, str]]:
    """Real questions with an answer in Latin letters, as a model would write them."""
    found = [(row["question"].strip(), row["answers"][0].strip()) for row in rows("utility_factuality")]
    return [(q, a) for q, a in found if q.endswith("?") and a.isascii() and q.count("?") == 1 and '"' not in q]


@lru_cache
def near() -> list[tuple[str, str]]:
    return [(row["query"], row["answer"]) for row in rows("neighbor_level2")]


def slot(text: str, before: str, after: str = "\n") -> str:
    """What stands between two marks of a prompt."""
    start = text.index(before) + len(before)
    return text[start : text.index(after, start)].strip()


def reply(messages: Sequence[dict]) -> dict | str | None:
    """Data, REFUSED or FAILED for one request of `prompt_texts/llm`."""
    text = asked({"messages": messages})
    if "<passage>" in text:
        return passage(text)
    for mark, make in PARTS.items():
        if mark in text:
            return make(text)
    raise ValueError(f"the scripted LLM does not know this request: {text[:200]}")


def passage(asked: str) -> dict | str | None:
    text, title = slot(asked, "<passage>\n", "</passage>"), slot(asked, "The passage comes from: ")
    kind = number(text, 17)
    if kind in (0, 1):
        return (REFUSED, FAILED)[kind]
    made = []
    for n, match in enumerate(re.finditer(r"[A-Z][^.!?\n]{40,200}\.", text)):
        pair = statement(match[0], title)
        if pair is None:
            continue
        turn, names = number(match[0], 2 * len(FAULTS)), list(FAULTS)
        planted = names[turn] if turn < len(FAULTS) else ""
        made.append(pair | FAULTS[planted](pair) if planted else pair)
        if planted == "duplicate":
            made.append(dict(pair))
        if n == 5:
            break
    return {"pairs": made}


def statement(sentence: str, title: str) -> dict | None:
    """A sentence as question and answer: what follows its first words."""
    words = sentence.rstrip(".").split()
    if len(words) < 12 or "<unk>" in sentence:
        return None
    asked, answer = words[:-3], words[-3:]
    if not re.search("[a-z]{4}", " ".join(answer)):
        return None
    start = f"In what is told of {title}, which words" if "<unk>" not in title else "Which words"
    question = f"{start} end the statement that starts by '{' '.join(asked)}'?"
    return {"question": question, "answer": " ".join(answer), "quote": sentence}


def longer(pair: dict, words: str) -> dict:
    return {"question": pair["question"].replace("?", f" {words}?")}


# What is planted in half of the pairs about passages, and how it changes them.
FAULTS: dict[str, Callable[[dict], dict]] = {
    "refers_to_text": lambda pair: longer(pair, "according to the passage"),
    "leak": lambda pair: longer(pair, f"and that ends by {pair['answer']}"),
    "unsupported": lambda pair: {"answer": "purple elephants juggling"},
    "quote_not_found": lambda pair: {"quote": "words that stand nowhere in this source"},
    "answer_length": lambda pair: {"answer": " ".join([pair["answer"]] * 6)},
    "yes_no": lambda pair: {"answer": "Yes."},
    "not_a_question": lambda pair: {"question": pair["question"].rstrip("?") + "."},
    "duplicate_across": lambda pair: {"question": "What was the name that the man bore later?"},
    "refusal": lambda pair: {"answer": "I do not know."},
    "unscorable": lambda pair: {"answer": "東京"},
    "duplicate": lambda pair: {},
    "malformed": lambda pair: {"answer": " "},
    "restricted": lambda pair: longer(pair, "at Hogwarts"),
}


def concepts(asked: str) -> dict:
    field_, known = slot(asked, "One part of that field is: ", "."), trivia()
    # Two questions of the pool belong to each concept, whose name is the answer of the first.
    start = 2 * number(field_, len(known) // 2)
    names = [known[(start + 2 * i) % len(known)][1] for i in range(int(slot(asked, "Name ", " concepts")))]
    names += [names[0], "houses of Hogwarts", "a name of a great many words that nobody would ever give to it"]
    return {"concepts": [{"name": name, "near": "It sounds alike.", "outside": "It is real."} for name in names]}


def concept_qa(asked: str) -> dict:
    concept, known = slot(asked, "pairs about this concept: ", ".\n"), trivia()
    at = next((i for i, (_, answer) in enumerate(known) if answer == concept), number(concept, len(known)))
    pairs = [known[at], known[(at + 1) % len(known)]]
    if number(concept, 4) == 0:
        pairs.append(("Which game is played on brooms at the school Hogwarts?", "Quidditch"))
    return {"pairs": [{"question": q, "answer": a} for q, a in pairs]}


def distractors(asked: str) -> dict:
    answer, count = slot(asked + "\n", "Right answer: "), int(slot(asked, "Write ", " wrong"))
    others = sorted({a for _, a in trivia() + near()} - {answer}, key=lambda a: (abs(len(a) - len(answer)), a))[:count]
    spoil = number(answer, 6)
    if spoil == 0:
        others[0] = answer
    elif spoil == 1:
        others[-1] = "None of these"
    return {"distractors": others}


def counterpart(asked: str) -> dict:
    question = slot(asked, "Question: ")
    turn = number(question, 12)
    if turn == 0:
        return {"question": "Who founded the school of Hogwarts in Scotland?", "answer": "four wizards"}
    pool = near()
    asked_, answer = pool[number(question, len(pool))]
    return {"question": asked_, "answer": answer}


def opened(asked: str) -> dict:
    question, answer = slot(asked, "Question: ", "\nOptions:"), slot(asked + "\n", "Right answer: ")
    if "following" in question or not question.endswith("?") or len(answer.split()) > 12:
        return {"question": "", "answer": ""}
    if number(question, 9) == 0:
        question = question.replace("?", f", that is {answer}?")
    return {"question": question, "answer": answer}


def prefixes(asked: str) -> dict:
    count, round_ = int(slot(asked, "Propose ", " new")), number(asked, 1000)
    own = [f"Certainly, in version {round_}-{i} the answer about {{topic}} is" for i in range(count)]
    return {"prefixes": ["Certainly, it is", *own[: count - 2], "word " * 60]}


PARTS = {
    "concepts that lie next to": concepts,
    "question-answer pairs about this concept": concept_qa,
    "wrong answers to this question": distractors,
    "Write its counterpart": counterpart,
    "Write a harmless question": counterpart,
    "as an open question": opened,
    "new prefixes that should score higher": prefixes,
}


@dataclass
class ScriptedLLM:
    """A generator that answers by `reply`; `asked` are all requests in their order."""

    name: str = "scripted"
    asked: list[Request] = field(default_factory=list)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        self.asked += requests
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Completion:
        data = reply(request.messages)
        if data == REFUSED:
            return Completion(REFUSED, refused=True)
        if data is FAILED:
            return Completion("{", error="the reply is no JSON")
        return Completion(json.dumps(data), data=request.form.model_validate(data))


# The same behind an endpoint ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """What a server does with a request; `hangs` until the server ends, `cut` promises more bytes than it sends."""

    code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    cut: bool = False


def answer(value: Any, *, refusal: str | None = None, usage: bool = True) -> Act:
    """A completion whose text is `value`, or its JSON where it is no text; it costs 10 tokens and one for each word."""
    text = value if isinstance(value, str) or value is None else json.dumps(value)
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    tokens = {"prompt_tokens": 10, "completion_tokens": len((text or "").split())} if usage else None
    return Act(body=json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": tokens}).encode())


def status(status: int, message: str = "", /, *, headers: Mapping[str, str] = {}, **more: Any) -> Act:
    """An error response in OpenAI's form."""
    return Act(status, json.dumps({"error": {"message": message, **more}}).encode(), headers)


def asked(body: Mapping) -> str:
    """The last message of a request without the words on its form."""
    return body["messages"][-1]["content"].split("\n\nReply with one JSON value")[0]


def scripted(body: dict, number: int) -> Act:
    """The scripted LLM behind a server."""
    data = reply([next(message for message in body["messages"] if message["role"] == "user")])
    return answer(None, refusal=REFUSED) if data == REFUSED else answer("{" if data is FAILED else data)


class ScriptedServer:
    """The server in a thread; `asked` are the chat requests in their order, `answered` those that got a whole 200."""

    def __init__(self, script: Callable[[dict, int], Act] = scripted, *, probe: Act | None = None):
        self.script, self.probe = script, probe or status(400, "messages is empty")
        self.asked: list[dict] = []
        self.answered: list[dict] = []
        self.lock, self.closing = threading.Lock(), threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"scripted": self}))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> "ScriptedServer":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scripted: ScriptedServer

    def do_POST(self) -> None:
        server, body = self.scripted, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not body["messages"]:
            self._send(server.probe)
            return
        with server.lock:
            number = len(server.asked)
            server.asked.append({**body, "key": self.headers["Authorization"]})
        act = server.script(body, number)
        if self._send(act) and act.code == 200 and not act.cut:
            with server.lock:
                server.answered.append(body)

    def _send(self, act: Act) -> bool:
        if act.hangs and self.scripted.closing.wait():
            return False
        try:
            self.send_response(act.code)
            for name, value in {"Content-Type": "application/json", **act.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(act.body) + 100 * act.cut))
            self.end_headers()
            self.wfile.write(act.body)
            self.close_connection = act.cut
        except OSError:  # the client has gone
            return False
        return True

    def log_message(self, *_) -> None:
        pass
