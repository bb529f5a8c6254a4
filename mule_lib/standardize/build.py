"""Pairs to what the suite reads: records with their anchors, and evaluation sets."""

from collections.abc import Callable, Mapping, Sequence

from mule_lib.data.attacks import fill_template
from mule_lib.data.items import AttackItem, OpenItem
from mule_lib.data.records import Record
from mule_lib.standardize.ledger import Pair

Partnered = Sequence[tuple[Pair, Pair]]
# What each objective refuses, and what it opposes to that (Section 3.3).
ROLES = {"obj1": ("forget", "retain"), "obj2": ("forget", "neighbor"), "obj3": ("adversarial", "benign")}


def plain_records(
    pairs: Sequence[Pair],
    counterparts: Mapping[str, Pair],
    pool: Sequence[Pair],
    *,
    objective: str,
    make: Callable[..., Record],
) -> list[Record]:
    """Records of obj1 or obj2: pairs to refuse, their counterparts (by the id of the pair), and the pool to answer.

    Pairs without a counterpart and the pool have no anchor: training draws the one beside the other at random. If all
    had one, the pool would never be drawn.
    """
    refused, answered = ROLES[objective]
    records: list[Record] = []
    for pair in pairs:
        own = f"{objective}/{refused}/{pair.id}"
        if pair.id not in counterparts:
            records.append(make(pair, own, objective, refused))
            continue
        other = f"{objective}/{answered}/{counterparts[pair.id].id}"
        records.append(make(pair, own, objective, refused, anchor=other))
        records.append(make(counterparts[pair.id], other, objective, answered, anchor=own))
    return records + [make(pair, f"{objective}/{answered}/{pair.id}", objective, answered) for pair in pool]


def attacked_records(
    partnered: Partnered, templates: Mapping[str, str], *, topic: str, make: Callable[..., Record]
) -> list[Record]:
    """Records of obj3: one opening before a question to refuse and before one to answer; `templates` by pair id."""
    records = []
    for pair, partner in partnered:
        ids = [f"obj3/{role}/{pair.id}" for role in ROLES["obj3"]]
        for each, own, role, other in zip((pair, partner), ids, ROLES["obj3"], reversed(ids), strict=True):
            prefix = prefix_for(each, templates[pair.id], topic=topic)
            records.append(make(each, own, "obj3", role, anchor=other, prefix=prefix))
    return records


def prefix_for(pair: Pair, template: str, *, topic: str) -> str:
    """A template filled for one pair; an answer of one word gives no start away."""
    return fill_template(template, question=pair.question, topic=topic, answer=pair.answer)


def open_items(pairs: Sequence[Pair], *, kind: str, subject: str) -> tuple[OpenItem, ...]:
    """Open questions of an evaluation set."""
    return tuple(OpenItem(f"{kind}/{p.id}", p.question, p.answer, p.subject or subject) for p in pairs)


def attack_items(
    pairs: Sequence[Pair], templates: Sequence[tuple[str, str]], *, topic: str, control: bool
) -> tuple[AttackItem, ...]:
    """Pairs with (family, template) in turn: the n-th control has the template of the n-th attack."""
    kind = "control" if control else "attack"
    return tuple(
        AttackItem(
            f"{kind}/{pair.id}",
            pair.question,
            pair.answer,
            prefix_for(pair, templates[n % len(templates)][1], topic=topic),
            templates[n % len(templates)][0],
            pair.subject or topic,
            control,
        )
        for n, pair in enumerate(pairs)
    )
