"""Run a notebook under papermill with checked parameters; what is there already is not run again."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mule_lib.params import ROOT, ModelNotebook, Notebook, ParameterError, Training, read_parameters
from mule_lib.suite.check import before_run, check_writable, json_object
from mule_lib.suite.runs import open_folder, open_run

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
# Nothing of ours shows a widget, and bars of loading would be kept in every executed notebook. No run tells anybody.
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
QUIET |= {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
# At import jsonschema, which papermill needs, would make a grammar of addresses: 3 of 4 seconds, for no field of ours.
sys.modules.setdefault("rfc3987_syntax", None)
MORE = "more"  # the name in a parameters cell that takes what the cell does not spell out


class NotebookError(RuntimeError):
    """A cell failed or the kernel died; the message names notebook, cell, error and where the executed copy lies."""


def run_notebook(
    notebook: Path,
    executed: Path,
    *,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> bool:
    """Execute `notebook` into `executed`, its parameters checked before the kernel starts, and return True.

    A training whose seeds all have valid run folders is not run: False. `threads` limits each numeric library inside
    the kernel. Raises ParameterError for a missing notebook or bad parameters, RunFolderError when a folder holds
    another run, NotebookError when a cell fails; the executed copy with its traceback is kept then.
    """
    if not notebook.exists():
        raise ParameterError(f"{notebook}: no such notebook")
    if not isinstance(json_object(notebook, str(notebook)).get("cells"), list):
        raise ParameterError(f"{notebook}: no notebook; it has no cells")
    p = read_parameters(notebook.stem, file, overrides)
    if isinstance(p, Training):
        if not open_run(p, notebook=notebook).pending:
            return False
    elif isinstance(p, ModelNotebook):
        open_folder(p)
    else:
        before_run(p)
    if executed.suffix != ".ipynb" or executed.is_dir() or executed.resolve() == notebook.resolve():
        raise ParameterError(f"executed = {str(executed)!r}: give a file of its own that ends in .ipynb")
    check_writable("executed", executed.parent)
    limit_threads(threads)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    executed.parent.mkdir(parents=True, exist_ok=True)
    execute(notebook, executed, p)
    return True


def limit_threads(threads: int | None) -> None:
    """Limit the numeric libraries of this process, if they are not loaded yet, and of all that it starts."""
    if threads:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))


def cell_values(p: Notebook, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the notebook's cell takes them: those it declares by name, other changed ones in `more`."""
    values, defaults = p.model_dump(mode="json"), type(p)().model_dump(mode="json")
    rest = {name: value for name, value in values.items() if name not in declared and value != defaults[name]}
    if rest and MORE not in declared:
        raise ParameterError(f"the parameters cell has no {min(rest)!r} and no {MORE!r} that would take it")
    return {name: value for name, value in values.items() if name in declared} | ({MORE: rest} if rest else {})


def execute(notebook: Path, executed: Path, p: Notebook) -> None:
    """Execute a notebook, whatever lies in its folders. Raises NotebookError when a cell fails or the kernel dies."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            parameters=cell_values(p, papermill.inspect_notebook(str(notebook))),
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
        reason = "the kernel died, most often for lack of memory"
        raise NotebookError(f"{notebook.name}: {reason}; executed copy: {executed}") from None
