"""What the steered teacher said to a benchmark's records, in a file that runs share, with a sidecar that says of what.

One file per benchmark, steering and chain of thought; a run takes a file only if records, model, steering, prompt texts
and limits agree with its own.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mule_lib import targets
from mule_lib.closure import code_hashes
from mule_lib.fingerprint import differences
from mule_lib.prompts import Steering
from mule_lib.records import Record
from mule_lib.runs import write_json
from mule_lib.targets import Target


class TeacherFileError(ValueError):
    """A file of teacher's targets is missing, or of other data, another model or another steering."""


def told_of(
    records: Sequence[Record],
    how: Steering,
    *,
    model: str,
    max_answer_tokens: int = 64,
    max_thought_tokens: int = 48,
) -> dict[str, Any]:
    """What a teacher's targets hang on, as JSON. `model` is `fingerprint.model_hash`; the intentions are in `how`."""
    return {
        "records": _digest([asdict(record) for record in records]),
        "model": model,
        "intentions": _digest(dict(how.systems)),
        "cot": how.cot,
        "code": _digest(code_hashes(Path(targets.__file__))),
        "max_answer_tokens": max_answer_tokens,
        "max_thought_tokens": max_thought_tokens,
    }


def sidecar(file: Path) -> Path:
    """The file that says what a file of targets is of."""
    return file.with_name(f"{file.name}.json")


def write(file: Path, said: Sequence[Target], told: dict[str, Any]) -> None:
    """Write targets and their sidecar, the sidecar last: without it the targets are not taken."""
    sidecar(file).unlink(missing_ok=True)
    targets.write(file, said)
    rates = targets.obedience(said)
    write_json(sidecar(file), {**told, "targets": len(said), "obedience": rates})


def read(file: Path, told: dict[str, Any]) -> list[Target]:
    """The targets of a file. Raises TeacherFileError naming what is not as in `told`."""
    if not (file.is_file() and sidecar(file).is_file()):
        raise TeacherFileError(f"teacher_file: {file} or its sidecar is missing; `mule teacher` writes both")
    held = json.loads(sidecar(file).read_text("utf-8"))
    found = differences({name: held.get(name) for name in told}, told)
    if found:
        names = ", ".join(name for name, *_ in found)
        raise TeacherFileError(
            f"teacher_file: {file} was made with other {names}; make it again with `mule teacher --overwrite`"
        )
    return targets.read(file)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
