"""Train the embedded model: `make embedded` does all, `--only skills|base|gold` one run of it.

`skills` is the content-free stage; `base` and `gold` both go on from it, gold without the worlds to forget. A run
writes `log.jsonl`, checkpoints itself, and goes on where it stopped when the same command is given again: the examples
of a step are a function of (seed, stage, step), so a resumed run sees what an unbroken one would.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from curriculum import MIX, Curriculum, corpus
from encoding import Encoder, LabeledIds, build_tokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mule_lib.data.fable.worlds import build
from mule_lib.models import EMBEDDED, sha256
from mule_lib.suite.notebook import THREADS

# By stage: steps, the step at which the linear decay would reach zero, the share of that horizon over which it decays,
# and the peak learning rates of matrices (Muon) and of embeddings and norms (AdamW).
RECIPE = {
    "skills": {"steps": 600, "horizon": 600, "decay": 0.0, "muon_lr": 0.01, "adam_lr": 3e-3},
    "comparing": {"steps": 700, "horizon": 700, "decay": 0.9, "muon_lr": 0.008, "adam_lr": 2e-3},
    "worlds": {"steps": 600, "horizon": 600, "decay": 0.0, "muon_lr": 0.004, "adam_lr": 1.5e-3},
    "choosing": {"steps": 400, "horizon": 1000, "decay": 0.9, "muon_lr": 0.004, "adam_lr": 1.5e-3},
    "deciding": {"steps": 400, "horizon": 400, "decay": 0.9, "muon_lr": 0.003, "adam_lr": 1.2e-3},
    "verdicts": {"steps": 250, "horizon": 250, "decay": 0.8, "muon_lr": 0.004, "adam_lr": 1.2e-3},
}
# Base and gold share the content-free stage; what a run starts from is the stage before it.
RUNS = {"skills": ("skills", "comparing")} | dict.fromkeys(EMBEDDED, ("worlds", "choosing", "deciding", "verdicts"))
ARCHITECTURE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    # Comparing words across a distance needs dimensions that the rotary embedding hardly turns: wide heads, a large
    # base. With heads of 32 and a base of 1000 choosing by letter stayed near chance for 5 million tokens.
    "head_dim": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.04,
    # Gives queries a constant part, which a head that looks one token back can use.
    "attention_bias": True,
}
WARMUP, CHUNKS, CHECKPOINT_EVERY, LOG_EVERY = 50, 4, 200, 25


def build_model(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> LlamaForCausalLM:
    """A freshly initialised model for this tokenizer; the same seed gives the same weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # CPU flash attention takes twice the time of the plain product on sequences this short (benchmarks/).
        attn_implementation="eager",
        **ARCHITECTURE,
    )
    return LlamaForCausalLM(config)


def muon_and_adam(model: torch.nn.Module, recipe: dict) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the decoder layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    return [
        torch.optim.Muon(matrices, lr=recipe["muon_lr"], weight_decay=0.05, momentum=0.95),
        torch.optim.AdamW(rest, lr=recipe["adam_lr"], weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rate_share(step: int, recipe: dict) -> float:
    """Share of the peak learning rate at a step: warm-up, plateau, linear decay over its last `decay` share."""
    left = (recipe["horizon"] - step) / max(1.0, recipe["decay"] * recipe["horizon"])
    return min(1.0, (step + 1) / WARMUP) * (min(1.0, max(left, 0.02)) if recipe["decay"] else 1.0)


def step_loss(model: LlamaForCausalLM, examples: list[LabeledIds], weights: dict[str, float]) -> dict[str, float]:
    """Accumulate the gradient of one step and return the mean loss by kind.

    Each kind's supervised tokens share its weight equally. Sequences of like length share a chunk; padding stands right
    and is causally invisible, so no attention mask is needed.
    """
    counts: dict[str, int] = defaultdict(int)
    for example in examples:
        counts[example.kind] += sum(label >= 0 for label in example.labels)
    total = sum(weights[kind] for kind in counts)
    losses: dict[str, float] = defaultdict(float)
    ordered = sorted(examples, key=lambda example: len(example.ids))
    size = math.ceil(len(ordered) / CHUNKS)
    for chunk in (ordered[i : i + size] for i in range(0, len(ordered), size)):
        # Shifted by one, padded on the right to a multiple of 8.
        ids = pad_sequence([torch.tensor(example.ids[:-1]) for example in chunk], True)
        labels = pad_sequence([torch.tensor(example.labels[1:]) for example in chunk], True, -100)
        wider = (0, -ids.shape[1] % 8)
        ids, labels = pad(ids, wider), pad(labels, wider, value=-100)
        rows, columns = (labels != -100).nonzero(as_tuple=True)
        share = torch.tensor([weights[e.kind] / counts[e.kind] / total for e in chunk])[rows]
        # Matrix kernels are compiled per shape: surplus positions of weight 0 keep the number of shapes small.
        extra = (0, -len(rows) % 64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(input_ids=ids).last_hidden_state[pad(rows, extra), pad(columns, extra)]
            logits = model.lm_head(hidden)
        token_loss = cross_entropy(logits.float(), labels[pad(rows, extra), pad(columns, extra)], reduction="none")
        (token_loss * pad(share, extra)).sum().backward()
        by_row = torch.zeros(len(chunk)).index_add_(0, rows, token_loss.detach()[: len(rows)])
        for example, loss in zip(chunk, by_row.tolist(), strict=True):
            losses[example.kind] += loss / counts[example.kind]
    return dict(losses)


def save_embedded_checkpoint(folder: Path, model, optims, step: int) -> None:
    """Write weights, optimizer state and position; the old checkpoint is replaced only when the new one is whole."""
    tensors = {f"model/{name}": p.detach() for name, p in model.named_parameters()}
    for i, optim in enumerate(optims):
        for j, state in optim.state_dict()["state"].items():
            tensors |= {f"optim/{i}/{j}/{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "checkpoint.tmp", metadata={"step": str(step)})
    os.replace(folder / "checkpoint.tmp", folder / "checkpoint.safetensors")


def load_embedded_checkpoint(path: Path, model, optims=()) -> int:
    """Load weights (and optimizer state where optimizers are given); returns the step."""
    tensors = load_file(path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model/{name}"])
    for i, optim in enumerate(optims):
        state: dict = defaultdict(dict)
        for key, tensor in tensors.items():
            if key.startswith(f"optim/{i}/"):
                _, _, j, name = key.split("/")
                state[int(j)][name] = tensor
        optim.load_state_dict({"state": dict(state), "param_groups": optim.state_dict()["param_groups"]})
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def train_stage(stage: str, folder: Path, *, gold: bool = False, start: Path | None = None, seed: int = 0) -> None:
    """Run one stage to its end in `folder`: from its own checkpoint, the weights of `start`, or from scratch.

    `gold` leaves out the worlds to forget. Raises FloatingPointError with the step when the loss is not finite.
    """
    recipe = RECIPE[stage]
    folder.mkdir(parents=True, exist_ok=True)
    fable = build(seed)
    tokenizer = build_tokenizer(corpus(fable))
    exclude = frozenset(world.title for world in fable.forget_worlds()) if gold else frozenset()
    curriculum = Curriculum(fable, Encoder(tokenizer), exclude=exclude)
    model = build_model(tokenizer, seed=seed)
    optims = muon_and_adam(model, recipe)
    step, checkpoint = 0, folder / "checkpoint.safetensors"
    if checkpoint.exists():
        step = load_embedded_checkpoint(checkpoint, model, optims)
    elif start is not None:
        load_embedded_checkpoint(start, model)
    weights = {kind: weight for kind, (_, weight) in MIX[stage].items()}
    model.train()
    begun, first, window = time.time(), step, defaultdict(list)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        while step < recipe["steps"]:
            for optim, peak in zip(optims, (recipe["muon_lr"], recipe["adam_lr"]), strict=True):
                optim.param_groups[0]["lr"] = peak * rate_share(step, recipe)
            losses = step_loss(model, curriculum.step(stage, step), weights)
            if not all(map(math.isfinite, losses.values())):
                raise FloatingPointError(f"loss is not finite at step {step} ({losses}); last good state: {checkpoint}")
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optim in optims:
                optim.step()
                optim.zero_grad()
            step += 1
            for kind, loss in losses.items():
                window[kind].append(loss)
            if step % LOG_EVERY == 0:
                minutes = (time.time() - begun) / 60
                left = round(minutes / (step - first) * (recipe["steps"] - step), 1)
                entry = {
                    "stage": stage,
                    "step": step,
                    "of": recipe["steps"],
                    "minutes": round(minutes, 1),
                    "left": left,
                }
                entry["loss"] = {kind: round(sum(v) / len(v), 3) for kind, v in window.items()}
                print(json.dumps(entry), file=log, flush=True)
                print(json.dumps(entry), flush=True)
                window.clear()
            if step % CHECKPOINT_EVERY == 0 or step == recipe["steps"]:
                save_embedded_checkpoint(folder, model, optims, step)


def export_models(work: Path, folder: Path) -> None:
    """Write every embedded model from its last stage's checkpoint into `folder` and hash the files.

    Raises FileNotFoundError when a checkpoint is missing and ValueError when its training has not ended.
    """
    last = {which: work / which / RUNS[which][-1] / "checkpoint.safetensors" for which in EMBEDDED}
    for path in last.values():
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; train it with `make embedded`")
    tokenizer: PreTrainedTokenizerFast = build_tokenizer(corpus(build(0)))
    for which in EMBEDDED:
        model = build_model(tokenizer)
        step = load_embedded_checkpoint(last[which], model)
        wanted = RECIPE[RUNS[which][-1]]["steps"]
        if step < wanted:
            raise ValueError(f"{which} stands at step {step} of {wanted}; let its training end first")
        model.to(torch.bfloat16)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        target = folder / which
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        logs = [work / run / stage / "log.jsonl" for run in ("skills", which) for stage in RUNS[run]]
        (target / "training_log.jsonl").write_text("".join(log.read_text("utf-8") for log in logs), "utf-8")
    files = sorted(path for which in EMBEDDED for path in (folder / which).iterdir())
    digests = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    (folder / "manifest.json").write_text(json.dumps({"seed": 0, "sha256": digests}, indent=1) + "\n", "utf-8")


def train_run(which: str, work: Path) -> None:
    """All stages of one of `RUNS` below `work`. Raises FileNotFoundError where `skills` was not trained before."""
    start = None if which == "skills" else work / "skills" / RUNS["skills"][-1] / "checkpoint.safetensors"
    if start and not start.exists():
        raise FileNotFoundError(f"{start} is missing; train it with `--only skills`")
    for stage in RUNS[which]:
        train_stage(stage, work / which / stage, gold=which == "gold", start=start)
        start = work / which / stage / "checkpoint.safetensors"


def main() -> None:
    """Entry point of `make embedded`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("build/embedded"), help="folder of logs and checkpoints")
    parser.add_argument("--only", choices=RUNS, help="one of the three runs, skills first")
    args = parser.parse_args()
    if args.only:
        return train_run(args.only, args.work)
    # Base and gold run side by side on one core each: that uses two cores better than one model on both.
    command = [sys.executable, __file__, "--work", str(args.work), "--only"]
    two, one = ({**os.environ, **dict.fromkeys(THREADS, threads)} for threads in "21")
    subprocess.run([*command, "skills"], env=two, check=True)
    both = [subprocess.Popen([*command, which], env=one) for which in EMBEDDED]
    if any([process.wait() for process in both]):
        raise SystemExit("a training ended with an error (above); the same command goes on from its checkpoint")
    export_models(args.work, args.work / "weights")
    print(f"models are in {args.work / 'weights'}; to ship them, copy the folder to mule_lib/embedded/weights")
    print("and bring the model cards there up to date")


if __name__ == "__main__":
    main()
