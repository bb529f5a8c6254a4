"""What a run leaves behind: files written whole or not at all, and where its numbers come from."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "papermill", "rouge-score", "numpy", "pandas")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in their given order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


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


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
