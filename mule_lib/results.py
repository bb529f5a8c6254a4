"""Run folders read back: checked, put in order, and turned into points with intervals; nothing is written here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from mule_lib.paper import METRICS, overall

BASE, GOLD = "base", "gold"
KEYS = ("benchmark", "row", "method", "label", "seed", "fingerprint", "metrics", "n", "details", "timing")
TIDY = ("benchmark", "row", "metric", "measured", "low", "high", "n", "seeds")
# A metric is the mean of its items; anything beyond rounding means that the files are of different runs.
TOLERANCE = 1e-6


class ResultError(ValueError):
    """A run folder cannot be read, or runs do not belong together; the message says which file and what is right."""


@dataclass(frozen=True)
class RunResult:
    """What one run folder holds: `metrics` in points, `values` [items] of each metric in 0 to 1, rates in `details`."""

    benchmark: str
    row: str
    method: str
    label: str
    seed: int
    fingerprint: str
    metrics: Mapping[str, float]
    values: Mapping[str, Sequence[float]]
    n: Mapping[str, int]
    details: Mapping[str, Mapping[str, Any]]
    beyond: Mapping[str, Any] | None
    timing: Mapping[str, float]
    folder: Path = field(compare=False)

    @property
    def params(self) -> dict[str, Any]:
        """The run's parameters; {} where the file is missing."""
        return _json(self.folder / "params.json") if (self.folder / "params.json").exists() else {}

    @property
    def provenance(self) -> dict[str, Any]:
        """Code, packages, model, data and machine behind the run; {} where the file is missing."""
        return _json(self.folder / "provenance.json") if (self.folder / "provenance.json").exists() else {}

    @property
    def obedience(self) -> list[dict[str, Any]]:
        """How often the teacher did what its intention says, by objective and role; [] without a teacher."""
        return _json(self.folder / "obedience.json") if (self.folder / "obedience.json").exists() else []

    @property
    def curve(self) -> pd.DataFrame:
        """One line per logged step; empty for a run that trained nothing."""
        file = self.folder / "training.csv"
        return pd.read_csv(file) if file.exists() and file.stat().st_size > 1 else pd.DataFrame()


def load_runs(folder: Path | str) -> list[RunResult]:
    """Every whole run below `folder`, `outputs/<name>` or its `runs`, ordered by benchmark, row and seed.

    A folder without `metrics.json` is a run that did not end, and is left out. Raises ResultError for a missing
    folder, a file that cannot be read, a folder whose name contradicts its contents, metrics that are not the means
    of their items, and rows of one benchmark with different numbers of items.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultError(
            f"{folder}: no such folder; `make reproduce` or `mule run notebooks/04_training.ipynb` fills it"
        )
    below = folder / "runs" if (folder / "runs").is_dir() else folder
    found = [_load(file) for file in sorted(below.glob("*/*/seed-*/metrics.json"))]
    _check_items(found)
    return sorted(found, key=lambda run: (run.benchmark, run.row, run.seed))


def by_row(runs: Iterable[RunResult]) -> dict[tuple[str, str], list[RunResult]]:
    """Runs by benchmark and row, seeds in order."""
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for run in sorted(runs, key=lambda run: (run.benchmark, run.row, run.seed)):
        groups.setdefault((run.benchmark, run.row), []).append(run)
    return groups


def tidy(runs: Iterable[RunResult], *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One line per benchmark, row and metric: points with a bootstrap interval over items and seeds.

    Beside the five metrics `overall` against the benchmark's base row and `gold_distance` to its gold row, each only
    where that row was run. Columns are `TIDY`; `n` counts items.
    """
    how = {"level": level, "resamples": resamples, "seed": seed}
    groups, lines = by_row(runs), []
    for (benchmark, row), group in groups.items():
        values = _stacked(group)
        for metric in METRICS:
            found = bootstrap_interval(values[metric], **how)
            lines.append((benchmark, row, metric, *_points(found)))
        for metric, other, distance in (
            ("overall", BASE, bootstrap_overall),
            ("gold_distance", GOLD, bootstrap_gold_distance),
        ):
            if (benchmark, other) in groups:
                found = distance(groups[benchmark, other][0].values, values, **how)
                lines.append((benchmark, row, metric, *_points(found, scale=1)))
    return pd.DataFrame(lines, columns=list(TIDY))


def differences(
    runs: Iterable[RunResult], to: str, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Every row minus row `to` of its benchmark, paired by item and by the seeds that both have.

    Columns are those of `tidy` with `difference` for `measured`, in points; `overall` is the difference of overalls.
    Rows that share no seed with `to` are left out, and so is a benchmark without `to`.
    """
    how = {"level": level, "resamples": resamples, "seed": seed}
    groups, lines = by_row(runs), []
    for (benchmark, row), group in groups.items():
        if row == to or (benchmark, to) not in groups:
            continue
        mine, theirs = _paired(group, groups[benchmark, to])
        if not mine:
            continue
        left, right = _stacked(mine), _stacked(theirs)
        for metric in METRICS:
            found = bootstrap_difference(left[metric], right[metric], **how)
            lines.append((benchmark, row, metric, *_points(found)))
        # The base model cancels: the difference of two overalls is the overall of one row against the other.
        found = bootstrap_overall(right, left, **how)
        lines.append((benchmark, row, "overall", *_points(found, scale=1)))
    return pd.DataFrame(lines, columns=["difference" if name == "measured" else name for name in TIDY])


def per_seed(runs: Iterable[RunResult]) -> pd.DataFrame:
    """One line per benchmark, row, seed and metric with its `value` in points; `overall` where the base row was run."""
    runs, lines = list(runs), []
    base = {run.benchmark: run.metrics for run in reversed(runs) if run.row == BASE}
    for run in runs:
        metrics = {metric: run.metrics[metric] for metric in METRICS}
        if run.benchmark in base:
            metrics["overall"] = overall(base[run.benchmark], metrics)
        lines += [(run.benchmark, run.row, run.seed, metric, value) for metric, value in metrics.items()]
    return pd.DataFrame(lines, columns=["benchmark", "row", "seed", "metric", "value"])


def _paired(left: list[RunResult], right: list[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """Runs of the seeds that both sides have; a side that trains nothing faces every seed of the other."""
    if not right[0].timing.get("steps"):
        return left, right[:1] * len(left)
    if not left[0].timing.get("steps"):
        return left[:1] * len(right), right
    seeds = {run.seed for run in left} & {run.seed for run in right}
    return [run for run in left if run.seed in seeds], [run for run in right if run.seed in seeds]


def _stacked(group: Sequence[RunResult]) -> dict[str, np.ndarray]:
    """Item values [seeds, items] per metric."""
    return {metric: np.asarray([run.values[metric] for run in group], dtype=np.float64) for metric in METRICS}


def _points(found: Interval, *, scale: float = 100) -> tuple[float, float, float, int, int]:
    return scale * found.estimate, scale * found.low, scale * found.high, found.n, found.seeds


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{file}: cannot be read as JSON ({error}); run that row again") from None


def _load(file: Path) -> RunResult:
    folder, told = file.parent, _json(file)
    missing = [key for key in KEYS if not isinstance(told, dict) or key not in told]
    if missing:
        raise ResultError(f"{file}: lacks {', '.join(missing)}; it should be the metrics.json of notebook 04")
    place = (folder.parent.parent.name, folder.parent.name, folder.name)
    inside = (told["benchmark"], told["row"], f"seed-{told['seed']}")
    if place != inside:
        raise ResultError(f"{file}: holds the run {'/'.join(inside)}; its folder should be named so")
    values = _json(folder / "values.json")
    for metric in METRICS:
        _check_values(folder, metric, told["metrics"], values)
    return RunResult(**{key: told[key] for key in KEYS}, beyond=told.get("beyond"), values=values, folder=folder)


def _check_values(folder: Path, metric: str, metrics: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    if metric not in metrics or not values.get(metric):
        raise ResultError(f"{folder}: no {metric} in metrics.json or no items of it in values.json; run that row again")
    table = np.asarray(values[metric], dtype=np.float64)
    if not ((table >= 0) & (table <= 1)).all():
        raise ResultError(f"{folder / 'values.json'}: {metric} should hold values from 0 to 1")
    if abs(100 * table.mean() - metrics[metric]) > TOLERANCE:
        raise ResultError(
            f"{folder}: {metric} is {metrics[metric]:.4f} in metrics.json, and the mean of its items in values.json is "
            f"{100 * table.mean():.4f}; the files are of different runs"
        )


def _check_items(runs: Sequence[RunResult]) -> None:
    """Rows are compared item by item, so all of a benchmark answer the same ones."""
    first: dict[tuple[str, str], RunResult] = {}
    for run in runs:
        for metric in METRICS:
            other = first.setdefault((run.benchmark, metric), run)
            if len(run.values[metric]) != len(other.values[metric]):
                raise ResultError(
                    f"{run.folder}: {metric} has {len(run.values[metric])} items, {other.folder} has "
                    f"{len(other.values[metric])}; rows of one benchmark should be evaluated on the same items"
                )
