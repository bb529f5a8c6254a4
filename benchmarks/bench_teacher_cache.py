"""What the teacher cache saves: time of the teacher's side of one step, cached and live, and the cache's size.

Run: python benchmarks/bench_teacher_cache.py [--vocabulary 32000 --hidden 512 --layers 4]
"""

import argparse
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib.training.teacher import build_cache

ROWS, CONTEXT, ANSWER, TOP_K, REPEATS = 16, 96, 12, 10, 7


def seconds(work) -> float:
    """Median seconds of a call after one warm-up."""
    times = []
    for _ in range(REPEATS + 1):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[REPEATS // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.hidden,
        intermediate_size=2 * args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, args.vocabulary, (ROWS, CONTEXT + ANSWER))
    sequences = {row: (ids[row, :CONTEXT].tolist(), ids[row, CONTEXT:].tolist()) for row in range(ROWS)}
    begun = time.perf_counter()
    cache = build_cache(model, sequences, top_k=TOP_K)
    built = time.perf_counter() - begun
    positions = torch.tensor([place for span in cache.spans.values() for place in span])
    moving = torch.randint(0, args.vocabulary, (len(positions), TOP_K))

    def cached() -> None:
        held = cache.answers(positions)
        held.top(TOP_K), held.at(moving)

    def every_row() -> None:
        cache.answers(positions).logits().gather(1, moving)

    @torch.no_grad()
    def live() -> None:
        logits = model(input_ids=ids).logits[:, CONTEXT - 1 : -1].flatten(0, 1)
        logits.topk(TOP_K), logits.gather(1, moving)

    fastest = seconds(cached)
    print(f"{len(positions)} answer tokens, V {args.vocabulary}, H {args.hidden}, {args.layers} layers, K {TOP_K}")
    for name, taken in (
        ("cache, rows asked for", fastest),
        ("cache, whole vocabulary", seconds(every_row)),
        ("live", seconds(live)),
    ):
        print(f"{name:24} {1e3 * taken:8.2f} ms   {taken / fastest:7.1f} x")
    print(f"built once in {built:.2f} s; {cache.hidden.nbytes / len(positions) / 1024:.1f} KiB an answer token")


if __name__ == "__main__":
    main()
