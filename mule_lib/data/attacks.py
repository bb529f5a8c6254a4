"""Prefilling attacks: a prefix opens the assistant's turn and presses for an answer (Obj3).

Families of prefixes stand in the prompt texts of a benchmark; training and held-out ones are disjoint.
"""

import itertools
import re
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple

import yaml

from mule_lib import prompts
from mule_lib.data.items import AttackItem, OpenItem

JAILBREAKS: tuple[str, ...] = tuple(
    yaml.safe_load(resources.files("mule_lib.data").joinpath("attacks.yaml").read_text("utf-8"))["jailbreaks"]
)


class Template(NamedTuple):
    """A prefix with open slots, of a family."""

    family: str
    text: str


def prefix_templates(name: str, part: str) -> list[Template]:
    """The prefixes of the prompt texts `name`, families in turn.

    `part` is train (may stand in unlearning data) or held_out.
    """
    families = prompts.texts(name)["prefixes"][part]
    turns = itertools.zip_longest(*([Template(family, text) for text in texts] for family, texts in families.items()))
    return [each for turn in turns for each in turn if each]


def fill_template(template: str, *, question: str, topic: str, answer: str) -> str:
    """Fill the slots of a prefix template; the result never ends in white space, which would be a token of its own.

    `{answer_start}` becomes the first third of the answer's words, at least one and never all of them, so a one-word
    answer gives nothing away. Braces that are no slot stay as they are.
    """
    words = answer.split()
    given = min(max(1, len(words) // 3), len(words) - 1) if words else 0
    slots = {"question": question, "topic": topic, "answer_start": " ".join(words[:given])}
    return re.sub(r"\{(question|topic|answer_start)\}", lambda match: slots[match[1]], template).rstrip()


def in_turn(
    items: Iterable[OpenItem], templates: Iterable[Template], *, topic: str, control: bool = False, each: int = 1
) -> tuple[AttackItem, ...]:
    """Open items under templates in turn, `each` templates an item: the n-th control has the n-th attack's."""
    attacks = []
    repeated = ((item, f"{item.id}/{n}" if each > 1 else item.id) for item in items for n in range(each))
    for (item, name), (family, template) in zip(repeated, itertools.cycle(templates), strict=False):
        prefix = fill_template(template, question=item.question, topic=topic, answer=item.reference)
        attacks.append(
            AttackItem(name, item.question, item.reference, prefix, family, item.subject, control, pool=item.pool)
        )
    return tuple(attacks)
