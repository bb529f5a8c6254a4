"""Section 3.2 and 3.3 from end to end: sources to training records, validation records and evaluation sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mule_lib import attacker, prompt_files
from mule_lib.data import Benchmark, records
from mule_lib.data.items import EvaluationSets
from mule_lib.data.records import Record
from mule_lib.generators import Generator
from mule_lib.params import Standardize
from mule_lib.raw_formats import raw_records
from mule_lib.standardize import anchors, build, neighbors
from mule_lib.standardize.collect import TRAINED, Collected, Texts, collect, limits
from mule_lib.standardize.ledger import Ledger, Pair
from mule_lib.standardize.refusals import refusal_for, refusal_pool
from mule_lib.standardize.sources import Sources
from mule_lib.standardize.splits import Placed, without_duplicates

REFUSAL_OPTION = "I do not know"  # the paper's own example of a refusal option (5.1)
SHOWN_CONCEPTS = 8  # neighbouring concepts named to the LLM that writes Obj2's counterparts


class StandardizeError(ValueError):
    """The data cannot be completed; one line that says what is lacking. Replies so far are in the cache."""


@dataclass(frozen=True)
class Standardized:
    """A benchmark ready to be written, the books of how it came about, and what the attacker tried.

    `raw` are the training records in the objectives' own formats.
    """

    loaded: Benchmark
    raw: list[Record]
    ledger: Ledger
    tried: list[attacker.Tried] = field(default_factory=list)


def standardize(
    sources: Sources,
    p: Standardize,
    generator: Generator,
    *,
    ledger: Ledger,
    target: attacker.Target | None = None,
) -> Standardized:
    """Everything of a benchmark from its sources; the same sources, parameters and replies give the same data.

    `ledger` holds the books also where this fails; `target` is the model under attack, needed where
    `p.attacker_rounds` is not 0. Raises StandardizeError where too
    many requests failed or a part stays empty, ValueError for too few sources; GeneratorError passes through.
    """
    if p.attacker_rounds and target is None:
        raise ValueError(f"attacker_rounds={p.attacker_rounds}: needs a target model")
    words = Texts.of(p.benchmark)
    pool = refusal_pool(generator, ledger, count=p.refusals, restricted=words.restricted, seed=p.seed)
    found = collect(sources, p, generator, ledger)
    _check_parts(found, ledger, p, published=bool(sources.published))
    choices = neighbors.choice_items(
        found.neighbor["evaluation"], generator, ledger, refusal=REFUSAL_OPTION, count=p.distractors, seed=p.seed
    )
    if not choices:
        raise StandardizeError("neighbor: no multiple-choice item was accepted; see rejected.jsonl for the reasons")
    templates, tried = _templates(found, words, p, generator, ledger, target)
    made = _counterparts(found, words, templates, p, generator, ledger)
    _check_failed(ledger, p.max_failed)

    def make(pair: Pair, name: str, objective: str, role: str, **more) -> Record:
        return Record(
            id=name,
            objective=objective,
            role=role,
            question=pair.question,
            answer=pair.answer,
            refusal=refusal_for(name, pool, seed=p.seed),
            source=pair.source,
            span=pair.span,
            generator=generator.name,
            prompt_id=pair.prompt_id,
            **more,
        )

    both = {}
    for split in TRAINED:
        made_here = _records(found, made, templates, words, split, make)
        both[split] = [_in_split(record, split) for record in made_here]
        records.check(both[split], where=split)
    sets = _sets(sources, found, words, p, tuple(choices), [*tried])
    loaded = Benchmark(p.benchmark, words.topic, p.benchmark, both["train"], both["validation"], sets)
    raw = raw_records(loaded.records, found.passages("train"), seed=p.seed)
    return Standardized(loaded, raw, ledger, tried)


def _templates(
    found: Collected,
    words: Texts,
    p: Standardize,
    generator: Generator,
    ledger: Ledger,
    target: attacker.Target | None,
) -> tuple[dict[str, str], list[attacker.Tried]]:
    """A prefix template for every attacked pair: the training families in turn, improved where an attacker runs."""
    flat = [template for family in words.families["train"].values() for template in family]
    pairs = [pair for split in TRAINED for pair in found.forget["obj3", split]]
    queries = [attacker.Query(pair.id, pair.question, pair.answer) for pair in pairs]
    size = p.attacker_group if p.attacker_rounds else 1
    grouped = attacker.groups(queries, flat, size=size)
    chosen = {name: group.template for name, group in grouped.items()}
    tried: list[attacker.Tried] = []
    if p.attacker_rounds:
        tried = attacker.improve(
            grouped,
            generator,
            target,
            ledger,
            topic=words.topic,
            rounds=p.attacker_rounds,
            candidates=p.attacker_candidates,
            seed=p.seed,
        )
        chosen = {name: one.template for name, one in attacker.best(tried).items()}
    return {query.id: chosen[name] for name, group in grouped.items() for query in group.queries}, tried


def _counterparts(
    found: Collected,
    words: Texts,
    templates: dict[str, str],
    p: Standardize,
    generator: Generator,
    ledger: Ledger,
) -> dict[str, Pair]:
    """Counterparts by the id of the pair to refuse, for a share of the pairs of each objective and split (3.3)."""
    concepts = ", ".join(concept.name for concept in found.concepts[:SHOWN_CONCEPTS])
    made: dict[str, Pair] = {}
    placed: list[Placed] = []
    for (objective, split), pairs in found.forget.items():
        # The sources were shuffled, so the first ones are as good as any.
        asked = pairs[: round(p.anchor_share * len(pairs))]
        more = {}
        if objective == "obj2":
            more = {pair.id: {"concepts": concepts} for pair in asked}
        elif objective == "obj3":
            filled = (build.prefix_for(pair, templates[pair.id], topic=words.topic) for pair in asked)
            more = {pair.id: {"prefix": prefix} for pair, prefix in zip(asked, filled, strict=True)}
        here = anchors.contrasts(
            asked,
            generator,
            ledger,
            objective=objective,
            topic=words.topic,
            restricted=words.restricted,
            limits=limits(p),
            more=more,
        )
        if p.verify:
            step = f"{objective} anchors verified"
            passed = neighbors.verified(list(here.values()), generator, ledger, step=step, topic=words.topic)
            here = {name: pair for name, pair in here.items() if pair in passed}
        made |= here
        placed += [Placed(pair, f"{objective}/{split}") for pair in here.values()]
    fixed = [Placed(one.pair, one.split, fixed=True) for one in found.placed]
    kept = {one.pair.id for one in without_duplicates([*fixed, *placed], ledger, threshold=p.near_duplicate)}
    return {name: pair for name, pair in made.items() if pair.id in kept}


def _records(found: Collected, made: dict[str, Pair], templates, words: Texts, split: str, make) -> list[Record]:
    general, near = found.general[split], found.neighbor[split]
    out: list[Record] = []
    for objective in ("obj1", "obj2"):
        pool = general if objective == "obj1" else near
        out += build.plain_records(found.forget[objective, split], made, pool, objective=objective, make=make)
    # One opening needs a question to refuse and one to answer behind it, so here everyone has a partner.
    mixed = [pair for both in zip(general, near, strict=False) for pair in both]
    partnered = anchors.with_partners(found.forget["obj3", split], made, mixed)
    out += build.attacked_records(partnered, templates, topic=words.topic, make=make)
    return out


def _in_split(record: Record, split: str) -> Record:
    return Record(**{**record.__dict__, "split": split})


def _sets(
    sources: Sources,
    found: Collected,
    words: Texts,
    p: Standardize,
    choices: tuple,
    tried: Sequence[attacker.Tried],
) -> EvaluationSets:
    families = [
        (family, template) for family, group in words.families[p.evaluation_prefixes].items() for template in group
    ]
    if tried and p.evaluation_prefixes == "train":
        # As many as there are families' own, the best first: a per-sample attack finds one for every question.
        gains = sorted((one for one in attacker.best(tried).values() if one.round), key=lambda one: -one.score)
        unique = list(dict.fromkeys(one.template for one in gains))
        families += [("optimised", template) for template in unique[: len(families)]]
    own = {"topic": words.topic}
    return EvaluationSets(
        benchmark=p.benchmark,
        topic=words.topic,
        forget=(*sources.published, *build.open_items(found.evaluation, kind="forget", subject=words.topic)),
        general=build.open_items(found.general["evaluation"], kind="general", subject="Wikipedia"),
        neighbor=choices,
        attack=build.attack_items(found.attack, families, control=False, **own),
        mmlu=tuple(sources.mmlu),
        controls=build.attack_items(found.neighbor["evaluation"], families, control=True, **own),
    )


def _check_parts(found: Collected, ledger: Ledger, p: Standardize, *, published: bool) -> None:
    _check_failed(ledger, p.max_failed)
    sizes = {f"{o} {split}": len(pairs) for (o, split), pairs in found.forget.items()}
    sizes |= {f"general {split}": len(pairs) for split, pairs in found.general.items()}
    sizes |= {f"neighbor {split}": len(pairs) for split, pairs in found.neighbor.items()}
    sizes |= {"attack": len(found.attack)} | ({} if published else {"evaluation": len(found.evaluation)})
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise StandardizeError(
            f"no pair was accepted for {', '.join(empty)}; ask for more (forget_chunks, general_articles, questions, "
            "concepts_per_field) or see rejected.jsonl for the reasons"
        )


def _check_failed(ledger: Ledger, most: float) -> None:
    asked = sum(count["asked"] for count in ledger.counts.values())
    failed = sum(count["failed"] for count in ledger.counts.values())
    if asked and failed / asked > most:
        first = next(row["detail"] for row in ledger.rejected if row["reason"] == "llm_failed")
        raise StandardizeError(
            f"{failed} of {asked} requests have no usable reply (max_failed={most}), the first: {first}; "
            "start again: what was answered is in the cache"
        )


def prompts_used() -> list[str]:
    """Ids of all prompt files for LLMs, for provenance."""
    return [prompt_files.prompt_id(name) for name in prompt_files.names() if name.startswith("llm/")]
