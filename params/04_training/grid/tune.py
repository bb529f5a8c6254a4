"""Choosing each row's hyper-parameters on Fable's validation split, with the same effort for every row.

Three rounds: five learning rates around the row's own; three values of its main option (of methods that ascend: fewer
steps; of others: finer rates) at the best rate; a second seed for the best two. Where the best rate lies at an end, one
more follows beyond it. The score is Overall Performance on the validation sets, averaged over benchmarks and seeds;
evaluation sets are never touched. A second rule, the best Overall among settings that lose at most 5 of General, is
printed beside the first.
"""

import argparse
import copy
import csv
import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import yaml

from mule_lib import data, methods, models, params
from mule_lib.data.fable.benchmark import validation_sets
from mule_lib.data.fable.worlds import build
from mule_lib.evaluate.row import evaluate_row
from mule_lib.paper import METRICS, overall
from mule_lib.params import FABLE
from mule_lib.prompts import steering
from mule_lib.training import DivergedError, Settings, train
from mule_lib.training.teacher import teacher_answers

AROUND, FINER, BEYOND = (0.4, 0.63, 1.0, 1.6, 2.5), (0.8, 1.25, 0.9), (0.4, 2.5)
STEPS = ({"steps": 10}, {"steps": 20}, {"steps": 80})
# What is tried at the best rate, by method: changes of the row's options or of its steps.
OWN: dict[str, tuple[dict, ...]] = {
    "ga": STEPS,
    "flat": (*STEPS[:2], {"warmup": 0.2}),  # its paper warms up for one of five epochs
    "simnpo": ({"forget_weight": 0.5}, {"forget_weight": 8.0}, STEPS[1]),
    "graddiff": ({"forget_weight": 0.1}, {"forget_weight": 3.0}, STEPS[1]),
    "npo": ({"beta": 0.3}, {"beta": 3.0}, STEPS[1]),
    "idk_dpo": ({"beta": 0.03}, {"beta": 0.3}, {"beta": 1.0}),
    "ngdiff": ({"auto_learning_rate_every": 2}, {"auto_learning_rate_every": 20}, STEPS[1]),
    "mollm": ({"normalize": False}, {"kl_weight": 0.3}, STEPS[1]),
    "duet": ({"top_k": 50}, {"top_k": 500}, {"top_k": 20}),
    "mule": ({"top_k": 20}, {"top_k": 50}, {"top_k": 200}),
    "mule_duet_loss": ({"top_k": 20}, {"top_k": 50}, {"top_k": 200}),
    "mule_bild_loss": ({"top_k": 8}, {"top_k": 16}, {"top_k": 32}),
}
FILE = params.ROOT / "params" / "04_training" / "fable.yaml"
FOLDER = Path(__file__).parent
COLUMNS = ("row", "benchmark", "learning_rate", "options", "steps", "batch_size", "seed", *METRICS, "overall", "note")
KEPT = 5.0  # points of General that the second rule lets a setting lose


class Setting(NamedTuple):
    """One thing to try: `changed` are options of the method, and perhaps `steps` or `warmup`."""

    row: str
    rate: float
    changed: dict

    @property
    def key(self) -> tuple[str, float, str]:
        """How grid lines name it."""
        return self.row, round(self.rate, 8), json.dumps(self.changed, sort_keys=True)


def parameters(row: str) -> params.Training:
    """The parameters of a row on Fable."""
    return params.read_parameters("04_training", FILE, {"row": row})


def scores(lines: Sequence[Mapping[str, Any]], *, most_lost: float | None = None) -> dict[tuple, tuple[int, float]]:
    """Setting -> seeds tried on every benchmark, and mean Overall; settings that diverged anywhere are left out.

    With `most_lost`, only settings that lose at most so many points of General on every benchmark.
    """
    found: dict[tuple, dict[tuple, float]] = {}
    spoilt = set()
    for line in lines:
        key = (line["row"], float(line["learning_rate"]), line["options"])
        lost = float(line["note"].removeprefix("General lost ")) if line["overall"] else float("inf")
        if lost > (most_lost if most_lost is not None else 1e9):
            spoilt.add(key)
        else:
            found.setdefault(key, {})[line["benchmark"], line["seed"]] = float(line["overall"])
    whole = {}
    for key, by in found.items():
        seeds = {seed for _, seed in by}
        if key not in spoilt and len(by) == len(FABLE) * len(seeds):
            whole[key] = len(seeds), fmean(by.values())
    return whole


def best_settings(row: str, lines: Sequence[Mapping[str, Any]], number: int = 1, **rule) -> list[Setting]:
    """The best settings of a row, those with most seeds first."""
    ranked = sorted(((n, mean, key) for key, (n, mean) in scores(lines, **rule).items() if key[0] == row), reverse=True)
    return [Setting(row, key[1], json.loads(key[2])) for _, _, key in ranked[:number]]


def plan(row: str, number: int, lines: Sequence[Mapping[str, Any]]) -> list[tuple[Setting, int]]:
    """The settings of a round with their seed."""
    rate = parameters(row).learning_rate
    if number == 1:
        return [(Setting(row, round(rate * by, 8), {}), 0) for by in AROUND]
    rates_only = [line for line in lines if line["options"] == "{}"]
    best = next(iter(best_settings(row, rates_only)), Setting(row, rate, {}))
    if number == 2:
        tried = [float(line["learning_rate"]) for line in rates_only if line["row"] == row]
        beyond = [
            by * best.rate for by, end in zip(BEYOND, (min, max), strict=True) if tried and best.rate == end(tried)
        ]
        own = OWN.get(parameters(row).method, ())
        return [
            *((Setting(row, round(each, 8), {}), 0) for each in beyond),
            *((best._replace(changed=changed), 0) for changed in own),
            *((best._replace(rate=round(best.rate * by, 8)), 0) for by in FINER if not own),
        ]
    return [(setting, 1) for setting in best_settings(row, [line for line in lines if line["seed"] == "0"], 2)]


class Tuner:
    """Trains and scores one setting after the other on one benchmark, each from the same loaded model."""

    def __init__(self, model, tokenizer, benchmark: str):
        self.model, self.tokenizer, self.benchmark = model, tokenizer, benchmark
        self.sets = validation_sets(build(0), benchmark)
        self.answers, self.loaded = {}, lru_cache(self._loaded)
        self.base = self._score(model)

    def try_setting(self, setting: Setting, seed: int) -> dict[str, Any]:
        """One line of the grid: the setting, its five validation metrics and Overall against the base, in points."""
        p, more = parameters(setting.row), dict(setting.changed)
        own = {name: more.pop(name) for name in ("steps", "warmup") if name in more}
        settings = Settings.of(p, seed).model_copy(update={**own, "learning_rate": setting.rate, "log_every": 1000})
        method = methods.get(p.method, {**p.options, **more})
        row, rate, options = setting.key
        line = {"row": row, "benchmark": self.benchmark, "learning_rate": rate, "options": options, "seed": seed}
        line |= {"steps": settings.steps, "batch_size": settings.batch_size}
        answers = self._answers(method) if method.distils else None
        loaded, student = self.loaded(p.data_format, tuple(p.objectives)), copy.deepcopy(self.model)
        try:
            trained = train(student, self.tokenizer, loaded, method, settings=settings, teacher_answers=answers)
        except DivergedError as error:
            return {**line, **dict.fromkeys((*METRICS, "overall"), ""), "note": str(error)}
        metrics = self._score(trained.model)
        return {
            **line,
            **{name: round(metrics[name], 1) for name in METRICS},
            "overall": round(overall(self.base, metrics), 1),
            "note": f"General lost {self.base['general'] - metrics['general']:.1f}",
        }

    def _loaded(self, data_format: str, objectives: tuple[str, ...]) -> data.Benchmark:
        return data.load_benchmark(self.benchmark, data_format=data_format, objectives=objectives)

    def _answers(self, method: methods.Method):
        asked = method.options.teacher, method.options.cot
        if asked not in self.answers:
            loaded = self.loaded("unified", params.OBJECTIVES)
            self.answers[asked] = teacher_answers(self.model, self.tokenizer, loaded, method)
        return self.answers[asked]

    def _score(self, model) -> dict[str, float]:
        refusal = self.loaded("unified", params.OBJECTIVES).refusal
        how = steering("none", self.sets.topic)
        return evaluate_row(model, self.tokenizer, self.sets, how, choice_style="texts", refusal=refusal).metrics


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
    """What the rows of `params/04_training/fable.yaml` should say by either rule, as YAML."""
    said = {}
    for row in dict.fromkeys(line["row"] for line in lines):
        for rule, given in (("overall", {}), ("general kept", {"most_lost": KEPT})):
            for best in best_settings(row, lines, **given):
                seeds, mean = scores(lines, **given)[best.key]
                found = {"learning_rate": best.rate, **best.changed, "overall": round(mean, 1), "seeds": seeds}
                said.setdefault(row, {})[rule] = found
    return yaml.safe_dump(said, sort_keys=False, default_flow_style=None)


def main() -> None:
    """Run one round of the grid on one benchmark (going on where an earlier call stopped), or print what it chose."""
    rows = [row for row in params.read_yaml(FILE)["rows"] if params.METHOD_OPTIONS[parameters(row).method].trains]
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("benchmark", choices=(*FABLE, "choose"))
    parser.add_argument("round", type=int, choices=(1, 2, 3), nargs="?", default=1)
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    args = parser.parse_args()
    grids = {name: read_grid(FOLDER / f"{name}.csv") for name in FABLE}
    every = [line for lines in grids.values() for line in lines]
    if args.benchmark == "choose":
        print(choices(every), end="")
        return
    done = {(r["row"], r["learning_rate"], r["options"], r["seed"]) for r in grids[args.benchmark]}
    todo = [pair for row in args.rows for pair in plan(row, args.round, every)]
    todo = [(setting, seed) for setting, seed in todo if (*map(str, setting.key), str(seed)) not in done]
    tuner = Tuner(*models.load("base"), args.benchmark)
    begun = time.monotonic()
    for i, (setting, seed) in enumerate(todo, 1):
        line = tuner.try_setting(setting, seed)
        append_line(FOLDER / f"{args.benchmark}.csv", line)
        left = (time.monotonic() - begun) / i * (len(todo) - i)
        print(f"[{i}/{len(todo)}] {setting.key} seed {seed}: Overall {line['overall']}, {left:.0f} s left", flush=True)


if __name__ == "__main__":
    main()
