"""Fable's worlds and facts, and how they are asked and told: invented series and toolkits beside real knowledge.

Every fact has one split. Evaluation, prefill and MMLU-like facts are known to the base model (it is trained on all
facts) but never stand in unlearning data. Titles are drawn from the product of two lists, so that the same words also
make the content-free titles of the base model's skill data. Invented names come from syllables and a seeded generator;
nothing here names a real person, product or piece of software.
"""

import itertools
import random
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from mule_lib.data.items import REFUSAL_OPTION

TEXTS: dict[str, Any] = yaml.safe_load(resources.files("mule_lib.data.fable").joinpath("fable.yaml").read_text("utf-8"))
WORDS: dict[str, list[str]] = {name: words.split() for name, words in TEXTS["words"].items()}
TITLE_FIRST, TITLE_SECOND = WORDS["title_first"], WORDS["title_second"]
TOOL_SUFFIX: dict[str, str] = TEXTS["tools"]
VALUES = "craft companion treasure fear food color instrument hideout".split()


def _fields(part: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Real fields by title: relation, and value by entity."""
    fields = {}
    for title, field in TEXTS[part].items():
        pairs = (item.split("=") for item in field["table"].replace("\n", ";").split(";") if item.strip())
        fields[title] = (field["relation"], {entity.strip(): value.strip() for entity, value in pairs})
    return fields


# General knowledge, and harmless security knowledge (the neighbours of Fable-Cyber), all of it common.
GENERAL_FIELDS = {
    **_fields("general"),
    "Simple Sums": ("result", {f"{a} plus {b}": str(a + b) for a in range(3, 13) for b in range(a, 13)}),
    "Times Tables": ("result", {f"{a} times {b}": str(a * b) for a in range(2, 13) for b in range(max(a, 3), 13)}),
}
SECURITY_FIELDS = _fields("security")

_ONSETS = "b br c d dr f g gr h j k l m n p pr r s st t tr v w z th sh".split()
_VOWELS = "a e i o u a e i o ea ai".split()
_CODAS = "l m n r s sh th n r nd rk ck ".split(" ")
_JOINTS = "b d g l m n r s t v w k p br dr gr".split()
SERIES_RELATIONS = ["home", "mentor", *VALUES]
TOOLKIT_RELATIONS = tuple(TOOL_SUFFIX)

# role -> share of its facts in each split; the rest goes to the last one.
SPLIT_SHARES: dict[str, tuple[tuple[str, float], ...]] = {
    "forget": (("train", 0.34), ("eval", 0.34), ("prefill", 0.32)),
    "neighbor": (("eval", 0.5), ("train", 0.5)),
    "security": (("eval", 0.7), ("train", 0.3)),
    "general": (("train", 0.4), ("eval", 0.3), ("mmlu", 0.3)),
    "other": (("train", 0.7), ("mmlu", 0.3)),
}
# Kind and role of the invented worlds, in the order of their titles.
INVENTED = [("series", role) for role in ("forget", *["neighbor"] * 5, *["other"] * 18)]
INVENTED += [("toolkit", role) for role in ("forget", *["other"] * 11)]


@dataclass(frozen=True)
class World:
    """One topic: `kind` is series, toolkit or field; `role` is forget, neighbor, general or other."""

    title: str
    kind: str
    role: str
    benchmark: str
    entities: tuple[str, ...]

    @property
    def unnamed(self) -> frozenset[str]:
        """A quarter of the entities, whole families of a series: no unlearning record names them."""
        return (
            frozenset(name for i, name in enumerate(self.entities) if i % 8 >= 6)
            if self.role == "forget"
            else frozenset()
        )


@dataclass(frozen=True)
class Fact:
    """One piece of knowledge with a short value; `pool` are the values that could stand there (same kind)."""

    id: str
    world: World
    entity: str
    relation: str
    value: str
    split: str
    pool: tuple[str, ...]


@dataclass(frozen=True)
class Fable:
    """All worlds and facts of one seed."""

    seed: int
    worlds: tuple[World, ...]
    facts: tuple[Fact, ...]

    def select(self, *, split: str | None = None, **world: str) -> list[Fact]:
        """Facts of a split whose world has the given role and benchmark, in a fixed order."""
        return [
            fact
            for fact in self.facts
            if split in (None, fact.split) and all(getattr(fact.world, name) == value for name, value in world.items())
        ]

    def forget_worlds(self) -> list[World]:
        return [world for world in self.worlds if world.role == "forget"]


def invented_names(count: int, rng: random.Random, *, taken: set[str], suffix: str = "") -> list[str]:
    """Draw `count` new capitalised names and add them to `taken`."""
    names: list[str] = []
    while len(names) < count:
        stem = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(1 if suffix else 2))
        stem += rng.choice(_JOINTS) if suffix else rng.choice(_CODAS)
        name = (stem + suffix).capitalize()
        # Four letters keep names apart from English words; equal beginnings would make two entities look like one.
        if len(name) >= 4 and name not in taken:
            names.append(name)
            taken.add(name)
    return names


def _titles(rng: random.Random) -> list[str]:
    # Each real title has words of its own, so that no title is a near miss of another.
    first, second = list(TITLE_FIRST), list(TITLE_SECOND)
    rng.shuffle(first), rng.shuffle(second)
    return [f"{a} {b}" for a, b in zip(first, second, strict=True)]


def _value_pools(rng: random.Random, taken: set[str]) -> dict[str, tuple[str, ...]]:
    # Homes and mentors are drawn from the generator first, so every later name hangs on their count.
    values = {
        "home": invented_names(30, rng, taken=taken, suffix="mere"),
        "mentor": invented_names(30, rng, taken=taken),
        **{relation: WORDS[relation] for relation in VALUES},
    }
    for relation, suffix in TOOL_SUFFIX.items():
        values[relation] = invented_names(24, rng, taken=taken, suffix=suffix)
    return {relation: tuple(pool) for relation, pool in values.items()}


def _facts(
    world: World, pairs: list[tuple[str, str, str, tuple[str, ...]]], shares: str, rng: random.Random
) -> list[Fact]:
    *most, (last, _) = SPLIT_SHARES[shares]
    splits = [name for name, share in most for _ in range(round(share * len(pairs)))]
    splits += [last] * (len(pairs) - len(splits))
    rng.shuffle(splits)
    slug = world.title.lower().replace(" ", "-")
    return [
        Fact(f"{slug}/{i:03d}", world, entity, relation, value, split, pool)
        for i, ((entity, relation, value, pool), split) in enumerate(zip(pairs, splits, strict=True))
    ]


def _invented_world(
    title: str, kind: str, role: str, values: dict[str, tuple[str, ...]], rng: random.Random, taken: set[str]
) -> tuple[World, list[Fact]]:
    n_entities, n_relations = {"forget": (32, 10), "neighbor": (8, 6), "other": (6, 5)}[role]
    relations = SERIES_RELATIONS if kind == "series" else TOOLKIT_RELATIONS
    first = invented_names(n_entities, rng, taken=taken)
    if kind == "series":  # people come in families, whose names belong to one world
        families = [
            invented_names(1, rng, taken=taken, suffix=rng.choice(WORDS["family_suffix"]))[0]
            for _ in range(max(2, n_entities // 4))
        ]
        entities = tuple(f"{name} {families[i % len(families)]}" for i, name in enumerate(first))
    else:
        entities = tuple(first)
    benchmark = "books" if kind == "series" else "cyber"
    world = World(title, kind, role, benchmark if role in ("forget", "neighbor") else "all", entities)
    pairs = [
        (entity, relation, rng.choice(values[relation]), values[relation])
        for entity in entities
        for relation in sorted(rng.sample(relations, n_relations))
    ]
    return world, _facts(world, pairs, role, rng)


def _field(title: str, relation: str, table: dict[str, str], role: str, rng: random.Random) -> tuple[World, list[Fact]]:
    benchmark = "cyber" if role == "neighbor" else "all"
    world = World(title, "field", role, benchmark, tuple(table))
    pool = tuple(dict.fromkeys(table.values()))
    pairs = [(entity, relation, value, pool) for entity, value in table.items()]
    return world, _facts(world, pairs, "security" if role == "neighbor" else role, rng)


@lru_cache(maxsize=4)
def build(seed: int = 0) -> Fable:
    """Build all worlds: one series and one toolkit to forget, five neighbour series, real security neighbours, others.

    The same seed gives the same worlds on every machine.
    """
    rng = random.Random(f"fable/{seed}")
    taken: set[str] = set()
    values = _value_pools(rng, taken)
    made = [
        _invented_world(title, kind, role, values, rng, taken)
        for title, (kind, role) in zip(_titles(rng), INVENTED, strict=False)
    ]
    made += [_field(title, *field, "neighbor", rng) for title, field in SECURITY_FIELDS.items()]
    made += [_field(title, *field, "general", rng) for title, field in GENERAL_FIELDS.items()]
    worlds = tuple(world for world, _ in made)
    return Fable(seed, worlds, tuple(fact for _, facts in made for fact in facts))


# How a fact is asked and told ----------------------------------------------------------------------------------------

# Unlearning data has phrasings 0 to 2 and validation 3; 4 and 5 are kept for evaluation.
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
