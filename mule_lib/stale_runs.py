"""Runs of an earlier state that a suite no longer asks for: put aside, so that no table mixes them with new ones."""

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from mule_lib.compare import runs_below
from mule_lib.fingerprint import identity
from mule_lib.params import ROOT, Training
from mule_lib.run_folder import is_reusable

NOTEBOOK = ROOT / "notebooks" / "04_training.ipynb"


def set_aside(out: Path, wanted: Collection[Path]) -> list[Path]:
    """Move runs below `out`/runs that are neither `wanted` nor still valid to `out`/stale, and return where they went.

    A run that is not asked for but whose parameters, code, data, model and packages all agree with today's stays: it
    is one more seed. Nothing is deleted; an earlier stale run of the same place is.
    """
    moved = []
    for folder in runs_below(out / "runs") if (out / "runs").is_dir() else []:
        if folder in wanted or _is_valid(folder):
            continue
        place = out / "stale" / folder.relative_to(out / "runs")
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
        moved.append(place)
    return moved


def _is_valid(folder: Path) -> bool:
    try:
        p = Training(**json.loads((folder / "params.json").read_text("utf-8")))
        return is_reusable(folder, identity(NOTEBOOK, p))
    except (OSError, ValueError):  # written with parameters or data that are no longer there
        return False
