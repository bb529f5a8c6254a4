"""The methods' names and options without importing torch, for checks that have to answer at once.

`methods.METHODS` is the only source. What it says is kept as JSON below `build/`, under the hash of the code behind it,
and read from there; a changed method changes the hash, and the table is imported once again.
"""

import difflib
import hashlib
import json
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from mule_lib.closure import ROOT, code_hashes
from mule_lib.runs import write_json

FOLDER = ROOT / "build" / "catalogue"


def catalogue() -> dict[str, dict[str, Any]]:
    """Per method: its label, its options with their defaults, and whether it `trains` anything."""
    loaded = sys.modules.get("mule_lib.methods")
    if loaded is not None and hasattr(loaded, "METHODS"):  # also holds rows that a notebook has added
        return _described(loaded.METHODS)
    return _stored(FOLDER)


def options_of(method: str, changed: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options with some of them changed. Raises ValueError with the nearest name for an unknown one."""
    rows = catalogue()
    if method not in rows:
        raise ValueError(f"no such method; {nearest(method, rows)}")
    known = rows[method]["options"]
    for name in changed:
        if name not in known:
            raise ValueError(f"{method} has no option {name!r}; {nearest(name, known)}")
    return {**known, **changed}


def nearest(name: str, known: Collection[str]) -> str:
    """The hint that an error about an unknown name ends with."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known) or 'none'}"


def teacher_name(options: Mapping[str, Any]) -> str | None:
    """Stem of the file with the targets that a row's options ask for, such as "oracle-cot"; None without a teacher.

    None also where the answers are the records' own: nothing is generated that could be shared.
    """
    if options.get("answers") != "teacher":
        return None
    return f"{options['teacher']}-cot" if options["cot"] else options["teacher"]


@cache
def _stored(folder: Path) -> dict[str, dict[str, Any]]:
    code = json.dumps(code_hashes(Path(__file__).with_name("methods.py")), sort_keys=True)
    file = folder / f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.json"
    if file.exists():
        return json.loads(file.read_text("utf-8"))
    from mule_lib.methods import METHODS

    rows = _described(METHODS)
    with suppress(OSError):  # an installed copy that may not be written to pays for the import each time
        write_json(file, rows)
    return rows


def _described(rows: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {"label": row.label, "options": dict(row.options), "trains": bool(row.terms)}
        for name, row in rows.items()
    }
