"""The `mule` command: run notebooks and suites, compare runs, show prompts, make data."""

import argparse
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from mule_lib import params
from mule_lib.data.items import SETS
from mule_lib.params import ROOT, ParameterError
from mule_lib.suite import check, graph, inspect
from mule_lib.suite.identity import model_hash
from mule_lib.suite.notebook import QUIET, limit_threads, run_notebook
from mule_lib.suite.runs import shared_teacher_answers


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
    limit_threads(threads)
    p = params.read_parameters("04_training", file, given(param) | {"data_format": "unified"})
    check.before_run(p)
    check.check_writable("out", out.parent)
    answers, asked = shared_teacher_answers(p, out, ask=True, overwrite=overwrite)
    print(f"{'written' if asked else 'reused'} {out}: {len(answers)} teacher answers")


def _report(name: str) -> None:
    from mule_lib.report import page

    print(page.write_report(_outputs(name) if "/" not in name else Path(name)))


def _outputs(name: str) -> Path:
    if not re.fullmatch(graph.FOLDER_NAME, name):
        raise ParameterError(f"name = {name!r}: should be the name of a folder below outputs/")
    return ROOT / "outputs" / name


def _standardize(file: Path, param, dry_run: bool) -> None:
    from mule_lib.data.standardize.ask import Standardize
    from mule_lib.data.standardize.pipeline import run

    p = params.read_parameters(Standardize, file, given(param))
    check.check_writable("out_dir", params.repository_path(p.out_dir))
    if p.generator == "local":
        check.model_header(p.generator_model)
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
    if not options["subject"]:
        raise ParameterError("subject: empty; name whom to forget, as 'Stephen King'")
    if benchmark != "own":  # those files are read at once
        check.check_sources(source=options["source"])
    made = prepare.prepare(benchmark, **options)
    data.save(out, made)
    print(f"{out}: {json.dumps(made.counts())}")


def _doctor() -> None:
    found = inspect.examine()
    print("\n".join(f"{'ok' if good else '!!'}  {name}: {text}" for name, (text, good) in found.items()))
    if not all(good for _, good in found.values()):
        raise ParameterError("what is marked !! above needs attention")


def _reference(name: str, to: str, compare: bool) -> None:
    suite, kept = _outputs(name), _outputs(to)
    if compare:
        compared, beyond = inspect.reference_differences(suite, kept)
        print("\n".join([f"{compared} runs compared, {len(beyond)} numbers beyond their tolerance", *beyond]))
    else:
        inspect.keep_reference(suite, kept)
        print(f"the small files of {suite} are kept in {kept}")


def _show_prompt(file: Path, param, **which) -> None:
    p = params.read_parameters("04_training", file, given(param))
    check.before_run(p)
    print("\n".join(inspect.prompt(p, **which)))


SOURCES = {"forget_source", "questions_source", "general_source", "mmlu_source"}
FILE = {"-f --file": {"type": Path, "help": "YAML file of parameters"}}
PARAM = {"-p --param": {"action": "append", "default": [], "metavar": "NAME=VALUE", "help": "over the file's"}}
THREADS = {"--threads": {"type": int, "help": "threads of each numeric library"}}
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
        "--cores": {"type": int, "help": "jobs at once (all cores)"},
        "--dry-run": {"action": "store_true", "help": "only say what would run"},
        "snakemake": {"nargs": "*", "help": "after --: further arguments for Snakemake"},
    }),
    "teacher": (_teacher, "write a row's teacher answers to a benchmark's training records", {
        **FILE, **PARAM, **THREADS,
        "--out": {"type": Path, "required": True, "help": "file of answers; FILE.json says what they are of"},
        "--overwrite": {"action": "store_true", "help": "replace answers to other data or of another model"},
    }),
    "compare": (lambda **sides: print(inspect.compare(**sides)), "say in what two run folders differ", {
        "one": {"type": Path, "metavar": "A"}, "other": {"type": Path, "metavar": "B"},
    }),
    "report": (_report, "write a suite's tables, figures and provenance as one HTML page", {
        "name": {"nargs": "?", "default": "fable", "help": "folder below outputs/, or a path with a /"},
    }),
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
    for name in (signal.SIGTERM, signal.SIGHUP):
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
    except KeyboardInterrupt:
        sys.exit(f"mule {command}: interrupted; the same command goes on from here")
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(f"mule {command}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
