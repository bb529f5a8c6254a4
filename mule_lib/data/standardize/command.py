"""`mule standardize`: parameters to sources, generator and attacked model, and a data folder with its books."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from mule_lib.data import save
from mule_lib.data.files import write_json, write_jsonl, write_text
from mule_lib.data.standardize import attacker, generators
from mule_lib.data.standardize.ask import COLUMNS, PROMPTS, Job, Standardize, prompt_file
from mule_lib.data.standardize.generators import CachedGenerator
from mule_lib.data.standardize.pipeline import Sources, Standardized, StandardizeError, drawn_chunks, standardize
from mule_lib.params import repository_path

HEADER = "standardize.json"
CHARS_PER_TOKEN, PAIR_TOKENS, PROMPT_TOKENS = 4, 60, 400  # for the estimate before the start
# Continues chats (messages, the last perhaps the assistant's own beginning) greedily, up to so many tokens each.
Write = Callable[[list, int], list[str]]


def run(
    p: Standardize,
    *,
    load_model: Callable[[str], tuple[str, Write]] | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> Standardized | None:
    """Load the sources, say what will be asked, ask, write the data folder; a dry run stops before it asks.

    `load_model` gives a local model's identity and how it writes, for `generator: local` and for the model under
    attack. Raises StandardizeError, the loaders' errors and GeneratorError; an endpoint that cannot be asked is refused
    before the sources are read.
    """
    folder = repository_path(p.out_dir)
    check_folder(folder, p)
    generator = None if dry_run else back_end(p, folder, load_model)
    if generator and not generator.cache.replies:
        generator.check()
    sources = Sources.load(p)
    say(plan(sources, p))
    if dry_run:
        return None
    target = _target(load_model(p.attacker_target)[1], p.attacker_tokens) if p.attacker_rounds else None
    job = Job(p, generator)
    try:
        made = standardize(job, sources, target=target)
    except StandardizeError as error:
        write_books(folder, job)
        raise StandardizeError(f"{error} ({folder / 'rejected.jsonl'})") from None
    write(folder, made, job, sources)
    counts = job.summary().itertuples()
    say(f"accepted: {', '.join(f'{row.step} {row.accepted} of {row.items}' for row in counts)}")
    say(f"data in {folder}: {len(made.benchmark.records)} records to train on; yields in {folder / 'summary.md'}")
    return made


def plan(sources: Sources, p: Standardize) -> str:
    """How many requests are known before the start, and about how many tokens they take (estimated)."""
    forget, general = drawn_chunks(sources, p)
    fields, passages = len(Job(p, None).texts["taxonomy"]), len(forget) + len(general)
    concepts, to_refuse = fields * p.concepts_per_field, p.pairs_per_chunk * len(forget)
    requests = passages + len(sources.questions) + fields + concepts
    later = round(p.anchor_share * to_refuse) + p.pairs_per_concept * concepts * (1 + p.verify)
    later += p.attacker_rounds * to_refuse // 3
    tokens = sum(len(chunk.text) for chunk in (*forget, *general)) // CHARS_PER_TOKEN
    tokens += (requests + later) * PROMPT_TOKENS + passages * p.pairs_per_chunk * PAIR_TOKENS
    return (
        f"{len(forget)} chunks to forget, {len(general)} general ones, {len(sources.questions)} multiple-choice "
        f"questions, {fields} fields of the taxonomy: {requests} requests, then at most about {later} more "
        f"(checks, counterparts, attacks); estimated {tokens / 1e6:.2f} million tokens, "
        f"budget {p.budget_tokens / 1e6:.2f} million"
    )


def back_end(p: Standardize, folder: Path, load_model: Callable[[str], tuple[str, Write]] | None) -> CachedGenerator:
    """The generator that `p` names, with its cache of replies. Raises GeneratorError in one line."""
    if p.generator == "replay":
        return generators.replay(repository_path(p.replay_file), p.generator_model)
    cache = generators.ReplyCache(repository_path(p.cache_file) if p.cache_file else folder / "replies.jsonl")
    options = {"cache": cache, "budget_tokens": p.budget_tokens, "progress": True}
    if p.generator == "local":
        return generators.local(*load_model(p.generator_model), **options)
    return generators.endpoint(p.generator_model, concurrency=p.concurrency, **options)


def _target(write: Write, most: int) -> attacker.Target:
    def continue_all(attacks) -> list[str]:
        roles = "user", "assistant"
        return write([[{"role": r, "content": c} for r, c in zip(roles, a, strict=True)] for a in attacks], most)

    return continue_all


def check_folder(folder: Path, p: Standardize) -> None:
    """Raise StandardizeError where the folder holds data of other parameters, naming what differs."""
    file = folder / HEADER
    if not file.exists():
        return
    try:
        before, now = json.loads(file.read_text("utf-8"))["params"], p.identity()
    except (ValueError, KeyError):
        raise StandardizeError(f"{file}: not readable; delete the folder or choose another out_dir") from None
    changed = [f"{key}: {before.get(key)!r} -> {now[key]!r}" for key in now if before.get(key) != now[key]]
    if changed:
        what = f"out_dir={str(folder)!r} holds data of other parameters ({'; '.join(changed)})"
        raise StandardizeError(f"{what}; choose another out_dir")


def write(folder: Path, made: Standardized, job: Job, sources: Sources) -> None:
    """Write train, raw, validation, evaluation/*, the attacker's history and the books, and the header last."""
    save(folder, made.benchmark, raw=made.raw)
    if made.tried:
        write_jsonl(folder / "attacker.jsonl", map(asdict, made.tried))
        write_text(folder / "attacker.csv", attacker.rounds_table(made.tried).to_csv(index=False))
    write_books(folder, job)
    write_json(folder / HEADER, provenance(made, job, sources))


def write_books(folder: Path, job: Job) -> None:
    """Write rejected.jsonl and the yields (summary.csv, summary.md); also what is left when a standardization fails."""
    write_jsonl(folder / "rejected.jsonl", job.rejected)
    table, reasons = job.summary(), Counter(row["reason"] for row in job.rejected).most_common()
    write_text(folder / "summary.csv", table.to_csv(index=False))
    both = table[COLUMNS], pd.DataFrame(reasons, columns=["rejected because", "items"])
    write_text(folder / "summary.md", "\n\n".join(each.to_markdown(index=False) for each in both) + "\n")


def provenance(made: Standardized, job: Job, sources: Sources) -> dict[str, Any]:
    """What the data was made from: parameters, generator, prompts, a hash of each source, tokens, counts.

    Without times and machines, so that the same replies give the same file.
    """
    hashes = {
        name: {"n": len(each), "sha256": hashlib.sha256("".join(map(repr, each)).encode()).hexdigest()}
        for name, each in vars(sources).items()
    }
    return {
        "params": job.p.identity(),
        "generator": job.generator.name,
        "prompts": [prompt_file(name).id for name in PROMPTS],
        "sources": hashes,
        "tokens": dict(job.tokens),
        "counts": made.benchmark.counts(),
    }
