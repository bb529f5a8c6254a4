"""One trainer for every method: balanced batches, a sum of terms, gradient rules, a stop at NaN.

The gradient is that of the whole accumulated batch on all processes: each term is a mean over its answer tokens (or
rows) of that whole batch, so `accumulation` never changes the result.
"""

import math
import time
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import extract_model_from_parallel, gather_object
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from mule_lib import gradients
from mule_lib.losses import IGNORED, answer_lengths, pack_answers
from mule_lib.methods import Answers, Method, Term
from mule_lib.models.head import MAX_GATHERED, TOLERANCE, HeadLogits, answers_only, padded
from mule_lib.training.batches import Example, count
from mule_lib.training.teacher import AnswerCache

WHOLE = MAX_GATHERED  # logits of a forward, positions times tokens, up to which it keeps them all


class DivergedError(RuntimeError):
    """A loss or gradient is not finite; the message names the step, the term and the last good checkpoint."""


def term_losses(
    model, batch: Sequence[Example], terms: Sequence[Term], method: Method, cache: AnswerCache | None
) -> list[Tensor]:
    """Losses of some of a method's terms from one forward over all they read; means over what the batch holds.

    `model` may be wrapped for training. Each loss is a scalar with gradient.
    """
    by_group = attrgetter("group")
    groups = {group: list(own) for group, own in groupby(sorted(batch, key=by_group), by_group)}
    read = {(term.name, name): [g for g in groups if term.takes(g)] for term in terms for name in term.continuations}
    spans, rows = {}, []
    for group, name in dict.fromkeys((group, name) for (_, name), own in read.items() for group in own):
        spans[group, name] = range(len(rows), len(rows) + len(groups[group]))
        rows += [(example, name) for example in groups[group]]
    core = extract_model_from_parallel(model)
    inputs = padded([(example.context, example.continuations[name]) for example, name in rows])
    inputs = {name: tensor.to(core.device) for name, tensor in inputs.items()}
    labels = inputs.pop("labels")
    packed_labels = pack_answers(labels.unsqueeze(2), labels)[1]
    logits = _logits(model, core, inputs, labels, packed_labels)
    ends = [0, *answer_lengths(packed_labels).cumsum(0).tolist()]
    losses = []
    for term in terms:
        answers = []
        for name in term.continuations:
            own = [spans[group, name] for group in read[term.name, name]]
            keys = [(rows[i][0].id, name) for span in own for i in span]
            frozen = cache.answers(keys) if term.frozen else None
            tokens = [range(ends[span.start], ends[span.stop]) for span in own]
            taken = _take(logits, own if isinstance(logits, Tensor) else tokens)
            answers.append(Answers(taken, _take(packed_labels, own), frozen))
        losses.append(term.loss(*answers, method.options))
    return losses


def _logits(model, core, inputs: dict[str, Tensor], labels: Tensor, packed: Tensor) -> Tensor | HeadLogits:
    """Logits at the answers: all of them, [B, A + 1, V], up to `WHOLE`; beyond it `HeadLogits` of the answer tokens.

    All of them also where the head's weight is sharded or has an adapter, and where its product is not the model's
    logits (scaled or soft-capped ones), which the first answer token shows at each call.
    """
    head, kept = core.get_output_embeddings(), []
    held = model is core or isinstance(model, nn.parallel.DistributedDataParallel)
    plain = held and type(head) is nn.Linear and not hasattr(head.weight, "device_mesh")
    if plain and packed.numel() * len(head.weight) > WHOLE:
        supervised = packed[:, 1:] != IGNORED
        keep = lambda states: kept.append(HeadLogits.of(head, states[:, :-1][supervised]))  # noqa: E731
        with answers_only(core, labels, keep, most=1):
            live = model(**inputs, use_cache=False).logits[0, 0].detach().float()
        with torch.no_grad():
            apart = (live - kept[0].take(slice(1)).whole()[0]).abs().max() / live.abs().max()
        if apart <= TOLERANCE.get(kept[0].dtype, 1e-4):
            return kept[0]
    with answers_only(core, labels):
        return model(**inputs, use_cache=False).logits


class MultiObjectiveTrainer(Trainer):
    """Train the terms of one method on draws of examples.

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
        self.method, self.cache = method, cache
        self._totals: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._pending: dict[str, Tensor] = {}
        self._micro_batches: list[list[Example]] = []
        super().__init__(model, args, train_dataset=list(draws), data_collator=lambda drawn: list(chain(*drawn)))
        self.remove_callback(PrinterCallback)
        if every := getattr(method.options, "auto_learning_rate_every", 0):
            self.add_callback(AutoLearningRate(self, every))

    def _get_train_sampler(self, train_dataset=None):
        # Draws are shuffled and balanced already; their order is part of the run.
        return torch.utils.data.SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device):
        """The micro-batches of one step, with each term's answer tokens (or rows) counted over all of them."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._micro_batches = samples
        counts = [sum(count(term, batch) for batch in samples) for term in self.method.terms]
        # Exact in float32 up to 16 million tokens; Apple's GPU has no float64.
        counts = self.accelerator.reduce(torch.tensor(counts, dtype=torch.float32, device=device)).tolist()
        self._totals = dict(zip((term.name for term in self.method.terms), counts, strict=True))
        self._pending.clear()
        return samples, None

    def compute_loss(
        self, model, inputs: list[Example], return_outputs: bool = False, num_items_in_batch=None
    ) -> Tensor:
        """Weighted sum of all terms of a micro-batch, each as its share of the accumulated batch's mean.

        Summed over micro-batches and averaged over processes this is the loss of the joint batch. Raises DivergedError.
        """
        total = torch.zeros((), device=self.args.device)
        losses = term_losses(model, inputs, self.method.terms, self.method, self.cache)
        for term, loss in zip(self.method.terms, losses, strict=True):
            share = self._share(term, inputs)
            total = total + self.method.weight(term) * share * loss
            self._note(term, loss, share)
        return (total, {}) if return_outputs else total

    def training_step(self, model, inputs: list[Example], num_items_in_batch=None) -> Tensor:
        """Backward of the summed terms; for methods with a rule, one gradient per term and, at the last, their rule."""
        if self.method.rule is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        core = self.accelerator.unwrap_model(model)
        parameters = trained_parameters(core)
        total = torch.zeros((), device=self.args.device)
        for term in self.method.terms:
            (loss,) = term_losses(core, inputs, [term], self.method, self.cache)
            loss = self.method.weight(term) * loss
            gradient = gradients.objective_gradient(loss, parameters).mul_(count(term, inputs))
            held = self._pending.get(term.name)
            self._pending[term.name] = gradient if held is None else held.add_(gradient)
            share = self._share(term, inputs)
            total = total + share * loss.detach()
            self._note(term, loss, share)
        if self.accelerator.sync_gradients:
            self._apply_rule(parameters)
        return total

    def step_flops(self) -> int:
        """Floating-point operations of the last step's losses and gradients on this process, which are taken again."""
        core, terms = self.accelerator.unwrap_model(self.model), self.method.terms
        with FlopCounterMode(display=False) as counter:
            for batch in self._micro_batches:
                for some in [terms] if self.method.rule is None else [[term] for term in terms]:
                    loss = sum(term_losses(core, batch, some, self.method, self.cache))
                    gradients.objective_gradient(loss, trained_parameters(core))
        return counter.get_total_flops()

    @torch.no_grad()
    def kept_loss(self) -> float:
        """Sum of the kept terms' means over the whole accumulated batch of the current step, on all processes."""
        terms, total = [term for term in self.method.terms if term.keeps], 0.0
        core = self.accelerator.unwrap_model(self.model)
        for batch in self._micro_batches:
            for term, loss in zip(terms, term_losses(core, batch, terms, self.method, self.cache), strict=True):
                total += self.method.weight(term) * self._share(term, batch) * float(loss)
        return sum(gather_object([total])) / self.args.world_size  # every process takes the same decision from it

    def _share(self, term: Term, batch: list[Example]) -> float:
        """What a micro-batch is of the accumulated batch's mean; the mean over processes gives the sum of shares."""
        return count(term, batch) * self.args.world_size / self._totals[term.name]

    def _apply_rule(self, parameters: Sequence[Tensor]) -> None:
        sides: dict[bool, list[Tensor]] = {True: [], False: []}
        for term in self.method.terms:
            vector = self._pending.pop(term.name)
            if self.args.world_size > 1:  # DDP never reduces autograd.grad: the processes would drift apart in silence
                dist.all_reduce(vector)
            sides[term.keeps].append(vector.div_(self._totals[term.name]))
        combined = self.method.rule(sides[True], sides[False], self.method.options)
        for parameter, part in zip(parameters, combined.split([p.numel() for p in parameters]), strict=True):
            part = part.reshape(parameter.shape).to(parameter)
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

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add each term's mean loss since the last entry to the log, and print it with the time left in one line."""
        step, first = self.state.global_step, self._initial_global_step
        steps = step - getattr(self, "_logged_at", first)
        if "loss" in logs and steps:
            terms = {name: value / steps for name, value in self._sums.items()}
            logs |= {f"loss_{name}": value for name, value in terms.items()}
            self._sums.clear()
            self._logged_at = step
            shown = f" ({', '.join(f'{name} {value:.4g}' for name, value in terms.items())})" if len(terms) > 1 else ""
            left = (time.time() - start_time) / max(1, step - first) * (self.state.max_steps - step)
            if self.is_world_process_zero():
                print(
                    f"{self.method.label}: step {step}/{self.state.max_steps}, loss {logs['loss']:.4g}{shown}, "
                    f"gradient {logs.get('grad_norm', 0):.3g}, learning rate {logs['learning_rate']:.2g}, "
                    f"{left:.0f} s left",
                    flush=True,
                )
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        # A pickle that nothing of ours reads.
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)


class AutoLearningRate(TrainerCallback):
    """Move the learning rate to the vertex of the kept terms' loss along the update, every `every` steps.

    Two more forwards over the step's batch: the loss before the update, after it, and as far to the other side. The
    schedule goes on from the new rate, and a checkpoint keeps it. Source: AutoLR of NGDiff after GeN.
    """

    def __init__(self, trainer: MultiObjectiveTrainer, every: int):
        self.trainer, self.every, self._before = trainer, every, None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._before = None
        if (state.global_step + 1) % self.every == 0:
            self._before = [parameter.detach().clone() for parameter in trained_parameters(self.trainer.model)]
            self._loss_before = self.trainer.kept_loss()

    @torch.no_grad()
    def on_optimizer_step(self, args, state, control, **kwargs):
        optimizer, scheduler = self.trainer.optimizer, self.trainer.lr_scheduler
        rate = optimizer.param_groups[0]["lr"]
        if self._before is None or rate <= 0:
            return
        parameters = trained_parameters(self.trainer.model)
        after = [parameter.detach().clone() for parameter in parameters]
        loss_after = self.trainer.kept_loss()
        for parameter, old, new in zip(parameters, self._before, after, strict=True):
            parameter.copy_(2 * old - new)
        loss_behind = self.trainer.kept_loss()
        for parameter, new in zip(parameters, after, strict=True):
            parameter.copy_(new)
        factor = gradients.next_learning_rate(rate, (loss_behind, self._loss_before, loss_after)) / rate
        scheduler.base_lrs = [base * factor for base in scheduler.base_lrs]
        self._before = None


def trained_parameters(model) -> list[Tensor]:
    """The parameters that training moves, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _take(values: Tensor | HeadLogits, spans: Sequence[range]) -> Tensor:
    """Rows of some spans; a view where they are neighbours, so that logits are not copied."""
    if isinstance(values, HeadLogits):
        return values.take(torch.tensor(list(chain(*spans)), device=values.weight.device))
    if all(a.stop == b.start for a, b in pairwise(spans)):
        return values[spans[0].start : spans[-1].stop]
    return torch.cat([values[span.start : span.stop] for span in spans])
