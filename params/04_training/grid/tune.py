"""Choosing each row's hyper-parameters on Fable's validation split, with the same effort for every row.

Two rounds: all learning rates at the row's default options, then three values of the row's own main option at the best
rate (three more rates for rows without one). The score is Overall Performance on the validation sets, averaged over the
benchmarks; evaluation sets are never touched.
"""

import argparse
import copy
import csv
import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from mule_lib import methods, models
from mule_lib.data.fable.benchmark import unlearning_records, validation_sets
from mule_lib.data.fable.worlds import build
from mule_lib.evaluate.row import evaluate_row
from mule_lib.paper import METRICS, overall
from mule_lib.params import FABLE
from mule_lib.prompts import steering
from mule_lib.training import DivergedError, Settings, train
from mule_lib.training.teacher import teacher_answers

RATES = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
MORE_RATES = (1.4, 0.7, 0.85)  # times the best rate, for rows without an option of their own
OWN: dict[str, tuple[str, tuple]] = {
    "graddiff": ("forget_weight", (0.1, 0.3, 3.0)),
    "npo": ("beta", (0.03, 0.3, 1.0)),
    "simnpo": ("forget_weight", (0.03, 0.5, 2.0)),
    "idk_dpo": ("beta", (0.03, 0.3, 1.0)),
    "flat": ("divergence", ("kl", "jensen_shannon", "pearson")),
    "ngdiff": ("auto_learning_rate_every", (5, 20, 40)),
    "mollm": ("kl_weight", (0.1, 0.3, 3.0)),
    "duet": ("top_k", (20, 50, 200)),
    "mule": ("top_k", (20, 50, 200)),
    "mule_duet_loss": ("top_k", (20, 50, 200)),
    "mule_bild_loss": ("top_k", (16, 32, 64)),
}
ROWS = tuple(name for name, row in methods.METHODS.items() if row.terms)
FOLDER = Path(__file__).parent
COLUMNS = ("row", "benchmark", "learning_rate", "options", "steps", "batch_size", "seed", *METRICS, "overall", "note")


def first_round() -> list[tuple[float, dict]]:
    """Every learning rate with the row's default options."""
    return [(rate, {}) for rate in RATES]


def second_round(row: str, lines: Sequence[Mapping[str, Any]]) -> list[tuple[float, dict]]:
    """Three more settings at the best rate of the first round, given its lines on all benchmarks."""
    best = chosen([line for line in lines if line["row"] == row and line["options"] == "{}"])[row][0]
    name, values = OWN.get(row, ("", ()))
    return [(best, {name: value}) for value in values] if name else [(round(best * by, 8), {}) for by in MORE_RATES]


def chosen(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, dict, float]]:
    """Per row: learning rate, options and mean validation Overall of the best setting, over all benchmarks tried.

    A setting that diverged anywhere, or was not tried on every benchmark, is not eligible; ties go to the lower rate.
    """
    benchmarks = {line["benchmark"] for line in lines}
    scores: dict[tuple, dict[str, float]] = {}
    for line in lines:
        if line["overall"] != "":
            key = (line["row"], float(line["learning_rate"]), line["options"])
            scores.setdefault(key, {})[line["benchmark"]] = float(line["overall"])
    best: dict[str, tuple[float, dict, float]] = {}
    for (row, rate, options), by_benchmark in sorted(scores.items()):
        mean = sum(by_benchmark.values()) / len(by_benchmark)
        if set(by_benchmark) == benchmarks and (row not in best or mean > best[row][2]):
            best[row] = (rate, json.loads(options), mean)
    return best


class Tuner:
    """Trains and scores one setting after the other on one benchmark, each from the same loaded model."""

    def __init__(self, model, tokenizer, benchmark: str, *, steps: int, batch_size: int, seed: int = 0):
        fable = build(0)
        self.model, self.tokenizer, self.benchmark = model, tokenizer, benchmark
        self.records = unlearning_records(fable, benchmark)
        self.sets = validation_sets(fable, benchmark)
        self.settings = {"steps": steps, "batch_size": batch_size, "seed": seed}
        self.base = self._score(model)
        self.answers = lru_cache(self._answers)

    def try_setting(self, row: str, rate: float, options: dict) -> dict[str, Any]:
        """One line of the grid: the setting, its five validation metrics and Overall against the base, in points."""
        line = {"row": row, "benchmark": self.benchmark, "learning_rate": rate, "options": json.dumps(options)}
        line |= self.settings
        method = methods.get(row, options)
        answers = self.answers(method.options.teacher, method.options.cot) if method.distils else None
        student = copy.deepcopy(self.model)
        try:
            trained = train(
                student,
                self.tokenizer,
                self.records,
                row,
                topic=self.sets.topic,
                settings=Settings(**self.settings, learning_rate=rate),
                teacher_answers=answers,
                options=options,
            )
        except DivergedError as error:
            return {**line, **dict.fromkeys((*METRICS, "overall"), ""), "note": str(error)}
        metrics = self._score(trained.model)
        return {
            **line,
            **{name: round(value, 1) for name, value in metrics.items()},
            "overall": round(overall(self.base, metrics), 1),
            "note": "",
        }

    def _answers(self, kind: str, cot: bool):
        how = steering(kind, self.sets.topic, cot=cot)
        return teacher_answers(self.model, self.tokenizer, self.records, how)

    def _score(self, model) -> dict[str, float]:
        how = steering("none", self.sets.topic)
        return evaluate_row(model, self.tokenizer, self.sets, how, choice_style="texts").metrics


def read_grid(file: Path) -> list[dict[str, str]]:
    """All lines of a grid file, [] where there is none."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def append_line(file: Path, line: Mapping[str, Any]) -> None:
    """Add one line to a grid file, with the header where it is new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(line)


def choices(lines: Sequence[Mapping[str, Any]]) -> str:
    """What the rows of `params/04_training/fable.yaml` should say, as YAML."""
    rows = {row: {"learning_rate": rate, "options": options} for row, (rate, options, _) in chosen(lines).items()}
    return yaml.safe_dump(rows, sort_keys=False, default_flow_style=None)


def main() -> None:
    """Run one round of the grid on one benchmark (going on where an earlier call stopped), or print what it chose."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("benchmark", choices=(*FABLE, "choose"))
    parser.add_argument("round", type=int, choices=(1, 2), nargs="?", default=1)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=18)
    args = parser.parse_args()
    grids = {name: read_grid(FOLDER / f"{name}.csv") for name in FABLE}
    every = [line for lines in grids.values() for line in lines]
    if args.benchmark == "choose":
        print(choices(every), end="")
        return
    plan = [
        (row, rate, options)
        for row in args.rows
        for rate, options in (first_round() if args.round == 1 else second_round(row, every))
    ]
    done = {(line["row"], float(line["learning_rate"]), line["options"]) for line in grids[args.benchmark]}
    plan = [(row, rate, options) for row, rate, options in plan if (row, rate, json.dumps(options)) not in done]
    tuner = Tuner(*models.load("base"), args.benchmark, steps=args.steps, batch_size=args.batch_size)
    begun = time.monotonic()
    for i, (row, rate, options) in enumerate(plan, 1):
        line = tuner.try_setting(row, rate, options)
        append_line(FOLDER / f"{args.benchmark}.csv", line)
        left = (time.monotonic() - begun) / i * (len(plan) - i)
        print(f"[{i}/{len(plan)}] {row} {rate:g} {options}: Overall {line['overall']}, {left:.0f} s left", flush=True)


if __name__ == "__main__":
    main()
