"""Which source serves which split, and no fact in two of them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mule_lib.standardize.duplicates import find_duplicates
from mule_lib.standardize.ledger import Ledger, Pair


def assign(units: Sequence[str], shares: Mapping[str, float], *, seed: int, what: str) -> dict[str, str]:
    """Each unit's part, drawn once: `shares` (part to weight) are met as closely as whole units allow.

    Every part with a weight gets at least one unit. Raises ValueError where there are fewer units than parts.
    """
    wanted = {part: share for part, share in shares.items() if share > 0}
    if len(units) < len(wanted):
        raise ValueError(
            f"{what}: {len(units)} of them cannot serve {len(wanted)} parts ({', '.join(wanted)}); give more"
        )
    total = sum(wanted.values())
    exact = {part: len(units) * share / total for part, share in wanted.items()}
    counts = {part: max(1, int(size)) for part, size in exact.items()}
    while sum(counts.values()) != len(units):
        step = 1 if sum(counts.values()) < len(units) else -1
        free = [part for part in counts if step > 0 or counts[part] > 1]
        counts[max(free, key=lambda part: step * (exact[part] - counts[part]))] += step
    shuffled = random.Random(f"split/{what}/{seed}").sample(list(units), len(units))
    parts = [part for part, count in counts.items() for _ in range(count)]
    return dict(zip(shuffled, parts, strict=True))


@dataclass(frozen=True)
class Placed:
    """A pair and the split it is meant for; `fixed` ones are published and stay whatever they repeat."""

    pair: Pair
    split: str
    fixed: bool = False


def without_duplicates(placed: Sequence[Placed], ledger: Ledger, *, threshold: float) -> list[Placed]:
    """Drop what repeats an earlier question, within its split or across; book what stays as accepted.

    Earlier ones win, so put evaluation before training. Fixed ones are neither dropped nor booked.
    """
    repeats = find_duplicates([(p.pair.question, p.pair.answer) for p in placed], threshold=threshold)
    kept = []
    for one, of in zip(placed, repeats, strict=True):
        if of is not None and not one.fixed:
            other = placed[of]
            reason = "duplicate_within" if other.split == one.split else "duplicate_across"
            detail = f"{other.split}: {other.pair.question}"
            pair = one.pair
            ledger.reject(
                pair.step, (reason, detail), unit=pair.id, question=pair.question, answer=pair.answer, split=one.split
            )
            continue
        kept.append(one)
        if not one.fixed:
            ledger.accept(one.pair.step)
    return kept
