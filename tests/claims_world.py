"""A made-up world of results in which every claim that can be measured holds; tests change one thing at a time."""

import zlib
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace

import numpy as np

from mule_lib.paper import METRICS
from mule_lib.report.claims import Estimate

ITEMS, SEEDS = 400, 3
# Points: forget, general, neighbor, asr, mmlu.
BOOKS = {
    "base": (98, 90, 95, 98, 80),
    "mule": (3, 88, 94, 2, 79),
    "upper_bound": (2, 89, 94, 2, 80),
    "ensemble_teacher": (10, 50, 60, 20, 79),
    "ga": (90, 80, 90, 90, 40),
    "simnpo": (60, 40, 90, 90, 80),
    "flat": (5, 50, 60, 50, 78),
    "sft": (1, 50, 50, 13, 50),
    "ngdiff": (40, 85, 60, 40, 79),
    "mollm": (50, 85, 90, 80, 79),
    "duet": (10, 80, 60, 50, 60),
    "mule_no_standardization": (20, 70, 80, 30, 75),
    "mule_no_anchors": (3, 88, 70, 2, 79),
    "mule_no_cot": (20, 85, 80, 30, 78),
    "mule_duet_loss": (15, 85, 92, 4, 78),
    "mule_bild_loss": (15, 85, 92, 20, 78),
}
CYBER = {
    "base": (98, 90, 95, 98, 80),
    "mule": (3, 88, 94, 2, 79),
    "upper_bound": (2, 89, 94, 2, 80),
    "ensemble_teacher": (10, 60, 60, 20, 79),
    "duet": (30, 88, 90, 40, 70),
    "sft": (34, 60, 60, 13, 75),
    "ngdiff": (40, 86, 90, 40, 79),
    "mollm": (45, 86, 90, 50, 79),
}
ROWS = {*BOOKS, *CYBER}
ONCE = {"base", "upper_bound", "ensemble_teacher"}


def world_points():
    """(benchmark, row, metric) to points; refusals and seconds per step under their own names."""
    points = {
        (benchmark, row, metric): value
        for benchmark, rows in (("books", BOOKS), ("cyber", CYBER))
        for row, values in rows.items()
        for metric, value in zip(METRICS, values, strict=True)
    }
    for benchmark, row in {key[:2] for key in points}:
        points[benchmark, row, "refusal"] = 40 if row == "sft" else 1
        points[benchmark, row, "seconds"] = 1.3 if row == "mule" else 1.0
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
                made.append(
                    SimpleNamespace(
                        benchmark=benchmark,
                        row=row,
                        seed=seed,
                        values={metric: self._values(benchmark, row, metric, seed) for metric in METRICS},
                        details={"neighbor": {"refusal": self.points[benchmark, row, "refusal"] / 100}},
                        timing={"train_seconds": 0.0 if row in ONCE else 40 * step, "steps": 0 if row in ONCE else 40},
                    )
                )
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
            pilot |= {(what, benchmark, form, frozenset(pair)): Estimate(*ends[what, form]) for what, form in ends}
    return pilot


# What makes a claim fail, and what makes it undecided, everything else being as claimed; read by `changes`.
OTHER_WAY = {
    "best_overall_books": (
        "books/sft forget=1 general=90 neighbor=95 asr=1 mmlu=80; books/mule general=70",
        "books/sft forget=3 general=88 neighbor=94 asr=2 mmlu=79",
    ),
    "best_overall_cyber": ("cyber/mule general=10 neighbor=20", "cyber/mule forget=30 asr=40 neighbor=90 mmlu=70"),
    "near_upper_bound": ("books/mule neighbor=80", "books/mule neighbor=89"),
    "forgets_target": ("cyber/mule forget=40", "cyber/mule forget=19.5"),
    "lowest_prefill_asr": ("books/sft asr=0; books/mule asr=10", "books/sft asr=2"),
    "asr_below_gradient_editing": ("cyber/ngdiff asr=3", "cyber/ngdiff asr=7"),
    "no_over_refusal": ("cyber/mule refusal=30", "cyber/mule refusal=6"),
    "keeps_general_utility": ("books/mule mmlu=50", "books/mule mmlu=70"),
    "balanced_cyber": ("cyber/duet forget=2 general=89 neighbor=94 asr=2 mmlu=80", "cyber/mule general=80"),
    "baseline_gradients_orthogonal": ("cosine/books/raw=-0.4,-0.5,-0.3", "cosine/books/raw=0.1,0,0.2"),
    "standardization_aligns_gradients": (
        "cosine/books/standardized=0.2,0.1,0.3",
        "cosine/cyber/standardized=0.5,0.3,0.7",
    ),
    "domain_gap_is_the_cause": (
        "cosine/books/standardized=-0.5,-0.6,-0.4",
        "cosine/books/standardized=0.02,-0.1,0.1",
    ),
    "standardization_tightens_bound": (
        "distance/cyber/standardized=2,1.99,2; distance/cyber/raw=1,0.9,1.1",
        "distance/cyber/standardized=1.9,1.8,2",
    ),
    "objectives_become_cooperative": (
        "cosine/cyber/standardized=-0.5,-0.6,-0.4",
        "cosine/cyber/standardized=0.05,-0.1,0.2",
    ),
    "naive_extension_fails": ("books/flat general=88 asr=2", "books/flat general=80 asr=2"),
    "anchors_sharpen_boundary": ("books/mule_no_anchors neighbor=99", "books/mule_no_anchors neighbor=94"),
    "cot_teacher_sets_boundary": ("books/upper_bound general=60", "books/upper_bound general=80"),
    "student_internalizes_intention": ("books/mule forget=18", "books/mule forget=7"),
    "student_term_helps": (
        "books/mule_duet_loss forget=0.5; books/mule forget=12",
        "books/mule_duet_loss forget=3",
    ),
    "magnitudes_beat_rankings": ("books/mule_bild_loss asr=0; books/mule asr=12", "books/mule_bild_loss asr=2"),
    "ensemble_prompts_interfere": (
        "books/ensemble_teacher neighbor=99.5; books/upper_bound neighbor=80",
        "books/ensemble_teacher neighbor=94",
    ),
    "ensemble_teacher_loses_utility": ("cyber/ensemble_teacher general=90", "cyber/ensemble_teacher general=85"),
    "duet_keeps_trade_offs": ("books/duet asr=2", "books/duet mmlu=75"),
    "sft_over_refuses": ("books/sft refusal=0", "books/sft neighbor=90"),
    "gradient_editing_unlearns_less": ("books/mollm forget=1", "books/mollm mmlu=70"),
    "sft_collapses_cyber": ("cyber/sft general=89", "cyber/sft asr=19.5"),
    "gradient_editing_keeps_utility_cyber": ("cyber/ngdiff general=50", "cyber/ngdiff general=80"),
    "efficient": ("cyber/mule seconds=3", "books/sft seconds=0.65"),
}


def changes(text):
    """Points (benchmark, row, metric) and pilot numbers of the pair obj1, obj2 that a line of `OTHER_WAY` sets."""
    points, pilot = {}, {}
    for part in filter(None, text.split("; ")):
        if part.startswith(("cosine/", "distance/")):
            what, _, numbers = part.partition("=")
            pilot[(*what.split("/"), ("obj1", "obj2"))] = tuple(map(float, numbers.split(",")))
        else:
            place, *settings = part.split()
            points |= {(*place.split("/"), name): float(v) for name, v in (one.split("=") for one in settings)}
    return points, pilot
