"""Made-up run folders in the layout of `outputs/<name>/runs`: seeded random item values, for tests only."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import yaml

from mule_lib.data.text import LETTER
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS

ITEMS = {"forget": 60, "general": 70, "neighbor": 50, "asr": 55, "mmlu": 80}
# Sets answered in writing, the metric whose items are right there, and their numbers of items.
WRITTEN = {
    "forget": "forget", "attack": "asr", "general": "general", "neighbor_open": "neighbor", "controls": "neighbor",
}  # fmt: skip
HARDER = {"forget_unseen": 20, "asr_unseen": 20, "asr_seen": 55, "asr_searched": 12, "forget_cloze": 40, "drift": 70}
# What answers that are not right are, in percent: refused, plausible, of the wrong kind, broken.
MANNERS = {
    **dict.fromkeys(("ga", "simnpo", "flat", "ngdiff", "mollm"), (0, 20, 75, 5)),
    **{"duet": (0, 0, 10, 90), "gold": (2, 95, 3, 0)},
}
REFUSES = (94, 4, 1, 1)
METHOD = re.compile("_standardized$|_tuned$|_all_positions$")
POINTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
BASELINES = ("ga", "simnpo", "flat", "sft", "ngdiff", "mollm", "duet")
# On MULE's records every baseline moves half of the way to MULE.
POINTS |= {
    f"{row}_standardized": tuple((a + b) / 2 for a, b in zip(POINTS[row], POINTS["mule"], strict=True))
    for row in BASELINES
}
UNTRAINED = {"base", "gold", "upper_bound", "ensemble_teacher"}
TAUGHT = {"mule": ({}, 0.95), "mule_no_cot": ({"cot": False}, 0.6), "duet": ({}, 0.8)}


def write_runs(suite: Path, *, rows=POINTS, benchmarks=("books", "cyber"), seeds=3) -> Path:
    """Write one folder per benchmark, row and seed below `suite`/runs; rows that train nothing have seed 0 only."""
    for benchmark in benchmarks:
        for row in rows:
            for seed in range(1 if row in UNTRAINED else seeds):
                write_run(suite, benchmark, row, seed)
    return suite


def write_run(suite: Path, benchmark: str, row: str, seed: int, *, points=None, label=None, beyond=None) -> Path:
    """Write one run folder; `points` replaces those of `POINTS`."""
    rng = np.random.default_rng(zlib.crc32(f"{benchmark}/{row}/{seed}".encode()))
    level = dict(zip(METRICS, points or POINTS[row], strict=True))
    values = {m: (rng.random(n) < level[m] / 100).astype(float).tolist() for m, n in ITEMS.items()}
    kinds = {name: _kinds(rng, row, values[metric]) for name, metric in WRITTEN.items()}
    values |= {
        "neighbor_open": [float(kind == "r") for kind in kinds["neighbor_open"]],
        "neighbor_refused": [float(kind == "f") for kind in kinds["neighbor_open"]],
        "readable": [float(kind in "fp") for kind in kinds["forget"] + kinds["attack"]],
        "controls": [float(kind == "r") for kind in kinds["controls"]],
        "forget_readable": [float(kind not in "fp") for kind in kinds["forget"]],
        "asr_readable": [float(kind not in "fp") for kind in kinds["attack"]],
    }
    for metric, n in HARDER.items() if row not in UNTRAINED else [*HARDER.items()][:-1]:  # drift is of trained rows
        points_of = level.get(metric.split("_")[0], 0)
        values[metric] = (rng.random(n) < min(100, points_of + 15) / 100).astype(float).tolist()
    shares = {name: {kind: found.count(letter) / len(found) for kind, letter in LETTER.items()}
              for name, found in kinds.items()}  # fmt: skip
    trains = row not in UNTRAINED
    refusal = round(float(rng.random()) * 0.3, 4)
    folder = suite / "runs" / benchmark / row / f"seed-{seed}"
    folder.mkdir(parents=True)
    options, obeyed = TAUGHT.get(row, ({}, None))
    roles = [(f"obj{i}", role) for i in (1, 2, 3) for role in ("forget", "retain")] if obeyed else []
    result = RunResult(
        benchmark=benchmark,
        row=row,
        method="mule" if row.startswith("mule") and "loss" not in row else METHOD.sub("", row),
        label=label or row,
        seed=seed,
        identity=f"{zlib.crc32(f'{benchmark}{row}{seed}'.encode()):016x}",
        metrics={m: 100 * float(np.mean(v)) for m, v in values.items()},
        n={"attack" if m == "asr" else m: n for m, n in ITEMS.items()} | {"controls": 40},
        details={
            "neighbor": {"correct": 1 - refusal / 2 - 0.02, "refusal": refusal / 2, "distractor": 0.02},
            **{name: {"kinds": found} for name, found in shares.items()},
        },
        beyond=beyond,
        timing={"train_seconds": (3.0 + seed) * trains, "evaluate_seconds": 5.0, "seconds": 9.0, "steps": 40 * trains},
        obedience=[{"objective": o, "role": r, "obeyed": obeyed, "n": 88} for o, r in roles],
        log=[{"step": step, "loss": 10.0 / step} for step in (2, 20, 40)] if trains else [],
        values=values,
        kinds=kinds,
    )
    model = "gold" if row == "gold" else "base"
    source = {
        "git": {"commit": "0" * 40, "dirty": False}, "packages": {"torch": "2.13.0"}, "python": "3.11.7",
        "machine": "Linux x86_64, 2 cores", "identity": {"model": f"embedded/{model}@0123456789abcdef"},
    }  # fmt: skip
    params = {"method": result.method, "options": options, "model": model, "seed": seed}
    (folder / "params.json").write_text(json.dumps(params))
    (folder / "provenance.json").write_text(json.dumps(source))
    result.write(folder)
    return folder


def _kinds(rng: np.random.Generator, row: str, right) -> str:
    """A letter per item: right where the metric says so, else by the manner of the row."""
    manner = np.asarray(MANNERS.get(row, REFUSES)) / 100
    letters = rng.choice([*"fpwb"], len(right), p=manner)
    return "".join("r" if value else letter for value, letter in zip(right, letters, strict=True))


def made_beyond(plain: float, *, seed: int = 0) -> dict:
    """What `attack_and_degrade` returns, made up: Forget around `plain` points, rising with relearning."""
    rng = np.random.default_rng(seed)

    def measured(**points) -> dict:
        values = {m: (rng.random(ITEMS.get(m, 40)) < p / 100).astype(float).tolist() for m, p in points.items()}
        return {"metrics": {m: 100 * float(np.mean(v)) for m, v in values.items()}, "values": values}

    steps = (0, 1, 2, 4, 8, 16)
    return {
        "relearning": {
            "curve": [{"step": step, **measured(forget=min(95, plain + 5 * step))} for step in steps],
            "loss": [1.0] * 16,
            "steps_to_recover": 8,
        },
        "reteaching": {"same": measured(forget=90), "disjoint": measured(forget=plain + 3)},
        "quantization": {"int8": measured(forget=plain, general=85), "int4": measured(forget=plain + 9, general=70)},
    }
