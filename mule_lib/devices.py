"""One GPU per notebook: on a machine with several, each job takes one that no other job of ours holds."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NAMES = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; [] without any."""
    if NAMES in os.environ:
        return [name for name in os.environ[NAMES].split(",") if name.strip() and name != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


@contextmanager
def one_gpu(
    names: Sequence[str] | None = None, *, folder: Path | None = None, wait: float = 1.0
) -> Iterator[str | None]:
    """Hold one of several GPUs and show only that one to what is started within; waits while all are held.

    With one GPU or none nothing is changed and nothing is held. A process that dies lets go of its GPU.
    """
    names = visible() if names is None else names
    if len(names) < 2:
        yield names[0] if names else None
        return
    import fcntl

    folder = folder or Path(tempfile.gettempdir())
    before = os.environ.get(NAMES)
    files = {name: (folder / f"mule-gpu-{os.getuid()}-{name}.lock").open("a+") for name in names}
    try:
        name = _first_free(files, fcntl, wait)
        os.environ[NAMES] = name
        yield name
    finally:
        for file in files.values():
            file.close()
        os.environ.pop(NAMES, None)
        if before is not None:
            os.environ[NAMES] = before


def _first_free(files, fcntl, wait: float) -> str:
    while True:
        for name, file in files.items():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return name
            except OSError:
                continue
        time.sleep(wait)
