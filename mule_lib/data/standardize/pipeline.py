"""`mule standardize` (Sections 3.2, 3.3): sources to pairs, each in one split; pairs to records, sets and a folder."""

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mule_lib import prompts
from mule_lib.data import Benchmark, records, save
from mule_lib.data.files import write_json, write_jsonl, write_text
from mule_lib.data.items import (
    ChoiceItem,
    EvaluationSets,
    OpenItem,
    Template,
    fill_template,
    in_turn,
    prefix_templates,
)
from mule_lib.data.published import RawText, articles, is_knowledge, read_set
from mule_lib.data.raw_formats import raw_records
from mule_lib.data.records import Record
from mule_lib.data.standardize import attacker, generators, pairs
from mule_lib.data.standardize.ask import PROMPTS, Job, Standardize, prompt_file
from mule_lib.data.standardize.checks import similarities
from mule_lib.data.standardize.chunks import Chunk, chunks
from mule_lib.data.standardize.pairs import Pair
from mule_lib.data.text import normalise
from mule_lib.params import repository_path

TRAINED = ("train", "validation")
# What each objective refuses, and what it opposes to that (Section 3.3).
ROLES = {"obj1": ("forget", "retain"), "obj2": ("forget", "neighbor"), "obj3": ("adversarial", "benign")}
MIN_CHUNK = 200
NEAR_DUPLICATE, SAME_ANSWER = 0.7, 0.42  # similarity from which a question repeats another, and one with its answer
SHOWN_CONCEPTS = 8  # neighbouring concepts named to the LLM that writes Obj2's counterparts
TARGET_TOKENS = 32  # that the attacked model writes
Parts = Mapping[str, list[Pair]]  # pairs by split
# A model's identity, and how it continues chats (the last message perhaps its own beginning) up to so many tokens.
LoadModel = Callable[[str], tuple[str, Callable[[list, int], list[str]]]]


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
        known = read_set("mmlu/test", p.mmlu_source)
        if p.benchmark == "muse_books":
            published = read_set("muse_books/forget", p.questions_source)
            return cls(read_set("muse_books/raw", p.forget_source), general, known, published=published)
        # Programs and dumps of several thousand characters have no open form, so they are not paid for.
        fit = [i for i in read_set("wmdp_cyber/questions", p.questions_source) if is_knowledge(i)]
        drawn = _sample(fit, p.questions, f"questions/{p.seed}")
        return cls(read_set("wmdp_cyber/forget", p.forget_source), general, known, questions=drawn)


class Standardized(NamedTuple):
    """A benchmark ready to be written; `raw` are its training records in the objectives' own formats."""

    benchmark: Benchmark
    raw: list[Record]
    tried: list[attacker.Tried]


def run(p: Standardize, *, load_model: LoadModel | None = None, dry_run: bool = False) -> Standardized | None:
    """Load the sources, say what will be asked, ask, write the data folder; a dry run stops before it asks.

    `load_model` serves `generator: local` and the model under attack. Raises ValueError, the loaders' errors and
    GeneratorError; an endpoint that cannot be asked is refused before the sources are read.
    """
    folder, job, target = repository_path(p.out_dir), Job(p, None), None
    check_folder(folder, p)
    kept = {"path": folder / "replies.jsonl", "budget_tokens": p.budget_tokens}
    if not dry_run and p.generator == "local":
        job.generator = generators.local(*load_model(p.generator_model), **kept)
    elif not dry_run:
        job.generator = generators.endpoint(p.generator_model, concurrency=p.concurrency, **kept)
        if not job.generator.kept:
            job.generator.probe()
    sources = Sources.load(p)
    forget, general = drawn_chunks(sources, p)
    print(
        f"{len(forget)} chunks to forget, {len(general)} general ones, {len(sources.questions)} questions, "
        f"{len(job.texts['taxonomy'])} fields of the taxonomy; budget {p.budget_tokens / 1e6:.2f} million tokens"
    )
    if dry_run:
        return None
    if p.attacker_rounds:
        _, write = load_model(p.attacker_target)

        def target(attacked):
            chats = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in attacked]
            return write(chats, TARGET_TOKENS)

    try:
        made = standardize(job, sources, target=target)
    finally:  # the books also of a standardization that failed
        write_jsonl(folder / "rejected.jsonl", job.rejected)
        write_text(folder / "summary.csv", job.summary().to_csv(index=False))
    write_standardized(folder, made, job, sources)
    print(f"data in {folder}: {len(made.benchmark.records)} records to train on; yields in {folder / 'summary.csv'}")
    return made


def check_folder(folder: Path, p: Standardize) -> None:
    """Raise ValueError where the folder holds data of other parameters, naming what differs."""
    file, now = folder / "standardize.json", p.identity()
    before = json.loads(file.read_text("utf-8"))["params"] if file.exists() else now
    if changed := [f"{key}: {before.get(key)!r} -> {now[key]!r}" for key in now if before.get(key) != now[key]]:
        what = f"out_dir={str(folder)!r} holds data of other parameters ({'; '.join(changed)})"
        raise ValueError(f"{what}; choose another out_dir")


def write_standardized(folder: Path, made: Standardized, job: Job, sources: Sources) -> None:
    """Write the benchmark, the attacker's history; last a header that says what all was made from."""
    save(folder, made.benchmark, raw=made.raw)
    if made.tried:
        write_jsonl(folder / "attacker.jsonl", map(asdict, made.tried))
    texts = {name: "".join(map(repr, each)) for name, each in vars(sources).items()}
    header = {
        "params": job.p.identity(),
        "generator": job.generator.name,
        "prompts": [prompt_file(name).id for name in PROMPTS],
        "sources": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
        "counts": made.benchmark.counts(),
        "raw": Counter(f"{record.group} as {record.prompt_id}" for record in made.raw),
    }
    write_json(folder / "standardize.json", header)


def standardize(job: Job, sources: Sources, *, target: attacker.Target | None = None) -> Standardized:
    """A benchmark from its sources: the same sources, parameters and replies give the same data.

    Raises ValueError where a part stays empty, for too few sources, or an attack without a `target`.
    """
    if job.p.attacker_rounds and target is None:
        raise ValueError(f"attacker_rounds={job.p.attacker_rounds}: needs a target model")
    parts = collect(job, sources)
    choices = pairs.choice_items(job, parts["neighbor/evaluation"])
    needed = [f"{kind}/{split}" for kind in (*ROLES, "general", "neighbor") for split in TRAINED]
    needed += ["general/evaluation", "attack", "evaluation"]
    if empty := [name for name in needed if not parts[name]] + ([] if choices else ["neighbor/evaluation"]):
        more = "ask for more (forget_chunks, general_articles, questions, concepts_per_field)"
        raise ValueError(f"nothing was accepted for {', '.join(empty)}; {more} or see why in rejected.jsonl")
    flat = list(chain(*job.texts["prefixes"]["train"].values()))
    attacked = [pair for split in TRAINED for pair in parts[f"obj3/{split}"]]
    tried = attacker.improve(job, attacked, flat, target) if job.p.attacker_rounds else []
    templates = {pair.id: template for pair, template in zip(attacked, cycle(flat), strict=False)}
    templates |= {name: one.template for name, one in attacker.best(tried).items()}
    made = _counterparts(job, parts, templates)
    train, validation = (list(_records(job, parts, made, templates, split)) for split in TRAINED)
    records.check([*train, *validation], where="train and validation")
    passages = {f"obj1/forget/{pair.id}": pair.passage for pair in parts["obj1/train"] if pair.passage}
    name, sets = job.p.benchmark, _sets(job, sources, parts, choices, tried)
    benchmark = Benchmark(name, job.texts["topic"], name, train, validation, sets)
    return Standardized(benchmark, raw_records(train, passages), tried)


def drawn_chunks(sources: Sources, p: Standardize) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks to forget, drawn at random from all, and one chunk of each general text."""
    sizes = {"max_chars": p.chunk_chars, "min_chars": min(MIN_CHUNK, p.chunk_chars)}
    forget = _sample(chunks(sources.forget, **sizes), p.forget_chunks, f"chunks/{p.seed}")
    each = [(text.id, chunks([text], **sizes)) for text in sources.general]
    general = [random.Random(f"general/{p.seed}/{name}").choice(own) for name, own in each if own]
    return forget, general


def collect(job: Job, sources: Sources) -> Parts:
    """All pairs by split: those with a source and neighbours, split by source and without near duplicates.

    Every forget chunk, article and concept serves one split and one objective, so Obj3's questions are not Obj1's.
    """
    p, topic, restricted, part_of = job.p, job.texts["topic"], job.texts["restricted"], {}
    trained = {"train": 1 - 2 * p.evaluation_share - p.validation_share, "validation": p.validation_share}

    def divide(what: str, units: Sequence[str], kinds: Sequence[str], **evaluation: float) -> None:
        shares = {f"{kind}/{split}": share / len(kinds) for kind in kinds for split, share in trained.items()}
        part_of.update(assign(units, shares | evaluation, seed=p.seed, what=what))

    forget, general = drawn_chunks(sources, p)
    shares = {} if sources.questions else {"attack": p.evaluation_share}
    divide("forget_chunks", [chunk.id for chunk in forget], list(ROLES), **shares)
    shares = {"general/evaluation": p.evaluation_share}
    divide("general_articles", [chunk.id for chunk in general], ["general"], **shares)
    shares = {"evaluation": 1, "attack": 1} if sources.questions else {}
    divide("questions", [item.id for item in sources.questions], [], **shares)
    focus, world = f"what is particular to {topic}", "what is worth knowing about the world"
    placed = [
        *pairs.passage_pairs(job, forget, "forget pairs", focus),
        *pairs.passage_pairs(job, general, "general pairs", world, restricted),
        *pairs.open_pairs(job, sources.questions),
    ]
    concepts = pairs.neighbor_concepts(job)
    divide("neighbor concepts", list(concepts), ["neighbor"], **{"neighbor/evaluation": 2 * p.evaluation_share})
    placed += pairs.concept_pairs(job, concepts)
    placed = [replace(pair, split=part_of[pair.unit]) for pair in placed]
    # What evaluates stays, what trains yields to it; the sort is stable.
    kinds = (*ROLES, "general", "neighbor")
    late = {f"{kind}/{split}": at for at, split in enumerate(("validation", "train"), 1) for kind in kinds}
    placed.sort(key=lambda pair: late.get(pair.split, 0))
    # MMLU as well: a retained fact may not be one that is asked there.
    published = [("evaluation", i.id, i.question, i.reference) for i in sources.published]
    published += [("mmlu", i.id, i.question, i.options[i.answer]) for i in sources.mmlu]
    published = [Pair(name, "published", *text, source=name, split=split) for split, name, *text in published]
    parts = defaultdict(list)
    for pair in (*published, *without_duplicates(job, placed, before=published)):
        parts[pair.split].append(pair)
    return parts


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
    shuffled = random.Random(f"split/{what}/{seed}").sample(units, len(units))
    return dict(zip(shuffled, (part for part, count in counts.items() for _ in range(count)), strict=True))


def without_duplicates(job: Job, pairs: Sequence[Pair], *, before: Sequence[Pair]) -> list[Pair]:
    """Drop what nearly repeats an earlier question that is kept, within its split or across, or one of `before`.

    Same answers need less similarity. Earlier ones win, so put evaluation before training.
    """
    every = [*before, *pairs]
    answers, kept = np.array([normalise(pair.answer) for pair in every]), np.zeros(len(every), bool)
    for i, alike in similarities([pair.question for pair in every]):
        needed = np.where(answers == answers[i], SAME_ANSWER, NEAR_DUPLICATE)
        hits = np.flatnonzero(kept & (alike >= needed))
        kept[i] = not len(hits)
        if len(hits) and i >= len(before):
            pair, of = every[i], every[hits[alike[hits].argmax()]]
            reason = "duplicate_within" if of.split == pair.split else "duplicate_across"
            item = {"unit": pair.id, "question": pair.question, "answer": pair.answer, "split": pair.split}
            job.reject(pair.step, (reason, f"{of.split}: {of.question}"), **item)
    return [pair for pair, keep in zip(pairs, kept[len(before) :], strict=True) if keep]


def _counterparts(job: Job, parts: Parts, templates: Mapping[str, str]) -> dict[str, Pair]:
    """Counterparts by the id of the pair to refuse, for a share of the pairs of each objective and split (3.3)."""
    concepts = list(dict.fromkeys(pair.subject for pair in parts["neighbor/train"]))[:SHOWN_CONCEPTS]
    before, made = list(chain(*parts.values())), {}
    for objective in ROLES:
        every = [parts[f"{objective}/{split}"] for split in TRAINED]
        # The sources were shuffled, so the first ones are as good as any.
        first = [pair for own in every for pair in own[: round(job.p.anchor_share * len(own))]]
        prefixes = {pair.id: _prefix(job, pair, templates.get(pair.id, "")) for pair in first}
        made |= pairs.counterparts(job, first, objective, concepts=", ".join(concepts), prefixes=prefixes)
    kept = without_duplicates(job, list(made.values()), before=before)
    return {unit: pair for unit, pair in made.items() if pair in kept}


def _records(
    job: Job, parts: Parts, made: Mapping[str, Pair], templates: Mapping[str, str], split: str
) -> Iterator[Record]:
    """Records of a split: what is refused with its counterparts, then the pool that is answered.

    Without a counterpart there is no anchor: training draws a partner from the pool, which is never drawn if all have
    one. In obj3 one opening stands before a question to refuse and one to answer, so there everyone has a partner.
    """
    refusals = prompts.texts("refusals")["refusals"]

    def record(pair: Pair, objective: str, side: int, unit: str, anchor: str | None = None, template="") -> Record:
        role, other = ROLES[objective][side], ROLES[objective][1 - side]
        name = f"{objective}/{role}/{unit}"
        refusal = random.Random(f"refusal/{job.p.seed}/{name}").choice(refusals)  # however many records there are
        prefix, partner = _prefix(job, pair, template) or None, anchor and f"{objective}/{other}/{anchor}"
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
    others = cycle(pair for both in zip(general, near, strict=False) for pair in both)
    for pair in parts[f"obj3/{split}"]:
        for side, each in enumerate((pair, made.get(pair.id) or next(others))):
            yield record(each, "obj3", side, pair.id, pair.id, templates[pair.id])


def _prefix(job: Job, pair: Pair, template: str) -> str:
    return fill_template(template, question=pair.question, topic=job.texts["topic"], answer=pair.answer)


def _sets(
    job: Job, sources: Sources, parts: Parts, choices: Sequence[ChoiceItem], tried: Sequence[attacker.Tried]
) -> EvaluationSets:
    topic, name = job.texts["topic"], job.p.benchmark
    seen, held_out = (prefix_templates(name, part) for part in ("train", "held_out"))
    # As many as there are families' own, the best first: a per-sample attack finds one for every question.
    gains = sorted((one for one in attacker.best(tried).values() if one.round), key=lambda one: -one.score)
    unique = list(dict.fromkeys(one.template for one in gains))
    seen += [Template("optimised", template) for template in unique[: len(seen)]]

    def items(part: str, kind: str, subject: str = topic) -> tuple[OpenItem, ...]:
        return tuple(OpenItem(f"{kind}/{p.id}", p.question, p.answer, p.subject or subject) for p in parts[part])

    return EvaluationSets(
        benchmark=name,
        topic=topic,
        forget=tuple(sources.published) or items("evaluation", "forget"),
        general=items("general/evaluation", "general", "Wikipedia"),
        neighbor=tuple(choices),
        attack=in_turn(items("attack", "attack"), held_out, topic=topic, each=2),
        mmlu=tuple(sources.mmlu),
        controls=in_turn(items("neighbor/evaluation", "control"), held_out, topic=topic, control=True),
        attack_seen=in_turn(items("attack", "attack"), seen, topic=topic),
    )


def _sample(items: Sequence, count: int, seed: str) -> list:
    """Up to `count` of the items, drawn at random, in their order."""
    places = random.Random(seed).sample(range(len(items)), min(count, len(items)))
    return [items[place] for place in sorted(places)]
