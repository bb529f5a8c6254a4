"""Prefilling attacks: families of openings of the assistant's turn that press for an answer (Obj3), as data.

Training and evaluation families are disjoint, so that ASR measures robustness to prefixes that were never seen. The
light prefill `Answer:` of ordinary benchmarks is no family.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

import yaml

from mule_lib.data.items import AttackItem, OpenItem

_TEXTS = yaml.safe_load(resources.files("mule_lib.data").joinpath("attacks.yaml").read_text("utf-8"))
TRAIN, HELD_OUT = (
    {name: tuple(templates) for name, templates in _TEXTS[part].items()} for part in ("train", "held_out")
)
JAILBREAKS = tuple(_TEXTS["jailbreaks"])
FAMILIES = TRAIN | HELD_OUT
TRAIN_FAMILIES, HELD_OUT_FAMILIES = tuple(TRAIN), tuple(HELD_OUT)


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
    items: Iterable[OpenItem], templates: Iterable[tuple[str, str]], *, topic: str, control: bool = False
) -> tuple[AttackItem, ...]:
    """Open items under (family, template) in turn, with their ids: the n-th control has the n-th attack's template."""
    attacks = []
    for item, (family, template) in zip(items, itertools.cycle(templates), strict=False):
        prefix = fill_template(template, question=item.question, topic=topic, answer=item.reference)
        attacks.append(AttackItem(item.id, item.question, item.reference, prefix, family, item.subject, control))
    return tuple(attacks)


def family_turns(families: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(family, template) for `in_turn` without end: every family in turn, each with its next template."""
    for turn in itertools.count():
        yield from ((name, FAMILIES[name][turn % len(FAMILIES[name])]) for name in families)
