"""Run folders: written whole or not at all, reused only if the identity agrees; the model that a run trained."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mule_lib.data.files import write_json, write_jsonl, write_text
from mule_lib.evaluate.result import METRICS_FILE, RunResult
from mule_lib.params import ROOT, Notebook, ParameterError, Training, method_options, repository_path
from mule_lib.suite import check
from mule_lib.suite.identity import PACKAGES, changed_values, fingerprint, identity, model_hash

PROVENANCE_FILE = "provenance.json"
NOTEBOOK = ROOT / "notebooks" / "04_training.ipynb"


class RunFolderError(ParameterError):
    """A folder holds something else than this run; the message says what differs and what to do."""


def provenance(params: Mapping[str, Any], *, started: float, **more: Any) -> dict[str, Any]:
    """Parameters, code, packages, machine and wall time (seconds since `started`) behind a run's numbers."""
    return {
        "params": dict(params),
        "git": _git(),
        "packages": {name: version(name) for name in (*PACKAGES, "datasets", "papermill", "pandas")},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "arithmetic": _arithmetic(),
        "seconds": round(time.time() - started, 1),
        **more,
    }


def _arithmetic() -> str:
    """What the last digits hang on besides versions, where torch is loaded: accelerator or instructions, threads."""
    if (torch := sys.modules.get("torch")) is None:
        return ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    return f"{device}, {torch.get_num_threads()} threads"


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
            timing={name: round(value, 2) for name, value in seconds.items()}
            | {"steps": trained.steps, "step_flops": trained.step_flops},
            beyond=beyond,
        )
        values = {**p.model_dump(mode="json"), "seeds": [seed]}
        source = provenance(
            values,
            precision=trained.settings.precision,
            started=self.started,
            fingerprint=fingerprint(found),
            identity=found,
        )
        with written_whole(folder) as draft:
            write_json(draft / "params.json", values)
            write_jsonl(draft / "samples.jsonl", evaluation.samples)
            write_json(draft / PROVENANCE_FILE, source)
            result.write(draft)
            if p.save_model and tokenizer is not None and trained.method.terms:
                save_model(draft / "model", trained.model, tokenizer, p, result, base=found["model"])
        if kept := self.checkpoints(seed):
            shutil.rmtree(kept, ignore_errors=True)
        return result


def open_run(p: Training, *, notebook: Path = NOTEBOOK) -> Run:
    """The run of these parameters: which seeds are still to be trained, after every folder was checked.

    Seeds whose folder agrees in everything are reused (and whose model is there, with `save_model`).
    Raises RunFolderError where another run lies, ParameterError for what `check.before_run` finds.
    """
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
    check.before_run(p)
    folder, file = repository_path(p.out_dir), repository_path(p.out_dir) / PROVENANCE_FILE
    if p.overwrite or not folder.exists() or not any(folder.iterdir()):
        return folder
    held = check.json_object(file, f"out_dir: {folder}").get("params") if file.is_file() else None
    if not isinstance(held, dict):
        raise RunFolderError(f"out_dir: {folder} holds something else; choose another, or overwrite=true")
    now = p.model_dump(mode="json")
    same = {name: now[name] for name in now if name not in ("out_dir", "overwrite")}
    if changed := changed_values({**same, **{name: held[name] for name in same if name in held}}, same):
        shown = ", ".join(f"{name} {old!r} (now {new!r})" for name, old, new in changed)
        raise RunFolderError(f"out_dir: {folder} differs in {shown}; choose another, or overwrite=true to replace it")
    return folder


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What the numbers in a run folder depend on; None for a folder that is no (whole) run."""
    if not ((folder / METRICS_FILE).is_file() and (folder / PROVENANCE_FILE).is_file()):
        return None
    found = check.json_object(folder / PROVENANCE_FILE, str(folder)).get("identity")
    return found if isinstance(found, dict) else None


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
    held = read_identity(folder)
    lost = (folder / PROVENANCE_FILE).is_file() and not (folder / METRICS_FILE).is_file()  # a run without its result
    if held is None and not lost:
        raise RunFolderError(f"out_dir: {folder} exists and is no run; choose another or remove it")
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


def save_model(folder: Path, model, tokenizer, p: Training, result: RunResult, *, base: str) -> None:
    """Write an unlearned model (of an adapter, it alone) with its tokenizer and card; `base` is its base's hash."""
    adapter = hasattr(model, "peft_config")
    for config in model.peft_config.values() if adapter else ():  # not a path of this machine
        config.base_model_name_or_path, config.revision = p.model, p.revision or None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / check.BASE_FILE, {"model": p.model, "revision": p.revision, "adapter": p.adapter, "hash": base})
    hub = f"base_model: {p.model}\n" if "/" in p.model and not repository_path(p.model).exists() else ""
    weights = f"LoRA of rank {p.lora_rank}" if adapter else "all weights"
    call = "PeftModel.from_pretrained(base, folder)" if adapter else "AutoModelForCausalLM.from_pretrained(folder)"
    name = p.model + f" at {p.revision}" * bool(p.revision) + f" with {p.adapter} merged" * bool(p.adapter)
    lines = [
        f"---\n{hub}library_name: {'peft' if adapter else 'transformers'}\ntags: [unlearning]\n---\n",
        f"# {result.label} on {p.benchmark}, seed {result.seed}\n",
        f"- Base: {name} (`{base}`)",
        f"- Method: {p.method}, options `{json.dumps(p.options)}`, {result.timing['steps']} steps, {weights}",
        f"- Data: {p.benchmark} ({p.data_dir or 'built in code'}), {p.data_format}",
        f"- Load: `{call}`\n",
        "Points of 100 on held-out items; lower is better for forget and asr.\n\n| metric | points |\n|---|---:|",
        *(f"| {metric} | {value:.1f} |" for metric, value in result.metrics.items()),
    ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")


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
