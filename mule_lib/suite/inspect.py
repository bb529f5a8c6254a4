"""Looks at what is there: the machine, two runs side by side, all runs, prompts as a model sees them, the reference."""

import math
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import psutil

from mule_lib.data.files import write_text
from mule_lib.evaluate.intervals import bootstrap_difference
from mule_lib.evaluate.result import METRICS_FILE, RunResult
from mule_lib.paper import METRICS
from mule_lib.params import EMBEDDED, ROOT, ParameterError, Training, read_parameters, read_yaml, validate
from mule_lib.report.page import live_links
from mule_lib.suite.runs import PACKAGES, changed_values, read_identity, runs_below

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
RUN = ["benchmark", "row", "seed"]


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
    from jupyter_client.kernelspec import KernelSpecManager

    from mule_lib import models

    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shown = ", ".join(f"{card.name} {card.total_memory / 2**30:.0f} GiB" for card in cards)
    cores, memory = os.cpu_count() or 1, psutil.virtual_memory().total / 2**30
    free = shutil.disk_usage(ROOT).free / 2**30
    kernel = "python3" in KernelSpecManager().find_kernel_specs()
    damage = ""
    try:
        for which in EMBEDDED:
            models.check_embedded(which)
    except models.ModelFileError as error:
        damage = str(error)
    few = f"{cores} cores, {memory:.0f} GiB of memory; a job needs more than 1 GiB, start fewer with --cores"
    return [
        Finding("python", f"{platform.python_version()} ({sys.executable})", sys.version_info >= (3, 11)),
        _packages(),
        Finding("kernel", "python3" if kernel else "none; run `python -m ipykernel install --sys-prefix`", kernel),
        Finding("embedded models", damage or "as committed", not damage),
        Finding("accelerator", shown or "none; the embedded suite needs none"),
        Finding("machine", few.partition(";")[0] if memory > cores else few, memory > cores),
        Finding("disk", f"{free:.0f} GiB free at {ROOT}", free > 1),
    ]


def _packages() -> Finding:
    """Installed versions against requirements.lock, where that file lies beside the library."""
    file, there, wrong = ROOT / "requirements.lock", [], []
    pinned = re.findall(r"^([\w.-]+)==([^\s+]+)", file.read_text("utf-8") if file.is_file() else "", re.MULTILINE)
    locked = {name.lower(): number for name, number in pinned}
    for name in (*PACKAGES, *TOOLS):
        try:
            number = version(name).partition("+")[0]
        except PackageNotFoundError:
            number = "is missing"
        there.append(f"{name} {number}")
        if number != locked.get(name, number):
            wrong.append(f"{there[-1]}, requirements.lock has {locked[name]}")
    return Finding("packages", "; ".join(wrong) or ", ".join(there), not wrong)


def compare(one: Path, other: Path) -> str:
    """Every setting and number in which two runs A and B differ; paired 95 % intervals where the items are the same.

    Raises ParameterError for a folder that holds no whole run.
    """
    for folder in (one, other):
        if read_identity(folder) is None:
            raise ParameterError(f"{folder}: no run lies there; a run folder has metrics.json and provenance.json")
    a, b = RunResult.read(one), RunResult.read(other)
    settings = changed_values(read_identity(one), read_identity(other))
    numbers = pd.DataFrame([_change(metric, a, b) for metric in METRICS])
    # Plain rates of each set, without what depends on single subjects, families or letters.
    rates = [each for each in changed_values(a.details, b.details) if each[0].count(".") == 1]
    lines = [f"{r.benchmark} {r.row} seed {r.seed} [{r.identity}]  {r.folder}" for r in (a, b)]
    lines.append(f"settings: {len(settings)} differ" if settings else "settings: all agree")
    lines += [f"  {name}: {left!r} | {right!r}" for name, left, right in settings]
    lines.append("numbers in points, B minus A with its 95 % interval:")
    lines.append(numbers.to_string(index=False, float_format="%.1f"))
    return "\n".join([*lines, *(f"  {name}: {left} | {right}" for name, left, right in rates)])


def _change(metric: str, a: RunResult, b: RunResult) -> dict[str, float | str]:
    left, right = a.values[metric], b.values[metric]
    low, high = bootstrap_difference(right, left)[1:3] if len(left) == len(right) else (math.nan, math.nan)
    points = {"A": a.metrics[metric], "B": b.metrics[metric], "B-A": b.metrics[metric] - a.metrics[metric]}
    return {"metric": metric, **points, "low": 100 * low, "high": 100 * high, "items": f"{len(left)}/{len(right)}"}


def listing(folder: Path) -> str:
    """One line per run below a folder: where, the five metrics, seconds, age, identity."""
    lines = [
        {"run": place.relative_to(folder).as_posix(), **run.metrics, "seconds": run.timing.get("seconds", 0)}
        | {"hours old": (time.time() - (place / METRICS_FILE).stat().st_mtime) / 3600, "identity": run.identity}
        for place in runs_below(folder)
        for run in [RunResult.read(place)]
    ]
    if not lines:
        return f"{folder}: no runs; `make reproduce` makes them"
    return pd.DataFrame(lines).to_string(index=False, float_format="%.1f")


def row_params(row: str, **changes) -> Training:
    """Parameters of notebook 04 for a row of Fable's file, else for the method of that name.

    Raises ParameterError for a row that is neither, or for a bad change.
    """
    file = ROOT / "params" / "04_training" / "fable.yaml"
    if row in read_yaml(file)["rows"]:
        return read_parameters("04_training", file, {"row": row, **changes})
    return validate("04_training", {"row": row, "method": row, **changes}, source=f"--row {row}")


def row_prompts(
    row: str, *, objective: str = "obj1", stage: str = "evaluation", part: str | None = None, item: int = 0, **changes
) -> list[str]:
    """Lines that show one prompt of a row: a heading, the prompt with its scored tokens marked, and the reference.

    The row's model is not trained here: the text between the marks is written by the model as it is loaded, behind the
    prompt that the trained row would see. `changes` are parameters of notebook 04.
    Raises ParameterError for a row, set, role or item that is not there.
    """
    from mule_lib import data, methods, training
    from mule_lib.data.items import SETS as ALL

    p = row_params(row, **changes)
    loaded = data.load_benchmark(p.benchmark, p.data_dir, data_format=p.data_format)
    method = methods.get(p.method, p.options)
    if stage == "training" and not method.terms:
        raise ParameterError(f"--stage training: {row} trains nothing; its prompts are those of --stage evaluation")
    if stage == "training":
        name, groups = part or ROLES[objective], {}
        for record in loaded.records:
            if record.objective == objective:
                groups.setdefault(record.role, []).append(record)
    else:
        name, groups = part or SETS[objective], {each: getattr(loaded.sets, each) for each in ALL}
    if not groups.get(name):
        raise ParameterError(f"--set {name}: not here; there are {', '.join(k for k, v in groups.items() if v)}")
    if not 0 <= item < len(groups[name]):
        raise ParameterError(f"--item {item}: {name} has {len(groups[name])} items, 0 to {len(groups[name]) - 1}")
    shown = _training if stage == "training" else _evaluation
    return list(shown(*training.load_model(p), loaded, method, groups[name][item], p))


def _evaluation(model, tokenizer, loaded, method, item, p: Training) -> Iterator[str]:
    from mule_lib.data.items import ChoiceItem
    from mule_lib.evaluate.row import answer_choices, answer_open
    from mule_lib.prompts import answers

    steering = method.steering(loaded.topic, name=loaded.prompt_name)
    given = (model, tokenizer, {"": [item]}, steering)
    sizes = {"batch_size": p.batch_size, "max_thought_tokens": p.max_thought_tokens}
    yield f"item {item.id}, evaluated under {item.objective}"
    if not isinstance(item, ChoiceItem):
        [written] = answer_open(*given, max_new_tokens=p.max_new_tokens, **sizes)[""]
        yield f"{_decoded(tokenizer, written.context.input_ids)}⟪{written.output}⟫"
        yield f"compared with: {item.reference}"
        return
    [chosen] = answer_choices(*given, style=p.choice_style, **sizes)[""]
    yield _decoded(tokenizer, chosen.context.input_ids)
    for at, (option, score) in enumerate(zip(answers(item.options, style=p.choice_style), chosen.scores, strict=True)):
        note = {item.answer: " right", item.refusal: " refusal"}.get(at, "")
        yield f"  ⟪{option}⟫ {score:.3f} nats{note}{' <- likeliest' if option == chosen.output else ''}"


def _training(model, tokenizer, loaded, method, record, p: Training) -> Iterator[str]:
    from mule_lib.training.batches import encode
    from mule_lib.training.teacher import teacher_answers

    resolved = method.on_groups({each.group for each in loaded.records})
    yield f"record {record.id}, group {record.group}"
    answers = []
    if method.distils:
        steering = method.teacher_steering(loaded.topic, name=loaded.prompt_name)
        limits = {"answers": method.options.answers, "max_answer_tokens": method.options.max_answer_tokens}
        answers = teacher_answers(model, tokenizer, [record], steering, **limits)
    examples = encode(tokenizer, [replace(record, anchor=None)], resolved, answers)
    if not examples:
        yield f"{method.label} does not use this group"
    for term, example in ((term, each) for each in examples for term in resolved.terms if term.takes(record.group)):
        for name in term.continuations:
            answer = _decoded(tokenizer, example.continuations[name])
            yield f"term {term.name}, student, {name}: {_decoded(tokenizer, example.context)}⟪{answer}⟫"
            if term.frozen:
                who, before = "teacher" if name == "taught" else "frozen model", example.frozen_sequence(name)[0]
                yield f"term {term.name}, {who}, {name}: {_decoded(tokenizer, before)}⟪{answer}⟫"


def _decoded(tokenizer, ids: Sequence[int]) -> str:
    """Ids with their special tokens and no cleaning, as the model sees them."""
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def keep_reference(suite: Path, reference: Path) -> list[Path]:
    """Replace `reference` by the small files of a suite's folder and a table of its runs; return what was kept.

    Raises ParameterError where the suite has no report, since then it did not end.
    """
    if not (suite / "report.html").is_file():
        raise ParameterError(f"{suite}: no report.html, so the suite did not end; `make reproduce` ends it")
    chosen = [file.relative_to(suite) for file in sorted(suite.rglob("*")) if is_kept(file, suite)]
    shutil.rmtree(reference, ignore_errors=True)
    for name in chosen:
        (reference / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(suite / name, reference / name)
    runs, times = map(RunResult.read, runs_below(suite / "runs")), ("steps", "train_seconds", "evaluate_seconds")
    lines = [
        r.model_dump(include={*RUN, "identity"}) | r.metrics | {name: r.timing[name] for name in times} for r in runs
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


def reference_differences(suite: Path, reference: Path) -> tuple[int, list[str]]:
    """How many runs below a folder the reference has, and one line per metric beyond its tolerance."""
    held = pd.read_csv(reference / "runs.csv").set_index(RUN)
    runs = {(r.benchmark, r.row, r.seed): r for r in map(RunResult.read, runs_below(suite))}
    runs = {name: run for name, run in runs.items() if name in held.index}
    beyond = []
    for (benchmark, row, seed), run in runs.items():
        tolerance = TRAINED if run.timing["steps"] else UNTRAINED
        for metric, here in run.metrics.items():
            there = held.loc[(benchmark, row, seed), metric]
            if abs(here - there) > tolerance:
                beyond.append(f"{benchmark}/{row}/seed-{seed}: {metric} is {here:.1f}, in the reference {there:.1f}")
    return len(runs), beyond
