"""Language models that write data: an OpenAI-compatible endpoint or a local model, behind a cache of paid replies.

Base URL and key come from OPENAI_BASE_URL and OPENAI_API_KEY. The key is sent to that endpoint and nowhere else: not
into a name, a file, a log or an error.
"""

import hashlib
import json
import logging
import math
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import openai
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from mule_lib.data.text import is_refusal

PROBE_SECONDS = 4.0  # for connecting, and for reading
TIMEOUT, RETRIES = 120.0, 6  # seconds; by the `openai` client: 408, 409, 429, 5xx and lost connections
# What is wrong with one request alone; after any other failure nothing more is sent.
ALONE = openai.BadRequestError, openai.ConflictError, openai.UnprocessableEntityError, openai.APIResponseValidationError
NONSENSE = AttributeError, IndexError, TypeError, ValueError  # from reading a body that is no chat completion
log = logging.getLogger(__name__)


class GeneratorError(RuntimeError):
    """A model cannot be asked on; the message says in one line what to change. Completions so far are kept."""


@dataclass(frozen=True)
class Request:
    """Chat messages, and the pydantic model that a reply has to fit; `id` names the prompt and shapes nothing."""

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

    def prompt_tokens(self) -> int:
        """An estimate for messages and schema."""
        return _tokens("".join(message["content"] for message in self.messages) + str(self.form.model_json_schema()))


def _tokens(text: str) -> int:
    return len(text.encode()) // 3 + 1  # one for three bytes, more than most tokenizers need


@dataclass(frozen=True)
class Completion:
    """One paid answer and what is made of it: either `data` that fits the form, or `refused`, or an `error`.

    `finish` says why it ended (`stop`, `length`, `content_filter`, ...). One with an error from the start is not kept.
    """

    text: str = ""
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    data: BaseModel | None = None
    refused: bool = False
    error: str | None = None


@dataclass
class CachedGenerator:
    """Asks `answer` (up to `batch_size` requests at a time, in `concurrency` threads) for what is not kept yet.

    `name` goes into provenance; `probe` is called before each batch. Nothing of a batch is sent that could pass
    `budget_tokens` (in all runs together). Paid completions are kept by key in a file of JSON lines that only grows.
    """

    name: str
    answer: Callable[[Sequence[Request]], list[Completion]]
    path: str | os.PathLike
    budget_tokens: float = math.inf
    concurrency: int = 1
    batch_size: int = 1
    probe: Callable[[], None] = lambda: None

    def __post_init__(self):
        self.path, self.lock, self.kept = Path(self.path), threading.Lock(), {}
        for line in filter(None, self.path.read_bytes().split(b"\n") if self.path.is_file() else []):
            try:
                row = json.loads(line)
                self.kept[row["key"]] = Completion(**row["reply"])
            except (ValueError, KeyError, TypeError):
                log.warning("%s: a line holds no reply; its request is asked again", self.path)

    def keep(self, key: str, request: Request, completion: Completion) -> None:
        """On return the completion survives a kill. Raises GeneratorError where the disk does not take it."""
        reply = {name: value for name, value in vars(completion).items() if name not in ("data", "refused", "error")}
        row = {"key": key, "generator": self.name, "messages": request.messages, "reply": reply}
        with self.lock:
            self.kept[key] = completion
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with open(self.path, "ab") as file:
                    # The new line first: a kill may have cut the line before it.
                    file.write(("\n" + json.dumps(row, ensure_ascii=False)).encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise GeneratorError(f"{self.path}: a paid reply cannot be written ({error.strerror})") from None

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order; a request that the server does not take has an error.

        Raises GeneratorError when the batch cannot go on; what was answered until then is kept.
        """
        keyed = [(request.key(self.name), request) for request in requests]
        missing, failed = {key: request for key, request in keyed if key not in self.kept}, {}
        if missing:
            self.probe()
        spent = sum(paid.prompt_tokens + paid.completion_tokens for paid in self.kept.values())
        tokens = sum(request.prompt_tokens() + request.max_tokens for request in missing.values())
        if missing and spent + tokens > self.budget_tokens:
            what = f"budget_tokens={self.budget_tokens}: {spent} are spent and the next requests may take {tokens}"
            raise GeneratorError(f"{what}; raise it and start again to go on")

        def ask_and_keep(batch: Sequence[str]) -> None:
            answered = self.answer([missing[key] for key in batch])
            for key, completion in zip(batch, answered, strict=True):
                if completion.error:
                    failed[key] = completion
                else:
                    self.keep(key, missing[key], completion)

        batches = [list(missing)[i : i + self.batch_size] for i in range(0, len(missing), self.batch_size)]
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                for group in batches[:1], batches[1:]:  # one alone: an unknown model shows before many requests are out
                    asked = [pool.submit(ask_and_keep, batch) for batch in group]
                    for future in tqdm(as_completed(asked), total=len(asked), mininterval=5, disable=None):
                        future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what is under way is paid for: it is waited for and kept
                raise
        return [failed.get(key) or interpret(request, self.kept[key]) for key, request in keyed]


def interpret(request: Request, completion: Completion) -> Completion:
    """The completion with data, refusal or error: words around the JSON are ignored, JSON is never a refusal."""
    text = re.sub(r"^\s*<think>.*?</think>", "", completion.text, flags=re.DOTALL)
    if completion.finish == "content_filter" or ("{" not in text and is_refusal(text)):
        return replace(completion, refused=True)
    try:
        data = request.form.model_validate_json(text[text.find("{") : text.rfind("}") + 1])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cut, place = f"cut off at max_tokens={request.max_tokens}", ".".join(map(str, first["loc"])) or "the reply"
        return replace(completion, error=cut if completion.finish == "length" else f"{place}: {first['msg']}")
    return replace(completion, data=data)


def local(name: str, write: Callable[[Sequence, int], list[str]], **options) -> CachedGenerator:
    """A local model: `write` continues chats greedily, up to so many tokens each; `name` says which weights it has."""

    def answer(requests: Sequence[Request]) -> list[Completion]:
        texts = write([request.messages for request in requests], requests[0].max_tokens)
        both = zip(texts, requests, strict=True)
        return [Completion(t, prompt_tokens=r.prompt_tokens(), completion_tokens=_tokens(t)) for t, r in both]

    return CachedGenerator(f"local:{name}", answer, **{"batch_size": 16, **options})


def endpoint(model: str, **options) -> CachedGenerator:
    """A model behind OPENAI_BASE_URL."""
    calls = _Endpoint(model)
    return CachedGenerator(f"openai:{model}", calls.answer, probe=calls.probe, **{"concurrency": 8, **options})


@dataclass
class _Endpoint:
    model: str
    client: openai.OpenAI | None = None  # from the probe on
    structured: bool = True  # until the server takes no `response_format`

    def probe(self) -> None:
        """Connect, once. Raises GeneratorError for a bad environment, an endpoint that is silent, a refused key."""
        if self.client:
            return
        self.url = (os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
        self.key = os.environ.get("OPENAI_API_KEY", "")
        # No user and no query: HTTP libraries log whole URLs. Neither message shows what may be secret.
        if not re.fullmatch(r"https?://(\[[\da-fA-F:]+\]|[^\s/?#@:\[\]]+)(:\d{1,5})?(/[^\s?#@]*)?", self.url):
            what = "is no URL such as http://localhost:8000/v1, without a user or a query"
            raise GeneratorError(f"OPENAI_BASE_URL {what}")
        if not re.fullmatch("[!-~]+", self.key):
            what = "is not set, or holds white space or a character outside ASCII"
            raise GeneratorError(f"OPENAI_API_KEY {what}; where no key is needed, set it to any word")
        client = openai.OpenAI(api_key=self.key, base_url=self.url, timeout=TIMEOUT, max_retries=RETRIES)
        asking = client.with_options(timeout=PROBE_SECONDS, max_retries=0)
        try:  # an empty request: a server that takes our key and model finds fault with it
            asking.chat.completions.create(model=self.model, messages=[], max_tokens=1)
        except (openai.APIError, *NONSENSE) as error:
            self._failed(error)
        self.client = client

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        """The answer to one request, or why it has none."""
        [request] = requests
        sent = {"messages": list(request.messages), "max_tokens": request.max_tokens}
        sent |= {"temperature": request.temperature} | ({} if request.seed is None else {"seed": request.seed})
        if structured := self.structured:
            schema = {"name": request.form.__name__, "schema": request.form.model_json_schema(), "strict": True}
            sent["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            answered = self.client.chat.completions.create(model=self.model, **sent)
            choice, usage = answered.choices[0], answered.usage
            refusal, text = choice.message.refusal, self._without_key(choice.message.content or "")
            counted = (usage.prompt_tokens, usage.completion_tokens) if usage else ()
            finish = "content_filter" if refusal else choice.finish_reason or "stop"
            return [Completion(text, finish, *(counted or (request.prompt_tokens(), _tokens(text))))]
        except (openai.APIError, *NONSENSE) as error:
            if getattr(error, "status_code", 0) in (400, 422) and structured and "response_format" in str(error):
                self.structured = False
                return self.answer(requests)
            return [self._failed(error)]

    def _failed(self, error: Exception) -> Completion:
        """Why one request has no answer; raises GeneratorError where no other would do better."""
        reason = self._plain(error.__cause__ or error)
        if isinstance(error, NONSENSE):
            return Completion(error=f"{self.url} answered with what is no chat completion")
        if isinstance(error, ALONE) and error.code != "model_not_found":
            return Completion(error=f"{self.url}: {reason}")
        if isinstance(error, openai.APIConnectionError | openai.InternalServerError):
            raise GeneratorError(f"{self.url} cannot be reached ({reason}); check OPENAI_BASE_URL") from None
        check = "check OPENAI_API_KEY, OPENAI_BASE_URL (with its /v1) and generator_model"
        raise GeneratorError(f"{self.url} refuses {self.model!r}: {reason}; {check}") from None

    def _plain(self, error: object) -> str:
        return " ".join(self._without_key(str(error)).split())[:300]

    def _without_key(self, text: str) -> str:
        # A key as short as "none" would take ordinary words away; nothing secret is that short.
        text = text.encode("utf-8", "replace").decode()
        return text.replace(self.key, "[key]") if len(self.key) >= 8 else text
