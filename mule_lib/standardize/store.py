"""A standardization on disk: data, books and provenance in one folder, which is never overwritten by another one."""

import hashlib
import json
from pathlib import Path
from typing import Any

from mule_lib import attacker
from mule_lib.data import RAW_FILE, records, save
from mule_lib.data.files import write_json, write_jsonl, write_text
from mule_lib.generators import Generator
from mule_lib.params import Standardize
from mule_lib.standardize.ledger import Ledger, as_csv, as_markdown
from mule_lib.standardize.pipeline import Standardized, StandardizeError, prompts_used
from mule_lib.standardize.sources import Sources

HEADER = "standardize.json"


def check_folder(folder: Path, params: Standardize) -> None:
    """Raise StandardizeError where the folder holds data of other parameters, naming what differs."""
    file = folder / HEADER
    if not file.exists():
        return
    try:
        before = json.loads(file.read_text("utf-8"))["params"]
    except (ValueError, KeyError):
        raise StandardizeError(f"{file}: not readable; delete the folder or choose another out_dir") from None
    now = params.identity()
    changed = [f"{key}: {before.get(key)!r} -> {now.get(key)!r}" for key in now if before.get(key) != now.get(key)]
    if changed:
        raise StandardizeError(
            f"out_dir={str(folder)!r} holds data of other parameters ({'; '.join(changed)}); choose another out_dir"
        )


def provenance(params: Standardize, sources: Sources, generator: Generator, made: Standardized) -> dict[str, Any]:
    """What the data was made from: parameters, generator, prompt files, a hash of each source, tokens, counts.

    Without times and machines, so that the same replies give the same file.
    """
    texts = {"forget": sources.forget, "general": sources.general}
    items = {"mmlu": sources.mmlu, "published": sources.published, "questions": sources.questions}
    return {
        "params": params.identity(),
        "generator": generator.name,
        "prompts": prompts_used(),
        "sources": {name: {"n": len(each), "sha256": _hash(each)} for name, each in (texts | items).items()},
        "tokens": dict(made.ledger.tokens),
        "counts": made.loaded.counts(),
    }


def write(
    folder: Path, made: Standardized, params: Standardize, sources: Sources, generator: Generator
) -> None:  # fmt: skip
    """Write train, raw, validation, evaluation/*, the attacker's history and the books, and the header last."""
    save(folder, made.loaded)
    records.write(folder / RAW_FILE, made.raw)
    if made.tried:
        write_jsonl(folder / "attacker.jsonl", attacker.as_rows(made.tried))
        write_text(folder / "attacker.csv", as_csv(attacker.rounds_table(made.tried)))
    write_books(folder, made.ledger)
    write_json(folder / HEADER, provenance(params, sources, generator, made))


def write_books(folder: Path, ledger: Ledger) -> None:
    """Write rejected.jsonl and the yields (summary.csv, summary.md); also what is left when a standardization fails."""
    write_jsonl(folder / "rejected.jsonl", ledger.rejected)
    rows = ledger.summary()
    write_text(folder / "summary.csv", as_csv(rows))
    write_text(folder / "summary.md", as_markdown(rows))


def _hash(values) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode())
    return digest.hexdigest()
