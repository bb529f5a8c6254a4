"""Two run folders side by side: which settings and which numbers differ; and all runs of a suite, one line each."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mule_lib.fingerprint import differences
from mule_lib.paper import METRICS
from mule_lib.run_folder import METRICS as METRICS_FILE
from mule_lib.run_folder import read_identity


class CompareError(ValueError):
    """A folder is no run."""


def compare(one: Path, other: Path) -> list[str]:
    """Lines that name every setting and number in which two runs differ; paired intervals where the items are the same.

    Raises CompareError for a folder that holds no whole run.
    """
    left, right = _read(one), _read(other)
    lines = [f"A  {_title(left)}  {one}", f"B  {_title(right)}  {other}"]
    settings = differences(read_identity(one) or {}, read_identity(other) or {})
    lines.append("settings: " + (f"{len(settings)} differ" if settings else "all agree"))
    lines += [f"  {name}: {_shown(name, a)} | {_shown(name, b)}" for name, a, b in settings]
    lines.append("numbers, A | B, and B minus A with its 95 % interval (points):")
    values = [json.loads((folder / "values.json").read_text("utf-8")) for folder in (one, other)]
    for metric in METRICS:
        a, b = left["metrics"][metric], right["metrics"][metric]
        lines.append(f"  {metric}: {a:.1f} | {b:.1f}  {_change(values[0][metric], values[1][metric], b - a)}")
    rates = differences(_rates(left["details"]), _rates(right["details"]))
    lines += [f"  {name}: {_number(a)} | {_number(b)}" for name, a, b in rates]
    return lines


def runs_below(folder: Path) -> list[Path]:
    """All whole run folders below a folder, sorted by name; hidden drafts do not count."""
    found = (file.parent for file in folder.rglob(METRICS_FILE))
    return sorted(
        run
        for run in found
        if read_identity(run) is not None and not any(p.startswith(".") for p in run.relative_to(folder).parts)
    )


def listing(folder: Path) -> Iterator[str]:
    """One line per run below a folder: where, the five metrics, seconds, age, fingerprint."""
    for run in runs_below(folder):
        told = _read(run)
        shown = "  ".join(f"{name} {told['metrics'][name]:5.1f}" for name in METRICS)
        age = (time.time() - (run / METRICS_FILE).stat().st_mtime) / 3600
        seconds = told["timing"].get("seconds", 0)
        yield f"{run.relative_to(folder)}  {shown}  {seconds:.0f} s  {age:.1f} h old  {told['identity']}"


def _read(folder: Path) -> dict[str, Any]:
    if read_identity(folder) is None:
        raise CompareError(f"{folder}: no run lies there; a run folder has metrics.json and provenance.json")
    return json.loads((folder / METRICS_FILE).read_text("utf-8"))


def _title(told: Mapping[str, Any]) -> str:
    return f"{told['benchmark']} {told['row']} seed {told['seed']} [{told['identity']}]"


def _shown(name: str, value: Any) -> str:
    return "missing" if value is None and not name.startswith("params.") else repr(value)


def _rates(details: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The plain rates of each set, without what hangs on single subjects, families or letters."""
    return {
        name: {key: value for key, value in detail.items() if isinstance(value, int | float)}
        for name, detail in details.items()
    }


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _change(one: list[float], other: list[float], points: float) -> str:
    if len(one) != len(other):
        return f"{points:+.1f} (other items: {len(one)} and {len(other)})"
    from mule_lib.evaluate.intervals import bootstrap_difference  # brings the judges along, which are slow to import

    _, low, high, n, _ = bootstrap_difference(other, one)
    return f"{points:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] on {n} items"
