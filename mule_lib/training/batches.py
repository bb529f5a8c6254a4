"""Records as the student's token sequences, drawn in balanced batches: one record of every group per draw.

A continuation is which text follows the question: `answer` (the true one), `refusal`, `desired` (the refusal where the
role is to be refused, else the answer) or `taught` (what the steered teacher answered).
"""

import hashlib
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mule_lib.data.records import REFUSED, Group, Record
from mule_lib.methods import Method, Term
from mule_lib.training.teacher import AnswerCache, TeacherAnswer, build_cache, given_answer, head_of, student_context

# The last cache without its head, on the CPU: a row's next seed asks for the same.
_LAST: dict[str, Any] = {"asked": None}


@dataclass(frozen=True)
class Example:
    """One record as ids: the student's context, the teacher's where it is steered, and the continuations by name."""

    id: str
    group: Group
    context: tuple[int, ...]
    continuations: dict[str, tuple[int, ...]]
    teacher_context: tuple[int, ...] | None = None
    anchor: str | None = None

    def frozen_sequence(self, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the frozen model reads: the steered context before the teacher's answer, else the student's own."""
        steered = continuation == "taught" and self.teacher_context is not None
        return (self.teacher_context if steered else self.context), self.continuations[continuation]


def encode(
    tokenizer, records: Sequence[Record], method: Method, teacher_answers: Sequence[TeacherAnswer] = ()
) -> list[Example]:
    """The records that some term of a method takes, each with the continuations that its terms read.

    `positions="first"` keeps the first answer token only (DUET's setting), behind the prefix where there is one.
    Answers are encoded once and appended, so teacher and student have the same ids. Passages are kept whole otherwise.
    """
    first = method.options.positions == "first"
    by_id = {answer.id: answer for answer in teacher_answers}
    examples = []
    for record in records:
        cap = 1 if first else None if record.verbatim else method.options.max_answer_tokens
        names = {name for term in method.terms if term.takes(record.group) for name in term.continuations}
        texts = {"answer": record.answer, "refusal": record.refusal, "desired": record.target}
        ids = {n: given_answer(tokenizer, record, texts[n], max_tokens=cap) for n in sorted(names) if n in texts}
        steered = None
        if "taught" in names:
            ids["taught"], steered = by_id[record.id].answer_ids[:cap], by_id[record.id].context_ids
        if names:
            context = student_context(tokenizer, record).input_ids
            examples.append(Example(record.id, record.group, context, ids, steered, record.anchor))
    return examples


def frozen_cache(
    model, examples: Sequence[Example], method: Method, *, copy_head: bool, batch_size: int = 32
) -> AnswerCache | None:
    """The frozen model at the answers that a method's terms compare with it; None where no term does.

    Where the call before had the same weights, sequences and sizes, what it found is taken again.
    """
    sequences = {
        (example.id, name): example.frozen_sequence(name)
        for example in examples
        for name in example.continuations
        if any(t.frozen and t.takes(example.group) and name in t.continuations for t in method.terms)
    }
    if not sequences:
        return None
    top_k, device = getattr(method.options, "top_k", 0), next(model.parameters()).device
    config = model.config.to_json_string(use_diff=False), model.config._attn_implementation
    asked = hashlib.sha256(repr((list(sequences.items()), top_k, batch_size, device, config)).encode())
    for name, value in model.state_dict().items():
        if "lora_" not in name:  # new in each seed, and off while the base is read
            asked.update(f"{name} {value.dtype} {value.shape}".encode())
            asked.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    parts = "hidden", "nll", "top_ids", "top_logits"
    if _LAST["asked"] != asked.digest():
        cache = build_cache(model, sequences, top_k=top_k, copy_head=copy_head, batch_size=batch_size)
        _LAST.update({part: getattr(cache, part).cpu() for part in parts}, asked=asked.digest(), spans=cache.spans)
        return cache
    weight, bias = head_of(model, copy=copy_head)
    return AnswerCache(_LAST["spans"], weight=weight, bias=bias, **{part: _LAST[part].to(device) for part in parts})


def places(groups: Collection[Group]) -> dict[Group, int]:
    """How many records of each group a draw has: every objective as many as the others.

    With all six groups that is one each. Where anchors are left out, what remains of their objective takes their place,
    so the batch keeps its size and its balance.
    """
    of_objective = Counter(group.objective for group in groups)
    return {group: max(of_objective.values()) // of_objective[group.objective] for group in groups}


def draw_balanced(
    examples: Sequence[Example], draws: int, *, anchors: bool = True, seed: int = 0
) -> list[list[Example]]:
    """`draws` lists with examples of every group (`places`), every group shuffled anew on each pass through it.

    With `anchors` the example to answer is the contrastive partner of the one to refuse (Section 3.3), where the
    record names one; without, groups are drawn independently.
    """
    groups: dict[Group, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    by_id, number = {example.id: example for example in examples}, places(groups)
    # The groups to refuse lead, and their anchors follow.
    order = sorted(groups, key=lambda group: (group.objective, group.role not in REFUSED, group))
    streams = {group: _forever(groups[group], random.Random(f"draws/{group}/{seed}")) for group in order}
    drawn = []
    for _ in range(draws):
        chosen: dict[Group, list[Example]] = {}
        for group in order:
            if group in chosen:
                continue
            chosen[group] = [next(streams[group]) for _ in range(number[group])]
            partner = by_id.get(chosen[group][0].anchor) if anchors and chosen[group][0].anchor else None
            if partner is not None and partner.group != group:
                chosen.setdefault(partner.group, [partner])
        drawn.append([example for group in order for example in chosen[group]])
    return drawn


def _forever(examples: list[Example], rng: random.Random) -> Iterator[Example]:
    while True:
        yield from rng.sample(examples, len(examples))


def count(term: Term, batch: Sequence[Example]) -> int:
    """How many answer tokens (or rows) of a batch the term is a mean of, by its first continuation."""
    own = [example.continuations[term.continuations[0]] for example in batch if term.takes(example.group)]
    return len(own) if term.unit == "rows" else sum(map(len, own))
