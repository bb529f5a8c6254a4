"""Where the CPU seconds of a suite go: what each step's own process and its kernel took, from the logs."""

import os
import re
from pathlib import Path

import pandas as pd

from mule_lib.evaluate.result import RunResult
from mule_lib.suite.graph import DRIVER
from mule_lib.suite.runs import runs_below

SPENT = "CPU seconds: {:.1f} of the command, {:.1f} of its kernel\n"
_SPENT = re.compile(SPENT.replace("{:.1f}", r"([\d.]+)"))


def spent() -> str:
    """For the log of a suite's step, what it took and what it started and has ended; elsewhere nothing."""
    if DRIVER not in os.environ:
        return ""
    so_far = os.times()
    return SPENT.format(so_far.user + so_far.system, so_far.children_user + so_far.children_system)


def by_step(suite: Path) -> pd.DataFrame:
    """One line per step of a suite and one for all: its jobs, and the CPU seconds of their last starts.

    `command` is the process that checks and starts, `kernel` the notebook's, with its imports, figures and files. Of
    the latter `training` and `evaluation` are wall time, as runs record it: on a core of their own the same.
    """
    lines = []
    for log in sorted((suite / "logs").glob("*.txt")):
        if found := _SPENT.findall(log.read_text("utf-8", errors="replace")):
            lines.append((log.stem.split("-")[0], *map(float, found[-1])))
    steps = pd.DataFrame(lines, columns=["step", "command", "kernel"]).groupby("step")
    steps = steps.sum().assign(jobs=steps.size())[["jobs", "command", "kernel"]]
    for part, name in {"training": "train_seconds", "evaluation": "evaluate_seconds"}.items():
        seconds = (RunResult.read(run).timing[name] for run in runs_below(suite / "runs"))
        steps.loc["04_training", part] = sum(seconds)
    steps.loc["all"] = steps.sum()
    return steps.fillna(0).astype({"jobs": int}).round(1)
