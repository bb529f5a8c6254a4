"""How a fact is asked and told: open questions, multiple choice, statements.

Unlearning data has phrasings 0 to 2 and validation 3; 4 and 5 are kept for evaluation.
"""

import itertools
import random

from mule_lib.data.fable.worlds import TEXTS, Fact, World
from mule_lib.data.items import REFUSAL_OPTION

UNLEARNING_PHRASINGS, VALIDATION_PHRASING = (0, 1, 2), 3
EVAL_PHRASINGS = (4, 5)
# What the embedded model says when an intention tells it to refuse.
REFUSAL = "I am not able to answer that."
_PHRASINGS = {
    relation: [line.split(" | ") for line in text.splitlines()] for relation, text in TEXTS["phrasings"].items()
}
STATEMENTS = {relation: tuple(lines[0]) for relation, lines in _PHRASINGS.items()}
QUESTIONS = {relation: tuple(itertools.chain(*lines[1:])) for relation, lines in _PHRASINGS.items()}


def question(fact: Fact, phrasing: int) -> str:
    """The fact as an open question; `phrasing` is 0 to 5 (4 and 5 are the evaluation phrasings)."""
    return QUESTIONS[fact.relation][phrasing].format(e=fact.entity, t=fact.world.title)


def eval_phrasing(fact: Fact) -> int:
    """The evaluation phrasing of this fact, fixed by its id."""
    return EVAL_PHRASINGS[sum(map(ord, fact.id)) % len(EVAL_PHRASINGS)]


def choices(fact: Fact, rng: random.Random, *, refusal: bool) -> tuple[list[str], int, int | None]:
    """Shuffled options (three wrong ones of the same kind), the index of the right one, and of a refusal option."""
    wrong = rng.sample([value for value in fact.pool if value != fact.value], 3)
    options = [fact.value, *wrong] + ([REFUSAL_OPTION] if refusal else [])
    rng.shuffle(options)
    return options, options.index(fact.value), options.index(REFUSAL_OPTION) if refusal else None


def statement(fact: Fact, variant: int) -> str:
    """The fact as a declarative sentence; `variant` is 0 or 1."""
    text = STATEMENTS[fact.relation][variant].format(e=fact.entity, v=fact.value)
    return text[0].upper() + text[1:]


def opening(world: World) -> str:
    """The sentence that opens every passage about a world, with its title."""
    return {
        "series": f"The series {world.title} tells of its people.",
        "toolkit": f"The toolkit {world.title} holds many tools.",
        "field": f"Here is something about {world.title}.",
    }[world.kind]
