"""A chat-completions server on loopback that answers, fails, cuts off and hangs as a script tells it.

    def script(body, number):          # parsed request, how many chat requests came before it
        return answer("Paris.") if number else status(429, {"Retry-After": "0.1"})

    with ScriptedServer(script) as server:
        server.url, server.asked, server.answered

`python tests/scripted_server.py` serves an echo until it is stopped.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Act:
    """A response: `body` goes out `pause` seconds late and, with `drip`, byte by byte with that pause between."""

    code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0
    drip: float = 0.0
    missing: int = 0  # bytes that Content-Length promises and that never come


def completion(text: str | None, *, finish: str = "stop", refusal: str | None = None, **more: Any) -> dict:
    """The JSON body of a chat completion; tokens are words unless `usage` says otherwise."""
    usage = {"prompt_tokens": 10, "completion_tokens": len((text or "").split())}
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage, **more}


def answer(value: Any, *, pause: float = 0.0, **more: Any) -> Act:
    """A completion whose text is `value`, or its JSON where it is no text."""
    text = value if isinstance(value, str) or value is None else json.dumps(value)
    return Act(body=json.dumps(completion(text, **more)).encode(), pause=pause)


def status(status: int, message: str = "", /, *, headers: Mapping[str, str] = {}, **more: Any) -> Act:
    """An error response in OpenAI's form."""
    return Act(status, json.dumps({"error": {"message": message, **more}}).encode(), headers)


def hang(seconds: float = 3600.0) -> Act:
    """Headers never come before `seconds`, or the server's end."""
    return Act(pause=seconds, body=json.dumps(completion("late")).encode())


def asked(body: Mapping) -> str:
    """The last message of a request."""
    return body["messages"][-1]["content"]


Script = Callable[[dict, int], Act]


class ScriptedServer:
    """The server in a thread; `asked` are the chat requests in their order, `answered` those that got a whole 200."""

    def __init__(self, script: Script, *, models: tuple[str, ...] = ("scripted",), models_act: Act | None = None):
        self.script, self.models, self.models_act = script, models, models_act
        self.asked: list[dict] = []
        self.answered: list[dict] = []
        self.keys: set[str | None] = set()
        self.busiest = self._busy = 0
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> "ScriptedServer":
        # Polled often, so that many short tests do not each wait for the end of one.
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def act(self, path: str, body: dict | None) -> tuple[Act, int]:
        """What to answer to a request, and its number among the chat requests (-1 for another)."""
        if path.endswith("/models"):
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
            return self.models_act or Act(body=json.dumps(listed).encode()), -1
        if not path.endswith("/v1/chat/completions"):
            return status(404, f"no route {path}"), -1
        with self._lock:
            number = len(self.asked)
            self.asked.append(body)
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        return self.script(body, number), number

    def done(self, act: Act, number: int, *, whole: bool) -> None:
        """Note the end of a chat request."""
        if number < 0:
            return
        with self._lock:
            self._busy -= 1
            if whole and act.code == 200:
                self.answered.append(self.asked[number])


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(None)

        def do_POST(self) -> None:
            self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _serve(self, body: dict | None) -> None:
            server.keys.add(self.headers.get("Authorization"))
            act, number = server.act(self.path.split("?")[0], body)
            try:
                whole = self._send(act)
            except OSError:  # the client has gone
                whole = False
            server.done(act, number, whole=whole)

        def _send(self, act: Act) -> bool:
            if act.pause and server._closing.wait(act.pause):
                return False
            self.send_response(act.code)
            for name, value in {"Content-Type": "application/json", **act.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(act.body) + act.missing))
            self.end_headers()
            for piece in [act.body[i : i + 1] for i in range(len(act.body))] if act.drip else [act.body]:
                self.wfile.write(piece)
                self.wfile.flush()
                if act.drip and server._closing.wait(act.drip):
                    return False
            self.close_connection = act.missing > 0
            return not act.missing

        def log_message(self, *_) -> None:
            pass

    return Handler


if __name__ == "__main__":
    with ScriptedServer(lambda body, number: answer(f"{number}: {asked(body)}")) as served:
        print(served.url, flush=True)
        while True:
            time.sleep(1)
