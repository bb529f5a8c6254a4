"""The `mule` command: run notebooks, reproduce the suite, compare runs, show a prompt, train the embedded model."""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

import yaml

from mule_lib import show
from mule_lib.params import ROOT, ParameterError, load


def _pairs(texts: list[str]) -> dict:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise ParameterError(f"-p {wrong[0]}: should be NAME=VALUE")
    return {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in texts)}


def _run(args: argparse.Namespace) -> None:
    from mule_lib import run

    executed = args.executed or run.ROOT / "outputs" / "executed" / args.notebook.name
    how = {"threads": args.threads, "rerun": args.rerun}
    ran = run.run_notebook(args.notebook, executed, file=args.file, overrides=_pairs(args.param), **how)
    if ran.reused:
        print(f"{args.notebook}: reused {ran.params.out_dir}, nothing that its numbers hang on has changed")
    else:
        print(f"{args.notebook} -> {ran.params.out_dir}; executed copy: {executed}")


def _prepare(args: argparse.Namespace) -> None:
    from mule_lib import data
    from mule_lib.data import prepare, raw_formats

    if args.out.exists():
        raise prepare.PrepareError(f"{args.out}: exists already; give another folder, or remove it first")
    names = ("subject", "source", "mmlu", "levels", "forget", "seed")
    made = prepare.prepare(args.benchmark, **{name: getattr(args, name) for name in names})
    data.save(args.out, made, raw=raw_formats.raw_records(made.records, seed=args.seed))
    print(f"{args.out}: {json.dumps(made.counts())}")


def _reproduce(args: argparse.Namespace) -> None:
    from mule_lib.reproduce import reproduce

    how = {"profile": args.profile, "cores": args.cores, "dry_run": args.dry_run, "more": args.snakemake}
    reproduce(args.suite, name=args.name, seeds=args.seeds, **how)


def _teacher(args: argparse.Namespace) -> None:
    from mule_lib.devices import one_gpu
    from mule_lib.params import validate
    from mule_lib.run import limit_threads

    limit_threads(args.threads)
    names = ("benchmark", "model", "revision", "precision", "data_dir", "max_thought_tokens")
    given = {name: getattr(args, name) for name in names}
    options = {"teacher": args.kind, "cot": args.cot}
    p = validate("04_training", {**given, "method": "mule", "options": options}, source="mule teacher")
    with one_gpu():
        from mule_lib.training_run import write_teacher  # torch sees the GPUs of this moment

        number, how = write_teacher(args.out, p, batch_size=args.batch_size, overwrite=args.overwrite)
    print(f"{how} {args.out}: {number} targets of the {args.kind} teacher{' with thoughts' if args.cot else ''}")


def _compare(args: argparse.Namespace) -> None:
    from mule_lib.compare import compare

    print("\n".join(compare(args.one, args.other)))


def _list(args: argparse.Namespace) -> None:
    from mule_lib.compare import listing

    lines = list(listing(args.folder))
    print("\n".join(lines) or f"{args.folder}: no runs; `make reproduce` makes them")


def _doctor(args: argparse.Namespace) -> None:
    from mule_lib.doctor import examine

    findings = examine()
    print("\n".join(map(str, findings)))
    if not all(finding.good for finding in findings):
        raise ParameterError("what is marked !! above needs attention")


def _report(args: argparse.Namespace) -> None:
    from mule_lib.report import page

    folder = ROOT / "outputs" / args.name if "/" not in args.name else Path(args.name)
    print(page.write(folder))


def _standardize(args: argparse.Namespace) -> None:
    p = load("standardize", args.file, _pairs(args.param))
    from mule_lib.data.standardize.command import run

    run(p, load_model=_writer, dry_run=args.dry_run)


def _writer(name: str):
    """Identity of a model, and how it continues chats greedily; the last message may be the model's own beginning."""
    import torch

    from mule_lib import models, prompts
    from mule_lib.fingerprint import model_hash

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


def _reference(args: argparse.Namespace) -> None:
    from mule_lib import reference
    from mule_lib.report.results import load_runs

    suite, kept = ROOT / "outputs" / args.name, ROOT / "outputs" / "reference"
    if args.check:
        compared, found = reference.differences(load_runs(suite), kept)
        print("\n".join([f"{compared} runs compared, {len(found)} numbers beyond their tolerance", *found]))
    else:
        print(f"{len(reference.keep(suite, kept))} files of {suite} kept in {kept}")


def _train_embedded(args: argparse.Namespace) -> None:
    # Base and gold run side by side on one core each: that uses two cores better than one model on both.
    command = [sys.executable, "-m", "mule_lib.embedded.train", "--work", str(args.work)]
    subprocess.run([*command, "skills", "--threads", "2"], check=True)
    both = [subprocess.Popen([*command, which, "--threads", "1"]) for which in ("base", "gold")]
    if any([process.wait() for process in both]):
        raise ParameterError("a training ended with an error (above); the same command goes on from its checkpoint")
    from mule_lib.embedded.export import export

    export(args.work, args.work / "weights")
    print(f"models are in {args.work / 'weights'}; to ship them, copy the folder to mule_lib/embedded/weights")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="mule", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="run one notebook under papermill")
    one.add_argument("notebook", type=Path)
    one.add_argument("-f", "--file", type=Path, help="YAML file of parameters")
    one.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE")
    one.add_argument("-o", "--executed", type=Path, help="where the executed copy goes")
    one.add_argument("--threads", type=int, help="threads of each numeric library inside the kernel")
    one.add_argument("--rerun", action="store_true", help="run again what could be reused")
    one.set_defaults(action=_run)
    every = commands.add_parser("reproduce", help="run a whole suite; what is up to date is not run again")
    every.add_argument("--suite", type=Path, default=ROOT / "params" / "suite" / "fable.yaml")
    every.add_argument("--name", help="folder below outputs/ (the suite's own name)")
    every.add_argument("--seeds", type=int, help="at most so many seeds of each row")
    every.add_argument("--profile", type=Path, default=Path("profiles/local"), help="a folder below profiles/")
    every.add_argument("--cores", type=int, help="jobs at once (all cores)")
    every.add_argument("--dry-run", action="store_true", help="only say what would run")
    every.add_argument("snakemake", nargs="*", help="after --: further arguments for Snakemake")
    every.set_defaults(action=_reproduce)
    teacher = commands.add_parser("teacher", help="write what a steered teacher says to a benchmark's training records")
    teacher.add_argument("--benchmark", required=True)
    teacher.add_argument("--kind", choices=("oracle", "ensemble"), default="oracle")
    teacher.add_argument("--cot", action=argparse.BooleanOptionalAction, default=True, help="think before answering")
    teacher.add_argument("--out", type=Path, required=True, help="file of targets; FILE.json says what they are of")
    teacher.add_argument("--model", default="base", help="base, gold, a hub id or a folder")
    teacher.add_argument("--revision", default="", help="commit of a hub model")
    teacher.add_argument("--precision", default="fp32", help="or bf16")
    teacher.add_argument("--data-dir", default="", help="folder with train.jsonl; Fable needs none")
    teacher.add_argument("--max-thought-tokens", type=int, default=48)
    teacher.add_argument("--batch-size", type=int, default=64)
    teacher.add_argument("--threads", type=int)
    teacher.add_argument("--overwrite", action="store_true", help="replace targets of other data or another model")
    teacher.set_defaults(action=_teacher)
    sides = commands.add_parser("compare", help="say in which settings and numbers two run folders differ")
    sides.add_argument("one", type=Path, metavar="A")
    sides.add_argument("other", type=Path, metavar="B")
    sides.set_defaults(action=_compare)
    every_run = commands.add_parser("list", help="list the runs below a folder with their numbers")
    every_run.add_argument("folder", type=Path, nargs="?", default=ROOT / "outputs")
    every_run.set_defaults(action=_list)
    page = commands.add_parser("report", help="write a suite's tables, figures and provenance as one HTML page")
    page.add_argument("name", nargs="?", default="fable", help="folder below outputs/, or a path with a /")
    page.set_defaults(action=_report)
    commands.add_parser("doctor", help="check the installation and say what the machine offers").set_defaults(
        action=_doctor
    )
    data = commands.add_parser("standardize", help="make a benchmark's data from its raw text by a language model")
    data.add_argument("-f", "--file", type=Path, required=True, help="YAML file of parameters")
    data.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE")
    data.add_argument("--dry-run", action="store_true", help="read the sources and say what would be asked")
    data.set_defaults(action=_standardize)
    made = commands.add_parser("prepare", help="make training and evaluation files from RWKU or TOFU, without an LLM")
    made.add_argument("benchmark", choices=("rwku", "tofu"))
    made.add_argument("--out", type=Path, required=True, help="data folder to write; must not exist")
    made.add_argument("--subject", default="", help="RWKU: the person to forget; TOFU: the authors' names")
    made.add_argument("--source", default="", help="folder with the dataset (default: the Hub, pinned)")
    made.add_argument("--mmlu", default="", help="folder or file of MMLU (default: RWKU's part, or the Hub)")
    made.add_argument("--levels", type=int, nargs="+", default=[1, 2], help="RWKU's probes: 1, 2 or both")
    made.add_argument("--forget", default="forget10", help="TOFU's part to forget")
    made.add_argument("--seed", type=int, default=0)
    made.set_defaults(action=_prepare)
    train = commands.add_parser("train-embedded", help="train the embedded model and its gold reference again")
    train.add_argument("--work", type=Path, default=Path("build/embedded"))
    train.set_defaults(action=_train_embedded)
    show.add_to(commands)
    kept = commands.add_parser("reference", help="keep a suite's small files as reference, or compare with it")
    kept.add_argument("--name", default="fable", help="the suite's folder below outputs")
    kept.add_argument("--check", action="store_true", help="compare its runs with the committed ones")
    kept.set_defaults(action=_reference)
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
    except (ParameterError, RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f"mule {args.command}: {error}")


if __name__ == "__main__":
    main()
