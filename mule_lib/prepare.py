"""Unlearning data and evaluation sets from questions that exist already (RWKU, TOFU), by rule and without an LLM.

MUSE-Books and WMDP-Cyber go through `standardize` instead: they publish no neighbours, and too few questions to
be divided between training and evaluation.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mule_lib import prompts
from mule_lib.benchmarks.raw import RawText
from mule_lib.data import Benchmark
from mule_lib.data.attacks import fill_template
from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem
from mule_lib.data.records import Record, check
from mule_lib.data.text import normalise

GENERATOR = "prepare rules"
REFUSAL_OPTION = "I do not know"
# Questions to forget: training, validation, Forget, ASR. Queries under attack are disjoint from all of the others.
SHARES = {"train": 0.5, "validation": 0.1, "eval": 0.2, "prefill": 0.2}
PARTS = {part: share for part, share in SHARES.items() if part != "prefill"}


class PrepareError(ValueError):
    """There are too few questions of some kind; one line that says which and how many are needed."""


@dataclass(frozen=True)
class Questions:
    """What `assemble` starts from; `general` and `neighbor` are answered, `forget` is refused, `mmlu` only evaluated.

    `right_and_wrong` gives ready options for a neighbour's id; where it has none, other neighbours' answers distract.
    """

    forget: Sequence[OpenItem]
    neighbor: Sequence[OpenItem]
    general: Sequence[OpenItem]
    mmlu: Sequence[ChoiceItem]
    refusals: Sequence[str]
    right_and_wrong: dict[str, tuple[str, Sequence[str]]] | None = None


def assemble(
    benchmark: str, topic: str, questions: Questions, *, prompt_name: str = "", seed: int = 0, distractors: int = 3
) -> Benchmark:
    """Records of all three objectives with anchors, and the five evaluation sets; the same for the same seed.

    Each item to refuse has a partner to answer: general (obj1), neighbour (obj2), one of both under the same prefix
    (obj3). Prefixes are the training families of the prompt texts, as in Fable. Raises PrepareError when a part would
    be empty.
    """
    name = prompt_name or benchmark
    prefixes = [
        (family, template) for family, group in prompts.texts(name)["prefixes"]["train"].items() for template in group
    ]
    if not questions.refusals or not questions.mmlu:
        raise PrepareError(f"{benchmark}: needs refusals and MMLU questions; one of them is empty")
    forget = split(questions.forget, SHARES, seed=seed, what="forget")
    neighbor = split(questions.neighbor, PARTS, seed=seed, what="neighbour")
    general = split(questions.general, PARTS, seed=seed, what="general")
    both = [
        _records(part, forget[part], neighbor[part], general[part], questions.refusals, prefixes, topic, seed)
        for part in ("train", "validation")
    ]
    ready = questions.right_and_wrong or {}
    sets = EvaluationSets(
        benchmark=benchmark,
        topic=topic,
        forget=tuple(forget["eval"]),
        general=tuple(general["eval"]),
        neighbor=tuple(choice(i, questions.neighbor, ready.get(i.id), n=distractors) for i in neighbor["eval"]),
        attack=_attacks(forget["prefill"], prefixes, topic, control=False),
        mmlu=tuple(questions.mmlu),
        controls=_attacks(neighbor["eval"], prefixes, topic, control=True),
    )
    return Benchmark(benchmark, topic, name, *both, sets)


def split(
    items: Sequence[OpenItem], shares: dict[str, float], *, seed: int, what: str = "questions"
) -> dict[str, list[OpenItem]]:
    """Items divided at random by shares that sum to 1; each question stands in one part only, whatever its id.

    Raises PrepareError when a part would be empty.
    """
    once = list({item.question.casefold().strip(): item for item in reversed(items)}.values())[::-1]
    random.Random(f"split/{what}/{seed}").shuffle(once)
    cuts, total, parts = [0], 0.0, {}
    for part, share in shares.items():
        total += share
        cuts.append(round(total * len(once)))
        parts[part] = once[cuts[-2] : cuts[-1]]
        if not parts[part]:
            needed = round(1 / min(shares.values()))
            raise PrepareError(
                f"{what}: {len(once)} questions are too few, none is left for {part}; give {needed} or more"
            )
    return parts


def choice(
    item: OpenItem, pool: Sequence[OpenItem], ready: tuple[str, Sequence[str]] | None = None, *, n: int = 3
) -> ChoiceItem:
    """A multiple-choice question with `n` distractors and a refusal option, in an order that hangs on the item alone.

    Distractors are `ready`, or answers of the same subject and of like form (numbers beside numbers, length). Raises
    PrepareError when the pool has too few other answers.
    """
    rng = random.Random(f"options/{item.id}")
    right, wrong = ready or (item.reference, _distractors(item, pool, rng))
    different = {normalise(text): text for text in reversed(wrong) if normalise(text) != normalise(right)}
    wrong = list(different.values())[::-1][:n]
    if len(wrong) < n:
        raise PrepareError(f"{item.id}: only {len(wrong)} other answers for {n} distractors")
    options = [right, *wrong, REFUSAL_OPTION]
    rng.shuffle(options)
    return ChoiceItem(
        item.id,
        item.question,
        tuple(options),
        options.index(right),
        item.subject,
        options.index(REFUSAL_OPTION),
        "obj2",
    )


def title_questions(texts: Sequence[RawText], *, words: int = 60) -> list[OpenItem]:
    """A question for each article, what it is about, asked by its opening with the title's words taken out.

    Articles whose opening has no room for a question after that are left out.
    """
    items = []
    for text in texts:
        hidden = {word.casefold().strip("().,") for word in text.title.split()} - {"of", "the", "a", "in", "and", "at"}
        shown = [w if w.casefold().strip("().,;:'\"s") not in hidden else "…" for w in text.text.split()[:words]]
        if len(shown) < words // 2 or not hidden:
            continue
        items.append(OpenItem(text.id, f"What is described here? {' '.join(shown)}", text.title, "general"))
    return items


def _distractors(item: OpenItem, pool: Sequence[OpenItem], rng: random.Random) -> list[str]:
    own = normalise(item.reference)
    answers = {other.reference: other.subject for other in pool if normalise(other.reference) != own}
    drawn = rng.sample(sorted(answers), len(answers))
    near = len(item.reference.split())

    def unlike(answer: str) -> tuple:
        digits = any(c.isdigit() for c in answer) != any(c.isdigit() for c in item.reference)
        return digits, answers[answer] != item.subject, abs(len(answer.split()) - near)

    return sorted(drawn, key=unlike)


def _records(part, forget, neighbor, general, refusals, prefixes, topic, seed) -> list[Record]:
    rng = random.Random(f"records/{part}/{seed}")
    records: list[Record] = []

    def pair(objective: str, roles: tuple[str, str], refused: OpenItem, answered: OpenItem, template: str = "") -> None:
        ids = [f"{objective}/{role}/{part}/{len(records) // 2:04d}" for role in roles]
        for name, partner, role, item in zip(ids, reversed(ids), roles, (refused, answered), strict=True):
            filled = fill_template(template, question=item.question, topic=topic, answer=item.reference)
            records.append(
                Record(
                    id=name,
                    objective=objective,
                    role=role,
                    question=item.question,
                    answer=item.reference,
                    refusal=rng.choice(refusals),
                    prefix=filled or None,
                    anchor=partner,
                    source=item.id,
                    generator=GENERATOR,
                    split=part,
                )
            )

    for i, item in enumerate(forget):
        pair("obj1", ("forget", "retain"), item, rng.choice(general))
        pair("obj2", ("forget", "neighbor"), item, rng.choice(neighbor))
        benign = rng.choice(general if i % 2 else neighbor)
        pair("obj3", ("adversarial", "benign"), item, benign, prefixes[i % len(prefixes)][1])
    check(records)
    return records


def _attacks(items: Sequence[OpenItem], prefixes, topic: str, *, control: bool) -> tuple[AttackItem, ...]:
    made = []
    for i, item in enumerate(items):
        family, template = prefixes[i % len(prefixes)]
        prefix = fill_template(template, question=item.question, topic=topic, answer=item.reference)
        made.append(AttackItem(item.id, item.question, item.reference, prefix, family, item.subject, control))
    return tuple(made)
