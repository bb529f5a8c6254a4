"""Run folders: written whole or not at all, never over another run's, and reused only where all that matters agrees."""

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mule_lib.fingerprint import differences, fingerprint

METRICS, PROVENANCE = "metrics.json", "provenance.json"


class RunFolderError(ValueError):
    """A folder holds something else than this run; the message says what differs and what to do."""


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What the numbers in a run folder hang on; None for a folder that is no (whole) run."""
    if not ((folder / METRICS).is_file() and (folder / PROVENANCE).is_file()):
        return None
    return json.loads((folder / PROVENANCE).read_text("utf-8")).get("identity")


def is_reusable(folder: Path, told: Mapping[str, Any]) -> bool:
    """Whether the folder holds this very run: parameters, code, prompts, data, model and packages all agree."""
    held = read_identity(folder)
    return held is not None and fingerprint(held) == fingerprint(told)


def check_free(folder: Path, told: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Raise RunFolderError unless this run may be written into `folder`.

    It may where nothing lies, where this very run lies, and with `overwrite` over another run; never over anything
    that is no run.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    held = read_identity(folder)
    if held is None:
        if not folder.is_dir() or not (folder / PROVENANCE).is_file():
            raise RunFolderError(f"out_dir: {folder} exists and is no run; choose another or remove it")
        return  # metrics are missing: a run that lost its result
    found = differences(held, told)
    if not found or overwrite:
        return
    raise RunFolderError(
        f"out_dir: {folder} holds another run, {_summary(found)}; "
        "choose another out_dir, or overwrite=true to replace it"
    )


def _summary(found: list[tuple[str, Any, Any]]) -> str:
    """The differences in words: parameters with both values, everything else by name."""
    parameters = [f"{name[7:]} {old!r} (now {new!r})" for name, old, new in found if name.startswith("params.")]
    others = [name for name, *_ in found if not name.startswith("params.")]
    shown = [*parameters, *others]
    more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
    return f"it differs in {', '.join(shown[:6])}{more}"


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` to write into; it takes the place of `folder` at the end, or vanishes on error.

    A crash leaves the old folder, or both under hidden names of this process, but never a part under the real name.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = f".{folder.name}@{platform.node()}.{os.getpid()}"
    draft, old = folder.parent / f"{own}.draft", folder.parent / f"{own}.old"
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir()
    try:
        yield draft
        if folder.exists():
            os.replace(folder, old)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def remove_drafts(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left below `folder`."""
    for draft in [*folder.rglob(".*.draft"), *folder.rglob(".*.old")]:
        owner, _, process = draft.stem.rpartition(".")
        here = owner.endswith(f"@{platform.node()}") and process.isdigit()
        if draft.is_dir() and here and not _alive(int(process)):
            shutil.rmtree(draft, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
