"""One training step of each method against a stock `transformers.Trainer` SFT step and against a deep-copied teacher.

Run: make bench, or python benchmarks/bench_steps.py [--vocabularies 128256] [--methods mule sft] [--out FILE]

All step on the same records (a context and an answer each) with a random Llama in float32, AdamW and all weights
trained. The stock step is fine-tuning on these answers with labels of -100 on the contexts. The deep copy is the usual
distillation: Eq. 3 on the logits of two forwards over the whole vocabulary, student and steered teacher. Methods take
turns, round after round, so that what else runs on the machine strikes all of them: the ratios are what to read.

Memory is the peak within a step above what stands before it (weights, optimizer, the teacher's kept states), less one
gradient per weight. NGDiff and MOLLM hold one more gradient per term and the deep copy its second weights, the latter
not counted. A number below 0 says that the peak came before all gradients were there.
"""

import argparse
import copy
import ctypes
import gc
import platform
import random
import re
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from mule_lib import losses, methods
from mule_lib.data.records import Group, Objective, Role
from mule_lib.training import Settings
from mule_lib.training.batches import Example, frozen_cache
from mule_lib.training.train import training_arguments
from mule_lib.training.trainer import MultiObjectiveTrainer

GROUPS = [
    Group(Objective(f"obj{i}"), Role(role))
    for i, pair in enumerate((("forget", "retain"), ("forget", "neighbor"), ("adversarial", "benign")), 1)
    for role in pair
]
DRAWS, CONTEXT, SYSTEM, ANSWER, TOP_K = 3, 72, 24, 12, 10
STEPS, ROUNDS = 3, 3  # steps of a round, the first of which is not counted
STOCK, DEEP_COPY = "stock SFT", "deep copy"
METHODS = ["mule", "duet", "mule_bild_loss", "sft", "ngdiff", "mollm"]


class DeepCopyTrainer(Trainer):
    """Distillation as it is often written: a frozen copy, both forwards over all positions and the whole vocabulary."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Eq. 3 on the answers' logits."""
        with torch.no_grad():
            of_teacher = self.teacher(input_ids=inputs["teacher_ids"], use_cache=False).logits
        own = model(input_ids=inputs["input_ids"], use_cache=False).logits
        rows = (losses.answer_logits(z, inputs[y]) for z, y in ((own, "labels"), (of_teacher, "teacher_labels")))
        return losses.bidirectional_topk(*rows, top_k=TOP_K)


class Watch(TrainerCallback):
    """Seconds and peak bytes of every step but the first of a round."""

    def __init__(self):
        self.seconds, self.peaks = [], []

    def on_step_begin(self, args, state, control, **kwargs):
        gc.collect()
        self.before, self.begun = reset_peak(), time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step > 1:
            self.seconds.append(time.perf_counter() - self.begun)
            self.peaks.append(peak() - self.before)


def reset_peak() -> int:
    """Forget the peak so far; returns the bytes that are held now."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """Largest number of bytes held since `reset_peak`."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM")


def _status(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def random_examples(vocabulary: int) -> list[Example]:
    """`DRAWS` records of every group, with all continuations."""
    rng = random.Random(0)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(number))

    made = []
    for i in range(DRAWS):
        for group in GROUPS:
            context = ids(CONTEXT)
            texts = {name: ids(ANSWER) for name in ("answer", "refusal", "desired", "taught")}
            made.append(Example(f"{group}/{i}", group, context, texts, (*ids(SYSTEM), *context)))
    return made


def trainer_of(name: str, vocabulary: int, hidden: int, layers: int, folder: str) -> Trainer:
    """A trainer of `STEPS` steps on one batch, the same for all."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    )
    model, examples = LlamaForCausalLM(config), random_examples(vocabulary)
    settings = Settings(steps=STEPS, batch_size=len(examples), learning_rate=1e-5, warmup=0.0)
    rates = (1e-5, 1e-4)
    arguments, draws = training_arguments(settings, Path(folder), records=len(GROUPS), largest=DRAWS, rates=rates)
    model.to(arguments.device)
    if name not in (STOCK, DEEP_COPY):
        method = methods.get(name, {"top_k": TOP_K} if hasattr(methods.METHODS[name].options, "top_k") else {})
        method = method.on_groups(set(GROUPS))
        cache = frozen_cache(model, examples, method, copy_head=True)
        batches = [examples[i : i + len(GROUPS)] for i in range(0, len(examples), len(GROUPS))]
        return MultiObjectiveTrainer(model, arguments, batches * (draws // len(batches)), method, cache=cache)
    arguments.per_device_train_batch_size = len(examples)
    rows = []
    for example in examples:
        row = {}
        for side, context in (("", example.context), ("teacher_", example.teacher_context)):
            answer = example.continuations["taught"]
            row[f"{side}input_ids" if not side else "teacher_ids"] = torch.tensor([*context, *answer])
            row[f"{side}labels"] = torch.tensor([-100] * len(context) + list(answer))
        kept = ("input_ids", "labels") if name == STOCK else row
        rows.append({key: row[key] for key in kept})
    trainer = (Trainer if name == STOCK else DeepCopyTrainer)(model, arguments, train_dataset=rows * STEPS)
    trainer.teacher = copy.deepcopy(model).eval() if name == DEEP_COPY else None
    return trainer


def measure(names: list[str], vocabulary: int, hidden: int, layers: int) -> list[tuple[str, float, float]]:
    """Median seconds of a step, and its peak memory in MiB beyond weights, gradients and optimizer."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: trainer_of(name, vocabulary, hidden, layers, folder) for name in names}
        watches = {}
        for name, trainer in trainers.items():
            trainer.remove_callback(PrinterCallback)
            trainer.log = lambda *_, **__: None
            trainer.add_callback(watches.setdefault(name, Watch()))
        for turn in range(ROUNDS + 1):
            if turn == ROUNDS:  # the last is for memory: what is freed goes back to the system at once
                if not torch.cuda.is_available():
                    ctypes.CDLL(None).mallopt(-3, 2**18)
                seconds = {name: median(watch.seconds) for name, watch in watches.items()}
            for name, trainer in trainers.items():
                watches[name].peaks.clear()
                trainer.train()
        for name, trainer in trainers.items():
            gradient = sum(4 * parameter.numel() for parameter in trainer.model.parameters())
            found.append((name, seconds[name], (max(watches[name].peaks) - gradient) / 2**20))
    return found


def machine() -> str:
    """The processor or GPU, its cores, and how loaded it is."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else name[1] if name else platform.processor()
    load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
    return (
        f"{name}, {psutil.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}; load {load}"
    )


def table(found: list[tuple[str, float, float]]) -> str:
    """Markdown rows of one vocabulary: measured numbers, and what they are of the stock step and of the deep copy."""
    by_name = {name: values for name, *values in found}
    lines = ["| step | s | of stock | of deep copy | MiB | of stock | of deep copy |", "|---|" + "---:|" * 6]
    for name, seconds, memory in found:
        ratios = [f"{seconds / by_name[of][0]:.2f}" for of in (STOCK, DEEP_COPY)]
        shares = [f"{memory / by_name[of][1]:.2f}" for of in (STOCK, DEEP_COPY)]
        label = methods.METHODS[name].label if name in methods.METHODS else name
        lines.append(f"| {label} | {seconds:.3f} | {' | '.join(ratios)} | {memory:.0f} | {' | '.join(shares)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[4096, 49_152, 128_256])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.set_verbosity_error()
    rows = DRAWS * len(GROUPS)
    title = f"{rows} records a step, {CONTEXT} + {ANSWER} tokens (teacher {SYSTEM} more), hidden {args.hidden}, "
    parts = [f"# Training steps\n\n{machine()} before the run.\n\n{title}{args.layers} layers, K {TOP_K}, float32."]
    parts[0] += " s: median step. MiB: peak beyond weights, one gradient and optimizer. Other columns: ratios."
    print(parts[0], flush=True)
    for vocabulary in args.vocabularies:
        found = measure([STOCK, DEEP_COPY, *args.methods], vocabulary, args.hidden, args.layers)
        parts.append(f"## {vocabulary:,} tokens\n\n{table(found)}")
        print(f"\n{parts[-1]}", flush=True)
        gc.collect()
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
