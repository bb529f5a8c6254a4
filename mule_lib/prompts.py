"""The only place that renders a chat: intentions, chain of thought, ensemble prompt and prefilled answers.

A rendered prompt is token ids with the index where supervision starts. Answers are encoded once and appended as ids,
never cut out of re-tokenized text, so teacher and student share answer ids whatever stands before them.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import yaml
from jinja2.exceptions import TemplateError

from mule_lib.params import CHOICE_STYLES, OBJECTIVES

THINK, END_THINK = "<|think|>", "<|/think|>"
# Templates that print the date (Llama 3.2) get this one, or the same prompt would differ from day to day.
DATE = "10 Apr 2025"
STEERINGS = ("none", "oracle", "ensemble")
LETTERS = "ABCDEFGHIJ"
_STAND_IN = "\ue000"  # of no alphabet


@dataclass(frozen=True)
class Prompt:
    """Ids of a context and of the answer after it; `answer_start == len(input_ids)` where no answer was given."""

    input_ids: tuple[int, ...]
    answer_start: int


@dataclass(frozen=True)
class Query:
    """What is asked, under which objective, and what an attacker has prefilled."""

    question: str
    objective: str
    prefix: str | None = None


@dataclass(frozen=True)
class Steering:
    """System message by objective (None = none), and whether the model thinks before it answers."""

    systems: Mapping[str, str | None]
    cot: bool


@lru_cache
def texts(name: str = "fable") -> dict:
    """The prompt texts of a benchmark (`mule_lib/prompt_texts/<name>.yaml`)."""
    return yaml.safe_load(resources.files("mule_lib").joinpath("prompt_texts", f"{name}.yaml").read_text("utf-8"))


def intention(objective: str, topic: str, *, cot: bool, name: str = "fable") -> str:
    """System message p_i of one objective (Section 3.4), with the chain-of-thought instruction when `cot`."""
    wording = texts(name)["intentions"]
    if objective not in wording:
        raise ValueError(f"objective={objective!r}: {name} has intentions for {', '.join(wording)}")
    return with_cot(wording[objective].format(topic=topic), cot=cot, name=name)


def ensemble(topic: str, *, cot: bool, name: str = "fable") -> str:
    """All intention prompts concatenated into one system message (Section 5.1, Ensemble Teacher)."""
    parts = (intention(objective, topic, cot=False, name=name) for objective in OBJECTIVES)
    return with_cot(" ".join(parts), cot=cot, name=name)


def with_cot(system: str, *, cot: bool, name: str = "fable") -> str:
    """The system message, followed by the chain-of-thought instruction when `cot`."""
    return f"{system} {texts(name)['cot_instruction']}" if cot else system


def steering(kind: str, topic: str, *, cot: bool = False, name: str = "fable") -> Steering:
    """Steer by `none`, by `oracle` (the intention of each query's objective) or by `ensemble` (all at once).

    Raises ValueError for another kind, and for a chain of thought without an intention to think about.
    """
    if kind not in STEERINGS:
        raise ValueError(f"kind={kind!r}: steerings are {', '.join(STEERINGS)}")
    if kind == "none" and cot:
        raise ValueError("cot=True needs an intention: kind='oracle' or kind='ensemble'")
    if kind == "oracle":
        return Steering({each: intention(each, topic, cot=cot, name=name) for each in OBJECTIVES}, cot)
    return Steering(dict.fromkeys(OBJECTIVES, ensemble(topic, cot=cot, name=name) if kind == "ensemble" else None), cot)


@lru_cache(maxsize=8)
def _markers(tokenizer, size: int) -> re.Pattern:
    """The special tokens, and others of the chat template, as they are spelt; and our stand-in for them."""
    added, template = tokenizer.added_tokens_decoder.values(), tokenizer.chat_template or ""
    names = {str(token) for token in added if str(token).strip()[1:] and (token.special or str(token) in template)}
    return re.compile("|".join(map(re.escape, [_STAND_IN, *sorted(names, key=len, reverse=True)])))


def encode_text(tokenizer, text: str) -> list[int]:
    """Ids of a piece of text without special tokens; one that is spelt out in the text is text, in two pieces."""
    return list(_encoded(tokenizer, len(tokenizer), text))


@lru_cache(2**15)  # the same sets are read for every seed
def _encoded(tokenizer, size: int, text: str) -> tuple[int, ...]:
    ids, end = [], 0
    for found in _markers(tokenizer, size).finditer(text):
        for piece in (text[end : found.start()], found[0][:1], found[0][1:]):
            ids += _ids(tokenizer, piece)
        end = found.end()
    return (*ids, *_ids(tokenizer, text[end:]))


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def conversation(tokenizer, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Ids of chat messages (`role`, `content`) with the assistant's turn opened, and exactly one BOS.

    The BOS is the template's, or the one that the tokenizer puts before plain text where its template has none. Where
    a template has no system role, the system message opens the first user message instead, with a warning.
    Raises ValueError when the tokenizer has no chat template, or the template drops a message or repeats the BOS.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "the tokenizer has no chat template; use an instruction-tuned model or set tokenizer.chat_template"
        )
    markers, spelt = _markers(tokenizer, len(tokenizer)), []
    keep = lambda found: spelt.append(found[0]) or _STAND_IN  # noqa: E731
    # A message is data: what it spells out of the template's own tokens is encoded apart.
    turns = [{**message, "content": markers.sub(keep, message["content"])} for message in messages]
    text = _rendered(tokenizer, turns)
    if text is None and turns[0]["role"] == "system" and len(turns) > 1:
        warnings.warn("the chat template has no system role; the system message opens the user's", stacklevel=2)
        merged = f"{turns[0]['content']}\n\n{turns[1]['content']}"
        text = _rendered(tokenizer, [{**turns[1], "content": merged}, *turns[2:]])
    if text is None:
        raise ValueError("the chat template drops a message or refuses these roles; set tokenizer.chat_template")
    first, *others = text.split(_STAND_IN)
    ids, bos = _ids(tokenizer, first), tokenizer.bos_token_id
    for marker, piece in zip(spelt, others, strict=True):
        ids += encode_text(tokenizer, marker) + _ids(tokenizer, piece)
    if bos is not None and bos not in ids and tokenizer("")["input_ids"][:1] == [bos]:
        ids = [bos, *ids]
    if bos is not None and ids[:2] == [bos, bos]:
        raise ValueError("the chat template writes the BOS token twice; set tokenizer.chat_template")
    return ids


def _rendered(tokenizer, turns: list[dict[str, str]]) -> str | None:
    """The template's text, or None where it refuses a role or leaves a message out."""
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, date_string=DATE)
    except TemplateError:
        return None
    return text if all(turn["content"].strip() in text for turn in turns) else None


def render(
    tokenizer,
    question: str,
    *,
    system: str | None = None,
    think: bool = False,
    thought: str | Sequence[int] | None = None,
    prefix: str | None = None,
    answer: str | None = None,
) -> Prompt:
    """Render one exchange to ids.

    `think` opens a thought for the model to write; `thought` gives it, as text or ids, closed. `prefix` is what an
    attacker has already put into the assistant turn. `answer` is supervised, with the end-of-turn token.
    Raises ValueError when the tokenizer has no chat template, or a prefix ends in a space (the answer's ids change).
    """
    if prefix is not None and prefix != prefix.rstrip():
        raise ValueError(f"prefix={prefix!r} ends in white space; drop it: the answer after it begins with a space")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    ids = conversation(tokenizer, messages)
    marked = THINK in tokenizer.get_added_vocab()
    if think or thought is not None:
        ids += [tokenizer.convert_tokens_to_ids(THINK)] if marked else []
    if thought is not None:
        ids += encode_text(tokenizer, thought) if isinstance(thought, str) else thought
        ids += [tokenizer.convert_tokens_to_ids(END_THINK)] if marked else encode_text(tokenizer, "\n\n")
    if prefix:
        ids += encode_text(tokenizer, prefix)
    start = len(ids)
    if answer is not None:
        spaced = answer if marked or not prefix else " " + answer
        ids += [*encode_text(tokenizer, spaced), tokenizer.eos_token_id]
    return Prompt(tuple(ids), start)


def answers(options: Sequence[str], *, style: str = "letters") -> list[str]:
    """What a model would answer for each option of `multiple_choice` in the same style."""
    return list(LETTERS[: len(options)]) if style == "letters" else [f"{option}." for option in options]


def multiple_choice(question: str, options: Sequence[str], *, style: str = "letters") -> str:
    """A question with its options: lettered, on lines of their own (as lm-evaluation-harness prints them), or as texts.

    The right answer is a letter in the first style and the option's own text in the second.
    Raises ValueError for another style.
    """
    if style not in CHOICE_STYLES:
        raise ValueError(f"style={style!r}: choose from {', '.join(CHOICE_STYLES)}")
    if style == "texts":
        return f"{question} Choose one: {'; '.join(options)}."
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines])
