"""Records as the student's token sequences, drawn in balanced batches: one record of every group per draw.

A group is "objective/role", a continuation is which text follows the question: `answer` (the true one), `refusal`,
`desired` (the refusal where the role is to be refused, else the answer) or `taught` (what the steered teacher said).
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from mule_lib.models.head import padded
from mule_lib.records import REFUSED, Record
from mule_lib.targets import Target, given_answer, student_context
from mule_lib.teacher_cache import AnswerCache

CONTINUATIONS = ("answer", "refusal", "desired", "taught")
POSITIONS = ("answer", "first")
# Present only to sharpen the boundary (Section 3.3); the other groups are the objectives' own data.
ANCHOR_GROUPS = frozenset({"obj2/forget", "obj3/benign"})

Batch = dict[str, dict[str, dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class Example:
    """One record as ids: the student's context, the teacher's where it is steered, and the continuations by name."""

    id: str
    group: str
    context: tuple[int, ...]
    continuations: dict[str, tuple[int, ...]]
    teacher_context: tuple[int, ...] | None = None
    anchor: str | None = None

    def frozen_sequence(self, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the frozen model reads: the steered context before what the teacher said, else the student's own."""
        steered = continuation == "taught" and self.teacher_context is not None
        return (self.teacher_context if steered else self.context), self.continuations[continuation]


def group_of(record: Record) -> str:
    """The group of a record, such as "obj1/forget"."""
    return f"{record.objective}/{record.role}"


def encode(
    tokenizer,
    records: Sequence[Record],
    continuations: Mapping[str, Sequence[str]],
    *,
    targets: Sequence[Target] = (),
    positions: str = "answer",
    max_answer_tokens: int = 64,
) -> list[Example]:
    """Encode the records whose group is a key of `continuations`, with the continuations named there.

    `positions="first"` keeps the first answer token only (DUET's setting), behind the prefix where there is one.
    Answers are encoded once and appended, so teacher and student have the same ids. Raises ValueError for other
    `positions`.
    """
    if positions not in POSITIONS:
        raise ValueError(f"positions={positions!r}: choose from {', '.join(POSITIONS)}")
    cap = 1 if positions == "first" else max_answer_tokens
    said = {target.id: target for target in targets}
    examples = []
    for record in records:
        wanted = continuations.get(group_of(record), ())
        if not wanted:
            continue
        texts = {"answer": record.answer, "refusal": record.refusal, "desired": record.target}
        ids = {name: given_answer(tokenizer, record, texts[name], max_tokens=cap) for name in wanted if name in texts}
        if "taught" in wanted:
            ids["taught"] = said[record.id].answer_ids[:cap]
        steered = said[record.id].context_ids if "taught" in wanted else None
        context = student_context(tokenizer, record).input_ids
        examples.append(Example(record.id, group_of(record), context, ids, steered, record.anchor))
    return examples


def draw_balanced(
    examples: Sequence[Example], draws: int, *, anchors: bool = True, seed: int = 0
) -> list[list[Example]]:
    """`draws` lists with one example of every group each, every group shuffled anew on each pass through it.

    With `anchors` the example to answer is the contrastive partner of the one to refuse (Section 3.3), where the
    record names one; without, groups are drawn independently.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    by_id = {example.id: example for example in examples}
    # The groups to refuse lead, and their anchors follow.
    order = sorted(groups, key=lambda name: (name.split("/")[0], name.split("/")[1] not in REFUSED, name))
    streams = {name: _forever(groups[name], random.Random(f"draws/{name}/{seed}")) for name in order}
    drawn = []
    for _ in range(draws):
        chosen: dict[str, Example] = {}
        for name in order:
            if name in chosen:
                continue
            chosen[name] = next(streams[name])
            partner = by_id.get(chosen[name].anchor) if anchors and chosen[name].anchor else None
            if partner is not None and partner.group != name:
                chosen.setdefault(partner.group, partner)
        drawn.append([chosen[name] for name in order])
    return drawn


def _forever(examples: list[Example], rng: random.Random) -> Iterator[Example]:
    while True:
        yield from rng.sample(examples, len(examples))


@dataclass(frozen=True)
class Collator:
    """Turn draws into a nested batch {group: {continuation: {input_ids, attention_mask, labels, positions}}}.

    Tensors are [B, T], padded on the right; `positions` [N] are the places of the batch's answer tokens in the cache,
    row after row, and are left out for continuations that are not cached.
    """

    pad_id: int
    cache: AnswerCache | None = None

    def __call__(self, draws: Sequence[Sequence[Example]]) -> Batch:
        groups: dict[str, list[Example]] = {}
        for draw in draws:
            for example in draw:
                groups.setdefault(example.group, []).append(example)
        return {
            group: {name: self._rows(examples, name) for name in examples[0].continuations}
            for group, examples in groups.items()
        }

    def _rows(self, examples: Sequence[Example], name: str) -> dict[str, torch.Tensor]:
        batch = padded([(e.context, e.continuations[name]) for e in examples], pad_id=self.pad_id)
        keys = [(example.id, name) for example in examples]
        if self.cache is not None and keys[0] in self.cache.spans:
            batch["positions"] = torch.tensor([place for key in keys for place in self.cache.spans[key]])
        return batch
