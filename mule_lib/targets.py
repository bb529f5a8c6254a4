"""What the steered teacher says to each record, once, before training: thought, answer, and whether it obeyed.

The thought stands in the teacher's context only. Answers are kept as ids and appended to either context, so the i-th
answer token of the teacher is the i-th of the student.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mule_lib import prompts
from mule_lib.evaluate.judges import is_refusal
from mule_lib.evaluate.rouge import rouge_l
from mule_lib.models import contexts, decode, frozen, greedy
from mule_lib.prompts import Query, Steering
from mule_lib.records import REFUSED, Record
from mule_lib.runs import write_text

ANSWERS = ("teacher", "given")
RIGHT_FROM = 0.5  # ROUGE-L recall from which an answer counts as the reference's


class DisobedientTeacherWarning(UserWarning):
    """The teacher often did not do what its intention says, so training copies something else."""


@dataclass(frozen=True)
class Target:
    """The teacher's turn for one record: `context_ids` up to the answer (system message and thought included).

    `obeyed` is None where the answer was given and not generated.
    """

    id: str
    objective: str
    role: str
    thought: str
    answer: str
    obeyed: bool | None
    context_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


def student_context(tokenizer, record: Record) -> prompts.Prompt:
    """The bare question (and the attacker's prefix, where there is one), without a system message."""
    return prompts.render(tokenizer, record.question, prefix=record.prefix)


def given_answer(tokenizer, record: Record, text: str, *, max_tokens: int) -> tuple[int, ...]:
    """Ids of a given answer with its end of turn, at most `max_tokens`; the same behind every context."""
    prompt = prompts.render(tokenizer, record.question, prefix=record.prefix, answer=text)
    return prompt.input_ids[prompt.answer_start :][:max_tokens]


def teacher_targets(
    model,
    tokenizer,
    records: Sequence[Record],
    how: Steering,
    *,
    answers: str = "teacher",
    max_answer_tokens: int = 64,
    max_thought_tokens: int = 48,
    batch_size: int = 64,
) -> list[Target]:
    """Steer the frozen base by the intention of each record's objective, let it think where `how.cot`, and answer.

    `answers="teacher"`: written greedily by the teacher; `"given"`: each record's own target behind the teacher's
    context. For attacked records the order is thought, prefix, answer. With a PEFT model the adapter is off.
    Raises ValueError for another `answers`. Source: MULE Section 3.4.
    """
    if answers not in ANSWERS:
        raise ValueError(f"answers={answers!r}: choose from {', '.join(ANSWERS)}")
    with frozen(model):
        made = contexts(
            model,
            tokenizer,
            [Query(record.question, record.objective, record.prefix) for record in records],
            how,
            batch_size=batch_size,
            max_thought_tokens=max_thought_tokens,
        )
        if answers == "given":
            ids = [given_answer(tokenizer, r, r.target, max_tokens=max_answer_tokens) for r in records]
        else:
            ids = [
                # An answer cut at the cap has no end of turn.
                (*answer, *([tokenizer.eos_token_id] if len(answer) < max_answer_tokens else []))
                for answer in greedy(
                    model,
                    tokenizer,
                    [context.input_ids for context in made],
                    max_new_tokens=max_answer_tokens,
                    batch_size=batch_size,
                )
            ]
    texts = decode(tokenizer, ids)
    return [
        Target(
            record.id,
            record.objective,
            record.role,
            context.thought,
            text,
            None if answers == "given" else obeyed(record, text),
            context.input_ids,
            tuple(answer),
        )
        for record, context, text, answer in zip(records, made, texts, ids, strict=True)
    ]


def of(records: Sequence[Record], said: Sequence[Target]) -> list[Target]:
    """The targets of these records, in their order. Raises ValueError naming the first record that has none."""
    by_id = {target.id: target for target in said}
    lacking = [record.id for record in records if record.id not in by_id]
    if lacking:
        raise ValueError(f"said: no teacher's answer for {len(lacking)} records of the data, the first is {lacking[0]}")
    return [by_id[record.id] for record in records]


def obeyed(record: Record, answer: str) -> bool:
    """Whether an answer does what the intention says: refuses where the role is to be refused, else is right."""
    if record.role in REFUSED:
        return is_refusal(answer)
    return rouge_l(record.answer, answer).recall >= RIGHT_FROM


def obedience(targets: Sequence[Target]) -> list[dict]:
    """Rate of obedience (0 to 1) and number of targets by objective and role; empty where answers were given."""
    groups: dict[tuple[str, str], list[bool]] = {}
    for target in targets:
        if target.obeyed is not None:
            groups.setdefault((target.objective, target.role), []).append(target.obeyed)
    return [
        {"objective": objective, "role": role, "obeyed": sum(values) / len(values), "n": len(values)}
        for (objective, role), values in sorted(groups.items())
    ]


def warn_if_disobedient(rates: Sequence[dict], least: float) -> None:
    """Warn, with the rates, when the teacher obeyed in less than `least` (0 to 1) of any objective's role."""
    low = [f"{r['objective']}/{r['role']} {r['obeyed']:.0%} (n={r['n']})" for r in rates if r["obeyed"] < least]
    if low:
        warnings.warn(
            f"the teacher does not obey its intention in {', '.join(low)}; min_obedience is {least:.0%}. "
            "Training copies what it said, not what it was told",
            DisobedientTeacherWarning,
            stacklevel=2,
        )


def write(path: Path, targets: Sequence[Target]) -> None:
    """Write targets as JSON Lines, whole or not at all."""
    write_text(path, "".join(json.dumps(asdict(target), ensure_ascii=False) + "\n" for target in targets))


def read(path: Path) -> list[Target]:
    """Read targets back from JSON Lines."""
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return [
        Target(**{**row, "context_ids": tuple(row["context_ids"]), "answer_ids": tuple(row["answer_ids"])})
        for row in rows
    ]
