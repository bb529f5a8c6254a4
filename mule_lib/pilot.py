"""The pilot study of Section 3.1: do the gradients of the objectives point the same way, in raw and in unified formats?

Gradients are taken per objective on disjoint batches, over the last decoder layers only, with one method on both sides
(the paper's is MULE's own loss). A cosine of two batches of *different* objectives says little without that of two
batches of the *same* objective, which noise keeps below 1: the ceiling.
"""

import copy
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mule_lib import gradients, methods, targets
from mule_lib.method_terms import Method, MethodError, Term
from mule_lib.prompts import steering
from mule_lib.records import OBJECTIVES, Record
from mule_lib.settings import Settings, training_arguments
from mule_lib.targets import Target
from mule_lib.teacher_cache import build_cache
from mule_lib.trainer import MultiObjectiveTrainer, count
from mule_lib.training import train
from mule_lib.training_data import draw_balanced, encode, group_of


@dataclass(frozen=True)
class PilotSettings:
    """How gradients are measured and the model is trained between the measurements.

    `batches` disjoint batches of `draws` records of every group each; `layers` decoder layers from the end; after
    `steps` optimizer steps each (0 is the base model), with `train_batch_size` records and `learning_rate`, repeated
    with `train_seeds` orders of the data. Memory is 3 batches P float32 values, P the parameters of those layers.
    Raises ValueError naming what is out of range.
    """

    steps: tuple[int, ...] = (0, 10)
    batches: int = 8
    draws: int = 8
    layers: int = 3
    learning_rate: float = 1e-3
    train_batch_size: int = 16
    train_seeds: int = 3
    seed: int = 0

    def __post_init__(self):
        for name, least in (("batches", 2), ("draws", 1), ("layers", 1), ("train_seeds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)} is less than {least}")
        if not self.steps or min(self.steps) < 0:
            raise ValueError(f"steps: {list(self.steps)}; give at least one number of steps, none below 0")


def cosines_over_training(
    model,
    tokenizer,
    records: Sequence[Record],
    method: str | Method,
    *,
    topic: str,
    said: Sequence[Target] | None = None,
    settings: PilotSettings | None = None,
    prompt_name: str = "fable",
    **options: Any,
) -> dict[int, np.ndarray]:
    """Cosines between all objectives' batches after each number of steps: {steps: [S, O, B, O, B]}.

    The model is left as it was: each measurement after steps > 0 is of S copies that were trained on these records by
    the same method, in different orders of the data (S is 1 for 0 steps); all are measured on the same batches. `said`
    are the teacher's answers to records of the same ids (it is asked once where None).
    Raises ValueError before any training: MethodError for a method that adds no loss for some objective or combines
    gradients by a rule, more batches than the data holds, more layers than the model has.
    """
    settings = settings or PilotSettings()
    row = methods.on_groups(methods.with_options(method, options), {group_of(record) for record in records})
    terms = terms_of_objectives(row)
    _check_size(records, terms, settings)
    last_layers(model, settings.layers)
    if said is None and "teacher" in row.options:
        how = steering(row.options["teacher"], topic, cot=row.options["cot"], name=prompt_name)
        said = targets.teacher_targets(model, tokenizer, records, how, answers=row.options["answers"])
    measure = _Measurement(model, tokenizer, records, row, said or [], settings)

    def trained(steps: int, seed: int):
        how = Settings(
            steps=steps,
            batch_size=settings.train_batch_size,
            learning_rate=settings.learning_rate,
            warmup=0.0,
            log_every=steps,
            seed=seed,
            min_obedience=0.0,  # what the teacher said is shown beside the cosines
        )
        copied = copy.deepcopy(model)
        own = {"topic": topic, "settings": how, "prompt_name": prompt_name, "said": said, **options}
        return train(copied, tokenizer, records, method, **own).model

    seeds = range(settings.seed, settings.seed + settings.train_seeds)
    return {
        steps: np.stack([measure(trained(steps, seed)) for seed in seeds] if steps else [measure(model)])
        for steps in settings.steps
    }


def terms_of_objectives(row: Method) -> dict[str, list[Term]]:
    """The terms of a method with resolved groups, cut to the groups of one objective each.

    Raises MethodError for a method with a gradient rule, and for one that has no loss for some objective.
    """
    if row.rule is not None:
        raise MethodError(f"method: {row.label} combines gradients by a rule; choose one that adds losses up")
    cut = {
        objective: [
            replace(term, groups=own)
            for term in row.terms
            if (own := tuple(group for group in term.groups if fnmatch(group, f"{objective}/*")))
        ]
        for objective in OBJECTIVES
    }
    lacking = [objective for objective, terms in cut.items() if not terms]
    if lacking:
        raise MethodError(f"method: {row.label} has no loss for {', '.join(lacking)}; choose mule or sft")
    return cut


def last_layers(model, number: int) -> list[nn.Parameter]:
    """Parameters of the last `number` decoder layers, in the model's order.

    Raises ValueError for more layers than there are.
    """
    total = model.config.num_hidden_layers
    if not 1 <= number <= total:
        raise ValueError(f"layers: {number}; the model has {total}")
    wanted = set(range(total - number, total))
    layer = re.compile(r"\.layers\.(\d+)\.")
    named = ((layer.search(name), parameter) for name, parameter in model.named_parameters())
    return [parameter for match, parameter in named if match and int(match[1]) in wanted]


@contextmanager
def _only(model, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within, gradients reach these parameters alone, so that backward stops at the first of them."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class _Measurement:
    """Cosines [O, B, O, B] of students whose teacher (or reference) is the base, all on the same batches."""

    def __init__(self, base, tokenizer, records: Sequence[Record], row: Method, said, settings: PilotSettings):
        wanted: dict[str, set[str]] = {}
        for term in row.terms:
            for group in term.groups:
                wanted.setdefault(group, set()).update(term.continuations)
        used = [record for record in records if group_of(record) in wanted]
        examples = encode(
            tokenizer,
            used,
            {group: sorted(names) for group, names in wanted.items()},
            targets=targets.of(used, said) if "teacher" in row.options else (),
            positions=row.options["positions"],
            max_answer_tokens=row.options["max_answer_tokens"],
        )
        # Other draws than training's, which takes the same seed.
        seed = settings.seed + 10_000
        self.draws = draw_balanced(
            examples, settings.batches * settings.draws, anchors=row.options["anchors"], seed=seed
        )
        self.row, self.settings, self.groups, self.pad_id = row, settings, len(wanted), tokenizer.pad_token_id or 0
        kept = {example.id: example for draw in self.draws for example in draw}
        sequences = {
            (example.id, name): example.frozen_sequence(name)
            for example in kept.values()
            for term in row.terms
            if term.frozen and example.group in term.groups
            for name in term.continuations
        }
        top_k = row.options.get("top_k", 0)
        self.cache = build_cache(base, sequences, top_k=top_k, copy_head=False) if sequences else None

    def __call__(self, student) -> np.ndarray:
        number = self.settings.batches * self.settings.draws
        how = Settings(steps=1, batch_size=self.settings.draws * self.groups, seed=self.settings.seed)
        with tempfile.TemporaryDirectory() as folder:
            arguments, _ = training_arguments(how, Path(folder), groups=self.groups, largest=number, rates=(1e-5, 1e-4))
            trainer = MultiObjectiveTrainer(
                student, arguments, self.draws, self.row, cache=self.cache, pad_id=self.pad_id
            )
            vectors = self._gradients(trainer, student.eval())
        size = (len(OBJECTIVES), self.settings.batches)
        return gradients.cosine_matrix(vectors).numpy().reshape(*size, *size)

    def _gradients(self, trainer: MultiObjectiveTrainer, student) -> list[Tensor]:
        """One gradient per objective and batch, objectives outside."""
        vectors: dict[tuple[str, int], Tensor] = {}
        parameters = last_layers(student, self.settings.layers)
        cut, whole = terms_of_objectives(self.row), {term.name: term for term in self.row.terms}
        with _only(student, parameters):
            for number in range(self.settings.batches):
                draw = self.draws[number * self.settings.draws : (number + 1) * self.settings.draws]
                batch = trainer._prepare_inputs(trainer.data_collator(draw))
                for objective, terms in cut.items():
                    losses = trainer.term_losses(student, batch, terms)
                    # A term that spans objectives counts in each by its share of the tokens, as in the joint mean.
                    shares = [count(term, batch) / count(whole[term.name], batch) for term in terms]
                    weights = [trainer._weight(term) * share for term, share in zip(terms, shares, strict=True)]
                    loss = sum(weight * each for weight, each in zip(weights, losses, strict=True))
                    vectors[objective, number] = gradients.objective_gradient(loss, parameters)
        return [vectors[objective, number] for objective in OBJECTIVES for number in range(self.settings.batches)]


def _check_size(records: Sequence[Record], terms: dict[str, list[Term]], settings: PilotSettings) -> None:
    needed = settings.batches * settings.draws
    for group in sorted({group for own in terms.values() for term in own for group in term.groups}):
        held = sum(group_of(record) == group for record in records)
        if held < needed:
            raise ValueError(
                f"batches x draws: disjoint batches would need {needed} records of {group}, the data has {held}"
            )
