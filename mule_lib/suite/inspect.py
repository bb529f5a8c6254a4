"""Looks at what is there: the machine, two runs side by side, prompts as a model sees them, the reference."""

import math
import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import psutil

from mule_lib.data.files import write_text
from mule_lib.evaluate.intervals import bootstrap_difference
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.params import EMBEDDED, ROOT, ParameterError, Training
from mule_lib.suite.identity import PACKAGES, changed_values
from mule_lib.suite.runs import read_identity, runs_below

TOOLS = ("papermill", "snakemake", "jupyterlab", "ipykernel", "datasets")
# Files and folders of a suite that are large or of one machine only.
LEFT_OUT = (".*", "*.jsonl", "runs", "stale", "teachers", "executed", "logs", "evaluation")
# Points by which a fresh run may differ: other processors round otherwise, and training makes more of it.
UNTRAINED, TRAINED = 1.0, 8.0
RUN = ["benchmark", "row", "seed"]


def examine() -> dict[str, tuple[str, bool]]:
    """What was found by what was looked at, and whether it is as it has to be; importing torch takes some seconds."""
    import torch
    from jupyter_client.kernelspec import KernelSpecManager

    from mule_lib import models

    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shown = ", ".join(f"{card.name} {card.total_memory / 2**30:.0f} GiB" for card in cards)
    cores, memory = os.cpu_count() or 1, psutil.virtual_memory().total / 2**30
    few = "" if memory > cores else "; a job needs more than 1 GiB, start fewer with --cores"
    free = shutil.disk_usage(ROOT).free / 2**30
    kernel = "python3" in KernelSpecManager().find_kernel_specs()
    damage = ""
    try:
        for which in EMBEDDED:
            models.check_embedded(which)
    except models.ModelFileError as error:
        damage = str(error)
    return {
        "python": (f"{platform.python_version()} ({sys.executable})", sys.version_info >= (3, 11)),
        "packages": _packages(),
        "kernel": ("python3" if kernel else "none; run `python -m ipykernel install --sys-prefix`", kernel),
        "embedded models": (damage or "as committed", not damage),
        "accelerator": (shown or "none; the embedded suite needs none", True),
        "machine": (f"{cores} cores, {memory:.0f} GiB of memory{few}", not few),
        "disk": (f"{free:.0f} GiB free at {ROOT}", free > 1),
    }


def _packages() -> tuple[str, bool]:
    """Installed versions against requirements.lock, where that file lies beside the library."""
    file, there, wrong = ROOT / "requirements.lock", [], []
    pinned = file.read_text("utf-8").lower() if file.is_file() else ""
    locked = dict(re.findall(r"^([\w.-]+)==([^\s+]+)", pinned, re.MULTILINE))
    for name in (*PACKAGES, *TOOLS):
        try:
            number = version(name).partition("+")[0]
        except PackageNotFoundError:
            number = "is missing"
        there.append(f"{name} {number}")
        if number != locked.get(name, number):
            wrong.append(f"{there[-1]}, requirements.lock has {locked[name]}")
    return "; ".join(wrong or there), not wrong


def compare(one: Path, other: Path) -> str:
    """Every setting and number in which two runs A and B differ; paired 95 % intervals where the items are the same.

    Raises ParameterError for a folder that holds no whole run.
    """
    for folder in (one, other):
        if read_identity(folder) is None:
            raise ParameterError(f"{folder}: no run lies there; a run folder has metrics.json and provenance.json")
    a, b = RunResult.read(one), RunResult.read(other)
    settings = changed_values(read_identity(one), read_identity(other))
    # Plain rates of each set, without what depends on single subjects, families or letters.
    rates = [each for each in changed_values(a.details, b.details) if each[0].count(".") == 1]
    numbers = []
    for metric in METRICS:
        left, right = a.values[metric], b.values[metric]
        low, high = bootstrap_difference(right, left)[1:3] if len(left) == len(right) else (math.nan, math.nan)
        points = {"A": a.metrics[metric], "B": b.metrics[metric], "B-A": b.metrics[metric] - a.metrics[metric]}
        items = f"{len(left)}/{len(right)}"
        numbers.append({"metric": metric, **points, "low": 100 * low, "high": 100 * high, "items": items})
    lines = [f"{r.benchmark} {r.row} seed {r.seed} [{r.identity}]  {r.folder}" for r in (a, b)]
    lines.append(f"settings: {len(settings)} differ" if settings else "settings: all agree")
    lines += [f"  {name}: {left!r} | {right!r}" for name, left, right in settings]
    lines.append("numbers in points, B minus A with its 95 % interval:")
    lines.append(pd.DataFrame(numbers).to_string(index=False, float_format="%.1f"))
    return "\n".join([*lines, *(f"  {name}: {left} | {right}" for name, left, right in rates)])


def prompt(p: Training, part: str, item: int) -> list[str]:
    """Lines that show one item of an evaluation set as a row's model is asked it: a heading, the prompt, the reference.

    What is scored stands between ⟪ and ⟫, written by the model as it is loaded, behind the prompt that the trained row
    would see. Raises ParameterError for an item that is not there.
    """
    from mule_lib import data, methods, training
    from mule_lib.data.items import ChoiceItem
    from mule_lib.evaluate.row import answer_items
    from mule_lib.prompts import answers

    loaded = data.load_benchmark(p.benchmark, p.data_dir)
    items = getattr(loaded.sets, part)
    if not 0 <= item < len(items):
        raise ParameterError(f"--item {item}: {part} has {len(items)} items, 0 to {len(items) - 1}")
    item = items[item]
    model, tokenizer = training.load_model(p)
    steering = methods.get(p.method, p.options).steering(loaded.topic, name=loaded.prompt_name)
    sizes = p.model_dump(include={"batch_size", "max_new_tokens", "max_thought_tokens", "choice_style"})
    [made] = answer_items(model, tokenizer, [item], steering, **sizes)
    lines = [f"item {item.id}, evaluated under {item.objective}"]
    # As the model sees them: special tokens shown, nothing cleaned.
    before = tokenizer.decode(list(made.context.input_ids), clean_up_tokenization_spaces=False)
    if not isinstance(item, ChoiceItem):
        return [*lines, f"{before}⟪{made.output}⟫", f"compared with: {item.reference}"]
    lines.append(before)
    for at, (option, score) in enumerate(zip(answers(item.options, style=p.choice_style), made.scores, strict=True)):
        note = {item.answer: " right", item.refusal: " refusal"}.get(at, "")
        lines.append(f"  ⟪{option}⟫ {score:.3f} nats{note}{' <- likeliest' if option == made.output else ''}")
    return lines


def keep_reference(suite: Path, reference: Path) -> None:
    """Replace `reference` by the small files of a suite's folder and a table of its runs.

    Raises ParameterError where the suite has no report, since then it did not end.
    """
    from mule_lib.report.page import live_links  # figures, which take seconds to import

    if not (suite / "report.html").is_file():
        raise ParameterError(f"{suite}: no report.html, so the suite did not end; `make reproduce` ends it")
    shutil.rmtree(reference, ignore_errors=True)
    shutil.copytree(suite, reference, ignore=shutil.ignore_patterns(*LEFT_OUT))
    runs, times = map(RunResult.read, runs_below(suite / "runs")), ("steps", "train_seconds", "evaluate_seconds")
    lines = [
        r.model_dump(include={*RUN, "identity"}) | r.metrics | {name: r.timing[name] for name in times} for r in runs
    ]
    pd.DataFrame(lines).to_csv(reference / "runs.csv", index=False, float_format="%.2f")
    # The page without links to what is not kept.
    write_text(reference / "report.html", live_links((suite / "report.html").read_text("utf-8"), reference))


def reference_differences(suite: Path, reference: Path) -> tuple[int, list[str]]:
    """How many runs below a folder the reference has, and one line per metric beyond its tolerance."""
    held = pd.read_csv(reference / "runs.csv").set_index(RUN)
    runs = {(r.benchmark, r.row, r.seed): r for r in map(RunResult.read, runs_below(suite))}
    runs = {name: run for name, run in runs.items() if name in held.index}
    beyond = []
    for (benchmark, row, seed), run in runs.items():
        tolerance = TRAINED if run.timing["steps"] else UNTRAINED
        for metric in set(run.metrics) & set(held):
            here, there = run.metrics[metric], held.loc[(benchmark, row, seed), metric]
            if abs(here - there) > tolerance:
                beyond.append(f"{benchmark}/{row}/seed-{seed}: {metric} is {here:.1f}, in the reference {there:.1f}")
    return len(runs), beyond
