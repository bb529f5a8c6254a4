"""What batching saves: one row's evaluation in batches, and item by item on the same model, within one run.

Run: python benchmarks/bench_evaluation.py [--benchmark cyber] [--share 0.2] [--threads 2] [--cot]

Item by item means `model.generate` on each open question, without padding, and one forward pass for each option of a
choice. Both ways must give the same texts and the same choices, or the script ends with an error. CPU seconds are
printed beside wall seconds because other work on the machine stretches the second alone.

Measured on the embedded model, Fable-Books, two cores of an AMD EPYC, all 989 items, whole row (generation, choices):
    bfloat16, 2 threads   one by one 20.1 s, batched 1.60 s: 12.6 times (15.3, 11.4)
    bfloat16, 1 thread    one by one 21.3 s, batched 2.32 s:  9.2 times (10.6,  8.6)
    float32,  2 threads   one by one 22.2 s, batched 2.22 s: 10.0 times (7.4, 11.4); 8.4 to 9.7 in four repetitions
    float32,  1 thread    one by one 22.7 s, batched 3.41 s:  6.6 times (5.8,  7.1)
So ten times is shown in bfloat16 with both cores, the precision of the shipped weights and of large models' runs. In
float32, in which Fable's rows are evaluated, batches of so small a model are bound by arithmetic (about 86 GFLOP/s on
one core): 30 thousand tokens are read, where single questions are bound by the overhead of each call.
"""

import argparse
import os
import time
from dataclasses import replace
from statistics import median

import torch

from mule_lib import models, prompts
from mule_lib.data import load_benchmark
from mule_lib.data.items import EvaluationSets
from mule_lib.evaluate.robustness import only
from mule_lib.evaluate.row import query
from mule_lib.models import contexts, decode, greedy, option_log_likelihoods
from mule_lib.prompts import steering

KINDS = {"generation": ("forget", "general", "attack", "controls"), "choices": ("neighbor", "mmlu")}
MAX_NEW_TOKENS, BATCH_SIZE, REPEATS = 24, 128, 3


@torch.inference_mode()
def one_by_one(model, tokenizer, sets: EvaluationSets, how) -> list[str]:
    """Outputs in the order of the evaluation's samples: written answers, then chosen options."""
    outputs = []
    for item in (item for name in KINDS["generation"] for item in getattr(sets, name)):
        ids = torch.tensor([contexts(model, tokenizer, [query(item, "texts")], how)[0].input_ids])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        outputs += decode(tokenizer, [out[0, ids.shape[1] :].tolist()])
    for item in (item for name in KINDS["choices"] for item in getattr(sets, name)):
        context = list(contexts(model, tokenizer, [query(item, "texts")], how)[0].input_ids)
        options, scores = prompts.answers(item.options, style="texts"), []
        for option in options:
            answer = prompts.encode_text(tokenizer, option)
            log_probs = model(torch.tensor([context + answer])).logits[0].float().log_softmax(-1)
            places = range(len(context) - 1, len(context) + len(answer) - 1)
            scores.append(sum(float(log_probs[at, token]) for at, token in zip(places, answer, strict=True)))
        outputs.append(options[max(range(len(scores)), key=scores.__getitem__)])
    return outputs


def batched(model, tokenizer, sets: EvaluationSets, how) -> list[str]:
    """The same outputs as the evaluation of a row asks for them; scoring them is left out on both sides."""
    written = [item for name in KINDS["generation"] for item in getattr(sets, name)]
    chosen = [item for name in KINDS["choices"] for item in getattr(sets, name)]
    queries = [query(item, "texts") for item in (*written, *chosen)]
    made = [context.input_ids for context in contexts(model, tokenizer, queries, how, batch_size=BATCH_SIZE)]
    limits = {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": BATCH_SIZE}
    outputs = decode(tokenizer, greedy(model, tokenizer, made[: len(written)], **limits))
    offered = [prompts.answers(item.options, style="texts") for item in chosen]
    encoded = [[prompts.encode_text(tokenizer, option) for option in options] for options in offered]
    scores = option_log_likelihoods(model, made[len(written) :], encoded, batch_size=BATCH_SIZE)
    best = (max(range(len(row)), key=row.__getitem__) for row in scores)
    return outputs + [options[at] for options, at in zip(offered, best, strict=True)]


def timed(work) -> tuple[list[str], float, float]:
    """What it returns, with its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--benchmark", default="books", choices=("books", "cyber"))
    parser.add_argument("--share", type=float, default=1.0, help="first part of each set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of weights and arithmetic")
    parser.add_argument("--cot", action="store_true", help="the upper bound: intention and thought before each answer")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = models.load("base")
    model = model.to(getattr(torch, args.dtype))
    sets = load_benchmark(args.benchmark).sets
    names = [name for group in KINDS.values() for name in group]
    share = {name: round(args.share * len(getattr(sets, name))) for name in names}
    sets = replace(sets, **{name: getattr(sets, name)[: max(1, share[name])] for name in names})
    how = steering("oracle", sets.topic, cot=True) if args.cot else steering("none", sets.topic)
    few = replace(sets, **{name: getattr(sets, name)[:8] for name in names})
    batched(model, tokenizer, few, how), one_by_one(model, tokenizer, few, how)  # warm-up
    print(
        f"{os.cpu_count()} cores, {args.threads} thread(s), {args.dtype}, load {os.getloadavg()[0]:.1f}; "
        f"{sets.benchmark}, {how.cot=}"
    )
    total = [0.0] * 4
    for kind, members in KINDS.items():
        part = only(sets, members)
        together = [timed(lambda part=part: batched(model, tokenizer, part, how)) for _ in range(REPEATS)]
        alone, *slow = timed(lambda part=part: one_by_one(model, tokenizer, part, how))
        different = sum(a != b for a, b in zip(together[0][0], alone, strict=True))
        if different:
            raise SystemExit(f"{different} of {len(alone)} outputs differ between the two ways")
        fast = [median(run[at] for run in together) for at in (1, 2)]
        total = [sum(pair) for pair in zip(total, (*slow, *fast), strict=True)]
        report(f"{kind}, {len(alone)} items", *slow, *fast)
    report("whole row", *total)


def report(what: str, slow_wall: float, slow_cpu: float, wall: float, cpu: float) -> None:
    print(
        f"{what:24} one by one {slow_wall:7.2f} s ({slow_cpu:6.2f} CPU)   batched {wall:6.2f} s ({cpu:5.2f} CPU)   "
        f"ratio {slow_wall / wall:5.1f} ({slow_cpu / cpu:5.1f} CPU)",
        flush=True,
    )


if __name__ == "__main__":
    main()
