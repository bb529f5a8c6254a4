"""The steered teacher: an intention in the system message, a chain of thought before the answer (Section 3.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mule_lib import prompts
from mule_lib.generate import greedy

STEERINGS = ("none", "oracle", "ensemble")


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


@dataclass(frozen=True)
class Context:
    """Ids up to where the answer begins, and the thought in them ("" without one)."""

    input_ids: tuple[int, ...]
    thought: str = ""


def steering(kind: str, topic: str, *, cot: bool = False, name: str = "fable") -> Steering:
    """How a row is steered: `none`, `oracle` (the intention of each query's objective), `ensemble` (all at once).

    Raises ValueError for another kind, and for a chain of thought without an intention to think about.
    """
    if kind not in STEERINGS:
        raise ValueError(f"kind={kind!r}: steerings are {', '.join(STEERINGS)}")
    if kind == "none":
        if cot:
            raise ValueError("cot=True needs an intention: kind='oracle' or kind='ensemble'")
        return Steering(dict.fromkeys(prompts.OBJECTIVES), cot=False)
    if kind == "ensemble":
        return Steering(dict.fromkeys(prompts.OBJECTIVES, prompts.ensemble(topic, cot=cot, name=name)), cot)
    return Steering({o: prompts.intention(o, topic, cot=cot, name=name) for o in prompts.OBJECTIVES}, cot)


def thought_ends(tokenizer) -> list[int]:
    """Ids that end a thought: the token made for it, else every token with a blank line in it (`render` puts one)."""
    vocabulary = tokenizer.get_vocab()
    if prompts.END_THINK in vocabulary:
        return [vocabulary[prompts.END_THINK]]
    return [token for token in vocabulary.values() if "\n\n" in tokenizer.decode([token])]


def contexts(
    model, tokenizer, queries: Sequence[Query], how: Steering, *, batch_size: int = 128, max_thought_tokens: int = 48
) -> list[Context]:
    """Render every query up to its answer, letting the model think first where `how.cot`.

    The thought comes before an attacker's prefix: it is the teacher's own, the prefix is not.
    """
    if not how.cot:
        plain = (
            prompts.render(tokenizer, q.question, system=how.systems[q.objective], prefix=q.prefix) for q in queries
        )
        return [Context(prompt.input_ids) for prompt in plain]
    opened = [prompts.render(tokenizer, q.question, system=how.systems[q.objective], think=True) for q in queries]
    stops = [tokenizer.eos_token_id, *thought_ends(tokenizer)]
    thoughts = greedy(
        model,
        tokenizer,
        [prompt.input_ids for prompt in opened],
        max_new_tokens=max_thought_tokens,
        batch_size=batch_size,
        stop_ids=stops,
    )
    made = []
    for query, thought in zip(queries, thoughts, strict=True):
        prompt = prompts.render(
            tokenizer, query.question, system=how.systems[query.objective], thought=thought, prefix=query.prefix
        )
        made.append(Context(prompt.input_ids, tokenizer.decode(thought).strip()))
    return made
