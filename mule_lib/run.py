"""Run a notebook under papermill with validated parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mule_lib.params import NotebookParams, ParameterError, load

ROOT = Path(__file__).resolve().parent.parent


def run_notebook(
    notebook: Path, executed: Path, *, file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> NotebookParams:
    """Execute `notebook` into `executed` and return its parameters; they are checked before the kernel starts.

    Raises ParameterError for a missing notebook or bad parameters, and papermill's error when a cell fails; the
    executed notebook with its traceback is kept then.
    """
    if not notebook.exists():
        raise ParameterError(f"{notebook}: no such notebook")
    params = load(notebook.stem, file, overrides)
    import papermill  # slow to import, and not needed to refuse bad parameters
    from traitlets.config import Config

    executed.parent.mkdir(parents=True, exist_ok=True)
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
    return params
