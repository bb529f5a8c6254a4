"""Where the numbers of a run come from."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "papermill", "rouge-score", "numpy", "pandas")


def provenance(params: Mapping[str, Any], *, started: float, **more: Any) -> dict[str, Any]:
    """Parameters, code, packages, machine and wall time (seconds since `started`) behind a run's numbers."""
    return {
        "params": dict(params),
        "git": _git(),
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(time.time() - started, 1),
        **more,
    }


def _git() -> dict[str, Any]:
    root = Path(__file__).resolve().parent.parent

    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):  # an installed copy without its repository
        return {"commit": None, "dirty": None}
