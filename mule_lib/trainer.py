"""One trainer for every row: balanced batches of nested groups, a sum of terms, gradient rules, a stop at NaN.

The gradient is that of the whole accumulated batch on all processes: each term is a mean over its answer tokens (or
rows) of that whole batch, so `accumulation` never changes the result.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from mule_lib import gradients
from mule_lib.losses import pack_answers
from mule_lib.method_terms import Answers, Method, Term
from mule_lib.models.head import answers_only
from mule_lib.teacher_cache import AnswerCache
from mule_lib.training_callbacks import mean_over_processes
from mule_lib.training_data import Batch, Collator, Example


class DivergedError(RuntimeError):
    """A loss or gradient is not finite; the message names the step, the term and the last good checkpoint."""


class MultiObjectiveTrainer(Trainer):
    """Train the terms of one method whose groups are resolved (`methods.on_groups`) on draws of examples.

    `draws` are consumed in their order, `per_device_train_batch_size` of them per forward. A method without a rule adds
    its weighted terms up and goes backward through the wrapped model; with a rule each term's gradient is taken on the
    unwrapped model, averaged over micro-batches and processes, and the combination is put into `.grad`.
    Raises ValueError for several visible devices in one process, where transformers would use DataParallel.
    """

    # Losses come already divided by the tokens of the whole accumulated batch (see `compute_loss`); transformers would
    # otherwise divide by the number of micro-batches, or not at all, depending on the shape of the batch.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model,
        args: TrainingArguments,
        draws: Sequence[Sequence[Example]],
        method: Method,
        *,
        cache: AnswerCache | None = None,
        pad_id: int = 0,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        if args.n_gpu > 1:
            raise ValueError(
                f"{args.n_gpu} visible devices in one process, which transformers would use by DataParallel; "
                "set CUDA_VISIBLE_DEVICES to one of them, or start with accelerate launch"
            )
        if method.rule is not None and (args.fsdp or args.deepspeed):
            raise ValueError(f"{method.label} combines whole gradients, which sharded training does not hold; use DDP")
        args.remove_unused_columns = False  # transformers knows no column of a nested batch and would drop them all
        args.logging_nan_inf_filter = False  # a NaN would be logged as 0
        self.method = method
        self.cache = cache
        self._totals: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._pending: dict[str, tuple[Tensor, float]] = {}
        self._micro_batches: list[Batch] = []
        super().__init__(
            model=model,
            args=args,
            train_dataset=list(draws),
            data_collator=Collator(pad_id, cache),
            callbacks=list(callbacks),
        )

    def _get_train_sampler(self, train_dataset=None):
        # Draws are shuffled and balanced already; their order is part of the run.
        return torch.utils.data.SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """The micro-batches of one step, with each term's answer tokens (or rows) counted over all of them."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._micro_batches = samples
        counts = torch.tensor(
            [sum(count(term, batch) for batch in samples) for term in self.method.terms],
            dtype=torch.float64 if device.type != "mps" else torch.float32,
            device=device,
        )
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        self._totals = dict(zip((term.name for term in self.method.terms), counts.tolist(), strict=True))
        self._pending.clear()
        return samples, None

    def compute_loss(self, model, inputs: Batch, return_outputs: bool = False, num_items_in_batch=None) -> Tensor:
        """Weighted sum of all terms of a micro-batch, each as its share of the accumulated batch's mean.

        Summed over micro-batches and averaged over processes this is the loss of the joint batch. Raises DivergedError.
        """
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        total = torch.zeros((), device=self.args.device)
        losses = self.term_losses(model, inputs, self.method.terms)
        for term, loss in zip(self.method.terms, losses, strict=True):
            share = count(term, inputs) * world / self._totals[term.name]
            total = total + self._weight(term) * share * loss
            self._note(term, loss, share)
        return (total, {}) if return_outputs else total

    def training_step(self, model, inputs: Batch, num_items_in_batch=None) -> Tensor:
        """Backward of the summed terms; for methods with a rule, one gradient per term and, at the last, their rule."""
        if self.method.rule is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        inputs = self._prepare_inputs(inputs)
        core = self.accelerator.unwrap_model(model)
        parameters = [parameter for parameter in core.parameters() if parameter.requires_grad]
        total = torch.zeros((), device=self.args.device)
        for term in self.method.terms:
            (loss,) = self.term_losses(core, inputs, [term])
            loss = self._weight(term) * loss
            number = count(term, inputs)
            gradient = gradients.objective_gradient(loss, parameters).mul_(number)
            held, before = self._pending.get(term.name, (None, 0.0))
            self._pending[term.name] = (gradient if held is None else held.add_(gradient), before + number)
            share = number * self.args.world_size / self._totals[term.name]
            total = total + share * loss.detach()
            self._note(term, loss, share)
        if self.accelerator.sync_gradients:
            self._apply_rule(parameters)
        return total

    def term_losses(self, model, inputs: Batch, terms: Sequence[Term]) -> list[Tensor]:
        """Losses of some terms from one forward over all they need; means over what the micro-batch holds."""
        keys = list(dict.fromkeys((g, name) for term in terms for name in term.continuations for g in term.groups))
        rows = [inputs[group][name] for group, name in keys]
        joint = {name: join([row[name] for row in rows], pad) for name, pad in PADDING.items()}
        labels = joint.pop("labels")
        core = self.accelerator.unwrap_model(model)
        with answers_only(core, labels):
            output = model(**joint, use_cache=False)
        packed_labels = pack_answers(labels.unsqueeze(2), labels)[1]
        places, start = {}, 0
        for key, row in zip(keys, rows, strict=True):
            places[key] = range(start, start := start + len(row["labels"]))
        found = []
        for term in terms:
            sides = []
            for name in term.continuations:
                spans = [places[group, name] for group in term.groups]
                positions = [inputs[group][name]["positions"] for group in term.groups] if term.frozen else []
                sides.append(
                    Answers(
                        take(output.logits, spans),
                        take(packed_labels, spans),
                        self.cache.at(torch.cat(positions)) if positions else None,
                    )
                )
            found.append(term.loss(*sides, self.method.options))
        return found

    def try_losses(self) -> None:
        """Compute every term once on the first draw, so that a loss refuses its options before any step is taken."""
        inputs = self._prepare_inputs(self.data_collator(self.train_dataset[:1]))
        with torch.no_grad():
            self.term_losses(self.model, inputs, self.method.terms)

    def mean_loss(self, terms: Sequence[Term]) -> float:
        """Sum of some terms' means over the whole accumulated batch of the current step, on all processes."""
        core, total = self.accelerator.unwrap_model(self.model), 0.0
        for batch in self._micro_batches:
            for term, loss in zip(terms, self.term_losses(core, self._prepare_inputs(batch), terms), strict=True):
                share = count(term, batch) * self.args.world_size / self._totals[term.name]
                total += self._weight(term) * share * float(loss)
        return mean_over_processes(total, self.args.device)

    def _apply_rule(self, parameters: Sequence[Tensor]) -> None:
        sides: dict[bool, list[Tensor]] = {True: [], False: []}
        for term in self.method.terms:
            vector, number = self._pending.pop(term.name)
            # autograd.grad is never reduced by DDP; without this the processes would drift apart in silence.
            sides[term.keeps].append(gradients.all_reduce_mean(vector.div_(number), weight=number))
        combined = self.method.rule(sides[True], sides[False], self.method.options)
        for parameter, part in zip(parameters, gradients.unflatten(combined, parameters), strict=True):
            parameter.grad = part if parameter.grad is None else parameter.grad + part

    def _clip_grad_norm(self, model):
        norm = super()._clip_grad_norm(model)
        if not torch.isfinite(torch.as_tensor(norm)):
            raise DivergedError(self._stopped(f"the gradient norm is {float(norm)}"))
        return norm

    def _note(self, term: Term, loss: Tensor, share: float) -> None:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(self._stopped(f"the loss of term {term.name!r} is {value}"))
        self._sums[term.name] = self._sums.get(term.name, 0.0) + share * value

    def _stopped(self, reason: str) -> str:
        saved = get_last_checkpoint(self.args.output_dir) if self.args.should_save else None
        return (
            f"step {self.state.global_step + 1} of {self.method.label}: {reason}; lower the learning rate. "
            f"Last good checkpoint: {saved or 'none was saved'}"
        )

    def _weight(self, term: Term) -> float:
        return self.method.options[term.weight] if isinstance(term.weight, str) else term.weight

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add each term's mean loss since the last line to the log."""
        steps = self.state.global_step - getattr(self, "_logged_at", self._initial_global_step)
        if "loss" in logs and steps:
            logs |= {f"loss_{name}": value / steps for name, value in self._sums.items()}
            self._sums.clear()
            self._logged_at = self.state.global_step
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        # A pickle that nothing of ours reads.
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)


PADDING = {"input_ids": 0, "attention_mask": 0, "labels": -100}


def count(term: Term, batch: Batch) -> int:
    """How many answer tokens (or rows) of a batch the term is a mean of, by its first continuation."""
    labels = [batch[group][term.continuations[0]]["labels"] for group in term.groups]
    return sum(len(part) if term.unit == "rows" else int((part[:, 1:] != -100).sum()) for part in labels)


def join(parts: Sequence[Tensor], pad: int) -> Tensor:
    """Stack [B_i, T_i] on top of each other, padded on the right to the longest."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=pad) for part in parts])


def take(values: Tensor, spans: Sequence[range]) -> Tensor:
    """Rows of some spans; a view where they are neighbours, so that logits are not copied."""
    if all(a.stop == b.start for a, b in pairwise(spans)):
        return values[spans[0].start : spans[-1].stop]
    return torch.cat([values[span.start : span.stop] for span in spans])
