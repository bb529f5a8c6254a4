"""Which run a training folder belongs to, so that a checkpoint is only ever continued by the run that wrote it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from mule_lib.method_terms import Method
from mule_lib.records import Record
from mule_lib.runs import write_json
from mule_lib.settings import Settings


def identity_of(
    model, teacher_model, records: Sequence[Record], row: Method, settings: Settings, topic, prompt_name
) -> dict:
    """What a run has to agree in with an earlier one to go on from its checkpoint."""
    told = json.dumps([asdict(record) for record in records], sort_keys=True)
    return {
        "method": row.label,
        "options": dict(row.options),
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("save_every", "log_every")},
        "topic": topic,
        "prompt_name": prompt_name,
        "records": hashlib.sha256(told.encode()).hexdigest(),
        "model": _digest(model),
        "teacher_model": None if teacher_model is None else _digest(teacher_model),
    }


def _digest(model) -> str:
    """Hash of every parameter's name, shape and first values: enough to tell models apart, at no cost."""
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        few = parameter.detach().flatten()[:64].float().cpu().numpy()
        weights.update(f"{name} {tuple(parameter.shape)}".encode() + few.tobytes())
    return weights.hexdigest()


def claim(folder: Path, identity: dict) -> str | None:
    """The newest checkpoint in `folder`, if any. Raises ValueError when the folder belongs to another run."""
    file = folder / "training.json"
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if checkpoint and file.exists():
        before = json.loads(file.read_text("utf-8"))
        changed = [name for name in identity if json.loads(json.dumps(identity[name])) != before.get(name)]
        if changed:
            raise ValueError(f"out_dir: {folder} holds a run with other {', '.join(changed)}; use another folder")
    write_json(file, identity)
    return checkpoint
