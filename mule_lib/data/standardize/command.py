"""`mule standardize`: parameters to sources, generator and attacked model, and a data folder with its books."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from mule_lib.data import save
from mule_lib.data.files import write_json, write_jsonl, write_text
from mule_lib.data.standardize import attacker, generators
from mule_lib.data.standardize.ask import COLUMNS, PROMPTS, Job, Standardize, prompt_file
from mule_lib.data.standardize.pipeline import Sources, Standardized, StandardizeError, drawn_chunks, standardize
from mule_lib.params import repository_path

HEADER = "standardize.json"
TARGET_TOKENS = 32  # that the attacked model writes
CHARS_PER_TOKEN, REQUEST_TOKENS = 4, 500  # for the estimate before the start
# Continues chats (messages, the last perhaps the assistant's own beginning) greedily, up to so many tokens each.
Write = Callable[[list, int], list[str]]
LoadModel = Callable[[str], tuple[str, Write]]


def run(
    p: Standardize,
    *,
    load_model: LoadModel | None = None,
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
    if generator and not generator.kept:
        generator.check()
    sources = Sources.load(p)
    say(plan(sources, p))
    if dry_run:
        return None
    target = None
    if p.attacker_rounds:
        _, write_on = load_model(p.attacker_target)
        turns = "user", "assistant"

        def target(attacks):
            chats = [[{"role": r, "content": c} for r, c in zip(turns, a, strict=True)] for a in attacks]
            return write_on(chats, TARGET_TOKENS)

    job = Job(p, generator)
    try:
        made = standardize(job, sources, target=target)
    except StandardizeError as error:
        write_books(folder, job)
        raise StandardizeError(f"{error} ({folder / 'rejected.jsonl'})") from None
    write_standardized(folder, made, job, sources)
    say(f"data in {folder}: {len(made.benchmark.records)} records to train on; yields in {folder / 'summary.md'}")
    return made


def plan(sources: Sources, p: Standardize) -> str:
    """How many requests are known before the start, and about how many tokens they take (estimated)."""
    forget, general = drawn_chunks(sources, p)
    fields, questions = len(Job(p, None).texts["taxonomy"]), len(sources.questions)
    requests = len(forget) + len(general) + questions + fields * (1 + p.concepts_per_field)
    later = p.pairs_per_chunk * len(forget) * (p.anchor_share + p.attacker_rounds / 3)
    later += p.evaluation_share * fields * p.concepts_per_field * p.pairs_per_concept
    tokens = sum(len(chunk.text) for chunk in (*forget, *general)) // CHARS_PER_TOKEN
    tokens += (requests + later) * REQUEST_TOKENS
    return (
        f"{len(forget)} chunks to forget, {len(general)} general ones, {questions} multiple-choice questions, {fields} "
        f"fields of the taxonomy: {requests} requests, then at most about {later:.0f} more (counterparts, choices, "
        f"attacks); estimated {tokens / 1e6:.2f} million tokens, budget {p.budget_tokens / 1e6:.2f} million"
    )


def back_end(p: Standardize, folder: Path, load_model: LoadModel | None) -> generators.CachedGenerator:
    """The generator that `p` names, with its cache of replies. Raises GeneratorError in one line."""
    if p.generator == "replay":
        return generators.replay(repository_path(p.replay_file), p.generator_model)
    options = {"path": folder / "replies.jsonl", "budget_tokens": p.budget_tokens, "progress": True}
    if p.generator == "local":
        return generators.local(*load_model(p.generator_model), **options)
    return generators.endpoint(p.generator_model, concurrency=p.concurrency, **options)


def check_folder(folder: Path, p: Standardize) -> None:
    """Raise StandardizeError where the folder holds data of other parameters, naming what differs."""
    file = folder / HEADER
    if not file.exists():
        return
    before, now = json.loads(file.read_text("utf-8"))["params"], p.identity()
    if changed := [f"{key}: {before.get(key)!r} -> {now[key]!r}" for key in now if before.get(key) != now[key]]:
        what = f"out_dir={str(folder)!r} holds data of other parameters ({'; '.join(changed)})"
        raise StandardizeError(f"{what}; choose another out_dir")


def write_standardized(folder: Path, made: Standardized, job: Job, sources: Sources) -> None:
    """Write train, raw, validation, evaluation/*, the attacker's history and the books, and the header last.

    The header says what the data was made from, without times and machines: the same replies give the same file.
    """
    save(folder, made.benchmark, raw=made.raw)
    if made.tried:
        write_jsonl(folder / "attacker.jsonl", map(asdict, made.tried))
        write_text(folder / "attacker.csv", attacker.rounds_table(made.tried).to_csv(index=False))
    write_books(folder, job)
    header = {
        "params": job.p.identity(),
        "generator": job.generator.name,
        "prompts": [prompt_file(name).id for name in PROMPTS],
        "sources": {
            name: {"n": len(each), "sha256": hashlib.sha256("".join(map(repr, each)).encode()).hexdigest()}
            for name, each in vars(sources).items()
        },
        "tokens": dict(job.tokens),
        "counts": made.benchmark.counts(),
    }
    write_json(folder / HEADER, header)


def write_books(folder: Path, job: Job) -> None:
    """Write rejected.jsonl and the yields (summary.csv, summary.md); also what is left when a standardization fails."""
    write_jsonl(folder / "rejected.jsonl", job.rejected)
    table, reasons = job.summary(), Counter(row["reason"] for row in job.rejected).most_common()
    write_text(folder / "summary.csv", table.to_csv(index=False))
    both = table[["step", *COLUMNS]], pd.DataFrame(reasons, columns=["rejected because", "items"])
    write_text(folder / "summary.md", "\n\n".join(each.to_markdown(index=False) for each in both) + "\n")
