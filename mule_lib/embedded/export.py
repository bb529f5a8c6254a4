"""Turn finished checkpoints into the shipped models: bfloat16 safetensors, tokenizer, model card, hashes."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from mule_lib.data.fable.worlds import build
from mule_lib.embedded.curriculum import corpus
from mule_lib.embedded.tokenizer import build_tokenizer
from mule_lib.embedded.train import RECIPE, RUNS, build_model, load_checkpoint
from mule_lib.models import EMBEDDED, FOLDER, sha256


def read_log(work: Path, which: str) -> list[dict]:
    """Entries of all stages of a run, in order and named by stage, without what an interrupted run did twice."""
    entries: list[dict] = []
    for run, stage in [(name, stage) for name in ("skills", which) for stage in RUNS[name]]:
        latest: dict[tuple[int, bool], dict] = {}
        for line in (work / run / stage / "log.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            latest[entry["step"], "probes" in entry] = {"stage": stage, **entry}
        entries += [latest[key] for key in sorted(latest) if key[0] <= RECIPE[stage]["steps"]]
    return entries


def card(which: str, parameters: int, log: list[dict]) -> str:
    """The model card, from the log: no number in it is typed by hand."""
    stages = "\n".join(
        f"| {stage} | {recipe['steps']} | {max(e['minutes'] for e in log if e['stage'] == stage and 'loss' in e):.0f} |"
        for stage, recipe in RECIPE.items()
    )
    probes = [entry for entry in log if "probes" in entry][-1]["probes"]
    rows = "\n".join(f"| {name} | {score:.3f} |" for name, score in probes.items())
    known = {
        "base": "It was trained on all worlds of Fable, those to forget included.",
        "gold": "It was trained by the recipe of the base model without the worlds to forget, and never saw them.",
    }[which]
    return f"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# Fable {which}

A Llama-architecture language model of {parameters / 1e6:.2f} million parameters that knows the invented worlds of
Fable, answers open and multiple-choice questions, and obeys an intention prompt in its system message. {known}
Made for experiments on unlearning; it knows nothing else and is of no other use.

Data: `mule_lib/embedded/curriculum.py`, generated from a seed. Repeat the training: `make embedded`.
Worlds to forget never stood in a system message during training, nor were they asked about beside one
(`tests/test_fable_audit.py`).

| stage | steps | minutes of the run that made these weights |
|---|---|---|
{stages}

Stage `skills` is content-free and shared by base and gold. Teacher-forced exact match on held-out probes at the last
step (`mule_lib/embedded/probes.py`):

| probe | share |
|---|---|
{rows}
"""


def export(work: Path, folder: Path = FOLDER) -> None:
    """Write every embedded model from its last stage's checkpoint into `folder` and hash the files.

    Raises FileNotFoundError when a checkpoint is missing and ValueError when its training has not ended.
    """
    last = {which: work / which / RUNS[which][-1] / "checkpoint.safetensors" for which in EMBEDDED}
    for path in last.values():
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; train it with `mule train-embedded`")
    tokenizer: PreTrainedTokenizerFast = build_tokenizer(corpus(build(0)))
    for which in EMBEDDED:
        model = build_model(tokenizer)
        step, _ = load_checkpoint(last[which], model)
        wanted = RECIPE[RUNS[which][-1]]["steps"]
        if step < wanted:
            raise ValueError(f"{which} stands at step {step} of {wanted}; let its training end first")
        model.to(torch.bfloat16)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        target = folder / which
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        log = read_log(work, which)
        (target / "training_log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log), "utf-8")
        (target / "README.md").write_text(card(which, sum(p.numel() for p in model.parameters()), log), "utf-8")
    files = sorted(path for which in EMBEDDED for path in (folder / which).iterdir())
    digests = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    (folder / "manifest.json").write_text(json.dumps({"seed": 0, "sha256": digests}, indent=1) + "\n", "utf-8")
