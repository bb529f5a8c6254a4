"""What a run's numbers hang on (parameters, code, prompts, data, model, packages), and its fingerprint."""

import hashlib
import json
import platform
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mule_lib.closure import code_hashes
from mule_lib.params import ROOT, Notebook, repository_path

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "rouge-score")
# Where a result lies does not change it; files and models count by their content.
WITHOUT_RESULTS = ("out_dir", "overwrite", "data_dir", "teacher_file", "model", "revision")
WEIGHTS = ROOT / "mule_lib" / "embedded" / "weights" / "manifest.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
DATA_FILES = ("train.jsonl", "raw.jsonl", "validation.jsonl", "evaluation/*")  # not the tables and figures about them


def identity(notebook: Path, params: Notebook) -> dict[str, Any]:
    """All that a run's numbers hang on, as JSON: notebook, params, code, prompts, data, model and packages.

    Code, prompts and data are hashes by file. Raises FileNotFoundError for data or a model that is not there.
    """
    values = params.model_dump()
    return json.loads(
        json.dumps(
            {
                "notebook": notebook.stem,
                "params": {name: value for name, value in values.items() if name not in WITHOUT_RESULTS},
                "code": code_hashes(notebook),
                "prompts": _prompts(values.get("benchmark", "")),
                "data": {
                    **folder_hashes(values.get("data_dir", ""), only=DATA_FILES),
                    **folder_hashes(values.get("teacher_file", "")),
                },
                "model": model_hash(values["model"], values.get("revision", "")) if "model" in values else None,
                "packages": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            }
        )
    )


def fingerprint(told: Mapping[str, Any]) -> str:
    """Sixteen hex digits of an identity; equal only if everything in it is."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def flat(told: Mapping[str, Any], *, before: str = "") -> dict[str, Any]:
    """Nested mappings as one level, keys joined by dots."""
    lines: dict[str, Any] = {}
    for name, value in told.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping) and value:
            lines |= flat(value, before=f"{key}.")
        else:
            lines[key] = value
    return lines


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What two identities differ in: name, its value in the first, in the second; None where it is missing."""
    left, right = flat(one), flat(other)
    names = dict.fromkeys([*left, *right])
    return [(name, left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)]


def model_hash(name: str, revision: str = "") -> str:
    """Hash of a model: of all its files for an embedded one or a folder, the commit for one of the hub."""
    embedded = json.loads(WEIGHTS.read_text("utf-8"))["sha256"] if WEIGHTS.exists() else {}
    own = {file: digest for file, digest in embedded.items() if file.startswith(f"{name}/")}
    if own:
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]
    folder = repository_path(name)
    if folder.is_dir():
        hashes = folder_hashes(name, only=MODEL_FILES)
        return hashlib.sha256(json.dumps(list(hashes.values())).encode()).hexdigest()[:16]
    return f"{name}@{_commit(name, revision or 'main')}"


def folder_hashes(path: str, *, only: tuple[str, ...] = ("*",)) -> dict[str, str]:
    """Hash of every file of a folder that matches one of `only`, by its name there, or of one file; {} for "".

    Hidden files do not count. Raises FileNotFoundError where there is nothing.
    """
    if not path:
        return {}
    start = repository_path(path)
    if not start.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = sorted(file for file in start.rglob("*") if file.is_file()) if start.is_dir() else [start]
    names = {file: file.relative_to(start).as_posix() if start.is_dir() else file.name for file in files}
    return {
        name: file_hash(file)
        for file, name in names.items()
        if any(fnmatch(name, pattern) for pattern in only) and not any(part.startswith(".") for part in name.split("/"))
    }


def file_hash(file: Path) -> str:
    """Sixteen hex digits of a file's content."""
    status = file.stat()
    return _file_hash(file, status.st_mtime_ns, status.st_size)


@cache
def _file_hash(file: Path, changed: int, size: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _prompts(benchmark: str) -> dict[str, str]:
    """Hash of the prompt texts that a benchmark uses: its own, else Fable's."""
    folder = ROOT / "mule_lib" / "prompt_texts"
    files = (folder / f"{benchmark}.yaml", folder / "fable.yaml")
    found = next(file for file in files if file.exists())
    return {found.name: file_hash(found)}


def _commit(name: str, revision: str) -> str:
    """The commit of a hub model in the local cache; the asked revision where it is not there yet."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(file).parent.name if isinstance(file, str) else revision
