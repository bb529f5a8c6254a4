"""Why the embedded model trains with eager attention and bfloat16 autocast: ratios within one run, on this machine.

Run: python benchmarks/bench_embedded_training.py
"""

import sys
import time
from pathlib import Path

import torch

from mule_lib.data.fable.worlds import build

sys.path.insert(0, str(Path(__file__).parents[1] / "params" / "teaching"))

from curriculum import MIX, Curriculum, corpus
from embedded import build_model, step_loss
from encoding import Encoder, build_tokenizer

STEPS, WARMUP = 8, 3


def seconds_per_step(curriculum: Curriculum, model, *, autocast: bool) -> float:
    """Median seconds of a step's forward and backward pass after warm-up."""
    weights = {kind: weight for kind, (_, weight) in MIX["worlds"].items()}
    real, times = torch.autocast, []
    if not autocast:
        torch.autocast = lambda *args, **kwargs: real("cpu", enabled=False)
    try:
        for step in range(WARMUP + STEPS):
            begun = time.perf_counter()
            step_loss(model, curriculum.step("worlds", step), weights)
            times.append(time.perf_counter() - begun)
    finally:
        torch.autocast = real
    return sorted(times[WARMUP:])[STEPS // 2]


def main() -> None:
    fable = build(0)
    tokenizer = build_tokenizer(corpus(fable))
    curriculum = Curriculum(fable, Encoder(tokenizer))
    tokens = sum(len(example.ids) for example in curriculum.step("worlds", 0))
    results = {}
    for attention in ("eager", "sdpa"):
        for autocast in (True, False):
            model = build_model(tokenizer)
            model.set_attn_implementation(attention)
            results[attention, autocast] = seconds_per_step(curriculum, model, autocast=autocast)
    fastest = results["eager", True]
    print(f"threads {torch.get_num_threads()}, {tokens} tokens a step")
    for (attention, autocast), seconds in results.items():
        kind = "bfloat16 autocast" if autocast else "float32"
        print(f"{attention:6} {kind:18} {seconds:6.2f} s a step   {seconds / fastest:4.2f} x the shipped setting")


if __name__ == "__main__":
    main()
