"""Whole tasks of lm-evaluation-harness 0.4.13 on a live model; the package is the optional extra `harness`."""

import difflib
import random
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

MISSING = "full harness tasks need `pip install lm-eval==0.4.13` (the extra `harness`)"


def run_tasks(
    model,
    tokenizer,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 16,
    apply_chat_template: bool = False,
    num_fewshot: int | None = None,
    include_path: str | Path | None = None,
) -> dict:
    """Run harness tasks or groups (names, or YAML files) on the model and return its numbers as plain JSON.

    Names are looked up in the harness and below the folder `include_path`; most of the harness's own tasks need a
    network for their data. `limit` takes the first items of each task, None all; `num_fewshot` None is each task's own.
    Returns `results` and `n` (items) by task, and the `settings` with the harness's version. The caller's random
    states are left as they were. Raises ValueError for no task or an unknown one, with the nearest name, and
    RuntimeError where the package is not installed, both before the model is asked.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, should be at least 1, or None for all items")
    manager = check(tasks, include_path=include_path)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # The harness seeds every global generator.
    with ExitStack() as after, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            apply_chat_template=apply_chat_template,
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
            task_manager=manager,
        )
    return {
        # Metrics are named "acc,none", with their filter; a standard error that was not computed is the text "N/A".
        "results": {
            task: {name: value for name, value in values.items() if "," in name and isinstance(value, int | float)}
            for task, values in found["results"].items()
        },
        "n": {task: count["effective"] for task, count in found["n-samples"].items()},
        "settings": {
            "lm_eval": version("lm_eval"),
            "limit": limit,
            "num_fewshot": num_fewshot,
            "apply_chat_template": apply_chat_template,
        },
    }


def check(tasks: Sequence[str], *, include_path: str | Path | None = None):
    """The harness's task manager, which knows all of `tasks`.

    Raises ValueError for no task or an unknown one, with the nearest name, RuntimeError without the package.
    """
    if not tasks:
        raise ValueError("tasks: empty; name at least one task of lm-evaluation-harness")
    try:
        from lm_eval import tasks as harness
    except ImportError as error:
        raise RuntimeError(MISSING) from error
    manager = harness.TaskManager(include_path=None if include_path is None else str(include_path))
    known = manager.task_index
    for name in tasks:
        if name in known or Path(name).is_file():
            continue
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`lm-eval ls tasks` lists those of the harness"
        raise ValueError(f"tasks: {name!r} is neither a harness task nor a YAML file; {hint}")
    return manager
