"""From text to data: asking for JSON, finding it, holding it against its schema, asking once more."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from mule_lib.generators.requests import Call, Exchange

_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What an exchange says: data of the schema, or a refusal, or why neither; `error` alone is worth a repair."""

    data: Any | None = None
    refused: bool = False
    error: str | None = None


def in_prompt(call: Call) -> tuple[dict, ...]:
    """The call's messages with the schema written behind the last one, for servers that constrain nothing."""
    *before, last = call.messages
    instruction = _instruction(call.schema)
    if last["content"].endswith(instruction):  # a repair says it already
        return call.messages
    return (*before, {**last, "content": f"{last['content']}\n\n{instruction}"})


def repair(call: Call, exchange: Exchange, error: str) -> Call:
    """The one further call after a reply that did not fit: the reply, what is wrong with it, and the schema."""
    wrong = {"role": "assistant", "content": exchange.text if exchange.text.strip() else "(nothing)"}
    asked = {"role": "user", "content": f"That reply cannot be used: {error}. {_instruction(call.schema)}"}
    return replace(call, messages=(*call.messages, wrong, asked))


def read(call: Call, exchange: Exchange) -> Reading:
    """Judge an exchange: refused in so many words or by the server, fitting its schema, or in error.

    A text is judged by `is_refusal` only where it holds no JSON: data may speak of refusals.
    """
    if exchange.refusal or exchange.finish == "content_filter":
        return Reading(refused=True)
    if call.schema is None:
        if not exchange.text.strip():
            return Reading(error="the reply is empty")
        return Reading(refused=_refuses(exchange.text))
    try:
        value = find_json(exchange.text)
    except ValueError as error:
        if exchange.finish == "length":
            return Reading(error=f"the reply was cut off at max_tokens={call.max_tokens}")
        return Reading(refused=True) if _refuses(exchange.text) else Reading(error=str(error))
    wrong = misfit(value, call.schema)
    return Reading(error=wrong) if wrong else Reading(data=value)


def find_json(text: str) -> Any:
    """The first JSON object or array of a text, past a thought, a code fence or words around it.

    Raises ValueError that says where reading stopped, or that there is none.
    """
    text = _THOUGHT.sub("", text)
    starts = [match.start() for match in re.finditer(r"[{\[]", text)]
    if not starts:
        raise ValueError("the reply holds no JSON")
    first: ValueError | None = None
    for start in starts:
        try:
            return json.JSONDecoder(parse_constant=_no_constant).raw_decode(text, start)[0]
        except ValueError as error:
            first = first or error
            if getattr(error, "pos", 0) >= len(text.rstrip()):
                break  # the text ends inside this value: a smaller one within it is not what was asked for
    raise ValueError(f"the reply is no complete JSON ({first})")


def misfit(value: Any, schema: dict) -> str | None:
    """The first place where a value does not fit a JSON Schema, in one line, or None."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(value))
    if error is None:
        return None
    message = " ".join(error.message.split())
    return f"{error.json_path}: {message if len(message) <= 200 else message[:200] + '...'}"


def response_format(schema: dict) -> dict:
    """The `response_format` parameter; strict where the schema has what strict servers ask for."""
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": schema, "strict": _closed(schema)},
    }


def _closed(schema: Any) -> bool:
    # Strict mode wants every object to name all of its properties as required and to allow no other.
    if isinstance(schema, list):
        return all(map(_closed, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != names:
            return False
    return all(map(_closed, schema.values()))


def _instruction(schema: dict | None) -> str:
    form = json.dumps(schema, ensure_ascii=False)
    return f"Reply with one JSON value that fits this JSON Schema, and with nothing else: {form}"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuses(text: str) -> bool:
    from mule_lib.data.text import is_refusal  # its package imports torch; most replies need no judge

    return is_refusal(_THOUGHT.sub("", text))
