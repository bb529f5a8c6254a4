"""The `mule` command: run notebooks and suites, compare runs, show prompts, make data."""

import argparse
import json
import logging
import math
import os
import platform
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import psutil
import yaml

from mule_lib import params
from mule_lib.data.files import write_text
from mule_lib.data.items import SETS
from mule_lib.evaluate.intervals import bootstrap_difference
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.params import EMBEDDED, ROOT, ParameterError, Training
from mule_lib.suite import check, graph, times
from mule_lib.suite.identity import PACKAGES, changed_values, model_hash
from mule_lib.suite.notebook import QUIET, limit_threads, run_notebook
from mule_lib.suite.runs import read_identity, runs_below, shared_teacher_answers

TOOLS = ("papermill", "snakemake", "jupyterlab", "ipykernel", "datasets")
# Files and folders of a suite that are large or of one machine only.
LEFT_OUT = (".*", "*.jsonl", "runs", "stale", "teachers", "executed", "logs", "evaluation")
# Points by which a fresh run may differ: other processors round otherwise, and training makes more of it.
UNTRAINED, TRAINED = 1.0, 8.0
RUN = ["benchmark", "row", "seed"]


def given(texts: Sequence[str]) -> dict:
    """The values of `-p NAME=VALUE`, read as YAML."""
    if wrong := [text for text in texts if "=" not in text]:
        raise ParameterError(f"-p {wrong[0]}: should be NAME=VALUE")
    names = [text.split("=", 1)[0] for text in texts]
    if doubled := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ParameterError(f"-p {doubled[0]}: stands twice")
    return {n: params.yaml_value(text[len(n) + 1 :], source=f"-p {n}") for n, text in zip(names, texts, strict=True)}


def _run(notebook: Path, file: Path | None, param, executed: Path | None, threads, **only) -> None:
    changed = given(param)
    p = params.read_parameters(notebook.stem, file, changed)
    if only["print"]:
        print(yaml.safe_dump(p.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
        return
    executed = executed or ROOT / "outputs" / "executed" / notebook.name
    if run_notebook(notebook, executed, file=file, overrides=changed, threads=threads):
        print(f"{notebook} -> {p.out_dir}; executed copy: {executed}")
    else:
        print(f"{notebook}: reused {p.out_dir}, nothing that its numbers depend on has changed")


def _teacher(file: Path | None, param, threads: int | None, out: Path, overwrite: bool) -> None:
    p = params.read_parameters("04_training", file, given(param) | {"data_format": "unified"})
    limit_threads(1 if p.model in EMBEDDED else threads)
    check.before_run(p)
    check.check_writable("out", out.parent)
    if out.stem != (wanted := params.method_options(p.method, p.options).teacher_name) and wanted:
        raise ParameterError(f"--out {out}: its name should be {wanted}.jsonl, as runs look for it")
    answers, asked = shared_teacher_answers(p, out, ask=True, overwrite=overwrite)
    print(f"{'written' if asked else 'reused'} {out}: {len(answers)} teacher answers")


def _report(name: str) -> None:
    from mule_lib.report import page

    print(page.write_report(_outputs(name) if "/" not in name else Path(name)))


def _outputs(name: str) -> Path:
    if not re.fullmatch(params.FOLDER_NAME, name):
        raise ParameterError(f"name = {name!r}: should be the name of a folder below outputs/")
    return ROOT / "outputs" / name


def _standardize(file: Path, param, dry_run: bool) -> None:
    from mule_lib.data.standardize.ask import Standardize
    from mule_lib.data.standardize.pipeline import run

    p = params.read_parameters(Standardize, file, given(param))
    check.check_writable("out_dir", params.repository_path(p.out_dir))
    for name in [p.generator_model] * (p.generator == "local") + [p.attacker_target] * (p.attacker_rounds > 0):
        check.model_header(name)
    check.check_sources(**p.model_dump(include=SOURCES))
    run(p, load_model=writer, dry_run=dry_run)


def writer(name: str):
    """Identity of a model, and how it continues chats greedily; the last message may be the model's own beginning."""
    import torch

    from mule_lib import models, prompts

    model, tokenizer = models.load(name, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32)

    def write(chats, max_new_tokens: int) -> list[str]:
        rendered = []
        for chat in chats:
            start = chat[-1]["content"] if chat[-1]["role"] == "assistant" else ""
            ids = prompts.conversation(tokenizer, chat[:-1] if start else chat)
            rendered.append(ids + prompts.encode_text(tokenizer, start))
        answers = models.greedy(model, tokenizer, rendered, max_new_tokens=max_new_tokens, batch_size=32)
        return models.decode(tokenizer, answers)

    return f"{name}@{model_hash(name)[:12]}", write


def _prepare(benchmark: str, out: Path, **options) -> None:
    from mule_lib import data
    from mule_lib.data import prepare

    if out.exists():
        raise ParameterError(f"{out}: exists already; give another folder, or remove it first")
    check.check_writable("out", out)
    if not options["subject"].strip():
        raise ParameterError("subject: empty; name whom to forget, as 'Stephen King'")
    if benchmark != "own":  # those files are read at once
        check.check_sources(source=options["source"])
    made = prepare.prepare(benchmark, **options)
    data.save(out, made)
    print(f"{out}: {json.dumps(made.counts())}")


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
        "precision": (f"auto takes {models.precision('auto')}", True),
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


def _doctor() -> None:
    found = examine()
    print("\n".join(f"{'ok' if good else '!!'}  {name}: {text}" for name, (text, good) in found.items()))
    if not all(good for _, good in found.values()):
        raise ParameterError("what is marked !! above needs attention")


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


def keep_reference(suite: Path, reference: Path) -> None:
    """Replace `reference` by the small files of a suite's folder and a table of its runs.

    Raises ParameterError where the suite has no report, since then it did not end.
    """
    from mule_lib.report.page import live_links  # figures, which take seconds to import

    if not (suite / "report.html").is_file():
        raise ParameterError(f"{suite}: no report.html, so the suite did not end; `make reproduce` ends it")
    if suite == reference or (reference / "runs").exists():
        raise ParameterError(f"--to {reference.name}: a suite lies there; what is kept replaces all of its folder")
    for old in {*reference.glob("*")} - {reference / "models", reference / "notebooks"}:  # of ship.py and `make site`
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(suite, reference, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    runs, times = map(RunResult.read, runs_below(suite / "runs")), ("steps", "train_seconds", "evaluate_seconds")
    lines = [
        r.model_dump(include={*RUN, "identity"}) | r.metrics | {name: r.timing[name] for name in times} for r in runs
    ]
    pd.DataFrame(lines).to_csv(reference / "runs.csv", index=False, float_format="%.2f")
    write_text(reference / "report.html", live_links((suite / "report.html").read_text("utf-8"), reference))


def reference_differences(suite: Path, reference: Path) -> tuple[int, list[str]]:
    """How many runs below a folder the reference has, and one line per metric beyond its tolerance."""
    held = pd.read_csv(reference / "runs.csv").set_index(RUN)
    runs = {(r.benchmark, r.row, r.seed): r for r in map(RunResult.read, runs_below(suite))}
    runs = {name: run for name, run in runs.items() if name in held.index}
    if not runs:
        raise ParameterError(f"{suite}: none of the runs of {reference} is there")
    beyond = []
    for (benchmark, row, seed), run in runs.items():
        tolerance = TRAINED if run.timing["steps"] else UNTRAINED
        for metric in set(run.metrics) & set(held):
            here, there = run.metrics[metric], held.loc[(benchmark, row, seed), metric]
            if abs(here - there) > tolerance:
                beyond.append(f"{benchmark}/{row}/seed-{seed}: {metric} is {here:.1f}, in the reference {there:.1f}")
    return len(runs), beyond


def _reference(name: str, to: str, compare: bool) -> None:
    suite, kept = _outputs(name), _outputs(to)
    if compare:
        compared, beyond = reference_differences(suite, kept)
        print("\n".join([f"{compared} runs compared, {len(beyond)} numbers beyond their tolerance", *beyond]))
    else:
        keep_reference(suite, kept)
        print(f"the small files of {suite} are kept in {kept}")


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


def _show_prompt(file: Path, param, **which) -> None:
    p = params.read_parameters("04_training", file, given(param))
    check.before_run(p)
    print("\n".join(prompt(p, **which)))


def positive(text: str) -> int:
    """A number from 1, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


SOURCES = {"forget_source", "questions_source", "general_source", "mmlu_source"}
FILE = {"-f --file": {"type": Path, "help": "YAML file of parameters"}}
PARAM = {"-p --param": {"action": "append", "default": [], "metavar": "NAME=VALUE", "help": "over the file's"}}
NAME = {"name": {"nargs": "?", "default": "fable", "help": "folder below outputs/; for report also a path with a /"}}
THREADS = {"--threads": {"type": positive, "help": "threads of each numeric library"}}
# Each command: what it calls, what it does, its arguments (which are the call's, by name).
COMMANDS = {
    "run": (_run, "run one notebook under papermill", {
        "notebook": {"type": Path}, **FILE, **PARAM, **THREADS,
        "-o --executed": {"type": Path, "help": "where the executed copy goes"},
        "--print": {"action": "store_true", "help": "only print the parameters as they resolve"},
    }),
    "reproduce": (graph.reproduce, "run a whole suite; what is up to date is not run again", {
        "--suite": {"dest": "file", "type": Path, "default": ROOT / "params" / "suite" / "fable.yaml"},
        "--name": {"help": "folder below outputs/ (the suite's own name)"},
        "--seeds": {"type": int, "help": "at most so many seeds of each row"},
        "--profile": {"type": Path, "default": Path("profiles/local"), "help": "a folder below profiles/"},
        "--cores": {"type": positive, "help": "jobs at once (all cores)"},
        "--dry-run": {"action": "store_true", "help": "only say what would run"},
        "snakemake": {"nargs": "*", "help": "after --: further arguments for Snakemake"},
    }),
    "teacher": (_teacher, "write a row's teacher answers to a benchmark's training records", {
        **FILE, **PARAM, **THREADS,
        "--out": {"type": Path, "required": True, "help": "file of answers; FILE.json says what they are of"},
        "--overwrite": {"action": "store_true", "help": "replace answers to other data or of another model"},
    }),
    "compare": (lambda **sides: print(compare(**sides)), "say in what two run folders differ", {
        "one": {"type": Path, "metavar": "A"}, "other": {"type": Path, "metavar": "B"},
    }),
    "report": (_report, "write a suite's tables, figures and provenance as one HTML page", NAME),
    "times": (lambda name: print(times.by_step(_outputs(name))), "say where a suite's CPU seconds went", NAME),
    "doctor": (_doctor, "check the installation and say what the machine offers", {}),
    "prepare": (_prepare, "make training and evaluation files from RWKU or your questions, without an LLM", {
        "benchmark": {"choices": ("rwku", "own")},
        "--out": {"type": Path, "required": True, "help": "data folder to write; must not exist"},
        "--subject": {"default": "", "help": "the person or topic to forget"},
        "--source": {"default": "", "help": "folder with RWKU (default: the Hub, pinned) or your questions"},
        "--mmlu": {"default": "", "help": "folder or file of MMLU (default: RWKU's part)"},
        "--levels": {"type": int, "nargs": "+", "choices": (1, 2), "default": [1, 2], "help": "RWKU's probes"},
        "--seed": {"type": int, "default": 0},
    }),
    "standardize": (_standardize, "make a benchmark's data from its raw text by a language model", {
        "-f --file": {"type": Path, "required": True, "help": "YAML file of parameters"}, **PARAM,
        "--dry-run": {"action": "store_true", "help": "read the sources and say what would be asked"},
    }),
    "show-prompt": (_show_prompt, "print any prompt of a row decoded, the scored tokens between ⟪ and ⟫", {
        "-f --file": {"type": Path, "default": ROOT / "params" / "04_training" / "fable.yaml"}, **PARAM,
        "--set": {"dest": "part", "choices": SETS, "default": "forget", "help": "a set of the evaluation"},
        "--item": {"type": int, "default": 0, "help": "which item of the set, from 0"},
    }),
    "reference": (_reference, "keep a suite's small files as reference, or compare with it", {
        "--name": {"default": "fable", "help": "the suite's folder below outputs"},
        "--to": {"default": "reference", "help": "the reference's folder below outputs"},
        "--check": {"dest": "compare", "action": "store_true", "help": "compare its runs with the committed ones"},
    }),
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help\n")


def main() -> None:
    """Entry point of the `mule` command; a refusal is one line on standard error and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("papermill").setLevel(logging.INFO)  # what cells print, as they print it
    graph.end_with_driver()
    for name in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # Windows has no SIGHUP
        if signal.getsignal(name) == signal.SIG_DFL:  # not under nohup
            signal.signal(name, signal.default_int_handler)
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    parser = _Parser(prog="mule", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text, arguments) in COMMANDS.items():
        made = commands.add_parser(name, help=text)
        for flags, options in arguments.items():
            made.add_argument(*flags.split(), **options)
    args = vars(parser.parse_args())
    command = args.pop("command")
    try:
        COMMANDS[command][0](**args)
        print(times.spent(), end="", flush=True)
    except KeyboardInterrupt:
        sys.exit(f"mule {command}: interrupted; the same command goes on from here")
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(f"mule {command}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
