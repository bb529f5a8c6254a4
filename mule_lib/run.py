"""Run a notebook under papermill with validated parameters; a run that is there already is not run again."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mule_lib import run_folder
from mule_lib.devices import one_gpu
from mule_lib.fingerprint import identity
from mule_lib.params import ROOT, Notebook, ParameterError, load, repository_path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
# Nothing of ours shows a widget, and bars of loading would be kept in every executed notebook.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}


class NotebookError(RuntimeError):
    """A cell failed or the kernel died; the message names notebook, cell, error and where the executed copy lies."""


@dataclass(frozen=True)
class Ran:
    """The parameters a notebook ran with, and whether its result was there already."""

    params: Notebook
    reused: bool = False


def run_notebook(
    notebook: Path,
    executed: Path,
    *,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    threads: int | None = None,
    rerun: bool = False,
) -> Ran:
    """Execute `notebook` into `executed`; its parameters are checked before the kernel starts.

    A training run whose folder holds the same fingerprint is reused, unless `rerun`. `threads` limits every numeric
    library inside the kernel. Raises ParameterError for a missing notebook or bad parameters, RunFolderError when
    the folder holds another run, NotebookError when a cell fails; the executed copy with its traceback is kept then.
    """
    if not notebook.exists():
        raise ParameterError(f"{notebook}: no such notebook")
    params = load(notebook.stem, file, overrides)
    if getattr(params, "harness_tasks", None):
        _check_tasks(params.harness_tasks)
    if hasattr(params, "overwrite"):
        out, told = repository_path(params.out_dir), identity(notebook, params)
        if not rerun and run_folder.is_reusable(out, told):
            os.utime(out / run_folder.METRICS)  # for tools that go by dates: it is as new as its inputs
            return Ran(params, reused=True)
        run_folder.check_free(out, told, overwrite=params.overwrite)
    executed.parent.mkdir(parents=True, exist_ok=True)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    limit_threads(threads)
    with one_gpu():
        _execute(notebook, executed, params)
    return Ran(params)


def _check_tasks(tasks: list[str]) -> None:
    from mule_lib.evaluate import harness  # seconds of imports, for the few runs that ask for tasks

    try:
        harness.check(tasks)
    except (RuntimeError, ValueError) as error:
        raise ParameterError(f"harness_tasks: {error}") from error


def limit_threads(threads: int | None) -> None:
    """Limit the numeric libraries of this process, if they are not loaded yet, and of all that it starts."""
    if threads is not None and threads < 1:
        raise ParameterError(f"--threads {threads}: should be at least 1")
    if threads:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))


def _execute(notebook: Path, executed: Path, params: Notebook) -> None:
    # papermill is slow to import, most of it for a grammar that only checks IRIs; without it that check is left out.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    from mule_lib import warm_kernels

    warm_kernels.use()
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            parameters=params.model_dump(),
            kernel_name="python3",
            cwd=str(ROOT),
            progress_bar=False,
            log_output=True,
            start_timeout=180,
            # ipykernel 7.3 warns at each start unless the transport's encryption is chosen.
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        )
    except papermill.PapermillExecutionError as error:
        print(re.sub("\x1b\\[[0-9;]*m", "", "\n".join(error.traceback)), file=sys.stderr)  # logs show no colours
        raise NotebookError(
            f"{notebook.name}, cell {error.cell_index}: {error.ename}: {' '.join(str(error.evalue).split())}; "
            f"executed copy: {executed}"
        ) from None
    except DeadKernelError:
        raise NotebookError(
            f"{notebook.name}: the kernel died, most often for lack of memory; executed copy: {executed}"
        ) from None
