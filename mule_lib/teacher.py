"""The steered teacher: an intention in the system message, a chain of thought before the answer (Section 3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass

from mule_lib import prompts
from mule_lib.generate import greedy
from mule_lib.prompts import Query, Steering


@dataclass(frozen=True)
class Context:
    """Ids up to where the answer begins, and the thought in them ("" without one)."""

    input_ids: tuple[int, ...]
    thought: str = ""


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
