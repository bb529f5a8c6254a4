"""What a run's numbers hang on (parameters, code, prompts, data, model, packages), and its fingerprint."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mule_lib.closure import code_hashes
from mule_lib.data.files import file_hash, folder_hashes
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
                    **folder_hashes(_found(values.get("data_dir", "")), only=DATA_FILES),
                    **folder_hashes(_found(values.get("teacher_file", ""))),
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
        hashes = folder_hashes(folder, only=MODEL_FILES)
        return hashlib.sha256(json.dumps(list(hashes.values())).encode()).hexdigest()[:16]
    return f"{name}@{_commit(name, revision or 'main')}"


def _found(path: str) -> Path | str:
    return repository_path(path) if path else ""


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
