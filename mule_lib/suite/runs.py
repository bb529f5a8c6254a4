"""Run folders: what a run depends on (its identity), written whole or not at all, reused only if all agrees."""

import ast
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mule_lib.data.files import file_hash, folder_hashes, write_json, write_jsonl
from mule_lib.evaluate.result import METRICS_FILE, RunResult
from mule_lib.params import ROOT, Notebook, ParameterError, Training, method_options, repository_path
from mule_lib.suite import saved

PROVENANCE_FILE = "provenance.json"
LIBRARY = ROOT / "mule_lib"
NOTEBOOK = ROOT / "notebooks" / "04_training.ipynb"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "rouge-score")
# Rooms that only check, read or start: no number depends on them. Standardized data counts by its content, prompt texts
# count by benchmark, weights by model.
WITHOUT_NUMBERS = ("params.py", "report/", "suite/", "data/standardize/", "prompt_texts/", "embedded/")
# Of these files only the definitions count that a method runs through, so that a new method leaves other runs valid.
BY_DEFINITION = ("methods", "losses", "gradients")
# Where a result lies does not change it; files and models count by their content.
PLACES = {"out_dir", "overwrite", "seeds", "beyond", "data_dir", "teacher_file", "model", "revision", "adapter"}
PLACES |= {"save_model"}
WEIGHTS = LIBRARY / "embedded" / "weights" / "manifest.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
DATA_FILES = ("train.jsonl", "raw.jsonl", "validation.jsonl", "evaluation/*")  # not the tables and figures about them


class RunFolderError(ParameterError):
    """A folder holds something else than this run; the message says what differs and what to do."""


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


def provenance(params: Mapping[str, Any], *, started: float, **more: Any) -> dict[str, Any]:
    """Parameters, code, packages, machine and wall time (seconds since `started`) behind a run's numbers."""
    return {
        "params": dict(params),
        "git": _git(),
        "packages": {name: version(name) for name in (*PACKAGES, "datasets", "papermill", "pandas")},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(time.time() - started, 1),
        **more,
    }


def _git() -> dict[str, Any]:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # an installed copy without its repository
        return {"commit": None, "dirty": None}
    return {"commit": found.removesuffix("-dirty"), "dirty": found.endswith("-dirty")}


@dataclass(frozen=True)
class Run:
    """One method on one benchmark with its seeds, each in `folder`/seed-<n>; `pending` seeds have no valid result."""

    p: Training
    folder: Path
    identities: dict[int, dict[str, Any]]
    pending: tuple[int, ...]
    started: float = field(default_factory=time.time)

    def seed_folder(self, seed: int) -> Path:
        """Where the run of one seed is written."""
        return self.folder / f"seed-{seed}"

    def checkpoints(self, seed: int) -> Path | None:
        """Where an interrupted seed goes on from: a hidden folder of this very run; None where none are kept."""
        place = f".seed-{seed}.checkpoints-{fingerprint(self.identities[seed])}"
        return self.folder / place if self.p.save_every else None

    def teacher_answers(self) -> list | None:
        """The shared answers of `teacher_file`; None where training asks the teacher itself."""
        return shared_teacher_answers(self.p, repository_path(self.p.teacher_file))[0] if self.p.teacher_file else None

    def results(self) -> list[RunResult]:
        """What the seeds measured, read back from their folders."""
        return [RunResult.read(self.seed_folder(seed)) for seed in self.p.seeds]

    def write(
        self, seed: int, trained, evaluation, *, evaluate_seconds: float, beyond: Mapping[str, Any] | None = None,
        tokenizer=None,
    ) -> RunResult:  # fmt: skip
        """Write the folder of one seed whole: parameters, metrics, item values, samples, provenance.

        With `save_model` and a `tokenizer` the trained model too, below "model"; checkpoints go.
        `trained` is what `training.train` returns, `evaluation` what `evaluate.evaluate_row` does.
        Raises RunFolderError when another run lies there.
        """
        folder, p = self.seed_folder(seed), self.p
        # A hub model has a commit only once it is here.
        found = {**self.identities[seed], "model": model_hash(p.model, p.revision, p.adapter)}
        check_free(folder, found, overwrite=p.overwrite)
        seconds = {"train_seconds": trained.seconds, "evaluate_seconds": evaluate_seconds}
        seconds["seconds"] = trained.seconds + evaluate_seconds
        result = RunResult(
            **{name: getattr(p, name) for name in ("benchmark", "row", "method")},
            **{name: getattr(evaluation, name) for name in ("metrics", "n", "values", "kinds")},
            **{name: getattr(trained, name) for name in ("obedience", "log")},
            label=trained.method.label,
            seed=seed,
            identity=fingerprint(found),
            details={name: {k: v for k, v in d.items() if k != "items"} for name, d in evaluation.details.items()},
            timing={name: round(value, 2) for name, value in seconds.items()} | {"steps": trained.steps},
            beyond=beyond,
        )
        values = {**p.model_dump(mode="json"), "seeds": [seed]}
        source = provenance(values, started=self.started, fingerprint=fingerprint(found), identity=found)
        with written_whole(folder) as draft:
            write_json(draft / "params.json", values)
            write_jsonl(draft / "samples.jsonl", evaluation.samples)
            write_json(draft / PROVENANCE_FILE, source)
            result.write(draft)
            if p.save_model and tokenizer is not None and trained.method.terms:
                saved.save_model(draft / "model", trained.model, tokenizer, p, result, base=found["model"])
        if kept := self.checkpoints(seed):
            shutil.rmtree(kept, ignore_errors=True)
        return result


def open_run(p: Training, *, notebook: Path = NOTEBOOK) -> Run:
    """The run of these parameters: which seeds are still to be trained, after every folder was checked.

    Seeds whose folder agrees in everything are reused (and whose model is there, with `save_model`).
    Raises RunFolderError where another run lies, ParameterError for what `check.before_run` finds.
    """
    from mule_lib.suite import check

    check.before_run(p)
    folder = repository_path(p.out_dir)
    identities = {seed: identity(notebook, p, seed=seed) for seed in p.seeds}
    pending = []
    for seed, found in identities.items():
        place = folder / f"seed-{seed}"
        lacks = p.save_model and method_options(p.method, p.options).trains and not (place / "model").is_dir()
        if is_reusable(place, found) and not lacks:
            os.utime(place / METRICS_FILE)  # for tools that go by dates: it is as new as its inputs
        else:
            check_free(place, found, overwrite=p.overwrite)
            pending.append(seed)
    return Run(p, folder, identities, tuple(pending))


def open_folder(p: Notebook) -> Path:
    """The output folder of a notebook without seeds, after `check.before_run`.

    Raises RunFolderError where it holds anything but the result of the same parameters, unless `p.overwrite`.
    """
    from mule_lib.suite import check

    check.before_run(p)
    folder, file = repository_path(p.out_dir), repository_path(p.out_dir) / PROVENANCE_FILE
    if p.overwrite or not folder.exists() or not any(folder.iterdir()):
        return folder
    if not file.is_file():
        raise RunFolderError(f"out_dir: {folder} holds something else; choose another, or overwrite=true")
    held, now = json.loads(file.read_text("utf-8"))["params"], p.model_dump(mode="json")
    same = {name: now[name] for name in now if name not in ("out_dir", "overwrite")}
    if changed := changed_values({**same, **{name: held[name] for name in same if name in held}}, same):
        shown = ", ".join(f"{name} {old!r} (now {new!r})" for name, old, new in changed)
        raise RunFolderError(f"out_dir: {folder} differs in {shown}; choose another, or overwrite=true to replace it")
    return folder


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What the numbers in a run folder depend on; None for a folder that is no (whole) run."""
    if not ((folder / METRICS_FILE).is_file() and (folder / PROVENANCE_FILE).is_file()):
        return None
    return json.loads((folder / PROVENANCE_FILE).read_text("utf-8")).get("identity")


def is_reusable(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the folder holds this very run: parameters, code, prompts, data, model and packages all agree."""
    held = read_identity(folder)
    return held is not None and fingerprint(held) == fingerprint(wanted)


def check_free(folder: Path, wanted: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Raise RunFolderError unless this run may be written into `folder`.

    It may where nothing lies, where this very run lies, and with `overwrite` over another run; never over anything
    that is no run.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / PROVENANCE_FILE).is_file():
        raise RunFolderError(f"out_dir: {folder} exists and is no run; choose another or remove it")
    held = read_identity(folder)  # None without metrics: a run that lost its result
    changed = changed_values(held, wanted) if held else []
    if not changed or overwrite:
        return
    shown = [f"{name[7:]} {old!r} (now {new!r})" if name.startswith("params.") else name for name, old, new in changed]
    more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
    raise RunFolderError(
        f"out_dir: {folder} holds another run, it differs in {', '.join(shown[:6])}{more}; "
        "choose another out_dir, or overwrite=true to replace it"
    )


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` to write into; it takes the place of `folder` at the end, or vanishes on error.

    A crash leaves the old folder, or both under hidden names of this process, but never a part under the real name.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = f".{folder.name}.{os.getpid()}"
    draft, old = folder.parent / f"{hidden}.draft", folder.parent / f"{hidden}.old"
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        if folder.exists():
            os.replace(folder, old)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def runs_below(folder: Path) -> list[Path]:
    """All whole run folders below a folder, sorted by name; hidden drafts do not count."""
    found = sorted(file.parent for file in folder.rglob(METRICS_FILE))
    return [run for run in found if read_identity(run) and "/." not in f"/{run.relative_to(folder).as_posix()}"]


def set_aside(out: Path, wanted: Collection[Path]) -> list[Path]:
    """Move runs below `out`/runs that are neither `wanted` nor still valid to `out`/stale; return where they went.

    A run that is not asked for but agrees with today's parameters, code, data, model and packages stays: it is one
    more seed. Nothing is deleted but drafts of killed processes (none is at work) and an earlier stale run.
    """
    for draft in [*(out / "runs").rglob(".*.draft"), *(out / "runs").rglob(".*.old")]:
        shutil.rmtree(draft, ignore_errors=True)
    moved = []
    for folder in runs_below(out / "runs"):
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
        return is_reusable(folder, identity(NOTEBOOK, p, seed=p.seeds[0]))
    except (OSError, ValueError):  # written with parameters or data that are no longer there
        return False


def shared_teacher_answers(p: Training, file: Path, *, ask: bool = False, overwrite: bool = False):
    """The shared teacher answers of a row's options in `file`, and whether they were asked for just now.

    They are of the unified records also where the student reads raw ones: a teacher that does not understand a format
    would hide what the format does to the student. Only with `ask` is a missing file written.
    Raises TeacherFileError for a method without a teacher, and for a file of other answers unless `overwrite`.
    """
    from mule_lib import data, methods, training  # torch

    return training.teacher.shared(
        file,
        data.load_benchmark(p.benchmark, p.data_dir),
        methods.get(p.method, p.options),
        model=model_hash(p.model, p.revision, p.adapter),
        load=(lambda: training.load_model(p, frozen=True)) if ask else None,
        max_thought_tokens=p.max_thought_tokens,
        overwrite=overwrite,
    )
