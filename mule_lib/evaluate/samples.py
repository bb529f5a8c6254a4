"""Per-item samples: what a model was asked, what it wrote and how it was judged."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One evaluated item; `prompt` is the text of the ids, special tokens shown, without the prefix."""

    id: str
    metric: str
    prompt: str
    output: str
    reference: str
    prefix: str = ""
    labels: Mapping = field(default_factory=dict)


def shown(tokenizer, ids: Sequence[int]) -> str:
    """Decode ids with their special tokens and no cleaning, as the model sees them."""
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def write_samples(path: str | Path, samples: Iterable[Sample]) -> Path:
    """Write samples as JSON Lines in one step: a reader sees the old file or the whole new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            for sample in samples:
                file.write(json.dumps(asdict(sample), ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_samples(path: str | Path) -> list[Sample]:
    """Read what `write_samples` wrote."""
    with Path(path).open(encoding="utf-8") as file:
        return [Sample(**json.loads(line)) for line in file]
