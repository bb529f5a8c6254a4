"""The first half of a standardization: sources to question-answer pairs, each in one split and none twice."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mule_lib import prompts
from mule_lib.generators import Generator
from mule_lib.params import Standardize
from mule_lib.raw_formats import Passage
from mule_lib.standardize import neighbors, qa
from mule_lib.standardize.checks import Limits
from mule_lib.standardize.chunks import Chunk, chunks
from mule_lib.standardize.ledger import Ledger, Pair
from mule_lib.standardize.sources import Sources
from mule_lib.standardize.splits import Placed, assign, without_duplicates

TRAINED = ("train", "validation")
OBJECTIVES = ("obj1", "obj2", "obj3")
MIN_CHUNK = 200


@dataclass(frozen=True)
class Texts:
    """The words of a benchmark's prompt file that the standardization needs."""

    topic: str
    restricted: list[str]
    taxonomy: list[str]
    families: dict[str, dict[str, list[str]]]

    @classmethod
    def of(cls, benchmark: str) -> "Texts":
        """Read them from `prompt_texts/<benchmark>.yaml`."""
        own = prompts.texts(benchmark)
        return cls(own["topic"], own["restricted"], own["taxonomy"], own["prefixes"])


@dataclass(frozen=True)
class Collected:
    """Kept pairs by part. `forget[objective, split]` train and validate; the other parts are named by their use.

    `chunks` are all that were asked about, by id.
    """

    forget: dict[tuple[str, str], list[Pair]]
    general: dict[str, list[Pair]]
    neighbor: dict[str, list[Pair]]
    evaluation: list[Pair]
    attack: list[Pair]
    placed: list[Placed]
    concepts: list[neighbors.Concept]
    chunks: dict[str, Chunk]

    def passages(self, split: str) -> dict[str, Passage]:
        """The chunk behind each of Obj1's pairs of a split, by the id of the pair's record."""
        return {
            f"obj1/{role}/{pair.id}": _passage(pair, self.chunks[_unit(pair)])
            for role, pairs in (("forget", self.forget["obj1", split]), ("retain", self.general[split]))
            for pair in pairs
        }


def limits(p: Standardize) -> Limits:
    """The sizes that pairs are held to."""
    return Limits(answer_words=p.answer_words, support=p.support)


def drawn_chunks(sources: Sources, p: Standardize) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks to forget, drawn at random from all, and one chunk of each general text. Raises ValueError for none."""
    least = min(MIN_CHUNK, p.chunk_chars)
    every = chunks(sources.forget, max_chars=p.chunk_chars, min_chars=least)
    places = random.Random(f"chunks/{p.seed}").sample(range(len(every)), min(p.forget_chunks, len(every)))
    general = []
    for text in sources.general:
        found = chunks([text], max_chars=p.chunk_chars, min_chars=least)
        general += [random.Random(f"general/{p.seed}/{text.id}").choice(found)] if found else []
    if not places or not general:
        what = "text to forget" if not places else "general text"
        raise ValueError(f"no {what} of {least} characters or more; give longer texts")
    return [every[i] for i in sorted(places)], general


def collect(sources: Sources, p: Standardize, generator: Generator, ledger: Ledger) -> Collected:
    """All pairs with a source, neighbours with theirs, split by source and without near duplicates.

    Every forget chunk, article and concept serves one split and one objective, so Obj3's questions are not Obj1's.
    Raises ValueError where there are too few sources to split.
    """
    words = Texts.of(p.benchmark)
    forget_chunks, general_chunks = drawn_chunks(sources, p)
    parts = {f"{o}/{split}": share for o in OBJECTIVES for split, share in _shares(p).items()}
    if not (sources.published or sources.questions):
        parts["evaluation"] = p.evaluation_share
    if not sources.questions:
        parts["attack"] = p.evaluation_share
    part_of = assign([c.id for c in forget_chunks], parts, seed=p.seed, what="forget_chunks")
    split_of = assign(
        [c.id for c in general_chunks],
        {**_shares(p, of=1), "evaluation": p.evaluation_share},
        seed=p.seed,
        what="general_articles",
    )
    same = {"limits": limits(p), "count": p.pairs_per_chunk}
    forget = qa.passage_pairs(
        forget_chunks, generator, ledger, step="forget pairs", focus=f"what is particular to {words.topic}",
        known=[words.topic, *words.restricted], **same,
    )  # fmt: skip
    general = qa.passage_pairs(
        general_chunks, generator, ledger, step="general pairs", focus="what is worth knowing about the world",
        restricted=words.restricted, **same,
    )  # fmt: skip
    opened = qa.open_pairs(sources.questions, generator, ledger, step="open questions", limits=limits(p))
    halves = assign([i.id for i in sources.questions], {"evaluation": 1, "attack": 1}, seed=p.seed, what="questions") \
        if sources.questions else {}  # fmt: skip
    concepts, near = _neighbors(p, words, generator, ledger)
    concept_split = assign(
        [c.id for c in concepts],
        {**_shares(p, of=1), "evaluation": 2 * p.evaluation_share},
        seed=p.seed,
        what="neighbor concepts",
    )
    placed = [
        *_published(sources),
        *(Placed(pair, halves[pair.id]) for pair in opened),
        *(Placed(pair, part_of[_unit(pair)]) for pair in forget),
        *(Placed(pair, f"general/{split_of[_unit(pair)]}") for pair in general),
        *(Placed(pair, f"neighbor/{concept_split[pair.source]}") for pair in near),
    ]
    # What evaluates stays, what trains yields to it; the sort is stable.
    placed.sort(key=lambda one: (not one.fixed, _is_training(one.split), one.split.endswith("train")))
    placed = without_duplicates(placed, ledger, threshold=p.near_duplicate)

    def part(name: str) -> list[Pair]:
        return [one.pair for one in placed if one.split == name and not one.fixed]

    return Collected(
        forget={(o, split): part(f"{o}/{split}") for o in OBJECTIVES for split in TRAINED},
        general={split: part(f"general/{split}") for split in (*TRAINED, "evaluation")},
        neighbor={split: part(f"neighbor/{split}") for split in (*TRAINED, "evaluation")},
        evaluation=part("evaluation"),
        attack=part("attack"),
        placed=placed,
        concepts=concepts,
        chunks={chunk.id: chunk for chunk in (*forget_chunks, *general_chunks)},
    )


def _neighbors(
    p: Standardize, words: Texts, generator: Generator, ledger: Ledger
) -> tuple[list[neighbors.Concept], list[Pair]]:
    own = {"topic": words.topic, "restricted": words.restricted}
    concepts = neighbors.concepts(
        words.taxonomy, generator, ledger, count=p.concepts_per_field, seed=p.seed, **own
    )  # fmt: skip
    pairs = neighbors.concept_pairs(concepts, generator, ledger, count=p.pairs_per_concept, limits=limits(p), **own)
    if p.verify:
        pairs = neighbors.verified(pairs, generator, ledger, step="neighbor verified", topic=words.topic)
    return concepts, pairs


def _shares(p: Standardize, *, of: int = len(OBJECTIVES)) -> dict[str, float]:
    train = 1 - 2 * p.evaluation_share - p.validation_share
    return {"train": train / of, "validation": p.validation_share / of}


def _passage(pair: Pair, chunk: Chunk) -> Passage:
    start, end = pair.span
    return Passage(chunk.text, (start - chunk.start, end - chunk.start))


def _unit(pair: Pair) -> str:
    return pair.id.rsplit("#", 1)[0]


def _is_training(split: str) -> bool:
    return split.endswith(TRAINED)


def _published(sources: Sources) -> list[Placed]:
    # MMLU questions as well: a retained fact may not be one that is asked there.
    both: list[tuple[str, Sequence]] = [("evaluation", sources.published), ("mmlu", sources.mmlu)]
    return [
        Placed(
            Pair(
                id=item.id,
                step="published",
                question=item.question,
                answer=item.reference if split == "evaluation" else item.options[item.answer],
                source=item.id,
                prompt_id="",
            ),
            split,
            fixed=True,
        )
        for split, items in both
        for item in items
    ]
