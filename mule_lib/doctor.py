"""What a machine and an installation offer, one line each, and what is wrong with them."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mule_lib.fingerprint import PACKAGES
from mule_lib.params import ROOT

TOOLS = ("papermill", "snakemake", "jupyterlab", "ipykernel", "datasets")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and whether it is as it has to be."""

    name: str
    found: str
    good: bool = True

    def __str__(self) -> str:
        return f"{'ok' if self.good else '!!'}  {self.name}: {self.found}"


def examine() -> list[Finding]:
    """Everything worth knowing before a run or in a report of an error; importing torch takes some seconds."""
    looks: tuple[Callable[[], Finding], ...] = (_python, _packages, _kernel, _models, _device, _cores, _disk, _offline)
    return [look() for look in looks]


def _python() -> Finding:
    return Finding("python", f"{platform.python_version()} ({sys.executable})", sys.version_info >= (3, 11))


def _packages() -> Finding:
    """Installed versions against requirements.lock, where that file lies beside the library."""
    locked = _locked(ROOT / "requirements.lock")
    found, wrong = [], []
    for name in (*PACKAGES, *TOOLS):
        try:
            installed = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        found.append(f"{name} {installed}")
        wanted = locked.get(name.lower())
        if wanted and wanted != installed.split("+")[0]:
            wrong.append(f"{name} {installed}, requirements.lock has {wanted}")
    return Finding("packages", "; ".join(wrong) if wrong else ", ".join(found), not wrong)


def _locked(file: Path) -> dict[str, str]:
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    pairs = (line.split(" ")[0].split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip().lower(): pinned.strip().split("+")[0] for name, pinned in pairs}


def _kernel() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Finding("kernel", "no kernel named python3; run `python -m ipykernel install --sys-prefix`", False)
    return Finding("kernel", f"python3 -> {spec.argv[0]}")


def _models() -> Finding:
    from mule_lib.models import EMBEDDED, ModelFileError, check_embedded, embedded_hashes

    try:
        for which in EMBEDDED:
            check_embedded(which)
    except ModelFileError as error:
        return Finding("embedded models", str(error), False)
    return Finding("embedded models", ", ".join(f"{name} {digest[:12]}" for name, digest in embedded_hashes().items()))


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("accelerator", "none; the embedded suite needs none")
    parts = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        parts.append(f"{properties.name} {properties.total_memory / 2**30:.0f} GiB")
    return Finding("accelerator", ", ".join(parts))


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    good = memory / (usable or 1) > 1
    note = "" if good else "; each job needs more than 1 GiB, start fewer with --cores"
    return Finding("machine", f"{usable} cores, {memory:.0f} GiB of memory{note}", good)


def _disk() -> Finding:
    free = shutil.disk_usage(ROOT).free / 2**30
    return Finding("disk", f"{free:.0f} GiB free at {ROOT}", free > 1)


def _offline() -> Finding:
    offline = os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "True"}
    return Finding("Hugging Face Hub", "not asked (HF_HUB_OFFLINE is set)" if offline else "asked for models by name")
