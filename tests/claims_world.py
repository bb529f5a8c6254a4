"""A made-up world of results in which every claim that can be measured holds; tests change one thing at a time."""

import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml

from mule_lib.paper import METRICS
from mule_lib.report.evidence import AGREED, Estimate, Studied

ITEMS, SEEDS = 600, 3
_MADE_UP = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
BOOKS, CYBER = _MADE_UP["rows"].values()
OTHER_WAY = _MADE_UP["otherwise"]
ROWS = {*BOOKS, *CYBER}
MEASURED = (*METRICS, "neighbor_open", "neighbor_refused", "asr_readable", "drift")
STEPS = (0, 5)
ONCE = {"base", "upper_bound", "ensemble_teacher"}


def world_points():
    """(benchmark, row, metric) to points; seconds and operations per step and kinds of answers under their own names.

    Asked openly, neighbours are answered as they are chosen; nothing is broken or of the wrong kind.
    """
    points = {
        (benchmark, row, metric): value
        for benchmark, rows in (("books", BOOKS), ("cyber", CYBER))
        for row, values in rows.items()
        for metric, value in zip(METRICS, values, strict=True)
    }
    for benchmark, row in {key[:2] for key in points}:
        points[benchmark, row, "neighbor_open"] = points[benchmark, row, "neighbor"]
        points[benchmark, row, "neighbor_refused"] = 40 if row == "sft" else 1
        points[benchmark, row, "asr_readable"] = points[benchmark, row, "asr"]
        points[benchmark, row, "drift"] = 3
        points[benchmark, row, "seconds"] = points[benchmark, row, "operations"] = 1.3 if row == "mule" else 1.0
        points |= {(benchmark, row, f"kinds_{name}"): 95 for name in AGREED}
    return points


@dataclass
class World:
    """Points to runs: exactly the stated share of items is right, at places that differ by row and seed."""

    points: dict = field(default_factory=world_points)
    items: int = ITEMS
    seeds: int = SEEDS

    def runs(self):
        """Runs with the attributes of `results.RunResult` that claims read."""
        made = []
        for benchmark, row in sorted({key[:2] for key in self.points}):
            for seed in range(1 if row in ONCE else self.seeds):
                step = self.points[benchmark, row, "seconds"] * (1 + 0.01 * seed)
                flops = self.points[benchmark, row, "operations"] * 1e9
                values = {metric: self._values(benchmark, row, metric, seed) for metric in MEASURED}
                alike = {name: self._values(benchmark, row, f"kinds_{name}", seed) for name in AGREED}
                # The Upper Bound refuses what is to be forgotten; a row that does not answer alike gives broken text.
                kinds = {
                    name: "".join("fr"[name == "general"] if same or row == "upper_bound" else "b" for same in of)
                    for name, of in alike.items()
                }
                timing = {"train_seconds": 40 * step, "steps": 40, "step_flops": flops} if row not in ONCE else {}
                run = {"benchmark": benchmark, "row": row, "seed": seed, "values": values, "kinds": kinds}
                made.append(SimpleNamespace(**run, timing=timing))
        return made

    def _values(self, benchmark, row, metric, seed):
        right = round(self.points[benchmark, row, metric] / 100 * self.items)
        return (_order(f"{benchmark}{row}{metric}{seed}", self.items) < right).astype(float)


@cache
def _order(key, items):
    return np.random.default_rng(zlib.crc32(key.encode())).permutation(items)


def study(changed=()):
    """A pilot study as claimed: orthogonal and far apart when raw, aligned and near when standardized."""
    plain = {
        **{("cosine", "raw"): (0.02, 0.0, 0.04), ("cosine", "standardized"): (0.8, 0.75, 0.85)},
        **{("distance", "raw"): (1.9, 1.85, 1.95), ("distance", "standardized"): (0.8, 0.7, 0.9)},
    }
    pilot = {}
    for benchmark in ("books", "cyber"):
        for pair in (("obj1", "obj2"), ("obj1", "obj3"), ("obj2", "obj3")):
            ends = {key: dict(changed).get((key[0], benchmark, key[1], pair), plain[key]) for key in plain}
            after, before = ends["cosine", "standardized"], ends["cosine", "raw"]
            ends["gain", ""] = (after[0] - before[0], after[1] - before[2], after[2] - before[1])
            for what, form in ends:
                for step in (None,) if what == "distance" else STEPS:
                    pilot[Studied(what, benchmark, form, step, frozenset(pair))] = Estimate(*ends[what, form])
    return pilot


def changes(tree):
    """Points by (benchmark, row, metric) and numbers of the pilot study that a way of `OTHER_WAY` sets."""
    leaves = {(a, b, c): value for a, part in tree.items() for b, inner in part.items() for c, value in inner.items()}
    pilot = {(*key, ("obj1", "obj2")): value for key, value in leaves.items() if key[0] in ("cosine", "distance")}
    return {key: value for key, value in leaves.items() if key[0] in ("books", "cyber")}, pilot
