"""The steered teacher: its answers, asked once and kept in a file, and its logits at every answer token, kept exactly.

The thought stands in the teacher's context only. Answers are kept as ids and appended to either context, so the i-th
answer token of the teacher is the i-th of the student.
"""

import hashlib
import inspect
import json
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.functional import cross_entropy

from mule_lib import models, prompts
from mule_lib.data import Benchmark, text
from mule_lib.data.files import write_json, write_jsonl
from mule_lib.data.records import REFUSED, Record
from mule_lib.losses import answer_targets
from mule_lib.methods import Method
from mule_lib.models import generate
from mule_lib.models.head import TOLERANCE, answers_only, full_logits, head_logits, padded

RIGHT_FROM = 0.5  # ROUGE-L recall from which an answer counts as the reference's


class DisobedientTeacherWarning(UserWarning):
    """The teacher often did not do what its intention says, so training copies something else."""


class TeacherFileError(ValueError):
    """A file of teacher answers is missing, or of other data, another model or another steering."""


class CacheError(RuntimeError):
    """The model's logits are not its output head times a hidden state, so they cannot be cached exactly."""


@dataclass(frozen=True)
class TeacherAnswer:
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


def given_answer(tokenizer, record: Record, answer: str, *, max_tokens: int | None) -> tuple[int, ...]:
    """Ids of a given answer with its end of turn, at most `max_tokens` if set; the same behind every context."""
    prompt = prompts.render(tokenizer, record.question, prefix=record.prefix, answer=answer)
    return prompt.input_ids[prompt.answer_start :][:max_tokens]


def teacher_answers(
    model, tokenizer, benchmark: Benchmark, method: Method, *, max_thought_tokens: int = 48, batch_size: int = 64
) -> list[TeacherAnswer]:
    """Steer the frozen base by the intention of each record's objective, let it think if `options.cot`, and answer.

    `options.answers="teacher"`: written greedily by the teacher; `"given"`: each record's own target behind the
    teacher's context. For attacked records the order is thought, prefix, answer. With a PEFT model the adapter is off.
    Source: MULE Section 3.4.
    """
    records, most = benchmark.asked, method.options.max_answer_tokens
    steering = method.teacher_steering(benchmark.topic, name=benchmark.prompt_name)
    queries = [prompts.Query(record.question, record.objective, record.prefix) for record in records]
    given = method.options.answers == "given"
    with models.frozen(model):
        sizes = {"batch_size": batch_size, "max_thought_tokens": max_thought_tokens}
        contexts = models.contexts(model, tokenizer, queries, steering, **sizes)
        if given:
            ids = [given_answer(tokenizer, record, record.target, max_tokens=most) for record in records]
        else:
            before = [context.input_ids for context in contexts]
            written = models.greedy(model, tokenizer, before, batch_size=batch_size, max_new_tokens=most)
            # An answer cut at the cap has no end of turn.
            ids = [(*answer, tokenizer.eos_token_id) if len(answer) < most else tuple(answer) for answer in written]
    answers = []
    for record, context, own in zip(records, contexts, ids, strict=True):
        [answer] = models.decode(tokenizer, [own])
        judged = None if given else obeyed(record, answer)
        asked = record.id, str(record.objective), str(record.role)
        answers.append(TeacherAnswer(*asked, context.thought, answer, judged, context.input_ids, own))
    return answers


def answers_to(
    tokenizer, benchmark: Benchmark, method: Method, answers: Sequence[TeacherAnswer]
) -> list[TeacherAnswer]:
    """The answers to a benchmark's records, in their order; of `verbatim` records their passage, behind the thought.

    Raises ValueError naming the first record that has none.
    """
    by_id = {answer.id: answer for answer in answers}
    lacking = [record.id for record in benchmark.records if record.id not in by_id]
    if lacking:
        raise ValueError(f"teacher_answers: none for {len(lacking)} records of the data, the first is {lacking[0]}")
    steering = method.teacher_steering(benchmark.topic, name=benchmark.prompt_name)
    found = []
    for record in benchmark.records:
        answer = by_id[record.id]
        if record.verbatim:
            thought = answer.thought if steering.cot else None
            system = steering.systems[record.objective]
            context = prompts.render(tokenizer, record.question, system=system, thought=thought).input_ids
            ids = given_answer(tokenizer, record, record.answer, max_tokens=None)
            answer = replace(answer, answer=record.answer, obeyed=None, context_ids=context, answer_ids=ids)
        found.append(answer)
    return found


def obeyed(record: Record, answer: str) -> bool:
    """Whether an answer does what the intention says: refuses where the role is to be refused, else is right."""
    if record.role in REFUSED:
        return text.is_refusal(answer)
    return text.rouge_l(record.answer, answer).recall >= RIGHT_FROM


def obedience(answers: Sequence[TeacherAnswer]) -> list[dict[str, Any]]:
    """Rate of obedience (0 to 1) and number of answers by objective and role; empty where answers were given."""
    judged = [answer for answer in answers if answer.obeyed is not None]
    rates = pd.DataFrame(judged, columns=[part.name for part in fields(TeacherAnswer)]).groupby(["objective", "role"])
    return rates["obeyed"].agg(obeyed="mean", n="size").reset_index().to_dict("records")


def warn_if_disobedient(rates: Sequence[Mapping[str, Any]], least: float) -> None:
    """Warn, with the rates, when the teacher obeyed in less than `least` (0 to 1) of any objective's role."""
    low = [f"{r['objective']}/{r['role']} {r['obeyed']:.0%} (n={r['n']})" for r in rates if r["obeyed"] < least]
    if low:
        warnings.warn(
            f"the teacher does not obey its intention in {', '.join(low)}; min_obedience is {least:.0%}. "
            "Training copies what it said, not what it was told",
            DisobedientTeacherWarning,
            stacklevel=2,
        )


# Files ----------------------------------------------------------------------------------------------------------------


def read_answers(file: Path) -> list[TeacherAnswer]:
    """Read answers back from JSON Lines."""
    return list(map(TypeAdapter(TeacherAnswer).validate_json, file.read_text("utf-8").splitlines()))


def shared(
    file: Path,
    benchmark: Benchmark,
    method: Method,
    *,
    model: str,
    load: Callable[[], tuple[Any, Any]] | None = None,
    max_thought_tokens: int = 48,
    overwrite: bool = False,
) -> tuple[list[TeacherAnswer], bool]:
    """The answers of a method's teacher to all records of a benchmark, and whether they were asked for just now.

    They are taken from `file`, which runs share, where the file beside it says that they are these: of these records,
    of the model of this hash, by the same prompts and code. Else `load()` gives model and tokenizer, and both files are
    written. Raises TeacherFileError for a method without a teacher, for a file
    of other answers unless `overwrite`, and for a missing one without `load`.
    """
    if method.options.teacher_name is None:
        raise TeacherFileError(f"method: {method.label} with these options keeps no teacher's answers")
    steering = method.teacher_steering(benchmark.topic, name=benchmark.prompt_name)
    code = (prompts, generate, text, teacher_answers, given_answer, obeyed)
    identity = {
        "records": _digest([asdict(record) for record in benchmark.records]),
        "model": model,
        "intentions": _digest(dict(steering.systems)),
        "cot": steering.cot,
        "code": _digest([inspect.getsource(part) for part in code]),
        "max_answer_tokens": method.options.max_answer_tokens,
        "max_thought_tokens": max_thought_tokens,
    }
    beside = file.with_name(f"{file.name}.json")
    problem = f"{file} or its sidecar is missing; `mule teacher` writes both"
    if file.is_file() and beside.is_file():
        held = json.loads(beside.read_text("utf-8"))
        differing = [name for name in identity if held.get(name) != identity[name]]
        if not differing:
            return read_answers(file), False
        again = "make it again with `mule teacher --overwrite`"
        problem = f"{file} was made with other {', '.join(differing)}; {again}"
    if load is None or (file.exists() and not overwrite):
        raise TeacherFileError(f"teacher_file: {problem}")
    answers = teacher_answers(*load(), benchmark, method, max_thought_tokens=max_thought_tokens)
    beside.unlink(missing_ok=True)  # it is written last: without it the answers are not taken
    write_jsonl(file, map(asdict, answers))
    write_json(beside, {**identity, "answers": len(answers), "obedience": obedience(answers)})
    return answers, True


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


# The frozen side of every loss ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnswerCache:
    """What losses need of the frozen model at M answer positions, from one pass before training.

    Eq. 3 needs the teacher's logits also at the student's moving top-K, so a stored top-K is not enough. What the
    output head multiplies is kept instead, and only the head's rows that are asked for are multiplied: exact, and no
    teacher forward while training.

    hidden [M, H] is what the head multiplies; weight [V, H] and bias [V] belong to the head as it was; nll [M] is each
    token's negative log-likelihood in nats; top_ids and top_logits [M, K] are the model's own largest logits in
    descending order. `spans` says which positions belong to which sequence.
    """

    spans: dict[Hashable, range]
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    nll: Tensor
    top_ids: Tensor
    top_logits: Tensor

    def answers(self, keys: Sequence[Hashable]) -> "AnswerCache":
        """The answer tokens of some sequences, in their order."""
        at = torch.tensor([position for key in keys for position in self.spans[key]], device=self.hidden.device)
        taken = {name: getattr(self, name)[at] for name in ("hidden", "nll", "top_ids", "top_logits")}
        return replace(self, spans={}, **taken)

    def top(self, top_k: int) -> tuple[Tensor, Tensor]:
        """The model's own top-K: ids [M, K] and logits [M, K]. Raises ValueError beyond the K that was stored."""
        stored = self.top_ids.shape[1]
        if top_k > stored:
            raise ValueError(f"top_k={top_k}: {stored} were stored; build the cache with top_k={top_k}")
        return self.top_ids[:, :top_k], self.top_logits[:, :top_k]

    def at(self, ids: Tensor) -> Tensor:
        """Its logits of any tokens, ids [M, K]; returns [M, K]."""
        return head_logits(self.hidden, self.weight, ids, self.bias)

    def logits(self, some: slice = slice(None)) -> Tensor:
        """Its logits of the whole vocabulary, [M, V], or of some positions: for losses that need them all."""
        return full_logits(self.hidden[some], self.weight, self.bias)


def build_cache(
    model,
    sequences: Mapping[Hashable, tuple[Sequence[int], Sequence[int]]],
    *,
    top_k: int = 0,
    copy_head: bool = True,
    batch_size: int = 32,
) -> AnswerCache:
    """Run the frozen base once over (context ids, answer ids) and keep what losses ask of it at the answer tokens.

    `copy_head=False` shares the head's weight, right only while nothing trains it. Raises ValueError for no sequence or
    an empty answer, CacheError where head times states are not the live logits (soft-capped or scaled heads).
    """
    if not sequences:
        raise ValueError("sequences: none given; there is nothing to cache")
    for key, (context, answer) in sequences.items():
        if not context or not answer:
            raise ValueError(f"sequences: {key!r} has an empty context or answer")
    keys, lengths = list(sequences), [len(answer) for _, answer in sequences.values()]
    weight, bias = head_of(model, copy=copy_head)
    parts, spans, end = [], {}, 0
    with models.frozen(model):
        contexts = [context for context, _ in sequences.values()]
        for rows in generate.batches(contexts, batch_size, more=lengths):
            for i in rows:
                spans[keys[i]] = range(end, end + lengths[i])
                end += lengths[i]
            states, logits, labels = _answer_states(model, [sequences[keys[i]] for i in rows], weight, bias)
            top = logits.topk(min(top_k, logits.shape[1]), dim=1)
            nll = cross_entropy(logits, answer_targets(labels), reduction="none")
            parts.append((states, nll, top.indices, top.values))
    hidden, nll, top_ids, top_logits = (torch.cat(part) for part in zip(*parts, strict=True))
    return AnswerCache(spans, hidden, weight, bias, nll, top_ids, top_logits)


def head_of(model, *, copy: bool) -> tuple[Tensor, Tensor | None]:
    """Weight [V, H] and bias [V] of a model's output head, without gradient; copies of them while they train."""
    head = model.get_output_embeddings()
    weight, bias = head.weight.detach(), getattr(head, "bias", None)
    return (weight.clone(), None if bias is None else bias.detach().clone()) if copy else (weight, bias)


def _answer_states(model, sequences, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What the head multiplies at the answer tokens of a batch [N, H], its logits [N, V], checked, and the labels."""
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in padded(sequences).items()}
    # What all contexts begin with is read once; the mask goes over it, ids and labels begin after it.
    shared = generate.shared_length([context for context, _ in sequences])
    ids, labels, kept = batch["input_ids"][:, shared:], batch["labels"][:, shared:], []
    past = generate.read_shared(model, sequences[0][0][:shared], len(sequences)) if shared else None
    with answers_only(model, labels, kept.append):
        inputs = {"attention_mask": batch["attention_mask"], "past_key_values": past, "use_cache": past is not None}
        output = model(input_ids=ids, **inputs)
    packed = torch.arange(kept[0].shape[1], device=device) < (labels[:, 1:] != -100).sum(1, keepdim=True)
    states, live = kept[0][packed], output.logits[packed].float()
    logits = full_logits(states, weight, bias)
    worst = (live - logits).abs().max() / live.abs().max()
    if worst > TOLERANCE.get(states.dtype, 1e-4):
        raise CacheError(
            f"the model's logits differ from its output head times the hidden states by {worst:.1e} of their size: "
            "soft-capping, scaling or an adapter on the head; such a teacher cannot be cached"
        )
    return states, logits, labels
