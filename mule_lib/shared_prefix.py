"""Prompts that begin alike (one intention before many questions) are batched together and their beginning read once."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

Ids = Sequence[int]
# Prompts that agree in so many ids are one group, if it fills a good part of a batch; smaller groups are batched mixed.
ALIKE, GROUP = 8, 32
# One more pass through a model costs about as much as so many tokens in a batch.
WORTH = 128


def batches(sequences: Sequence[Ids], batch_size: int, *, more: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Indices of each batch: prompts that begin alike together, the longest first to show a lack of memory at once.

    `more[i]` ids will follow sequence i and count for its length. Equal lengths side by side keep padding small.
    Raises ValueError for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, should be at least 1")
    lengths = [len(ids) + (more[i] if more else 0) for i, ids in enumerate(sequences)]
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, ids in enumerate(sequences):
        alike[tuple(ids[:ALIKE])].append(i)
    least = min(batch_size, GROUP)
    groups = [rows for rows in alike.values() if len(rows) >= least]
    groups.append([i for rows in alike.values() if len(rows) < least for i in rows])
    cut = [
        sorted(rows, key=lambda i: -lengths[i])[start : start + batch_size]
        for rows in groups
        for start in range(0, len(rows), batch_size)
    ]
    return iter(sorted(cut, key=lambda rows: -lengths[rows[0]]))


def shared_length(sequences: Sequence[Ids]) -> int:
    """How many leading ids of a batch are worth reading once: 0, or the common ones, leaving at least one to each."""
    first, last = min(sequences), max(sequences)
    most = min(map(len, sequences)) - 1
    common = next((at for at in range(most) if first[at] != last[at]), most)
    return common if common * (len(sequences) - 1) >= WORTH else 0


def read(model, ids: Ids, rows: int):
    """The key-value cache of a batch of `rows` prompts after the same leading ids, read once."""
    device = next(model.parameters()).device
    cache = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=True).past_key_values
    cache.batch_repeat_interleave(rows)
    return cache
