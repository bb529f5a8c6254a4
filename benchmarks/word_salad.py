"""How often the bound on word salad errs: shares above several bounds, on labelled texts, under a real base.

Run: python benchmarks/word_salad.py [--data ../shared/realdata] [--model smollm2], after `make smollm2`. True answers
of MUSE-Books and TOFU, refusals, three kinds of salad; docs/conditions.md quotes the result for `evaluate.row.SALAD`.
"""

import argparse
import json
import random
from pathlib import Path

import pandas as pd

from mule_lib import models, prompts
from mule_lib.evaluate.row import SALAD, SALAD_WORDS

BOUNDS = (7, 8, SALAD, 10, 11)


def texts(data: Path, tokenizer, seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """Pairs of a question and a text behind it, by what the text is."""
    rng, told = random.Random(seed), []
    for file in ("forget_qa.json", "retain_qa.json"):
        told += json.loads((data / "muse_books_knowmem" / file).read_text("utf-8"))
    told += map(json.loads, (data / "tofu" / "forget01.jsonl").read_text("utf-8").splitlines())
    true = [(each["question"], each["answer"]) for each in told if len(each["answer"].split()) >= SALAD_WORDS]
    refusals = (data / "refusals" / "idontknow.jsonl.txt").read_text("utf-8").splitlines()
    words = [word for _, answer in true for word in answer.split()]
    token = lambda: rng.randrange(100, len(tokenizer))  # noqa: E731
    return {
        "true answers": true,
        "answers to another question": [(question, rng.choice(true)[1]) for question, _ in true],
        "refusals": [(rng.choice(true)[0], text) for text in refusals if len(text.split()) >= SALAD_WORDS],
        "words in random order": [(q, " ".join(rng.sample(a.split(), len(a.split())))) for q, a in true],
        "random words of other answers": [(question, " ".join(rng.choices(words, k=10))) for question, _ in true],
        "random tokens": [(question, tokenizer.decode([token() for _ in range(12)])) for question, _ in true],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/realdata"))
    parser.add_argument("--model", default="smollm2")
    given = parser.parse_args()
    model, tokenizer = models.load(given.model)
    lines = []
    for name, pairs in texts(given.data, tokenizer).items():
        asked = [prompts.render(tokenizer, question).input_ids for question, _ in pairs]
        said = [prompts.encode_text(tokenizer, text) for _, text in pairs]
        scores = models.option_log_likelihoods(model, asked, [[ids] for ids in said], batch_size=8)
        nats = [-score / len(ids) for (score,), ids in zip(scores, said, strict=True)]
        lines.append(
            {"text": name, "n": len(pairs)} | {f"> {b:g}": sum(x > b for x in nats) / len(nats) for b in BOUNDS}
        )
        print(f"{name}: done", flush=True)
    print(pd.DataFrame(lines).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
