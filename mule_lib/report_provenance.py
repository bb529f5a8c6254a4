"""Where a report's numbers come from: commits, packages, models, machines, time, and a line per run with its links."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mule_lib.results import RunResult
from mule_lib.row_names import BENCHMARK_NAMES, label


def collect(suite: Path, runs: Sequence[RunResult]) -> dict[str, Any]:
    """Facts behind all runs (each with every value that occurs), the runs, and the executed notebooks of a suite."""
    sources = [run.provenance for run in runs]
    seconds = {name: sum(run.timing.get(name, 0) for run in runs) for name in ("train_seconds", "evaluate_seconds")}
    packages: dict[str, set[str]] = {}
    for source in sources:
        for name, version in source.get("packages", {}).items():
            packages.setdefault(name, set()).add(version)
    return {
        "facts": {
            "Runs": f"{len(runs)}, of {len({(run.benchmark, run.row) for run in runs})} rows",
            "Training": _time(seconds["train_seconds"]),
            "Evaluation": _time(seconds["evaluate_seconds"]),
            "Commit": _values(_commit(source.get("git", {})) for source in sources),
            "Models": _values(source.get("identity", {}).get("model") or "" for source in sources),
            "Python": _values(source.get("python", "") for source in sources),
            "Machine": _values(source.get("machine", "") for source in sources),
            "Packages": ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(packages.items())),
        },
        "runs": [_run(suite, run) for run in runs],
        "notebooks": _notebooks(suite),
    }


def _run(suite: Path, run: RunResult) -> dict[str, Any]:
    executed = Path("executed") / f"04_training-{run.benchmark}-{run.row}-{run.seed}.ipynb"
    return {
        "benchmark": BENCHMARK_NAMES.get(run.benchmark, run.benchmark),
        "row": label(run.row, {run.row: run.label}),
        "seed": run.seed,
        "steps": run.timing.get("steps", 0),
        "seconds": f"{run.timing.get('train_seconds', 0) + run.timing.get('evaluate_seconds', 0):.0f}",
        "fingerprint": run.fingerprint,
        "folder": run.folder.relative_to(suite).as_posix(),
        "notebook": executed.as_posix() if (suite / executed).exists() else "",
    }


def _notebooks(suite: Path) -> list[dict[str, str]]:
    """Executed notebooks other than those of single runs, each with the time that its own record states."""
    found = []
    for file in sorted((suite / "executed").glob("*.ipynb")):
        if file.stem.startswith("04_training-"):
            continue
        record = suite / file.stem / "provenance.json"
        told = json.loads(record.read_text("utf-8")) if record.exists() else {}
        seconds = f"{told['seconds']:.0f} s" if "seconds" in told else ""
        found.append({"name": file.stem, "file": file.relative_to(suite).as_posix(), "time": seconds})
    return found


def _commit(git: dict[str, Any]) -> str:
    commit = git.get("commit")
    return f"{commit[:12]}{', with changes not committed' if git.get('dirty') else ''}" if commit else "unknown"


def _values(found: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, found))) or "unknown"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
