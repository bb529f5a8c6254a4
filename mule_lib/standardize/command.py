"""`mule standardize`: parameters to sources, generator, attacked model, data folder; what is asked is said before."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mule_lib import attacker
from mule_lib.generators import Generator, Reply, Request
from mule_lib.params import Standardize, repository_path
from mule_lib.standardize import store
from mule_lib.standardize.collect import Texts, drawn_chunks
from mule_lib.standardize.ledger import Ledger
from mule_lib.standardize.pipeline import Standardized, StandardizeError, standardize
from mule_lib.standardize.sources import Sources, load

CHARS_PER_TOKEN = 4  # of English, for the estimate before the start
PAIR_TOKENS = 60  # of a question, its answer and its quote


class Greedy:
    """A back end that decodes greedily only (local models): temperature and seed of a request are left out."""

    def __init__(self, generator: Generator):
        self.name, self._inner = generator.name, generator

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """As the generator behind it; equal requests get equal replies."""
        return self._inner.complete([replace(request, temperature=0.0, seed=None) for request in requests])


def run(params: Standardize, *, dry_run: bool = False, say=print) -> Standardized | None:
    """Load the sources, say what will be asked, ask, write the data folder; a dry run stops before it asks.

    Raises StandardizeError (data of other parameters in the folder, too little left), the loaders' errors and
    GeneratorError.
    """
    folder = repository_path(params.out_dir)
    store.check_folder(folder, params)
    sources = load(params)
    say(plan(sources, params))
    if dry_run:
        return None
    generator = back_end(params, folder)
    target = attacked(params) if params.attacker_rounds else None
    ledger = Ledger()
    try:
        made = standardize(sources, params, generator, ledger=ledger, target=target)
    except StandardizeError as error:
        store.write_books(folder, ledger)
        raise StandardizeError(f"{error} ({folder / 'rejected.jsonl'})") from None
    store.write(folder, made, params, sources, generator)
    counts = ", ".join(f"{row['step']} {row['accepted']} of {row['items']}" for row in ledger.summary())
    say(f"accepted: {counts}")
    say(f"data in {folder}: {len(made.loaded.records)} records to train on; yields in {folder / 'summary.md'}")
    return made


def plan(sources: Sources, params: Standardize) -> str:
    """How many requests are known before the start, and about how many tokens they take (estimated)."""
    forget, general = drawn_chunks(sources, params)
    fields = len(Texts.of(params.benchmark).taxonomy)
    concepts = fields * params.concepts_per_field
    passages = len(forget) + len(general)
    pairs = params.pairs_per_chunk * len(forget)
    read = sum(len(chunk.text) for chunk in (*forget, *general)) // CHARS_PER_TOKEN
    requests = passages + len(sources.questions) + fields + concepts
    later = round(params.anchor_share * pairs) + params.pairs_per_concept * concepts * (1 + params.verify)
    attacks = params.attacker_rounds * pairs // (3 * params.attacker_group)
    tokens = read + requests * 400 + passages * params.pairs_per_chunk * PAIR_TOKENS + (later + attacks) * 400
    return (
        f"{len(forget)} chunks to forget, {len(general)} general ones, {len(sources.questions)} multiple-choice "
        f"questions, {fields} fields of the taxonomy: {requests} requests, then at most about {later + attacks} more "
        f"(checks, counterparts, attacks); estimated {tokens / 1e6:.2f} million tokens, "
        f"budget {params.budget_tokens / 1e6:.2f} million"
    )


def back_end(params: Standardize, folder: Path) -> Generator:
    """The generator that `params` name, with its cache of replies. Raises GeneratorError in one line."""
    from mule_lib.generators.budget import PrintProgress

    cache = repository_path(params.cache_file) if params.cache_file else folder / "replies.jsonl"
    if params.generator == "replay":
        from mule_lib.generators.replay import Replay

        made = Replay(repository_path(params.replay_file), name=params.generator_model or None)
        return Greedy(made) if made.name.startswith("local:") else made
    more = {"cache": os.fspath(cache), "budget_tokens": params.budget_tokens, "report": PrintProgress()}
    if params.generator == "local":
        from mule_lib.generators.local import load_local

        return Greedy(load_local(params.generator_model, **more))
    from mule_lib.generators.openai_endpoint import OpenAIEndpoint

    return OpenAIEndpoint(params.generator_model, concurrency=params.concurrency, **more)


def attacked(params: Standardize) -> attacker.Target:
    """The model under attack, on a GPU where there is one."""
    import torch

    from mule_lib import models

    cuda = torch.cuda.is_available()
    model, tokenizer = models.load(params.attacker_target, dtype=torch.bfloat16 if cuda else torch.float32)
    return attacker.model_target(model.to("cuda" if cuda else "cpu"), tokenizer, max_new_tokens=params.attacker_tokens)
