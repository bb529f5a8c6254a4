"""`mule prepare`: data from published questions (RWKU), by rule and without an LLM.

MUSE-Books and WMDP-Cyber go through `standardize` instead: they publish no neighbours, and too few questions to
be divided between training and evaluation.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from mule_lib import prompts
from mule_lib.data import Benchmark, published, records
from mule_lib.data.files import DataFileError
from mule_lib.data.items import (
    REFUSAL_OPTION,
    ChoiceItem,
    EvaluationSets,
    OpenItem,
    fill_template,
    in_turn,
    prefix_templates,
    read_items,
)
from mule_lib.data.records import Record
from mule_lib.data.text import normalise

GENERATOR = "prepare rules"
# Questions to forget: training, validation, Forget, ASR. Queries under attack are disjoint from all of the others.
SHARES = {"train": 0.5, "validation": 0.1, "eval": 0.2, "prefill": 0.2}
PARTS = {part: share for part, share in SHARES.items() if part != "prefill"}


def prepare(
    benchmark: str,
    *,
    subject: str = "",
    source: str = "",
    mmlu: str = "",
    levels: Sequence[int] = (1, 2),
    seed: int = 0,
) -> Benchmark:
    """The data of RWKU (`subject` is the person to forget, by probes of `levels`), or of questions of one's own.

    `mmlu` takes MMLU's questions from elsewhere than RWKU's part.
    Raises ValueError for too few questions of some kind, DataFileError or DataAccessError for the data.
    """
    sentences = prompts.texts(benchmark)["refusals"]
    make = _own(source) if benchmark == "own" else _rwku(subject, source, mmlu, levels)
    return assemble(benchmark, subject, refusals=sentences, **make, seed=seed)


def _own(source: str) -> dict:
    """Questions of a reader's own: a folder with four files as `items.read_items` takes them."""
    if not source:
        raise ValueError("source: empty; give the folder with your questions (docs/your_topic.md)")
    kinds = {"forget": "open", "neighbor": "open", "general": "open", "mmlu": "choice"}
    return {name: read_items(Path(source) / f"{name}.jsonl", kind) for name, kind in kinds.items()}


def _rwku(person: str, source: str, mmlu: str, levels: Sequence[int]) -> dict:
    """Probes of one person (about 14 a level) and of the neighbours, TriviaQA as General, RWKU's part of MMLU."""
    parts: dict[str, list[OpenItem]] = {"forget": [], "neighbor": []}
    for part, kept in parts.items():
        for level in levels:
            probes = published.read_rows(f"rwku/{part}_level{level}", source)
            kept += [item for item, row in probes if row["person"] == person]
            known = list(dict.fromkeys(row["person"] for _, row in probes))
            if person not in known:
                names = ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
                raise DataFileError(
                    f"{source or 'RWKU'}: {part}_level{level} has no subject {person!r}; it has {names}"
                )
    choices = published.read_set("mmlu/test", mmlu) if mmlu else published.read_set("rwku/mmlu", source)
    return {**parts, "general": published.read_set("rwku/general", source), "mmlu": choices}


def assemble(
    benchmark: str,
    topic: str,
    *,
    forget: Sequence[OpenItem],
    neighbor: Sequence[OpenItem],
    general: Sequence[OpenItem],
    mmlu: Sequence[ChoiceItem],
    refusals: Sequence[str],
    seed: int = 0,
) -> Benchmark:
    """Records of all three objectives with anchors, and the five evaluation sets; the same for the same seed.

    Each item to refuse has a partner to answer: general (obj1), neighbour (obj2), one of both under the same prefix
    (obj3). Records have prefixes of the training families of the prompt texts; attacks have the held-out ones, two a
    question, and `attack_seen` those of the records. Other neighbours' answers distract. Raises ValueError when a
    part would be empty.
    """
    prefixes, held_out = (prefix_templates(benchmark, part) for part in ("train", "held_out"))
    if not refusals or not mmlu:
        raise ValueError(f"{benchmark}: needs refusals and MMLU questions; one of them is empty")
    refused = split(forget, SHARES, seed=seed, what="forget")
    near = split(neighbor, PARTS, seed=seed, what="neighbour")
    kept = split(general, PARTS, seed=seed, what="general")

    def made(part: str) -> list[Record]:
        rng = random.Random(f"records/{part}/{seed}")
        pairs: list[Record] = []

        def pair(objective: str, roles: tuple[str, str], *items: OpenItem, template: str = "") -> None:
            sides = [
                {
                    "question": i.question,
                    "answer": i.reference,
                    "refusal": rng.choice(refusals),
                    "prefix": fill_template(template, question=i.question, topic=topic, answer=i.reference) or None,
                    "source": i.id,
                }
                for i in items
            ]
            number = f"{part}/{len(pairs) // 2:04d}"
            pairs.extend(records.anchored(objective, roles, sides, number=number, generator=GENERATOR, split=part))

        for i, item in enumerate(refused[part]):
            pair("obj1", ("forget", "retain"), item, rng.choice(kept[part]))
            pair("obj2", ("forget", "neighbor"), item, rng.choice(near[part]))
            benign = rng.choice(kept[part] if i % 2 else near[part])
            pair("obj3", ("adversarial", "benign"), item, benign, template=prefixes[i % len(prefixes)].text)
        records.check(pairs)
        return pairs

    sets = EvaluationSets(
        benchmark=benchmark,
        topic=topic,
        forget=tuple(refused["eval"]),
        general=tuple(kept["eval"]),
        neighbor=tuple(choice(item, neighbor) for item in near["eval"]),
        attack=in_turn(refused["prefill"], held_out, topic=topic, each=2),
        mmlu=tuple(mmlu),
        controls=in_turn(near["eval"], held_out, topic=topic, control=True),
        attack_seen=in_turn(refused["prefill"], prefixes, topic=topic),
    )
    return Benchmark(benchmark, topic, benchmark, made("train"), made("validation"), sets)


def split(
    items: Sequence[OpenItem], shares: Mapping[str, float], *, seed: int, what: str = "questions"
) -> dict[str, list[OpenItem]]:
    """Items divided at random by shares that sum to 1; each question stands in one part only, whatever its id.

    Raises ValueError when a part would be empty.
    """
    once = list({item.question.casefold().strip(): item for item in reversed(items)}.values())[::-1]
    random.Random(f"split/{what}/{seed}").shuffle(once)
    cuts = [round(total * len(once)) for total in accumulate(shares.values(), initial=0.0)]
    parts = {part: once[start:end] for part, (start, end) in zip(shares, pairwise(cuts), strict=True)}
    if empty := [part for part, group in parts.items() if not group]:
        needed = round(1 / min(shares.values()))
        raise ValueError(
            f"{what}: {len(once)} questions are too few, none is left for {empty[0]}; give {needed} or more"
        )
    return parts


def choice(item: OpenItem, pool: Sequence[OpenItem], *, n: int = 3) -> ChoiceItem:
    """A multiple-choice question with `n` distractors and a refusal option, in an order that hangs on the item alone.

    Distractors are answers of the same subject and of like form (numbers beside numbers, length). Raises ValueError
    when the pool has too few other answers.
    """
    rng = random.Random(f"options/{item.id}")
    right, wrong = item.reference, _distractors(item, pool, rng)
    different = {normalise(text): text for text in reversed(wrong) if normalise(text) != normalise(right)}
    wrong = list(different.values())[::-1][:n]
    if len(wrong) < n:
        raise ValueError(f"{item.id}: only {len(wrong)} other answers for {n} distractors")
    options = [right, *wrong, REFUSAL_OPTION]
    rng.shuffle(options)
    answer, refusal = options.index(right), options.index(REFUSAL_OPTION)
    return ChoiceItem(item.id, item.question, tuple(options), answer, item.subject, refusal, "obj2")


def _distractors(item: OpenItem, pool: Sequence[OpenItem], rng: random.Random) -> list[str]:
    own = normalise(item.reference)
    answers = {other.reference: other.subject for other in pool if normalise(other.reference) != own}

    def unlike(answer: str) -> tuple:
        digits = any(c.isdigit() for c in answer) != any(c.isdigit() for c in item.reference)
        return digits, answers[answer] != item.subject, abs(len(answer.split()) - len(item.reference.split()))

    return sorted(rng.sample(sorted(answers), len(answers)), key=unlike)
