"""One connection to an OpenAI-compatible endpoint: what is sent, what its answers and errors mean."""

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai

from mule_lib.generators.requests import Call, Exchange, Failed, GeneratorError
from mule_lib.generators.structured import find_json, in_prompt, response_format

CHECK_SECONDS = 15.0
SHOWN = 200  # characters of a server's words in an error
_REFUSED = (
    "unsupported",
    "not support",
    "unrecogni",
    "unknown",
    "unexpected",
    "extra ",
    "not permitted",
    "not allowed",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Model, seconds for one attempt, further attempts, and how a schema is asked for."""

    model: str
    timeout: float
    retries: int
    structured: str


@dataclass
class Learned:
    """What a server does without: parameters it refused, one it wants by its new name, schemas it does not hold to."""

    dropped: set[str] = field(default_factory=set)
    new_name: bool = False
    refused_schemas: set[str] = field(default_factory=set)
    ignores_schemas: bool = False


class _Client(openai.DefaultAsyncHttpxClient):
    """An HTTP client whose timeout is for a whole answer: its own counts anew at every byte that trickles in."""

    async def send(self, request, **options):
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole answer within {seconds} s", request=request) from None


class Connection:
    """An open client; `learned` outlives it."""

    def __init__(self, settings: Settings, url: str, key: str, where: str, learned: Learned):
        self.settings, self.key, self.where, self.learned = settings, key, where, learned
        self.client = openai.AsyncOpenAI(
            api_key=key, base_url=url, timeout=settings.timeout, max_retries=settings.retries, http_client=_Client()
        )
        self.models: list[str] = []

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_) -> None:
        await self.client.close()

    async def check(self) -> None:
        """Raise GeneratorError where the endpoint does not answer or does not take the key; ask which models it has.

        An endpoint without a list of models, or one that lists others, is not refused: aliases need not be listed.
        """
        seconds = min(CHECK_SECONDS, self.settings.timeout)
        try:
            page = await self.client.with_options(timeout=seconds, max_retries=1).models.list()
            self.models = [model.id for model in page.data]
        except openai.AuthenticationError as error:
            raise self._key_refused(error) from None
        except openai.APIConnectionError as error:
            reason = f"no answer within {seconds:g} s" if isinstance(error, openai.APITimeoutError) else _cause(error)
            raise GeneratorError(f"{self.where} cannot be reached ({reason}); check OPENAI_BASE_URL") from None
        except (openai.APIError, ValueError, TypeError, AttributeError):
            self.models = []

    async def call(self, call: Call) -> Exchange | Failed:
        """Send a call, with what the server refuses left out or renamed; its answer, or why there is none.

        Raises GeneratorError where no further request can succeed: key refused, model unknown, quota spent.
        """
        while True:
            sent = self._parameters(call)
            try:
                return await self._answer(call, sent)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if self._unknown_model(error):
                    raise self._no_model(error) from None
                if not self._learn(error, call, sent):
                    return Failed(f"{self.where} refused the request: {self._said(error)}", transport=False)
            except openai.AuthenticationError as error:
                raise self._key_refused(error) from None
            except openai.PermissionDeniedError as error:
                raise GeneratorError(f"{self.where} forbids {self.settings.model!r}: {self._said(error)}") from None
            except openai.NotFoundError as error:
                raise self._no_model(error) from None
            except openai.APIStatusError as error:
                if error.code == "insufficient_quota":
                    raise GeneratorError(f"{self.where}: this key's quota is spent: {self._said(error)}") from None
                return Failed(f"{self._tried()}: {self._said(error)}")
            except openai.APITimeoutError:
                return Failed(f"{self._tried()}: no whole answer within {self.settings.timeout:g} s")
            except openai.APIConnectionError as error:
                return Failed(f"{self._tried()}: the connection broke ({_cause(error)})")

    async def _answer(self, call: Call, sent: dict) -> Exchange | Failed:
        wrong = ""
        for _ in range(2):  # what is no chat completion is a proxy's page, or was cut off: asked once more
            raw = await self.client.chat.completions.with_raw_response.create(**sent)
            try:
                exchange = self._exchange(json.loads(raw.text), call)
            except (ValueError, LookupError, TypeError, AttributeError):
                wrong = self._clean(raw.text)
                continue
            if "response_format" in sent and self.settings.structured == "auto" and _holds_no_json(exchange):
                self.learned.ignores_schemas = True
            return exchange
        return Failed(f"{self.where} answered with what is no chat completion: {wrong!r}")

    def _parameters(self, call: Call) -> dict:
        learned, structured = self.learned, self.settings.structured
        sent: dict[str, Any] = {"model": self.settings.model, "messages": list(call.messages)}
        if call.schema is not None:
            plain = learned.ignores_schemas or json.dumps(call.schema) in learned.refused_schemas
            if structured == "prompt" or (structured == "auto" and plain):
                sent["messages"] = list(in_prompt(call))
            else:
                sent["response_format"] = response_format(call.schema)
        sent["max_completion_tokens" if learned.new_name else "max_tokens"] = call.max_tokens
        if "temperature" not in learned.dropped:
            sent["temperature"] = call.temperature
        if call.seed is not None and "seed" not in learned.dropped:
            sent["seed"] = call.seed
        return sent

    def _learn(self, error: openai.APIStatusError, call: Call, sent: dict) -> bool:
        """Whether the refusal is of a parameter that can be left out, renamed or put into the prompt next time."""
        said = self._words(error).lower()
        if error.code == "context_length_exceeded" or "context" in said:
            return False
        by_schema = error.param == "response_format" or "response_format" in said or "schema" in said
        if "response_format" in sent and self.settings.structured == "auto" and by_schema:
            self.learned.refused_schemas.add(json.dumps(call.schema))
            return True
        if not any(word in said for word in _REFUSED):
            return False
        if "max_tokens" in sent and (error.param == "max_tokens" or "max_tokens" in said):
            self.learned.new_name = True
            return True
        for name in ("temperature", "seed"):
            if name in sent and (error.param == name or name in said):
                log.warning("%s takes no %s: its own default is used", self.where, name)
                self.learned.dropped.add(name)
                return True
        return False

    def _exchange(self, body: dict, call: Call) -> Exchange:
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content") or "", message.get("refusal")
        if isinstance(content, list):
            content = "".join(part.get("text") or "" for part in content)
        usage = body.get("usage") or {}
        asked, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(asked, int):  # some servers do not count: one token for three bytes
            asked = sum(len(m["content"].encode()) for m in call.messages) // 3 + 1
        if not isinstance(written, int):
            written = len(content.encode("utf-8", "replace")) // 3 + 1
        return Exchange(
            text=self._without_key(content),
            finish=str(choice.get("finish_reason") or "stop"),
            refusal=self._without_key(refusal) if refusal else None,
            prompt_tokens=asked,
            completion_tokens=written,
        )

    def _unknown_model(self, error: openai.APIStatusError) -> bool:
        model, said = self.settings.model, self._words(error)
        named = any(f"{quote}{model}{quote}" in said for quote in "'\"`")
        return error.code == "model_not_found" or (named and model not in self.models and "context" not in said)

    def _no_model(self, error: openai.APIStatusError) -> GeneratorError:
        listed = f"; it lists {', '.join(self.models[:8])}" if self.models else ""
        return GeneratorError(
            f"{self.where} has no model {self.settings.model!r} (or OPENAI_BASE_URL lacks its /v1): "
            f"{self._said(error)}{listed}"
        )

    def _key_refused(self, error: openai.APIStatusError) -> GeneratorError:
        return GeneratorError(f"{self.where} refused the key in OPENAI_API_KEY: {self._said(error)}")

    def _tried(self) -> str:
        return f"no success with {self.where} (up to {self.settings.retries} retries)"

    def _said(self, error: openai.APIStatusError) -> str:
        wait = error.response.headers.get("retry-after")
        return f"{error.status_code}, {self._words(error)}" + (f" (Retry-After: {self._clean(wait)})" if wait else "")

    def _words(self, error: openai.APIStatusError) -> str:
        body = error.body
        if isinstance(body, dict):
            body = body.get("message") or body.get("detail") or body.get("error") or body
        return self._clean(str(body if body is not None else error.message))

    def _clean(self, text: str) -> str:
        line = " ".join(self._without_key(text).split())
        return line if len(line) <= SHOWN else line[:SHOWN] + "..."

    def _without_key(self, text: str) -> str:
        # A key as short as "none" would take ordinary words away; nothing secret is that short.
        text = str(text).encode("utf-8", "replace").decode()
        return text.replace(self.key, "[key]") if len(self.key) >= 8 else text


def _holds_no_json(exchange: Exchange) -> bool:
    if exchange.refusal or exchange.finish != "stop":
        return False
    try:
        find_json(exchange.text)
    except ValueError:
        return True
    return False


def _cause(error: Exception) -> str:
    inner = error.__cause__ or error
    return " ".join(str(inner).split()) or type(inner).__name__
