"""Any OpenAI-compatible endpoint, by the `openai` package: many requests at a time, retries, deadlines, a hard stop.

Base URL and key come from OPENAI_BASE_URL and OPENAI_API_KEY when a batch begins. The key is sent to that endpoint
and nowhere else: not into a name, the cache, a log or an error.
"""

import asyncio
import os
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from mule_lib.generators.budget import Budget, Report, estimate
from mule_lib.generators.cache import ReplyFile
from mule_lib.generators.complete import Completer, Keep
from mule_lib.generators.openai_calls import Connection, Learned, Settings
from mule_lib.generators.requests import BudgetError, Call, Failed, GeneratorError

DEFAULT_URL = "https://api.openai.com/v1"
STRUCTURED = ("auto", "json_schema", "prompt")


class OpenAIEndpoint(Completer):
    """A `Generator` behind OPENAI_BASE_URL (OpenAI's own where unset).

    `cache` is a file of replies (None: memory). `timeout` is seconds for one attempt, whatever the server trickles;
    `retries` further attempts follow 408, 409, 429, 5xx, a lost connection or a timeout, after the time that
    Retry-After asks for (up to two minutes) or a growing one. `structured="auto"` sends `response_format` until the
    server refuses or ignores it, then writes the schema into the prompt; the two other values fix it. After
    `give_up_after` failed requests in a row the batch ends with GeneratorError.
    """

    def __init__(
        self,
        model: str,
        *,
        cache: str | os.PathLike | None = None,
        budget_tokens: int | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        structured: str = "auto",
        give_up_after: int = 10,
        report: Report | None = None,
    ):
        if not model.strip():
            raise ValueError("model is empty; name a model of the endpoint")
        if structured not in STRUCTURED:
            raise ValueError(f"structured={structured!r}: choose from {', '.join(STRUCTURED)}")
        for name, value in (("concurrency", concurrency), ("give_up_after", give_up_after)):
            if value < 1:
                raise ValueError(f"{name}={value}: should be at least 1")
        if timeout <= 0:
            raise ValueError(f"timeout={timeout}: should be more than 0 seconds")
        if retries < 0:
            raise ValueError(f"retries={retries}: should be 0 or more")
        settings = Settings(model, timeout, retries, structured)
        sender = _EndpointSender(settings, concurrency=concurrency, give_up_after=give_up_after)
        super().__init__(sender, cache=ReplyFile(cache), budget_tokens=budget_tokens, report=report)

    def describe(self) -> dict:
        """What would answer: endpoint without its credentials, model, and whether a key is set."""
        settings = self.sender.settings
        return {
            "generator": self.name,
            "endpoint": shown(os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL),
            "model": settings.model,
            "key": "set" if os.environ.get("OPENAI_API_KEY") else "missing",
            "structured": settings.structured,
            "concurrency": self.sender.concurrency,
            "timeout": settings.timeout,
            "retries": settings.retries,
            "budget_tokens": self.budget.limit,
            "cache": str(self.cache.path) if self.cache.path else None,
            "not_sent": sorted(self.sender.learned.dropped),
        }


def shown(url: str) -> str:
    """A URL without user, password, query and fragment. Raises GeneratorError where it is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise GeneratorError("OPENAI_BASE_URL is no URL; it should look like http://localhost:8000/v1")
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _credentials() -> tuple[str, str]:
    url = os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    where, parts = shown(url), urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:  # HTTP libraries log whole URLs
        raise GeneratorError(
            "OPENAI_BASE_URL holds a user, a query or a fragment; what is secret goes in OPENAI_API_KEY"
        )
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key.strip():
        raise GeneratorError(
            f"OPENAI_API_KEY is not set, and {where} is asked with it; for a server that needs no key "
            "set it to any word"
        )
    if not key.isascii() or key != key.strip():
        raise GeneratorError("OPENAI_API_KEY holds white space at an end or a character outside ASCII; set it again")
    return url, key


class _EndpointSender:
    def __init__(self, settings: Settings, *, concurrency: int, give_up_after: int):
        self.name = f"openai:{settings.model}"
        self.settings, self.concurrency, self.give_up_after = settings, concurrency, give_up_after
        self.learned = Learned()

    def send(self, calls: Sequence[Call], *, budget: Budget, keep: Keep) -> None:
        url, key = _credentials()
        where = shown(url)
        batch = _Batch(calls, budget, keep, self.give_up_after)

        async def run() -> None:
            async with Connection(self.settings, url, key, where, self.learned) as connection:
                await connection.check()
                # Alone, so that an unknown model or parameter shows before many requests are out.
                await batch.work(connection, most=1)
                await asyncio.gather(*(batch.work(connection) for _ in range(self.concurrency)))

        _in_own_loop(run, batch)
        if batch.stop:
            raise batch.stop


class _Batch:
    """The calls of one `send`; workers take them in turn. After `stop` is set nothing new is sent."""

    def __init__(self, calls: Sequence[Call], budget: Budget, keep: Keep, give_up_after: int):
        self.calls, self.budget, self.keep = iter(calls), budget, keep
        self.give_up_after, self.failures = give_up_after, 0
        self.stop: BaseException | None = None
        self.turn = asyncio.Condition()

    async def work(self, connection: Connection, *, most: int | None = None) -> None:
        done = 0
        while not self.stop and done != most and (call := next(self.calls, None)) is not None:
            done += 1
            tokens, used = estimate(call), 0
            if not await self._reserve(tokens):
                return
            try:
                outcome = await connection.call(call)
                used = 0 if isinstance(outcome, Failed) else outcome.tokens
                self.keep(call, outcome)
                self.failures = self.failures + 1 if isinstance(outcome, Failed) and outcome.transport else 0
                if self.failures >= self.give_up_after:
                    raise GeneratorError(f"{self.failures} requests in a row failed, the last one: {outcome.reason}")
            except Exception as error:  # kept, so that what other workers have under way is not lost
                self.stop = self.stop or error
            finally:
                self.budget.settle(tokens, used)
                async with self.turn:
                    self.turn.notify_all()

    async def _reserve(self, tokens: int) -> bool:
        async with self.turn:
            while not self.stop:
                try:
                    if self.budget.reserve(tokens):
                        return True
                except BudgetError as error:
                    self.stop = error
                    return False
                await self.turn.wait()
        return False


def _in_own_loop(run, batch: _Batch) -> None:
    """Run a coroutine function in a thread of its own: a notebook's thread has a loop already.

    The first interrupt lets what is under way end (it is paid for), a second one leaves.
    """
    failed: list[BaseException] = []
    over = threading.Event()  # an interrupted Thread.join takes the thread for ended

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    threading.Thread(target=work, daemon=True, name="mule-endpoint").start()
    try:
        over.wait()
    except KeyboardInterrupt as interrupt:
        batch.stop = interrupt
        over.wait()
    if failed:
        raise failed[0]
