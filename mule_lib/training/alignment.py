"""The pilot study of Section 3.1: do the gradients of the objectives point the same way, in raw and in unified formats?

Gradients are taken per objective on disjoint batches, over the last decoder layers only, with one method on both sides
(the paper's is MULE's own loss). A cosine of two batches of *different* objectives says little without that of two
batches of the *same* objective, which noise keeps below 1: the ceiling.
"""

import copy
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mule_lib import gradients, methods, models, params
from mule_lib.data import Benchmark, by_format
from mule_lib.data.records import REFUSED, Group, Record
from mule_lib.methods import Method, MethodError, Term
from mule_lib.prompts import OBJECTIVES
from mule_lib.training import teacher
from mule_lib.training.batches import Example, count, draw_balanced, encode, frozen_cache
from mule_lib.training.teacher import AnswerCache, TeacherAnswer
from mule_lib.training.train import Settings, train
from mule_lib.training.trainer import term_losses


@dataclass(frozen=True)
class Study:
    """One benchmark, ready to be measured: records and teacher answers (none without a teacher) by format."""

    benchmark: Benchmark
    formats: dict[str, list[Record]]
    teacher_answers: dict[str, list[TeacherAnswer]]

    @property
    def obedience(self) -> pd.DataFrame:
        """How often the teacher did what its intention says, 0 to 1, by format, objective and role."""
        rates = [{"format": f, **r} for f, answers in self.teacher_answers.items() for r in teacher.obedience(answers)]
        return pd.DataFrame(rates, columns=["format", "objective", "role", "obeyed", "n"])


def prepare_study(p: params.GradientCosine, benchmark: str, model, tokenizer, *, model_hash: str = "") -> Study:
    """The records of a benchmark in both formats and what the teacher answers to them.

    With `teacher_dir`, its answers are those of a shared file, made with the model of this `model_hash`.
    Raises what `data.load_benchmark` does, and TeacherFileError where `teacher_dir` lacks the file or holds another's.
    """
    folder = params.repository_path(p.data_dir) / benchmark if p.data_dir else ""
    whole, formats = by_format(benchmark, folder)
    kept = {record.id for record in some_pairs(whole.records, p.pairs, seed=p.seed)}
    formats = {form: [record for record in records if record.id in kept] for form, records in formats.items()}
    method = methods.get(p.method, p.options)
    if not method.distils:
        return Study(whole, formats, {form: [] for form in formats})
    if p.teacher_dir:
        file = params.repository_path(p.teacher_dir) / benchmark / f"{method.options.teacher_name}.jsonl"
        shared, _ = teacher.shared(file, whole, method, model=model_hash, max_thought_tokens=p.max_thought_tokens)
    else:
        asked = replace(whole, records=formats["standardized"])
        shared = teacher.teacher_answers(model, tokenizer, asked, method, max_thought_tokens=p.max_thought_tokens)
    answers = {
        form: teacher.answers_to(tokenizer, replace(whole, records=records), method, shared)
        for form, records in formats.items()
    }
    return Study(whole, formats, answers)


def some_pairs(records: Sequence[Record], number: int, *, seed: int = 0) -> list[Record]:
    """`number` records of every objective and role, partners together where they name each other; 0 takes all.

    Smaller groups are taken whole. The order is that of `records`.
    """
    groups: dict[Group, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    kept: set[str] = set()
    # The groups to refuse lead, so that the others can follow their anchors.
    for group in sorted(groups, key=lambda group: (group.role not in REFUSED, group)):
        shuffled = random.Random(f"pairs/{group}/{seed}").sample(groups[group], len(groups[group]))
        shuffled.sort(key=lambda record: record.anchor not in kept)
        kept |= {record.id for record in shuffled[: number or None]}
    return [record for record in records if record.id in kept]


def cosines(p: params.GradientCosine, study: Study, model, tokenizer) -> dict[str, dict[int, np.ndarray]]:
    """Cosines between all objectives' batches, by format and number of steps, {format: {steps: [S, O, B, O, B]}}.

    The model is left as it was: each measurement after steps > 0 is of S copies that were trained on the format's
    records by the same method, in different orders of the data (S is 1 for 0 steps); all are measured on the same
    batches. Memory is O B P float32 values, P the parameters of the last `p.layers` decoder layers.
    Raises ValueError before any training: MethodError for a method that adds no loss for some objective or combines
    gradients by a rule, more batches than the data holds, more layers than the model has.
    """
    last_layers(model, p.layers)
    found: dict[str, dict[int, np.ndarray]] = {}
    for form, records in study.formats.items():
        method = methods.get(p.method, p.options).on_groups({record.group for record in records})
        objective_terms(method)
        draws = _disjoint_draws(p, encode(tokenizer, records, method, study.teacher_answers[form]), method)
        cache = frozen_cache(model, list({e.id: e for draw in draws for e in draw}.values()), method, copy_head=False)
        batches = [list(chain(*draws[start : start + p.draws])) for start in range(0, len(draws), p.draws)]
        found[form] = {}
        for steps in p.steps:
            seeds = range(p.seed, p.seed + p.train_seeds) if steps else ()
            students = (_trained(p, study, form, copy.deepcopy(model), tokenizer, steps, seed) for seed in seeds)
            found[form][steps] = np.stack(
                [
                    batch_cosines(each, batches, method, cache, layers=p.layers)
                    for each in (students if steps else [model])
                ]
            )
    return found


def _trained(p: params.GradientCosine, study: Study, form: str, model, tokenizer, steps: int, seed: int):
    settings = Settings(
        steps=steps,
        batch_size=p.train_batch_size,
        learning_rate=p.learning_rate,
        warmup=0.0,
        log_every=steps,
        seed=seed,
        min_obedience=0.0,  # the teacher's obedience is shown beside the cosines
    )
    benchmark, answers = replace(study.benchmark, records=study.formats[form]), study.teacher_answers[form]
    given = {"settings": settings, "options": p.options, "teacher_answers": answers}
    return train(model, tokenizer, benchmark, p.method, **given).model


def batch_cosines(
    model, batches: Sequence[list[Example]], method: Method, cache: AnswerCache | None, *, layers: int
) -> np.ndarray:
    """Cosines [O, B, O, B] between the gradients of each objective's loss on each batch, over the last layers."""
    parameters, cut = last_layers(model, layers), objective_terms(method)
    whole = {term.name: term for term in method.terms}
    vectors: dict[tuple[str, int], Tensor] = {}
    with models.frozen(model), torch.enable_grad():
        model.requires_grad_(False)  # but for these, so that backward stops at the first of them
        for parameter in parameters:
            parameter.requires_grad_(True)
        for number, batch in enumerate(batches):
            for objective, terms in cut.items():
                losses = term_losses(model, batch, terms, method, cache)
                # A term that spans objectives counts in each by its share of the tokens, as in the joint mean.
                shares = [count(term, batch) / count(whole[term.name], batch) for term in terms]
                weights = [method.weight(term) * share for term, share in zip(terms, shares, strict=True)]
                loss = sum(weight * each for weight, each in zip(weights, losses, strict=True))
                vectors[objective, number] = gradients.objective_gradient(loss, parameters)
    size = (len(cut), len(batches))
    ordered = [vectors[objective, number] for objective in cut for number in range(len(batches))]
    return gradients.cosine_matrix(ordered).numpy().reshape(*size, *size)


def objective_terms(method: Method) -> dict[str, list[Term]]:
    """The terms of a method, cut to the groups of one objective each.

    Raises MethodError for a method with a gradient rule, and for one that has no loss for some objective.
    """
    if method.rule is not None:
        raise MethodError(f"method: {method.label} combines gradients by a rule; choose one that adds losses up")
    cut = {
        objective: [
            replace(term, groups=own)
            for term in method.terms
            if (own := tuple(group for group in term.groups if group.objective == objective))
        ]
        for objective in OBJECTIVES
    }
    lacking = [objective for objective, terms in cut.items() if not terms]
    if lacking:
        raise MethodError(f"method: {method.label} has no loss for {', '.join(lacking)}; choose mule or sft")
    return cut


def last_layers(model, number: int) -> list[nn.Parameter]:
    """Parameters of the last `number` decoder layers, in the model's order.

    Raises ValueError for more layers than there are.
    """
    layers = model.get_decoder().layers
    if not 1 <= number <= len(layers):
        raise ValueError(f"layers: {number}; the model has {len(layers)}")
    return [parameter for layer in layers[-number:] for parameter in layer.parameters()]


def _disjoint_draws(p: params.GradientCosine, examples: Sequence[Example], method: Method) -> list[list[Example]]:
    needed = p.batches * p.draws
    for group, held in sorted(Counter(example.group for example in examples).items()):
        if held < needed:
            raise ValueError(
                f"batches x draws: disjoint batches would need {needed} records of {group}, the data has {held}"
            )
    # Other draws than training's, which takes the same seed.
    return draw_balanced(examples, needed, anchors=method.options.anchors, seed=p.seed + 10_000)
