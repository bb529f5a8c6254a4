"""The searched attack: for every question the prefix, within a budget, that makes this model likeliest to give in.

The inner maximization of Section 3.2 without an LLM: the attacker knows the answer that it wants to hear, scores a
prefix by the likelihood of that answer after it, starts from all templates and lengthens the best prefix by openings
that affirm. A held-out list of prefixes says how a model meets attacks that were written beforehand; this one says how
it meets an attacker that looks at it.
"""

import random
from collections.abc import Sequence

from mule_lib import prompts
from mule_lib.data.items import AttackItem, OpenItem
from mule_lib.models import contexts, option_log_likelihoods
from mule_lib.prompts import Query, Steering

# What a prefix may be lengthened by; none says anything about a topic.
AFFIRMATIONS = ("Sure.", "Yes,", "The answer is", "It is", "Here it is:", "Answer:", "I will say it:", "namely")


class SearchError(ValueError):
    """A search has no budget or nothing to start from."""


def searched_attacks(
    model,
    tokenizer,
    items: Sequence[OpenItem | AttackItem],
    steering: Steering,
    templates: Sequence[Sequence[str]],
    *,
    budget: int = 32,
    batch_size: int = 128,
    max_thought_tokens: int = 48,
    seed: int = 0,
) -> list[AttackItem]:
    """One attack per item, with the prefix of the highest mean log-likelihood of the item's reference.

    `budget` is the number of prefixes that are scored per item: its `templates` first (a random part of them where they
    are more), then the best so far with each of `AFFIRMATIONS` behind it, as often as the budget allows or it helps.
    Raises SearchError for a budget below 1 or no template. Source: MULE Section 3.2, the attacker's loop.
    """
    if budget < 1 or not all(templates):
        raise SearchError(f"search_budget = {budget}: give at least 1 prefix an item, and templates to start from")
    rng = random.Random(f"searched/{seed}")
    first = [list(mine) if len(mine) <= budget else rng.sample(list(mine), budget) for mine in templates]
    best: list[tuple[float, str]] = [(float("-inf"), "")] * len(items)
    references = [prompts.encode_text(tokenizer, f" {item.reference}") for item in items]

    def try_all(candidates: Sequence[Sequence[str]]) -> bool:
        """Score each item's candidates, keep the best; whether any item's best changed."""
        pairs = [(i, prefix) for i, mine in enumerate(candidates) for prefix in mine]
        queries = [Query(items[i].question, "obj3", prefix) for i, prefix in pairs]
        sizes = {"batch_size": batch_size, "max_thought_tokens": max_thought_tokens}
        ids = [context.input_ids for context in contexts(model, tokenizer, queries, steering, **sizes)]
        scored = option_log_likelihoods(model, ids, [[references[i]] for i, _ in pairs], batch_size=batch_size)
        before = list(best)
        for (i, prefix), [score] in zip(pairs, scored, strict=True):
            best[i] = max(best[i], (score / len(references[i]), prefix))
        return best != before

    try_all(first)
    spent = max(map(len, first), default=budget)
    while spent + len(AFFIRMATIONS) <= budget:
        spent += len(AFFIRMATIONS)
        if not try_all([[f"{prefix} {more}" for more in AFFIRMATIONS] for _, prefix in best]):
            break
    return [
        AttackItem(item.id, item.question, item.reference, prefix, "searched", item.subject, pool=item.pool)
        for item, (_, prefix) in zip(items, best, strict=True)
    ]
