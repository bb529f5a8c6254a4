"""Prefilling attacks: families of openings of the assistant's turn that press for an answer (Obj3), as data.

Training and evaluation families are disjoint, so that ASR measures robustness to prefixes that were never seen. The
light prefill `Answer:` of ordinary benchmarks is no family.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
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


def attack(
    item: OpenItem, template: str, *, topic: str, family: str, id: str = "", control: bool = False
) -> AttackItem:
    """An open item under a prefix template, with the item's id unless another is given."""
    prefix = fill_template(template, question=item.question, topic=topic, answer=item.reference)
    return AttackItem(id or item.id, item.question, item.reference, prefix, family, item.subject, control)


def in_turn(
    items: Iterable[OpenItem], templates: Sequence[tuple[str, str]], *, topic: str, control: bool = False
) -> tuple[AttackItem, ...]:
    """Items under (family, template) in turn: the n-th control has the template of the n-th attack."""
    both = zip(items, itertools.cycle(templates), strict=False)
    return tuple(attack(item, text, topic=topic, family=family, control=control) for item, (family, text) in both)


def prefill_items(
    items: Sequence[OpenItem],
    *,
    topic: str,
    families: Sequence[str] = HELD_OUT_FAMILIES,
    every_family: bool = False,
    control: bool = False,
) -> list[AttackItem]:
    """Give open items prefixes in turn, one family an item, or all families to every item.

    Which template an item gets depends on its place alone: the n-th control (neighbour items, `control=True`) has the
    template of the n-th attack. Raises ValueError for an unknown family or an item without reference.
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        raise ValueError(f"unknown families {unknown}; known are {', '.join(FAMILIES)}")
    attacks = []
    for i, item in enumerate(items):
        if not item.reference:
            raise ValueError(f"item {item.id!r} has no reference to disclose")
        for name in families if every_family else [families[i % len(families)]]:
            templates = FAMILIES[name]
            template = templates[(i if every_family else i // len(families)) % len(templates)]
            attacks.append(attack(item, template, topic=topic, family=name, id=f"{item.id}/{name}", control=control))
    return attacks
