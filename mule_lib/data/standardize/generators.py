"""Language models that write data: an OpenAI-compatible endpoint, a local model, or recorded replies.

Base URL and key come from OPENAI_BASE_URL and OPENAI_API_KEY. The key is sent to that endpoint and nowhere else: not
into a name, the cache, a log or an error.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import openai
from filelock import FileLock
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from mule_lib.data.text import is_refusal

PROBE_SECONDS = 4.0  # for connecting, and for reading
# Answers after which no other request would do better, by status or code.
FATAL = {
    401: "refused the key in OPENAI_API_KEY",
    403: "forbids {model!r} to this key",
    404: "has no model {model!r} (or OPENAI_BASE_URL lacks its /v1)",
    "model_not_found": "has no model {model!r}",
    "insufficient_quota": "says that this key's quota is spent",
}
GIVE_UP_AFTER = 10  # failed requests in a row
OPTIONAL = ("response_format", "max_tokens", "temperature", "seed")
_NOT_TAKEN = re.compile(r"support|unrecogni|unknown|unexpected|extra |not permitted|not allowed", re.I)
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
log = logging.getLogger(__name__)


class GeneratorError(RuntimeError):
    """A back end cannot go on; the message says in one line what to change. Replies so far are kept in the cache."""


class BudgetError(GeneratorError):
    """The token budget is spent."""


@dataclass(frozen=True)
class Request:
    """Chat messages, and the pydantic model that a reply has to fit. Requests equal but for `id` are one question."""

    id: str
    messages: tuple[dict[str, str], ...]
    form: type[BaseModel]
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None

    def key(self, generator: str) -> str:
        """SHA-256 of the generator's name and everything that shapes the reply."""
        shape = [self.messages, self.form.model_json_schema(), self.max_tokens, self.temperature, self.seed]
        return hashlib.sha256(json.dumps([generator, *shape], sort_keys=True).encode()).hexdigest()

    def most_tokens(self) -> int:
        """What it may cost: one token for three bytes of prompt and schema, and a full reply."""
        return _tokens(*(m["content"] for m in self.messages), str(self.form.model_json_schema())) + self.max_tokens


@dataclass(frozen=True)
class Exchange:
    """One paid answer: text, why it ended (`stop`, `length`, `content_filter`, ...), an explicit refusal, tokens."""

    text: str
    finish: str
    refusal: str | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Reply:
    """What is made of an answer; exactly one holds: `data` fits its form, `refused`, or an `error`.

    `text` is what the model wrote last. Tokens count a repair too; `cached` where nothing was paid for now.
    """

    text: str = ""
    data: BaseModel | None = None
    refused: bool = False
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


class Generator(Protocol):
    """Whatever answers: `name` goes into the records' provenance, `complete` gives one reply per request, in order."""

    name: str

    def complete(self, requests: Sequence[Request]) -> list[Reply]: ...


class RequestError(Exception):
    """One request has no answer after all retries; the next run asks it again."""


class ReplyCache:
    """Paid replies by key: a file of JSON lines that only grows and that processes may share, or memory (no path).

    A line that a kill cut short holds no reply: it is passed over with a warning, and its request asked again.
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = path and Path(path)
        if self.path and self.path.is_dir():
            raise GeneratorError(f"cache_file={str(path)!r} is a folder; give a file such as replies.jsonl")
        self.replies: dict[str, Exchange] = {}
        self.broken = 0
        self.spent: Counter[str] = Counter()  # tokens by generator, in all runs
        self.read()

    def read(self) -> None:
        """Take in what is on disk, that of other processes too."""
        lines = self.path.read_bytes().split(b"\n") if self.path and self.path.is_file() else []
        broken = 0
        for line in filter(None, lines):
            try:
                self._add(json.loads(line))
            except (ValueError, KeyError, TypeError):
                broken += 1
        if broken > self.broken:  # said once
            log.warning("%s: %d lines hold no reply; their requests are asked again", self.path, broken)
        self.broken = broken

    def put(self, generator: str, request: Request, exchange: Exchange) -> None:
        """Keep a reply; on return it survives a kill. Raises GeneratorError where the disk does not take it."""
        row = {"key": request.key(generator), "generator": generator, "messages": request.messages}
        row |= {"reply": asdict(exchange)}
        self._add(row)
        if not self.path:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"), open(self.path, "ab") as file:
                # The new line first: a kill may have cut the line before it.
                file.write(("\n" + json.dumps(row, ensure_ascii=False)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise GeneratorError(f"{self.path}: a paid reply cannot be written ({error.strerror})") from None

    def _add(self, row: dict) -> None:
        if row["key"] not in self.replies:
            exchange = self.replies[row["key"]] = Exchange(**row["reply"])
            self.spent[row["generator"]] += exchange.prompt_tokens + exchange.completion_tokens


@dataclass
class CachedGenerator:
    """A `Generator` that asks `answer` for what the cache lacks, and once more for what does not fit its form.

    `answer` takes up to `batch_size` requests, in `concurrency` threads; `probe` is called once before. Nothing is sent
    that, with all under way, could pass `budget_tokens` (in all runs of the cache together).
    """

    name: str
    answer: Callable[[Sequence[Request]], list[Exchange]]
    cache: ReplyCache = field(default_factory=ReplyCache)
    budget_tokens: int | None = None
    concurrency: int = 1
    batch_size: int = 1
    probe: Callable[[], None] | None = None
    progress: bool = False

    def check(self) -> None:
        """Raise GeneratorError where the back end cannot be asked at all; it costs no tokens."""
        if self.probe:
            self.probe()
            self.probe = None

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply per request, in order; a request that failed after all retries is an error reply.

        Raises BudgetError and GeneratorError when the batch cannot go on; what was answered until then is kept.
        """
        self.cache.read()
        known = set(self.cache.replies)
        replies = self._replies(requests, known)
        repairs = {i: _repair(requests[i], r) for i, r in enumerate(replies) if r.error and r.prompt_tokens}
        for i, second in zip(repairs, self._replies(list(repairs.values()), known), strict=True):
            replies[i] = replace(
                second,
                text=second.text or replies[i].text,
                error=second.error and f"{replies[i].error}; asked again: {second.error}",
                prompt_tokens=replies[i].prompt_tokens + second.prompt_tokens,
                completion_tokens=replies[i].completion_tokens + second.completion_tokens,
                cached=replies[i].cached and second.cached,
            )
        return replies

    def _replies(self, requests: Sequence[Request], known: set[str]) -> list[Reply]:
        wanted = {request.key(self.name): request for request in requests}
        missing = {key: request for key, request in wanted.items() if key not in self.cache.replies}
        replies = self._ask(missing, len(wanted)) if missing else {}
        for key in set(wanted) - set(replies):
            paid = self.cache.replies[key]
            tokens, text = (paid.prompt_tokens, paid.completion_tokens), paid.text or paid.refusal or ""
            replies[key] = Reply(text, *read(wanted[key], paid), *tokens, key in known)
        return [replies[request.key(self.name)] for request in requests]

    def _ask(self, missing: Mapping[str, Request], total: int) -> dict[str, Reply]:
        """Ask and keep; the error replies by key. Each thread keeps its answer before anything else happens to it."""
        self.check()
        failed: dict[str, Reply] = {}
        in_a_row = under_way = 0
        lock, stop, keys, already = threading.Lock(), threading.Event(), list(missing), total - len(missing)
        step = missing[keys[0]].id.split("/")[0]
        bar = tqdm(total=total, initial=already, desc=step, mininterval=5, disable=not self.progress)

        def work(batch: Sequence[str]) -> None:
            nonlocal in_a_row, under_way
            requests, paid, reason = [missing[key] for key in batch], [], ""
            tokens = sum(request.most_tokens() for request in requests)
            try:
                with lock:
                    if stop.is_set():
                        return
                    self._check_budget(under_way + tokens)
                    under_way += tokens
                try:
                    paid = self.answer(requests)
                except RequestError as error:
                    reason = str(error)
                with lock:
                    under_way -= tokens
                    for request, exchange in zip(requests, paid, strict=False):
                        self.cache.put(self.name, request, exchange)
                    failed.update({key: Reply(error=reason) for key in batch if reason})
                    in_a_row = in_a_row + 1 if reason else 0
                    bar.update(len(batch))
                    if in_a_row >= GIVE_UP_AFTER:
                        raise GeneratorError(f"{in_a_row} requests in a row failed, the last one: {reason}")
            except BaseException:
                stop.set()  # nothing new is sent
                raise

        batches = [keys[i : i + self.batch_size] for i in range(0, len(keys), self.batch_size)]
        try:
            # On leaving the pool an interrupt waits for what is under way, which is paid for.
            with bar, ThreadPoolExecutor(self.concurrency) as pool:
                work(batches[0])  # alone: an unknown model or parameter shows before many requests are out
                list(pool.map(work, batches[1:]))
        except GeneratorError as error:
            done = already + len(set(keys) & set(self.cache.replies))
            kept = f"; {done} of {total} replies are kept in {self.cache.path or 'memory'}" if done else ""
            raise type(error)(f"{error}{kept}") from None
        return failed

    def _check_budget(self, tokens: int) -> None:
        spent = self.cache.spent[self.name]
        if self.budget_tokens is not None and spent + tokens > self.budget_tokens:
            what = f"budget_tokens={self.budget_tokens}: {spent} are spent and the next requests may take {tokens}"
            raise BudgetError(f"{what}; raise it and start again to go on")


def read(request: Request, exchange: Exchange) -> tuple[BaseModel | None, bool, str | None]:
    """What an exchange says: data that fits the form, whether it is a refusal, or why it is neither.

    A thought, a code fence and words around the JSON are ignored. Only a text without JSON is judged as a refusal.
    """
    text = _THOUGHT.sub("", exchange.text)
    if exchange.refusal or exchange.finish == "content_filter":
        return None, True, None
    if "{" not in text:
        return (None, True, None) if is_refusal(text) else (None, False, "the reply holds no JSON")
    try:
        return request.form.model_validate_json(text[text.find("{") : text.rfind("}") + 1]), False, None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the reply"
        cut = exchange.finish == "length"
        return None, False, f"cut off at max_tokens={request.max_tokens}" if cut else f"{place}: {first['msg']}"


def in_words(form: type[BaseModel]) -> str:
    """A form in words; it stands in every prompt, since many servers constrain nothing."""
    schema = json.dumps(form.model_json_schema())
    return f"Reply with one JSON value that fits this schema, and with nothing else: {schema}"


def _repair(request: Request, reply: Reply) -> Request:
    wrong = {"role": "assistant", "content": reply.text.strip() or "(nothing)"}
    again = {"role": "user", "content": f"That reply cannot be used: {reply.error}. {in_words(request.form)}"}
    return replace(request, messages=(*request.messages, wrong, again))


def _tokens(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts) // 3 + 1  # below what most tokenizers need


def local(name: str, write: Callable[[Sequence, int], list[str]], **options) -> CachedGenerator:
    """A local model: `write` continues chats greedily, up to so many tokens each; `name` says which weights it has."""

    def answer(requests: Sequence[Request]) -> list[Exchange]:
        chats = [request.messages for request in requests]
        sizes = [_tokens(*(message["content"] for message in chat)) for chat in chats]
        texts = write(chats, requests[0].max_tokens)
        return [Exchange(t, "stop", None, size, _tokens(t)) for t, size in zip(texts, sizes, strict=True)]

    return CachedGenerator(f"local:{name}", answer, **{"batch_size": 16, **options})


def replay(path: str | os.PathLike, name: str = "") -> CachedGenerator:
    """Recorded replies under their generator's name, without a key or a model; `name` picks one of several generators.

    Raises GeneratorError for a missing or empty file and another name, and (later) for a request not recorded.
    """
    cache = ReplyCache(path)
    names = sorted(cache.spent)
    if not names:
        raise GeneratorError(f"replay_file={str(path)!r}: no such file, or no recorded reply in it")
    if (name and name not in names) or (not name and len(names) > 1):
        raise GeneratorError(f"{path} holds replies of {', '.join(names)}; name one of them, not {name!r}")

    def answer(requests: Sequence[Request]) -> list[Exchange]:
        question = " ".join(requests[0].messages[-1]["content"].split())[:80]
        raise GeneratorError(f"{path} has no reply to {question!r}; record it with that generator first")

    return CachedGenerator(name or names[0], answer, cache=cache)


def endpoint(model: str, *, timeout: float = 120.0, retries: int = 5, **options) -> CachedGenerator:
    """A model behind OPENAI_BASE_URL; the `openai` client retries 408, 409, 429, 5xx and lost connections."""
    calls = _Endpoint(model, timeout, retries)
    return CachedGenerator(f"openai:{model}", calls.answer, probe=calls.probe, **{"concurrency": 8, **options})


class _Endpoint:
    def __init__(self, model: str, timeout: float, retries: int):
        self.model, self.timeout, self.retries = model, timeout, retries
        self.dropped: set[str] = set()  # parameters that the server does not take
        self.listed: list[str] = []

    def probe(self) -> None:
        """Connect. Raises GeneratorError for a bad environment, an endpoint that does not answer, a refused key."""
        self.url, self.key = credentials()
        self.client = openai.OpenAI(api_key=self.key, base_url=self.url, timeout=self.timeout, max_retries=self.retries)
        asking = self.client.with_options(timeout=PROBE_SECONDS, max_retries=0)
        try:
            try:
                self.listed = [model.id for model in asking.models.list().data]
            except openai.NotFoundError:  # a server need not list its models; an empty request finds its chat
                asking.chat.completions.create(model=self.model, messages=[], max_tokens=1)
        except (openai.APIConnectionError, openai.InternalServerError) as error:
            reason = self._clean(error.__cause__ or error)
            raise GeneratorError(f"{self.url} cannot be reached ({reason}); check OPENAI_BASE_URL") from None
        except (openai.AuthenticationError, openai.NotFoundError) as error:
            raise self._meaning(error) from None
        except (openai.APIError, ValueError, TypeError, AttributeError):
            pass  # it answers, in its own way

    def answer(self, requests: Sequence[Request]) -> list[Exchange]:
        """The answer to one request. Raises RequestError, or GeneratorError where no other would do better."""
        while True:
            sent = self._parameters(requests[0])
            try:
                return [self._exchange(self.client.chat.completions.create(**sent), requests[0])]
            except openai.APIStatusError as error:
                words = self._clean(error)
                refused = [name for name in OPTIONAL if name in sent and (name == error.param or name in words)]
                if error.status_code in (400, 422) and refused and _NOT_TAKEN.search(words) and "context" not in words:
                    self.dropped.add(refused[0])
                    continue
                raise self._meaning(error) from None
            except openai.APIConnectionError as error:
                raise RequestError(f"{self.url} (up to {self.retries} retries): {self._clean(error)}") from None
            except (AttributeError, IndexError, TypeError, ValueError):
                raise RequestError(f"{self.url} answered with what is no chat completion") from None

    def _parameters(self, request: Request) -> dict:
        schema = {"name": request.form.__name__, "schema": request.form.model_json_schema(), "strict": True}
        optional = {
            "response_format": {"type": "json_schema", "json_schema": schema},
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            **({} if request.seed is None else {"seed": request.seed}),
        }
        sent = {name: value for name, value in optional.items() if name not in self.dropped}
        more = {"max_completion_tokens": request.max_tokens} if "max_tokens" in self.dropped else {}
        return {"model": self.model, "messages": list(request.messages), **sent, **more}

    def _exchange(self, completion, request: Request) -> Exchange:
        choice, usage = completion.choices[0], completion.usage
        text, refusal = (self._without_key(part or "") for part in (choice.message.content, choice.message.refusal))
        asked = (usage and usage.prompt_tokens) or _tokens(*(message["content"] for message in request.messages))
        written = (usage and usage.completion_tokens) or _tokens(text)
        return Exchange(text, choice.finish_reason or "stop", refusal or None, asked, written)

    def _meaning(self, error: openai.APIStatusError) -> Exception:
        if fatal := FATAL.get(error.code) or FATAL.get(error.status_code):
            listed = f"; it lists {', '.join(self.listed[:8])}" if self.listed else ""
            return GeneratorError(f"{self.url} {fatal.format(model=self.model)}: {self._clean(error)}{listed}")
        return RequestError(f"{self.url} (up to {self.retries} retries): {self._clean(error)}")

    def _clean(self, error: object) -> str:
        return " ".join(self._without_key(str(error)).split())[:300]

    def _without_key(self, text: str) -> str:
        # A key as short as "none" would take ordinary words away; nothing secret is that short.
        text = text.encode("utf-8", "replace").decode()
        return text.replace(self.key, "[key]") if len(self.key) >= 8 else text


def credentials() -> tuple[str, str]:
    """URL and key of the endpoint, from the environment. Raises GeneratorError in one line that shows no secret."""
    url = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    key = os.environ.get("OPENAI_API_KEY", "")
    try:
        parts = urlsplit(url)
        good = parts.hostname and parts.scheme in ("http", "https") and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        raise GeneratorError("OPENAI_BASE_URL is no URL; it should look like http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:  # HTTP libraries log whole URLs
        raise GeneratorError("OPENAI_BASE_URL holds a user or a query; what is secret goes in OPENAI_API_KEY")
    if not key.strip():
        raise GeneratorError(f"OPENAI_API_KEY is not set, for {url}; where no key is needed, set it to any word")
    if not key.isascii() or key != key.strip():
        raise GeneratorError("OPENAI_API_KEY holds white space at an end or a character outside ASCII; set it again")
    return url.rstrip("/"), key
