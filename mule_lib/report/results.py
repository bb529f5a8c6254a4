"""Run folders read back: put in order, checked against each other, and turned into points with intervals."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mule_lib.evaluate.intervals import (
    Interval,
    bootstrap_difference,
    bootstrap_gold_distance,
    bootstrap_interval,
    bootstrap_overall,
)
from mule_lib.evaluate.result import METRICS_FILE, MORE_METRICS, READABLE_METRICS, ResultError, RunResult
from mule_lib.paper import METRICS
from mule_lib.report.names import BASE, GOLD, TWINS

TIDY = ("benchmark", "row", "metric", "measured", "low", "high", "n", "seeds")
OVERALLS = {"overall", "overall_readable"}
PLACE = attrgetter("benchmark", "row", "seed")


def load_runs(folder: Path | str) -> list[RunResult]:
    """Every whole run below `folder`, `outputs/<name>` or its `runs`, ordered by benchmark, row and seed.

    A folder without `metrics.json` is a run that did not end, and is left out. Raises ResultError for a missing
    folder, what `RunResult.read` refuses, a folder whose name contradicts its contents, and rows of one benchmark with
    different numbers of items.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultError(f"{folder}: no such folder; `make reproduce` or notebook 04_training fills it")
    below = folder / "runs" if (folder / "runs").is_dir() else folder
    runs = sorted((RunResult.read(file.parent) for file in below.glob(f"*/*/seed-*/{METRICS_FILE}")), key=PLACE)
    first: dict[tuple[str, str], RunResult] = {}
    for run in runs:
        inside = f"{run.benchmark}/{run.row}/seed-{run.seed}"
        if not run.folder.as_posix().endswith(inside):
            raise ResultError(f"{run.folder / METRICS_FILE}: holds the run {inside}; its folder should be named so")
        for metric in run.values:  # rows are compared item by item, so all of a benchmark answer the same ones
            other = first.setdefault((run.benchmark, metric), run)
            if len(run.values[metric]) != len(other.values[metric]):
                raise ResultError(
                    f"{run.folder}: {metric} has {len(run.values[metric])} items, {other.folder} has "
                    f"{len(other.values[metric])}; rows of one benchmark should be evaluated on the same items"
                )
    return runs


def run_file(run: RunResult, name: str) -> dict[str, Any]:
    """`params.json` or `provenance.json` (code, packages, model, data, machine) of a run; {} where it is missing."""
    file = run.folder / name if run.folder else None
    return json.loads(file.read_text("utf-8")) if file and file.exists() else {}


def by_row(runs: Iterable[RunResult]) -> dict[tuple[str, str], list[RunResult]]:
    """Runs by benchmark and row, seeds in order."""
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for run in sorted(runs, key=PLACE):
        groups.setdefault((run.benchmark, run.row), []).append(run)
    return groups


def tidy(runs: Iterable[RunResult], *, seed: int = 0) -> pd.DataFrame:
    """One line per benchmark, row and metric: points with a bootstrap 95 % interval over items and seeds.

    Beside the five metrics those of `MORE_METRICS` that were measured, `overall` and `overall_readable` against the
    benchmark's base row, and `gold_distance` to its gold row, where that row was run. Columns are `TIDY`; `n` counts
    items.
    """
    groups, lines = by_row(runs), []
    for (benchmark, row), group in groups.items():
        values = _stacked(group)
        for metric in (*METRICS, *(name for name in MORE_METRICS if name in values)):
            lines.append((benchmark, row, metric, *_points(bootstrap_interval(values[metric], seed=seed))))
        base, gold = (groups.get((benchmark, name), [])[:1] for name in (BASE, GOLD))
        for metric, view in (("overall", dict), ("overall_readable", readable)):
            if base and view(values) and view(base[0].values):
                interval = bootstrap_overall(view(base[0].values), view(values), seed=seed)
                lines.append((benchmark, row, metric, *_points(interval, scale=1)))
        if gold and gold[0].kinds:
            interval = bootstrap_gold_distance(gold[0].kinds, [run.kinds for run in group], seed=seed)
            lines.append((benchmark, row, "gold_distance", *_points(interval, scale=1)))
    return pd.DataFrame(lines, columns=list(TIDY))


def differences(runs: Iterable[RunResult], to: str, *, metrics: Collection[str] = (), seed: int = 0) -> pd.DataFrame:
    """Every row minus row `to` of its benchmark, paired by item and by the seeds that both have; all or some metrics.

    Columns are those of `tidy` with `difference` for `measured`, in points; `overall` and `overall_readable` are
    differences of overalls. Rows that share no seed with `to` are left out, and so is a benchmark without `to`.
    """
    groups, lines = by_row(runs), []
    for (benchmark, row), group in groups.items():
        pair = _paired(group, groups.get((benchmark, to), []))
        if row == to or not all(pair):
            continue
        left, right = map(_stacked, pair)
        for metric in (*METRICS, *(name for name in MORE_METRICS if name in left and name in right)):
            if not metrics or metric in metrics:
                paired = bootstrap_difference(left[metric], right[metric], seed=seed)
                lines.append((benchmark, row, metric, *_points(paired)))
        if not metrics or metrics & OVERALLS:
            lines += [(benchmark, row, name, *points) for name, points in _overalls(left, right, seed).items()]
    return pd.DataFrame(lines, columns=["difference" if name == "measured" else name for name in TIDY])


def lead(runs: Sequence[RunResult], *, seed: int = 0) -> pd.DataFrame:
    """MULE's lead in Overall over each baseline that ran in both conditions, split into its data and its loss.

    `lead` is MULE minus the baseline in the paper's condition, `data` what MULE's records give the baseline, `loss`
    MULE minus the baseline on MULE's records; each with a paired 95 % interval. One line per benchmark, baseline and
    metric (`overall`, `overall_readable`).
    """
    groups, lines, ends = by_row(runs), [], ("", "_low", "_high")
    for benchmark, row in groups:
        twin = TWINS.get(row)
        if {(benchmark, twin), (benchmark, "mule")} <= groups.keys():
            line: dict[str, dict] = {metric: {} for metric in sorted(OVERALLS)}
            for part, pair in {"lead": ("mule", row), "data": (twin, row), "loss": ("mule", twin)}.items():
                found = _paired(*(groups[benchmark, name] for name in pair))
                for metric, points in (_overalls(*map(_stacked, found), seed) if all(found) else {}).items():
                    line[metric] |= dict(zip((part + end for end in ends), points, strict=False))
            lines += [{"benchmark": benchmark, "row": row, "metric": metric, **one} for metric, one in line.items()]
    parts = [part + end for part in ("lead", "data", "loss") for end in ends]
    return pd.DataFrame(lines, columns=["benchmark", "row", "metric", *parts])


def _overalls(left: Mapping[str, Any], right: Mapping[str, Any], seed: int) -> dict[str, tuple]:
    """Differences of two rows' overalls; the base model cancels, so they are the overall of one against the other."""
    views = {"overall": (left, right), "overall_readable": (readable(left), readable(right))}
    return {
        name: _points(bootstrap_overall(theirs, ours, seed=seed), scale=1)
        for name, (ours, theirs) in views.items()
        if ours and theirs
    }


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with those that *Overall, readable* takes; {} where they were not measured."""
    if not set(READABLE_METRICS.values()) <= set(values):
        return {}
    return {metric: values[READABLE_METRICS.get(metric, metric)] for metric in METRICS}


def _paired(left: list[RunResult], right: list[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """Runs of the seeds that both sides have; a side that trains nothing faces every seed of the other."""
    if right and not right[0].timing.get("steps"):
        return left, right[:1] * len(left)
    if not left[0].timing.get("steps"):
        return left[:1] * len(right), right
    seeds = {run.seed for run in left} & {run.seed for run in right}
    return tuple([run for run in side if run.seed in seeds] for side in (left, right))


def _stacked(group: Sequence[RunResult]) -> dict[str, np.ndarray]:
    """Item values [seeds, items] per metric that all runs have."""
    names = set.intersection(*(set(run.values) for run in group))
    return {name: np.asarray([run.values[name] for run in group], dtype=np.float64) for name in names}


def _points(found: Interval, *, scale: float = 100) -> tuple[float, float, float, int, int]:
    return scale * found.estimate, scale * found.low, scale * found.high, found.n, found.seeds
