"""The identity of a run: parameters, code, prompts, data, model and packages, all that its numbers depend on."""

import ast
import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mule_lib.data.files import file_hash, folder_hashes
from mule_lib.params import LIBRARY, ParameterError, Training, method_options, repository_path

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "rouge-score")
# Rooms that only check, read or start: no number depends on them. Standardized data counts by its content, prompt texts
# count by benchmark, weights by model.
WITHOUT_NUMBERS = ("params/", "report/", "suite/", "data/standardize/", "prompt_texts/", "embedded/")
# Of these files only the definitions count that a method runs through, so that a new method leaves other runs valid.
BY_DEFINITION = ("methods", "losses", "gradients")
# Where a result lies does not change it; files and models count by their content.
PLACES = {"out_dir", "overwrite", "seeds", "beyond", "data_dir", "teacher_file", "model", "revision", "adapter"}
PLACES |= {"save_model"}
WEIGHTS = LIBRARY / "embedded" / "weights" / "manifest.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
DATA_FILES = ("train.jsonl", "raw.jsonl", "validation.jsonl", "evaluation/*")  # not the tables and figures about them


def identity(notebook: Path, p: Training, *, seed: int) -> dict[str, Any]:
    """All that one seed's numbers depend on, as JSON: parameters, code, prompts, data, model and packages.

    Code, prompts and data are hashes by name. Raises FileNotFoundError for data or a model that is not there.
    """
    values = {name: value for name, value in p.model_dump(mode="json").items() if name not in PLACES}
    values |= {"seed": seed, "beyond": p.beyond and seed == p.seeds[0]}
    values["options"] = method_options(p.method, p.options).model_dump(mode="json")
    data = folder_hashes(repository_path(p.data_dir), only=DATA_FILES) if p.data_dir else {}
    data |= folder_hashes(repository_path(p.teacher_file)) if p.teacher_file else {}
    texts = (LIBRARY / "prompt_texts" / f"{name}.yaml" for name in (p.benchmark, "fable"))  # its own, else Fable's
    return {
        "notebook": notebook.stem,
        "params": values,
        "code": {f"notebooks/{notebook.name}": _code(notebook)[""][0], **code_hashes(p.method)},
        "prompts": folder_hashes(next(file for file in texts if file.exists())),
        "data": data,
        "model": model_hash(p.model, p.revision, p.adapter),
        "packages": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def fingerprint(value: Any) -> str:
    """Sixteen hex digits of a JSON value; equal only if everything in it is."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed_values(one: Mapping[str, Any], other: Mapping[str, Any], before: str = "") -> list[tuple[str, Any, Any]]:
    """What two identities differ in: name (nested ones joined by dots), value in the first and second or None."""
    found = []
    for name in {**one, **other}:
        left, right = one.get(name), other.get(name)
        if isinstance(left or {}, Mapping) and isinstance(right or {}, Mapping) and (left or right):
            found += changed_values(left or {}, right or {}, f"{before}{name}.")
        elif left != right:
            found.append((f"{before}{name}", left, right))
    return found


def model_hash(name: str, revision: str = "", adapter: str = "") -> str:
    """Hash of a model: of all its files for an embedded one, a folder or a GGUF file, the commit for one of the hub."""
    if adapter:
        weights = folder_hashes(repository_path(adapter), only=("adapter_*",))
        return f"{model_hash(name, revision)}+{fingerprint(list(weights.values()))}"
    embedded = json.loads(WEIGHTS.read_text("utf-8"))["sha256"] if WEIGHTS.exists() else {}
    if files := {file: digest for file, digest in embedded.items() if file.startswith(f"{name}/")}:
        return fingerprint(files)
    if repository_path(name).exists():
        return fingerprint(list(folder_hashes(repository_path(name), only=MODEL_FILES).values()))
    cached = cached_config(name, revision)
    return f"{name}@{cached.parent.name if cached else revision or 'main'}"


def cached_config(name: str, revision: str = "") -> Path | None:
    """config.json of a hub model in the cache. Raises ParameterError for a name that no hub model can have."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    except HFValidationError as error:
        raise ParameterError(f"model = {name!r}: {' '.join(str(error).split())}") from None
    return Path(file) if isinstance(file, str) else None


def code_hashes(method: str) -> dict[str, str]:
    """Hash of each file that makes numbers, by its path; comments, docstrings and layout of code do not count.

    Of `methods`, `losses` and `gradients` instead the definitions that `method` and the other files reach. The YAML
    beside the code (Fable's worlds, the attacks) counts as it is.
    """
    names = {file.relative_to(LIBRARY).as_posix(): file for file in sorted(LIBRARY.rglob("*.*"))}
    left_out = (*WITHOUT_NUMBERS, *(f"{module}.py" for module in BY_DEFINITION))
    counted = {name: file for name, file in names.items() if not name.startswith(left_out)}
    files = {name: _code(file)[""] for name, file in counted.items() if file.suffix == ".py"}
    hashes = {f"mule_lib/{name}": code for name, (code, _) in files.items()}
    hashes |= {f"mule_lib/{name}": file_hash(file) for name, file in counted.items() if file.suffix == ".yaml"}
    definitions = {name: each for module in BY_DEFINITION for name, each in _code(LIBRARY / f"{module}.py").items()}
    entry = f"methods.METHODS[{method}]"
    waiting = [entry] if entry in definitions else list(definitions)  # added at run time: anything may be behind it
    waiting += [name for name in definitions if name.endswith(".*")]
    waiting += [name for _, references in files.values() for name in references]
    while waiting:
        name = waiting.pop()
        if name in definitions and name not in hashes:
            hashes[name], references = definitions[name]
            waiting += references
    return dict(sorted(hashes.items()))  # sets of names have no order


def _code(file: Path) -> dict[str, tuple[str, frozenset[str]]]:
    return _parsed(file.read_text("utf-8"), file.name)


@cache
def _parsed(text: str, file: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Hash of a file's code (of a notebook's code cells) without comments and docstrings, and the names in it, as "".

    Of a module of `BY_DEFINITION` instead each definition; entries of the dict METHODS are definitions of their own,
    statements that define no name are "*". The names are those of such definitions.
    """
    module = file.removesuffix(".py")
    if file.endswith(".ipynb"):
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
        lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    tree = ast.parse(text, filename=file)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body[:] = node.body[1:] or [ast.Pass()]
    if module not in BY_DEFINITION:
        return {"": _hashed([tree], ())}
    parts: dict[str, list[ast.AST]] = {}
    for node in tree.body:
        value, name = getattr(node, "value", None), getattr(node, "name", None)
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        names = [name] if name else [each.id for each in targets if isinstance(each, ast.Name)]
        if names == ["METHODS"] and isinstance(value, ast.Dict):
            parts |= {f"METHODS[{ast.literal_eval(k)}]": [v] for k, v in zip(value.keys, value.values, strict=True)}
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            for each in names or ["*"]:
                parts.setdefault(each, []).append(node)
    return {f"{module}.{name}": _hashed(nodes, BY_DEFINITION) for name, nodes in parts.items()}


def _hashed(nodes: Collection[ast.AST], homes: Collection[str]) -> tuple[str, frozenset[str]]:
    """Hash of code and the definitions it names; a plain name may be of any of `homes`."""
    found = set()
    for part in (part for node in nodes for part in ast.walk(node)):
        if isinstance(part, ast.Name):
            found |= {f"{home}.{part.id}" for home in homes}
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            found.add(f"{part.value.id}.{part.attr}")
        elif isinstance(part, ast.ImportFrom) and (part.module or "").startswith("mule_lib."):
            found |= {f"{part.module.removeprefix('mule_lib.')}.{alias.name}" for alias in part.names}
    text = "\n".join(ast.dump(node) for node in nodes)
    return hashlib.sha256(text.encode()).hexdigest()[:16], frozenset(found)
