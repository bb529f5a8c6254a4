"""The `mule` command: run notebooks and suites, compare runs, show prompts, make data, train the embedded model."""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

import yaml

from mule_lib import params
from mule_lib.params import ROOT, ParameterError
from mule_lib.prompts import CHOICE_STYLES, OBJECTIVES


def _given(args: argparse.Namespace) -> dict:
    wrong = [text for text in args.param if "=" not in text]
    if wrong:
        raise ParameterError(f"-p {wrong[0]}: should be NAME=VALUE")
    return {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in args.param)}


def _run(args: argparse.Namespace) -> None:
    from mule_lib.suite.notebook import run_notebook

    given = _given(args) | ({"rerun": True} if args.rerun else {})
    if args.print:
        p = params.load(args.notebook.stem, args.file, given)
        print(yaml.safe_dump(p.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
        return
    executed = args.executed or ROOT / "outputs" / "executed" / args.notebook.name
    ran = run_notebook(args.notebook, executed, file=args.file, overrides=given, threads=args.threads)
    if ran.reused:
        print(f"{args.notebook}: reused {ran.params.out_dir}, nothing that its numbers depend on has changed")
    else:
        print(f"{args.notebook} -> {ran.params.out_dir}; executed copy: {executed}")


def _reproduce(args: argparse.Namespace) -> None:
    from mule_lib.suite.graph import reproduce

    options = {"profile": args.profile, "cores": args.cores, "dry_run": args.dry_run, "more": args.snakemake}
    reproduce(args.suite, name=args.name, seeds=args.seeds, **options)


def _teacher(args: argparse.Namespace) -> None:
    from mule_lib.suite.notebook import limit_threads

    limit_threads(args.threads)
    p = params.load("04_training", args.file, _given(args) | {"data_format": "unified"})
    from mule_lib.suite.runs import teacher_answers

    answers, asked = teacher_answers(p, args.out, ask=True, batch_size=args.batch_size, overwrite=args.overwrite)
    print(f"{'written' if asked else 'reused'} {args.out}: {len(answers)} teacher answers")


def _report(args: argparse.Namespace) -> None:
    from mule_lib.report import page

    print(page.write(ROOT / "outputs" / args.name if "/" not in args.name else Path(args.name)))


def _standardize(args: argparse.Namespace) -> None:
    from mule_lib.data.standardize.ask import Standardize
    from mule_lib.data.standardize.command import run

    run(params.load(Standardize, args.file, _given(args)), load_model=writer, dry_run=args.dry_run)


def writer(name: str):
    """Identity of a model, and how it continues chats greedily; the last message may be the model's own beginning."""
    import torch

    from mule_lib import models, prompts
    from mule_lib.suite.runs import model_hash

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


def _prepare(args: argparse.Namespace) -> None:
    from mule_lib import data
    from mule_lib.data import prepare, raw_formats

    if args.out.exists():
        raise prepare.PrepareError(f"{args.out}: exists already; give another folder, or remove it first")
    names = ("subject", "source", "mmlu", "levels", "forget", "seed")
    made = prepare.prepare(args.benchmark, **{name: getattr(args, name) for name in names})
    data.save(args.out, made, raw=raw_formats.raw_records(made.records, seed=args.seed))
    print(f"{args.out}: {json.dumps(made.counts())}")


def _train_embedded(args: argparse.Namespace) -> None:
    # Base and gold run side by side on one core each: that uses two cores better than one model on both.
    command = [sys.executable, "-m", "mule_lib.training.embedded", "--work", str(args.work)]
    subprocess.run([*command, "skills", "--threads", "2"], check=True)
    both = [subprocess.Popen([*command, which, "--threads", "1"]) for which in ("base", "gold")]
    if any([process.wait() for process in both]):
        raise ParameterError("a training ended with an error (above); the same command goes on from its checkpoint")
    from mule_lib.training.embedded import export_models

    export_models(args.work, args.work / "weights")
    print(f"models are in {args.work / 'weights'}; to ship them, copy the folder to mule_lib/embedded/weights")


def _doctor(args: argparse.Namespace) -> None:
    from mule_lib.suite import inspect

    findings = inspect.examine()
    print("\n".join(map(str, findings)))
    if not all(finding.good for finding in findings):
        raise ParameterError("what is marked !! above needs attention")


def _compare(args: argparse.Namespace) -> None:
    from mule_lib.suite import inspect

    print("\n".join(inspect.compare(args.one, args.other)))


def _list(args: argparse.Namespace) -> None:
    from mule_lib.suite import inspect

    print("\n".join(inspect.listing(args.folder)) or f"{args.folder}: no runs; `make reproduce` makes them")


def _show_prompt(args: argparse.Namespace) -> None:
    from mule_lib.suite import inspect

    if (args.question is None) == (args.row is None):
        raise ParameterError("give either a question or --row")
    if args.row is None:
        given = {"system": args.system, "prefix": args.prefix, "answer": args.answer}
        print(inspect.own_prompt(args.question, model=args.model or "base", **given))
        return
    names = ("benchmark", "data_dir", "objective", "stage", "part", "item", "model", "choice_style")
    print("\n".join(inspect.row_prompts(args.row, **{name: getattr(args, name) for name in names})))


def _reference(args: argparse.Namespace) -> None:
    from mule_lib.suite import inspect

    suite, kept = ROOT / "outputs" / args.name, ROOT / "outputs" / args.to
    if args.check:
        compared, found = inspect.reference_differences(suite, kept)
        print("\n".join([f"{compared} runs compared, {len(found)} numbers beyond their tolerance", *found]))
    else:
        print(f"{len(inspect.keep_reference(suite, kept))} files of {suite} kept in {kept}")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="mule", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, action, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.set_defaults(action=action)
        return made

    def parameters(made: argparse.ArgumentParser, required: bool = False) -> None:
        made.add_argument("-f", "--file", type=Path, required=required, help="YAML file of parameters")
        made.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE", help="over the file's")

    run = command("run", _run, "run one notebook under papermill")
    run.add_argument("notebook", type=Path)
    parameters(run)
    run.add_argument("-o", "--executed", type=Path, help="where the executed copy goes")
    run.add_argument("--threads", type=int, help="threads of each numeric library inside the kernel")
    run.add_argument("--rerun", action="store_true", help="train again what could be reused")
    run.add_argument("--print", action="store_true", help="only print the parameters as they resolve")
    every = command("reproduce", _reproduce, "run a whole suite; what is up to date is not run again")
    every.add_argument("--suite", type=Path, default=ROOT / "params" / "suite" / "fable.yaml")
    every.add_argument("--name", help="folder below outputs/ (the suite's own name)")
    every.add_argument("--seeds", type=int, help="at most so many seeds of each row")
    every.add_argument("--profile", type=Path, default=Path("profiles/local"), help="a folder below profiles/")
    every.add_argument("--cores", type=int, help="jobs at once (all cores)")
    every.add_argument("--dry-run", action="store_true", help="only say what would run")
    every.add_argument("snakemake", nargs="*", help="after --: further arguments for Snakemake")
    teacher = command("teacher", _teacher, "write a row's teacher answers to a benchmark's training records")
    parameters(teacher)
    teacher.add_argument("--out", type=Path, required=True, help="file of answers; FILE.json says what they are of")
    teacher.add_argument("--batch-size", type=int, default=64)
    teacher.add_argument("--threads", type=int)
    teacher.add_argument("--overwrite", action="store_true", help="replace answers to other data or of another model")
    sides = command("compare", _compare, "say in which settings and numbers two run folders differ")
    sides.add_argument("one", type=Path, metavar="A")
    sides.add_argument("other", type=Path, metavar="B")
    listing = command("list", _list, "list the runs below a folder with their numbers")
    listing.add_argument("folder", type=Path, nargs="?", default=ROOT / "outputs")
    page = command("report", _report, "write a suite's tables, figures and provenance as one HTML page")
    page.add_argument("name", nargs="?", default="fable", help="folder below outputs/, or a path with a /")
    command("doctor", _doctor, "check the installation and say what the machine offers")
    made = command("prepare", _prepare, "make training and evaluation files from RWKU or TOFU, without an LLM")
    made.add_argument("benchmark", choices=("rwku", "tofu"))
    made.add_argument("--out", type=Path, required=True, help="data folder to write; must not exist")
    made.add_argument("--subject", default="", help="RWKU: the person to forget; TOFU: the authors' names")
    made.add_argument("--source", default="", help="folder with the dataset (default: the Hub, pinned)")
    made.add_argument("--mmlu", default="", help="folder or file of MMLU (default: RWKU's part, or the Hub)")
    made.add_argument("--levels", type=int, nargs="+", default=[1, 2], help="RWKU's probes: 1, 2 or both")
    made.add_argument("--forget", default="forget10", help="TOFU's part to forget")
    made.add_argument("--seed", type=int, default=0)
    data = command("standardize", _standardize, "make a benchmark's data from its raw text by a language model")
    parameters(data, required=True)
    data.add_argument("--dry-run", action="store_true", help="read the sources and say what would be asked")
    train = command("train-embedded", _train_embedded, "train the embedded model and its gold reference again")
    train.add_argument("--work", type=Path, default=Path("build/embedded"))
    show = command("show-prompt", _show_prompt, "print any prompt decoded, the scored tokens between ⟪ and ⟫")
    show.add_argument("question", nargs="?", help="a question of your own, instead of a row's")
    show.add_argument("--model", help="base, gold, a hub id or a folder (the row's own, or base)")
    own = show.add_argument_group("with a question of your own")
    for name in ("--system", "--prefix", "--answer"):
        own.add_argument(name)
    row = show.add_argument_group("with a row")
    row.add_argument("--row", help="a method, or a row of params/04_training/fable.yaml")
    row.add_argument("--benchmark", default="books")
    row.add_argument("--data-dir", default="", help="folder of a benchmark that is not built in")
    row.add_argument("--objective", choices=OBJECTIVES, default="obj1")
    row.add_argument("--stage", choices=("evaluation", "training"), default="evaluation")
    row.add_argument("--set", dest="part", help="evaluation: another set of items; training: another role")
    row.add_argument("--item", type=int, default=0, help="which item of the set, from 0")
    row.add_argument("--choice-style", choices=CHOICE_STYLES, help="the row's own where none is given")
    kept = command("reference", _reference, "keep a suite's small files as reference, or compare with it")
    kept.add_argument("--name", default="fable", help="the suite's folder below outputs")
    kept.add_argument("--to", default="reference", help="the reference's folder below outputs")
    kept.add_argument("--check", action="store_true", help="compare its runs with the committed ones")
    return top


def main() -> None:
    """Entry point of the `mule` command; a refusal is one line on standard error and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("papermill").setLevel(logging.INFO)  # what cells print, as they print it
    args = parser().parse_args()
    try:
        args.action(args)
    except KeyboardInterrupt:
        sys.exit(f"mule {args.command}: interrupted")
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f"mule {args.command}: {error}")


if __name__ == "__main__":
    main()
