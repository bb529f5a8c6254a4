"""Sections 3.2 and 3.3 from end to end: sources to pairs, each in one split; pairs to records and evaluation sets."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mule_lib.data import Benchmark, records
from mule_lib.data.attacks import attack, fill_template
from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem
from mule_lib.data.published import RawText, articles, is_knowledge, read
from mule_lib.data.raw_formats import Passage, raw_records
from mule_lib.data.records import Record
from mule_lib.data.standardize import attacker, pairs
from mule_lib.data.standardize.ask import Job, Standardize
from mule_lib.data.standardize.checks import find_duplicates
from mule_lib.data.standardize.chunks import Chunk, chunks
from mule_lib.data.standardize.pairs import Pair

TRAINED = ("train", "validation")
# What each objective refuses, and what it opposes to that (Section 3.3).
ROLES = {"obj1": ("forget", "retain"), "obj2": ("forget", "neighbor"), "obj3": ("adversarial", "benign")}
MIN_CHUNK = 200
SHOWN_CONCEPTS = 8  # neighbouring concepts named to the LLM that writes Obj2's counterparts


class StandardizeError(ValueError):
    """The data cannot be completed; one line that says what is lacking. Replies so far are in the cache."""


@dataclass(frozen=True)
class Sources:
    """`published` open questions evaluate as they are; `questions` are multiple choice and need an open form first."""

    forget: Sequence[RawText]
    general: Sequence[RawText]
    mmlu: Sequence[ChoiceItem]
    published: Sequence[OpenItem] = ()
    questions: Sequence[ChoiceItem] = ()

    @classmethod
    def load(cls, p: Standardize) -> "Sources":
        """The sources of `p.benchmark` from the Hub, files or folders; raises DataFileError or DataAccessError."""
        general = articles(p.general_source, count=p.general_articles, seed=p.seed)
        known = read(f"mmlu/{p.mmlu_split}", p.mmlu_source)
        if p.benchmark == "muse_books":
            published = read("muse_books/forget", p.questions_source)
            return cls(read("muse_books/raw", p.forget_source), general, known, published=published)
        # Programs and dumps of several thousand characters have no open form, so they are not paid for.
        fit = [i for i in read("wmdp_cyber/questions", p.questions_source) if is_knowledge(i)]
        drawn = _sample(fit, p.questions, f"questions/{p.seed}")
        return cls(read("wmdp_cyber/forget", p.forget_source), general, known, questions=drawn)


@dataclass(frozen=True)
class Collected:
    """Pairs by split, all pairs with the published ones, names of concepts and the asked chunks by id."""

    parts: Mapping[str, list[Pair]]
    everything: list[Pair]
    concepts: dict[str, str]
    chunks: dict[str, Chunk]

    def passages(self, split: str) -> dict[str, Passage]:
        """The chunk behind each of Obj1's pairs of a split, by the id of the pair's record."""
        passages = {}
        for part, role in zip((f"obj1/{split}", f"general/{split}"), ROLES["obj1"], strict=True):
            for pair in self.parts[part]:
                chunk = self.chunks[_unit(pair)]
                start, end = pair.span
                passages[f"obj1/{role}/{pair.id}"] = Passage(chunk.text, (start - chunk.start, end - chunk.start))
        return passages


@dataclass(frozen=True)
class Standardized:
    """A benchmark ready to be written; `raw` are its training records in the objectives' own formats."""

    benchmark: Benchmark
    raw: list[Record]
    tried: list[attacker.Tried] = field(default_factory=list)


def standardize(job: Job, sources: Sources, *, target: attacker.Target | None = None) -> Standardized:
    """Everything of a benchmark from its sources; the same sources, parameters and replies give the same data.

    `target` is the model under attack, needed where `attacker_rounds` is not 0. Raises StandardizeError where too many
    requests failed or a part stays empty, ValueError for too few sources; GeneratorError passes through. The job's
    books are filled also where this fails.
    """
    if job.p.attacker_rounds and target is None:
        raise ValueError(f"attacker_rounds={job.p.attacker_rounds}: needs a target model")
    refusals = pairs.refusal_pool(job)
    collected = collect(job, sources)
    _check_parts(job, collected, published=bool(sources.published))
    choices = pairs.choice_items(job, collected.parts["neighbor/evaluation"])
    if not choices:
        raise StandardizeError("neighbor: no multiple-choice item was accepted; see rejected.jsonl for the reasons")
    templates, tried = _templates(job, collected, target)
    made = _counterparts(job, collected, templates)
    _check_failed(job)
    both = {split: list(_records(job, collected.parts, made, templates, refusals, split)) for split in TRAINED}
    for split, each in both.items():
        records.check(each, where=split)
    sets = _sets(job, sources, collected, tuple(choices), tried)
    name = job.p.benchmark
    benchmark = Benchmark(name, job.texts["topic"], name, both["train"], both["validation"], sets)
    return Standardized(benchmark, raw_records(benchmark.records, collected.passages("train"), seed=job.p.seed), tried)


def drawn_chunks(sources: Sources, p: Standardize) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks to forget, drawn at random from all, and one chunk of each general text. Raises ValueError for none."""
    sizes = {"max_chars": p.chunk_chars, "min_chars": min(MIN_CHUNK, p.chunk_chars)}
    forget = _sample(chunks(sources.forget, **sizes), p.forget_chunks, f"chunks/{p.seed}")
    each = [(text.id, chunks([text], **sizes)) for text in sources.general]
    general = [random.Random(f"general/{p.seed}/{name}").choice(own) for name, own in each if own]
    if not forget or not general:
        what = "general text" if forget else "text to forget"
        raise ValueError(f"no {what} of {sizes['min_chars']} characters or more; give longer texts")
    return forget, general


def collect(job: Job, sources: Sources) -> Collected:
    """All pairs with a source, neighbours with theirs, split by source and without near duplicates.

    Every forget chunk, article and concept serves one split and one objective, so Obj3's questions are not Obj1's.
    """
    p, topic, restricted = job.p, job.texts["topic"], job.texts["restricted"]
    forget_chunks, general_chunks = drawn_chunks(sources, p)
    trained = {"train": 1 - 2 * p.evaluation_share - p.validation_share, "validation": p.validation_share}
    parts = {f"{objective}/{split}": share / len(ROLES) for objective in ROLES for split, share in trained.items()}
    if not (sources.published or sources.questions):
        parts["evaluation"] = p.evaluation_share
    if not sources.questions:
        parts["attack"] = p.evaluation_share
    part_of = assign([chunk.id for chunk in forget_chunks], parts, seed=p.seed, what="forget_chunks")
    shares = {**trained, "evaluation": p.evaluation_share}
    split_of = assign([chunk.id for chunk in general_chunks], shares, seed=p.seed, what="general_articles")
    focus, known = f"what is particular to {topic}", [topic, *restricted]
    forget = list(pairs.passage_pairs(job, forget_chunks, "forget pairs", focus, known=known))
    focus = "what is worth knowing about the world"
    general = list(pairs.passage_pairs(job, general_chunks, "general pairs", focus, restricted=restricted))
    opened = list(pairs.open_pairs(job, sources.questions))
    halves = {"evaluation": 1, "attack": 1} if sources.questions else {}
    half_of = assign([item.id for item in sources.questions], halves, seed=p.seed, what="questions")
    concepts = pairs.neighbor_concepts(job)
    near = pairs.verified(job, list(pairs.concept_pairs(job, concepts)), step="neighbor verified")
    shares["evaluation"] = 2 * p.evaluation_share
    concept_split = assign(list(concepts), shares, seed=p.seed, what="neighbor concepts")
    published = [Pair(i.id, "published", i.question, i.reference, i.id, split="evaluation") for i in sources.published]
    # MMLU as well: a retained fact may not be one that is asked there.
    published += [Pair(i.id, "published", i.question, i.options[i.answer], i.id, split="mmlu") for i in sources.mmlu]
    placed = [
        *(replace(pair, split=half_of[pair.id]) for pair in opened),
        *(replace(pair, split=part_of[_unit(pair)]) for pair in forget),
        *(replace(pair, split=f"general/{split_of[_unit(pair)]}") for pair in general),
        *(replace(pair, split=f"neighbor/{concept_split[pair.source]}") for pair in near),
    ]
    # What evaluates stays, what trains yields to it; the sort is stable.
    placed.sort(key=lambda pair: (pair.split.endswith(TRAINED), pair.split.endswith("train")))
    placed, by_part = without_duplicates(job, placed, before=published), defaultdict(list)
    for pair in placed:
        by_part[pair.split].append(pair)
    asked = {chunk.id: chunk for chunk in (*forget_chunks, *general_chunks)}
    return Collected(by_part, [*published, *placed], concepts, asked)


def assign(units: Sequence[str], shares: Mapping[str, float], *, seed: int, what: str) -> dict[str, str]:
    """Each unit's part, drawn once: `shares` are met as closely as whole units allow, with one unit or more for each.

    Raises ValueError where there are fewer units than parts.
    """
    if len(units) < len(shares):
        parts = ", ".join(shares)
        raise ValueError(f"{what}: {len(units)} of them cannot serve {len(shares)} parts ({parts}); give more")
    exact = {part: len(units) * share / sum(shares.values()) for part, share in shares.items()}
    counts = {part: max(1, int(size)) for part, size in exact.items()}
    while sum(counts.values()) != len(units) and counts:
        step = 1 if sum(counts.values()) < len(units) else -1
        free = [part for part in counts if step > 0 or counts[part] > 1]
        counts[max(free, key=lambda part: step * (exact[part] - counts[part]))] += step
    shuffled = random.Random(f"split/{what}/{seed}").sample(list(units), len(units))
    return dict(zip(shuffled, (part for part, count in counts.items() for _ in range(count)), strict=True))


def without_duplicates(job: Job, pairs: Sequence[Pair], *, before: Sequence[Pair]) -> list[Pair]:
    """Drop what repeats an earlier question, within its split or across, or one of `before`; book what stays.

    Earlier ones win, so put evaluation before training.
    """
    every = [*before, *pairs]
    repeats = find_duplicates([(pair.question, pair.answer) for pair in every], threshold=job.p.near_duplicate)
    kept = []
    for pair, of in zip(pairs, repeats[len(before) :], strict=True):
        if of is None:
            kept.append(pair)
            job.accept(pair.step)
            continue
        reason = "duplicate_within" if every[of].split == pair.split else "duplicate_across"
        item = {"unit": pair.id, "question": pair.question, "answer": pair.answer, "split": pair.split}
        job.reject(pair.step, (reason, f"{every[of].split}: {every[of].question}"), **item)
    return kept


def _templates(
    job: Job, collected: Collected, target: attacker.Target | None
) -> tuple[dict[str, str], list[attacker.Tried]]:
    """A prefix template for every attacked pair: the training families in turn, improved where an attacker runs."""
    flat = [template for family in job.texts["prefixes"]["train"].values() for template in family]
    attacked = [pair for split in TRAINED for pair in collected.parts[f"obj3/{split}"]]
    tried = attacker.improve(job, attacked, flat, target) if job.p.attacker_rounds else []
    started = {pair.id: template for pair, template in zip(attacked, itertools.cycle(flat), strict=False)}
    return started | {name: one.template for name, one in attacker.best(tried).items()}, tried


def _counterparts(job: Job, collected: Collected, templates: Mapping[str, str]) -> dict[str, Pair]:
    """Counterparts by the id of the pair to refuse, for a share of the pairs of each objective and split (3.3)."""
    concepts = {"concepts": ", ".join(list(collected.concepts.values())[:SHOWN_CONCEPTS])}
    made: dict[str, Pair] = {}
    for objective in ROLES:
        for split in TRAINED:
            own = collected.parts[f"{objective}/{split}"]
            # The sources were shuffled, so the first ones are as good as any.
            first, more = own[: round(job.p.anchor_share * len(own))], {}
            if objective == "obj2":
                more = dict.fromkeys((pair.id for pair in first), concepts)
            elif objective == "obj3":
                more = {pair.id: {"prefix": _prefix(job, pair, templates[pair.id])} for pair in first}
            made |= pairs.counterparts(job, first, objective=objective, more=more)
    kept = without_duplicates(job, list(made.values()), before=collected.everything)
    return {unit: pair for unit, pair in made.items() if pair in kept}


def _records(
    job: Job, parts: Mapping[str, list[Pair]], made: Mapping[str, Pair], templates: Mapping, refusals: list, split: str
) -> Iterator[Record]:
    """Records of a split: what is refused with its counterparts, then the pool that is answered.

    Pairs of obj1 and obj2 without a counterpart and the pool have no anchor: training draws the one beside the other at
    random. If all had one, the pool would never be drawn. In obj3 one opening stands before a question to refuse and
    before one to answer, so there everyone has a partner.
    """

    def record(pair: Pair, objective: str, side: int, unit: str, anchor: str | None = None, template="") -> Record:
        role, other = ROLES[objective][side], ROLES[objective][1 - side]
        name = f"{objective}/{role}/{unit}"
        refusal = random.Random(f"refusal/{job.p.seed}/{name}").choice(refusals)  # however many records there are
        prefix = _prefix(job, pair, template) if template else None
        partner = f"{objective}/{other}/{anchor}" if anchor else None
        origin = pair.source, pair.span, job.generator.name, pair.prompt_id
        return Record(name, objective, role, pair.question, pair.answer, refusal, prefix, partner, *origin, split)

    general, near = parts[f"general/{split}"], parts[f"neighbor/{split}"]
    for objective, pool in (("obj1", general), ("obj2", near)):
        for pair in parts[f"{objective}/{split}"]:
            other = made.get(pair.id)
            yield record(pair, objective, 0, pair.id, other and other.id)
            if other:
                yield record(other, objective, 1, other.id, pair.id)
        yield from (record(pair, objective, 1, pair.id) for pair in pool)
    mixed = [pair for both in zip(general, near, strict=False) for pair in both]
    for pair, partner in pairs.with_partners(parts[f"obj3/{split}"], made, mixed):
        for side, each in enumerate((pair, partner)):
            yield record(each, "obj3", side, pair.id, pair.id, templates[pair.id])


def _prefix(job: Job, pair: Pair, template: str) -> str:
    return fill_template(template, question=pair.question, topic=job.texts["topic"], answer=pair.answer)


def _sets(
    job: Job, sources: Sources, collected: Collected, choices: tuple[ChoiceItem, ...], tried: Sequence[attacker.Tried]
) -> EvaluationSets:
    topic, families = job.texts["topic"], job.texts["prefixes"][job.p.evaluation_prefixes]
    templates = [(family, template) for family, group in families.items() for template in group]
    if tried and job.p.evaluation_prefixes == "train":
        # As many as there are families' own, the best first: a per-sample attack finds one for every question.
        gains = sorted((one for one in attacker.best(tried).values() if one.round), key=lambda one: -one.score)
        unique = list(dict.fromkeys(one.template for one in gains))
        templates += [("optimised", template) for template in unique[: len(templates)]]

    def items(part: str, kind: str, subject: str) -> tuple[OpenItem, ...]:
        own = collected.parts[part]
        return tuple(OpenItem(f"{kind}/{p.id}", p.question, p.answer, p.subject or subject) for p in own)

    def attacks(part: str, kind: str) -> tuple[AttackItem, ...]:
        # The n-th control has the template of the n-th attack.
        both = zip(items(part, kind, topic), itertools.cycle(templates), strict=False)
        control = {"topic": topic, "control": kind == "control"}
        return tuple(attack(item, template, family=family, **control) for item, (family, template) in both)

    return EvaluationSets(
        benchmark=job.p.benchmark,
        topic=topic,
        forget=(*sources.published, *items("evaluation", "forget", topic)),
        general=items("general/evaluation", "general", "Wikipedia"),
        neighbor=choices,
        attack=attacks("attack", "attack"),
        mmlu=tuple(sources.mmlu),
        controls=attacks("neighbor/evaluation", "control"),
    )


def _check_parts(job: Job, collected: Collected, *, published: bool) -> None:
    _check_failed(job)
    names = [f"{kind}/{split}" for kind in (*ROLES, "general", "neighbor") for split in TRAINED]
    names += ["general/evaluation", "neighbor/evaluation", "attack", *([] if published else ["evaluation"])]
    if empty := [name for name in names if not collected.parts[name]]:
        raise StandardizeError(
            f"no pair was accepted for {', '.join(empty)}; ask for more (forget_chunks, general_articles, questions, "
            "concepts_per_field) or see rejected.jsonl for the reasons"
        )


def _check_failed(job: Job) -> None:
    asked = sum(count["asked"] for count in job.counts.values())
    failed = [row["detail"] for row in job.rejected if row["reason"] == "llm_failed"]
    if len(failed) > job.p.max_failed * asked:
        raise StandardizeError(
            f"{len(failed)} of {asked} requests have no usable reply (max_failed={job.p.max_failed}), the first: "
            f"{failed[0]}; start again: what was answered is in the cache"
        )


def _sample(items: Sequence, count: int, seed: str) -> list:
    """Up to `count` of the items, drawn at random, in their order."""
    places = random.Random(seed).sample(range(len(items)), min(count, len(items)))
    return [items[place] for place in sorted(places)]


def _unit(pair: Pair) -> str:
    return pair.id.rsplit("#", 1)[0]
