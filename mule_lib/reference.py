"""The committed small files of one full run of a suite: kept from it, and compared with a fresh one."""

import csv
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from mule_lib.data.files import write_text
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.report.page import live_links
from mule_lib.report.results import load_runs

KEPT = frozenset({".csv", ".json", ".md", ".tex", ".html", ".png", ".pdf", ".txt"})
# Folders of a suite that are large or of one machine only.
LEFT_OUT = frozenset({"runs", "teachers", "executed", "logs", "evaluation"})
LARGEST = 4_000_000  # bytes
COLUMNS = ("benchmark", "row", "seed", "fingerprint", *METRICS, "steps", "train_seconds", "evaluate_seconds")
# Points by which a fresh run may differ: other processors round otherwise, and training makes more of it.
UNTRAINED, TRAINED = 1.0, 8.0


class NoReferenceError(ValueError):
    """There is nothing to keep or to compare with; the message names the folder."""


def keep(suite: Path, reference: Path) -> list[Path]:
    """Replace `reference` by the small files of a suite's folder and a table of its runs; return what was kept.

    Raises NoReferenceError where the suite has no report, since then it did not end.
    """
    if not (suite / "report.html").is_file():
        raise NoReferenceError(f"{suite}: no report.html, so the suite did not end; `make reproduce` ends it")
    runs = load_runs(suite)
    chosen = [file for file in sorted(suite.rglob("*")) if _is_kept(file, suite)]
    if reference.exists():
        shutil.rmtree(reference)
    for file in chosen:
        target = reference / file.relative_to(suite)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    write_text(reference / "runs.csv", _table(runs))
    # The page without links to what is not kept.
    write_text(reference / "report.html", live_links((suite / "report.html").read_text("utf-8"), reference))
    return [file.relative_to(suite) for file in chosen]


def read_runs(reference: Path) -> list[dict[str, str]]:
    """The table of runs of a reference. Raises NoReferenceError where there is none."""
    file = reference / "runs.csv"
    if not file.is_file():
        raise NoReferenceError(f"{file}: missing; `mule reference` writes it from a suite that was run")
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def differences(runs: Sequence[RunResult], reference: Path) -> tuple[int, list[str]]:
    """How many of the runs the reference has, and one line per metric that differs by more than its tolerance."""
    held = {(line["benchmark"], line["row"], int(line["seed"])): line for line in read_runs(reference)}
    compared, found = 0, []
    for run in runs:
        line = held.get((run.benchmark, run.row, run.seed))
        if line is None:
            continue
        compared += 1
        tolerance = TRAINED if run.timing["steps"] else UNTRAINED
        for metric in METRICS:
            here, there = run.metrics[metric], float(line[metric])
            if abs(here - there) > tolerance:
                name = f"{run.benchmark}/{run.row}/seed-{run.seed}"
                found.append(f"{name}: {metric} is {here:.1f}, in the reference {there:.1f} (tolerance {tolerance:g})")
    return compared, found


def _is_kept(file: Path, suite: Path) -> bool:
    inside = file.relative_to(suite)
    hidden = any(part.startswith(".") or part in LEFT_OUT for part in inside.parts)
    return file.is_file() and not hidden and file.suffix in KEPT and file.stat().st_size <= LARGEST


def _table(runs: Iterable[RunResult]) -> str:
    lines = [",".join(COLUMNS)]
    for run in runs:
        metrics = (f"{run.metrics[metric]:.2f}" for metric in METRICS)
        times = (f"{run.timing[name]:g}" for name in ("steps", "train_seconds", "evaluate_seconds"))
        lines.append(",".join((run.benchmark, run.row, str(run.seed), run.identity, *metrics, *times)))
    return "\n".join(lines) + "\n"
