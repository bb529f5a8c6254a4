"""What is asked of a language model and what comes back, whichever back end answers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

ROLES = ("system", "user", "assistant")


class GeneratorError(RuntimeError):
    """A back end cannot go on; the message says in one line what to change. Replies so far are kept in the cache."""


class BudgetError(GeneratorError):
    """The token budget is spent."""


@dataclass(frozen=True)
class Request:
    """One question to a model: chat messages (`role`, `content`), and a JSON Schema where the reply must fit one.

    Two requests that differ in `id` alone are one question: another `seed` asks for another sample.
    """

    id: str
    messages: tuple[dict, ...]
    schema: dict | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """The answer to the request of the same id.

    With a schema, exactly one of these holds: `data` is the parsed value, `refused`, or `error` says why there is
    none. `text` is always what the model wrote last, also when it fits no schema. Without a schema `refused` is the
    judgement of `data.text.is_refusal`. Tokens count every exchange that led here, a repair included; `cached`
    when none of them was paid for now.
    """

    id: str
    text: str
    data: Any | None
    refused: bool
    error: str | None
    prompt_tokens: int
    completion_tokens: int
    cached: bool


class Generator(Protocol):
    """A back end; `name` goes into provenance."""

    name: str

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply per request, in order. Raises ValueError for a bad request, GeneratorError when it cannot go on."""
        ...


@dataclass(frozen=True)
class Call:
    """A request without its id: what is sent, kept and looked up."""

    messages: tuple[dict, ...]
    schema: dict | None
    max_tokens: int
    temperature: float
    seed: int | None

    def key(self, generator: str) -> str:
        """SHA-256 of the generator's name and everything that shapes the reply."""
        value = {"generator": generator, **asdict(self)}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Exchange:
    """One paid answer: text, why it ended (`stop`, `length`, `content_filter`, ...), an explicit refusal, tokens."""

    text: str
    finish: str
    refusal: str | None
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Failed:
    """A call without an answer, after all retries; a later run asks again.

    `transport` where the way to the model failed, and not this call alone.
    """

    reason: str
    transport: bool = True


def call_of(request: Request) -> Call:
    """The call behind a request."""
    return Call(**{field.name: getattr(request, field.name) for field in fields(Call)})


def check_requests(requests: Sequence[Request]) -> None:
    """Raise ValueError in one line, naming the request, for a repeated id, bad messages, schema or sampling."""
    seen: set[str] = set()
    for request in requests:
        where = f"request {request.id!r}"
        if request.id in seen:
            raise ValueError(f"{where}: the id stands twice in one batch")
        seen.add(request.id)
        if not request.messages:
            raise ValueError(f"{where}: messages are empty")
        for i, message in enumerate(request.messages):
            if set(message) != {"role", "content"} or message["role"] not in ROLES:
                raise ValueError(f"{where}: message {i} should have content and a role of {', '.join(ROLES)}")
            if not isinstance(message["content"], str) or not message["content"].strip():
                raise ValueError(f"{where}: the content of message {i} should be text that is not blank")
            if any("\ud800" <= c <= "\udfff" for c in message["content"]):
                raise ValueError(f"{where}: message {i} holds a lone surrogate; read its file in its own encoding")
        if request.messages[-1]["role"] != "user":
            raise ValueError(f"{where}: the last message should be the user's")
        if request.max_tokens < 1:
            raise ValueError(f"{where}: max_tokens={request.max_tokens}, should be at least 1")
        if not 0 <= request.temperature <= 2:
            raise ValueError(f"{where}: temperature={request.temperature}, should lie in 0 to 2")
        if request.schema is not None:
            _check_schema(request.schema, where)


def _check_schema(schema: dict, where: str) -> None:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"{where}: schema is no JSON Schema ({error.message.splitlines()[0]})") from None
