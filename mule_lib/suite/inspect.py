"""Looks at what is there: the machine, two runs side by side, all runs, prompts as a model sees them, the reference."""

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import psutil

from mule_lib.data.files import write_text
from mule_lib.evaluate.intervals import bootstrap_difference
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.params import EMBEDDED, ROOT, Training, load, read_yaml, validate
from mule_lib.report.page import live_links
from mule_lib.suite.runs import PACKAGES, differences, read_identity, runs_below

TOOLS = ("papermill", "snakemake", "jupyterlab", "ipykernel", "datasets")
# The set of an evaluation, and the role of a training record, that an objective is about.
SETS = {"obj1": "forget", "obj2": "neighbor", "obj3": "attack"}
ROLES = {"obj1": "forget", "obj2": "neighbor", "obj3": "adversarial"}
KEPT = frozenset({".csv", ".json", ".md", ".tex", ".html", ".png", ".pdf", ".txt"})
# Folders of a suite that are large or of one machine only.
LEFT_OUT = frozenset({"runs", "stale", "teachers", "executed", "logs", "evaluation"})
LARGEST = 4_000_000  # bytes
# Points by which a fresh run may differ: other processors round otherwise, and training makes more of it.
UNTRAINED, TRAINED = 1.0, 8.0


class InspectError(ValueError):
    """There is nothing of that kind to look at; the message says what would be right."""


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and whether it is as it has to be."""

    name: str
    text: str
    good: bool = True

    def __str__(self) -> str:
        return f"{'ok' if self.good else '!!'}  {self.name}: {self.text}"


def examine() -> list[Finding]:
    """Everything worth knowing before a run or in a report of an error; importing torch takes some seconds."""
    import torch

    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shown = ", ".join(f"{card.name} {card.total_memory / 2**30:.0f} GiB" for card in cards)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory, free = psutil.virtual_memory().total / 2**30, shutil.disk_usage(ROOT).free / 2**30
    note = "" if memory > cores else "; each job needs more than 1 GiB, start fewer with --cores"
    offline = os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "True"}
    return [
        Finding("python", f"{platform.python_version()} ({sys.executable})", sys.version_info >= (3, 11)),
        _packages(),
        _kernel(),
        _models(),
        Finding("accelerator", shown or "none; the embedded suite needs none"),
        Finding("machine", f"{cores} cores, {memory:.0f} GiB of memory{note}", not note),
        Finding("disk", f"{free:.0f} GiB free at {ROOT}", free > 1),
        Finding("Hugging Face Hub", "not asked (HF_HUB_OFFLINE is set)" if offline else "asked for models by name"),
    ]


def _packages() -> Finding:
    """Installed versions against requirements.lock, where that file lies beside the library."""
    file = ROOT / "requirements.lock"
    pinned = re.findall(r"^([\w.-]+)==([^\s+]+)", file.read_text("utf-8") if file.is_file() else "", re.MULTILINE)
    locked, there, wrong = {name.lower(): number for name, number in pinned}, [], []
    for name in (*PACKAGES, *TOOLS):
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if locked.get(name, there[-1].split()[1].split("+")[0]) != there[-1].split()[1].split("+")[0]:
            wrong.append(f"{there[-1]}, requirements.lock has {locked[name]}")
    return Finding("packages", "; ".join(wrong) if wrong else ", ".join(there), not wrong)


def _kernel() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        return Finding("kernel", f"python3 -> {KernelSpecManager().get_kernel_spec('python3').argv[0]}")
    except NoSuchKernel:
        return Finding("kernel", "no kernel named python3; run `python -m ipykernel install --sys-prefix`", False)


def _models() -> Finding:
    from mule_lib import models

    try:
        for which in EMBEDDED:
            models.check_embedded(which)
        shown = ", ".join(f"{name} {digest[:12]}" for name, digest in models.embedded_hashes().items())
    except models.ModelFileError as error:
        return Finding("embedded models", str(error), False)
    return Finding("embedded models", shown)


def compare(one: Path, other: Path) -> list[str]:
    """Lines that name every setting and number in which two runs differ; paired intervals where the items are the same.

    Raises InspectError for a folder that holds no whole run.
    """
    left, right = _read(one), _read(other)
    settings = differences(read_identity(one), read_identity(other))
    lines = [
        f"{side}  {run.benchmark} {run.row} seed {run.seed} [{run.identity}]  {run.folder}"
        for side, run in (("A", left), ("B", right))
    ]
    lines.append("settings: " + (f"{len(settings)} differ" if settings else "all agree"))
    lines += [f"  {name}: {_setting(name, a)} | {_setting(name, b)}" for name, a, b in settings]
    lines.append("numbers, A | B, and B minus A with its 95 % interval (points):")
    for metric in METRICS:
        a, b = left.metrics[metric], right.metrics[metric]
        lines.append(f"  {metric}: {a:.1f} | {b:.1f}  {_change(left.values[metric], right.values[metric], b - a)}")
    rates = differences(_rates(left.details), _rates(right.details))
    return [*lines, *(f"  {name}: {_rate(a)} | {_rate(b)}" for name, a, b in rates)]


def listing(folder: Path) -> Iterator[str]:
    """One line per run below a folder: where, the five metrics, seconds, age, identity."""
    for place in runs_below(folder):
        run = _read(place)
        shown = "  ".join(f"{name} {run.metrics[name]:5.1f}" for name in METRICS)
        age = (time.time() - (place / "metrics.json").stat().st_mtime) / 3600
        seconds = run.timing.get("seconds", 0)
        yield f"{place.relative_to(folder)}  {shown}  {seconds:.0f} s  {age:.1f} h old  {run.identity}"


def _read(folder: Path) -> RunResult:
    if read_identity(folder) is None:
        raise InspectError(f"{folder}: no run lies there; a run folder has metrics.json and provenance.json")
    return RunResult.read(folder)


def _setting(name: str, value: Any) -> str:
    return "missing" if value is None and not name.startswith("params.") else repr(value)


def _rate(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _rates(details: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The plain rates of each set, without what depends on single subjects, families or letters."""
    return {name: {k: v for k, v in detail.items() if isinstance(v, int | float)} for name, detail in details.items()}


def _change(one: Sequence[float], other: Sequence[float], points: float) -> str:
    if len(one) != len(other):
        return f"{points:+.1f} (other items: {len(one)} and {len(other)})"
    _, low, high, n, _ = bootstrap_difference(other, one)
    return f"{points:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] on {n} items"


def own_prompt(question: str, *, model: str = "base", **parts: str | None) -> str:
    """A question of one's own as the model's template renders it; `parts` are system, prefix and answer."""
    from mule_lib import models, prompts

    _, tokenizer = models.load(model)
    return prompts.render(tokenizer, question, **parts).text(tokenizer)


def row_params(row: str, **changes: Any) -> Training:
    """Parameters of notebook 04 for a row of Fable's file, else for the method of that name.

    Raises ParameterError for a row that is neither, or for a bad change.
    """
    file = ROOT / "params" / "04_training" / "fable.yaml"
    if row in read_yaml(file)["rows"]:
        return load("04_training", file, {"row": row, **changes})
    return validate("04_training", {"row": row, "method": row, **changes}, source=f"--row {row}")


def row_prompts(
    row: str,
    *,
    benchmark: str = "books",
    data_dir: str | Path = "",
    objective: str = "obj1",
    stage: str = "evaluation",
    part: str | None = None,
    item: int = 0,
    model: str | None = None,
    choice_style: str | None = None,
) -> list[str]:
    """Lines that show one prompt of a row: a heading, the prompt with its scored tokens marked, and the reference.

    The row's model is not trained here: the text between the marks is written by the model as it is loaded, behind the
    prompt that the trained row would see. Raises ValueError in one line for a row, set, role or item that is not there.
    """
    given = {"benchmark": benchmark, "data_dir": str(data_dir), "model": model, "choice_style": choice_style}
    p = row_params(row, **{name: value for name, value in given.items() if value})
    from mule_lib import data, methods, training

    loaded = data.load(p.benchmark, p.data_dir, data_format=p.data_format)
    method = methods.get(p.method, p.options)
    if stage == "training":
        if not method.terms:
            raise InspectError(f"--stage training: {row} trains nothing; its prompts are those of --stage evaluation")
        groups: dict[str, list] = {}
        for record in loaded.records:
            if record.objective == objective:
                groups.setdefault(record.role, []).append(record)
        record = _chosen(groups, part or ROLES[objective], item, "role")
        return list(_training(*training.load_model(p), loaded, method, record))
    names = ("forget", "general", "neighbor", "attack", "mmlu", "controls")
    asked = _chosen({name: getattr(loaded.sets, name) for name in names}, part or SETS[objective], item, "set")
    steering = method.steering(loaded.topic, name=loaded.prompt_name)
    return list(_evaluation(*training.load_model(p), asked, steering, p))


def _chosen(groups: Mapping[str, Sequence], name: str, number: int, kind: str):
    if not groups.get(name):
        there = ", ".join(each for each, members in groups.items() if members)
        raise InspectError(f"--set {name}: no such {kind} here; there are {there}")
    if not 0 <= number < len(groups[name]):
        raise InspectError(f"--item {number}: {name} has {len(groups[name])} items, 0 to {len(groups[name]) - 1}")
    return groups[name][number]


def _evaluation(model, tokenizer, item, steering, p) -> Iterator[str]:
    from mule_lib import prompts
    from mule_lib.data.items import ChoiceItem
    from mule_lib.evaluate.row import query
    from mule_lib.models import contexts, greedy, option_log_likelihoods

    limits = {"max_thought_tokens": p.max_thought_tokens}
    context = contexts(model, tokenizer, [query(item, p.choice_style)], steering, **limits)[0]
    text = _decoded(tokenizer, context.input_ids)
    yield f"item {item.id}, evaluated under {item.objective}"
    if not isinstance(item, ChoiceItem):
        ids = greedy(model, tokenizer, [context.input_ids], max_new_tokens=p.max_new_tokens, batch_size=1)[0]
        yield f"{text}⟪{_decoded(tokenizer, ids)}⟫"
        yield f"compared with: {item.reference}"
        return
    offered = [prompts.encode_text(tokenizer, option) for option in prompts.answers(item.options, style=p.choice_style)]
    scores = option_log_likelihoods(model, [context.input_ids], [offered], batch_size=len(offered))[0]
    yield text
    for at, (ids, score) in enumerate(zip(offered, scores, strict=True)):
        notes = {item.answer: " right", item.refusal: " refusal"}.get(at, "")
        chosen = " <- likeliest" if score == max(scores) else ""
        yield f"  ⟪{_decoded(tokenizer, ids)}⟫ {score:.3f} nats{notes}{chosen}"


def _training(model, tokenizer, data, method, record) -> Iterator[str]:
    from mule_lib.training.batches import encode
    from mule_lib.training.teacher import teacher_answers

    group = record.group
    resolved = method.on_groups({each.group for each in data.records})
    terms = [term for term in resolved.terms if term.takes(group)]
    yield f"record {record.id}, group {group}"
    if not terms:
        yield f"{method.label} does not use this group"
        return
    answers = []
    if method.distils:
        steering = method.teacher_steering(data.topic, name=data.prompt_name)
        limits = {"answers": method.options.answers, "max_answer_tokens": method.options.max_answer_tokens}
        answers = teacher_answers(model, tokenizer, [record], steering, **limits)
    (example,) = encode(tokenizer, [replace(record, anchor=None)], resolved, answers)
    for term in terms:
        for name in term.continuations:
            answer = _decoded(tokenizer, example.continuations[name])
            yield f"term {term.name}, student, {name}: {_decoded(tokenizer, example.context)}⟪{answer}⟫"
            if term.frozen:
                who, before = "teacher" if name == "taught" else "frozen model", example.frozen_sequence(name)[0]
                yield f"term {term.name}, {who}, {name}: {_decoded(tokenizer, before)}⟪{answer}⟫"


def _decoded(tokenizer, ids) -> str:
    """Ids with their special tokens and no cleaning, as the model sees them."""
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def keep_reference(suite: Path, reference: Path) -> list[Path]:
    """Replace `reference` by the small files of a suite's folder and a table of its runs; return what was kept.

    Raises InspectError where the suite has no report, since then it did not end.
    """
    if not (suite / "report.html").is_file():
        raise InspectError(f"{suite}: no report.html, so the suite did not end; `make reproduce` ends it")
    runs = [RunResult.read(folder) for folder in runs_below(suite / "runs")]
    chosen = [file.relative_to(suite) for file in sorted(suite.rglob("*")) if is_kept(file, suite)]
    shutil.rmtree(reference, ignore_errors=True)
    for name in chosen:
        (reference / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(suite / name, reference / name)
    times = ("steps", "train_seconds", "evaluate_seconds")
    lines = [
        {"benchmark": r.benchmark, "row": r.row, "seed": r.seed, "identity": r.identity, **r.metrics}
        | {name: r.timing[name] for name in times}
        for r in runs
    ]
    pd.DataFrame(lines).to_csv(reference / "runs.csv", index=False, float_format="%.2f")
    # The page without links to what is not kept.
    write_text(reference / "report.html", live_links((suite / "report.html").read_text("utf-8"), reference))
    return chosen


def is_kept(file: Path, suite: Path) -> bool:
    """Whether a file of a suite belongs into its reference: small, readable, and not of one run or machine."""
    inside = file.relative_to(suite)
    hidden = any(part.startswith(".") or part in LEFT_OUT for part in inside.parts)
    return file.is_file() and not hidden and file.suffix in KEPT and file.stat().st_size <= LARGEST


def reference_runs(reference: Path) -> pd.DataFrame:
    """The table of runs of a reference. Raises InspectError where there is none."""
    file = reference / "runs.csv"
    if not file.is_file():
        raise InspectError(f"{file}: missing; `mule reference` writes it from a suite that was run")
    return pd.read_csv(file)


def reference_differences(suite: Path, reference: Path) -> tuple[int, list[str]]:
    """How many runs below a folder the reference has, and one line per metric beyond its tolerance."""
    held = reference_runs(reference).set_index(["benchmark", "row", "seed"])
    runs = [RunResult.read(folder) for folder in runs_below(suite)]
    runs = [run for run in runs if (run.benchmark, run.row, run.seed) in held.index]
    beyond = []
    for run in runs:
        tolerance = TRAINED if run.timing["steps"] else UNTRAINED
        for metric in METRICS:
            here, there = run.metrics[metric], held.loc[(run.benchmark, run.row, run.seed), metric]
            if abs(here - there) > tolerance:
                name = f"{run.benchmark}/{run.row}/seed-{run.seed}"
                beyond.append(f"{name}: {metric} is {here:.1f}, in the reference {there:.1f} (tolerance {tolerance:g})")
    return len(runs), beyond
