"""The `mule` command: run notebooks, reproduce the suite, show a prompt, train the embedded model."""

import argparse
import logging
import subprocess
import sys
import time
from pathlib import Path

import yaml

from mule_lib import run
from mule_lib.params import NOTEBOOK_PARAMS, ParameterError


def _pairs(texts: list[str]) -> dict:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise ParameterError(f"-p {wrong[0]}: should be NAME=VALUE")
    return {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in texts)}


def _run(args: argparse.Namespace) -> None:
    executed = args.executed or run.ROOT / "outputs" / "executed" / args.notebook.name
    params = run.run_notebook(args.notebook, executed, file=args.file, overrides=_pairs(args.param))
    print(f"{args.notebook} -> {params.out_dir}; executed copy: {executed}")


def _reproduce(args: argparse.Namespace) -> None:
    begun = time.time()
    stems, out = list(NOTEBOOK_PARAMS), Path("outputs") / args.name
    for i, stem in enumerate(stems, 1):
        print(f"[{i}/{len(stems)}] {stem} ...", flush=True)
        run.run_notebook(
            run.ROOT / "notebooks" / f"{stem}.ipynb",
            run.ROOT / out / "executed" / f"{stem}.ipynb",
            file=run.ROOT / "params" / stem / "fable.yaml",
            overrides={"out_dir": str(out / stem)},
        )
        done = time.time() - begun
        print(
            f"[{i}/{len(stems)}] {stem} done; {done:.0f} s so far, about {done / i * (len(stems) - i):.0f} s left",
            flush=True,
        )
    print(f"tables, figures and provenance are in outputs/{args.name}")


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


def _show_prompt(args: argparse.Namespace) -> None:
    from mule_lib import models, prompts

    _, tokenizer = models.load(args.model)
    prompt = prompts.render(tokenizer, args.question, system=args.system, prefix=args.prefix, answer=args.answer)
    print(prompts.show(tokenizer, prompt))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="mule", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="run one notebook under papermill")
    one.add_argument("notebook", type=Path)
    one.add_argument("-f", "--file", type=Path, help="YAML file of parameters")
    one.add_argument("-p", "--param", action="append", default=[], metavar="NAME=VALUE")
    one.add_argument("-o", "--executed", type=Path, help="where the executed copy goes")
    one.set_defaults(action=_run)
    every = commands.add_parser("reproduce", help="run the whole suite on the embedded model")
    every.add_argument("--name", default="fable", help="folder below outputs/")
    every.set_defaults(action=_reproduce)
    train = commands.add_parser("train-embedded", help="train the embedded model and its gold reference again")
    train.add_argument("--work", type=Path, default=Path("build/embedded"))
    train.set_defaults(action=_train_embedded)
    show = commands.add_parser("show-prompt", help="print a prompt decoded, the scored tokens between ⟪ and ⟫")
    show.add_argument("question")
    show.add_argument("--model", default="base", help="base, gold, a hub id or a folder")
    show.add_argument("--system")
    show.add_argument("--prefix")
    show.add_argument("--answer")
    show.set_defaults(action=_show_prompt)
    return top


def main() -> None:
    """Entry point of the `mule` command; a refusal is one line on standard error and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    args = parser().parse_args()
    try:
        args.action(args)
    except (ParameterError, RuntimeError, ValueError, FileNotFoundError) as error:
        sys.exit(f"mule {args.command}: {error}")


if __name__ == "__main__":
    main()
