"""Near duplicates among questions, within a split and across splits: Jaccard similarity of character 5-grams."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from mule_lib.data.text import normalise

GRAM = 5
# Two questions with the same answer ask for the same fact when they are much less alike than that.
SAME_ANSWER = 0.6


def shingles(text: str) -> set[str]:
    """Character 5-grams of the normalised text, its ends marked by a space."""
    padded = f" {normalise(text)} "
    return {padded[i : i + GRAM] for i in range(max(1, len(padded) - GRAM + 1))}


def jaccard(left: set[str], right: set[str]) -> float:
    """Shared part of two sets, 0 to 1."""
    return len(left & right) / len(left | right) if left or right else 0.0


def similarities(texts: Sequence[str], *, block: int = 512) -> Iterable[tuple[int, np.ndarray]]:
    """For each text its index and its similarity to every text, `[n]`, in order; memory for `block` rows at a time."""
    matrix, sizes = _matrix([shingles(text) for text in texts])
    for start in range(0, len(texts), block):
        shared = (matrix[start : start + block] @ matrix.T).toarray()
        for offset, row in enumerate(shared):
            yield start + offset, row / (sizes[start + offset] + sizes - row)


def find_duplicates(pairs: Sequence[tuple[str, str]], *, threshold: float) -> list[int | None]:
    """For each (question, answer) the index of an earlier, kept one that it repeats, or None where it is kept.

    Repeats means a similarity of at least `threshold` (0 to 1), or of 0.6 times that where the answers are the same.
    The order decides which one stays: put what must stay first. Raises ValueError for a threshold outside 0 to 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: should lie above 0, up to 1")
    answers = np.array([normalise(answer) for _, answer in pairs])
    kept = np.zeros(len(pairs), bool)
    found: list[int | None] = []
    for i, alike in similarities([question for question, _ in pairs]):
        needed = np.where(answers == answers[i], SAME_ANSWER * threshold, threshold)
        hits = np.flatnonzero(kept & (alike >= needed))
        found.append(int(hits[alike[hits].argmax()]) if len(hits) else None)
        kept[i] = not len(hits)
    return found


def nearest(wanted: Sequence[str], pool: Sequence[str]) -> list[int]:
    """For each wanted text the index of the most similar one in the pool among those used least so far.

    So every text of the pool is used before one is used twice. Raises ValueError for an empty pool.
    """
    if not pool:
        raise ValueError("pool is empty: nothing to pair with")
    own, other = [shingles(text) for text in wanted], [shingles(text) for text in pool]
    used = np.zeros(len(pool), int)
    chosen = []
    for text in own:
        free = np.flatnonzero(used == used.min())
        best = max(free, key=lambda j: (jaccard(text, other[j]), -j))
        used[best] += 1
        chosen.append(int(best))
    return chosen


def _matrix(sets: Sequence[set[str]]) -> tuple[csr_matrix, np.ndarray]:
    index: dict[str, int] = {}
    columns, starts = [], [0]
    for one in sets:
        columns += [index.setdefault(gram, len(index)) for gram in sorted(one)]
        starts.append(len(columns))
    values = np.ones(len(columns), np.float32)
    matrix = csr_matrix((values, columns, starts), shape=(len(sets), max(1, len(index))))
    return matrix, np.array([len(one) for one in sets], np.float32)
