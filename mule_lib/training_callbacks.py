"""What happens beside a training step: a line of progress, and NGDiff's learning rate that follows the retain loss."""

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from mule_lib.gradients import next_learning_rate


class Progress(TrainerCallback):
    """Print one line per log entry: step, losses, learning rate and the time left."""

    def __init__(self, label: str):
        self.label = label

    def on_train_begin(self, args, state, control, **kwargs):
        self._begun, self._first = time.monotonic(), state.global_step

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        seconds = (time.monotonic() - self._begun) / max(1, state.global_step - self._first)
        left = seconds * (state.max_steps - state.global_step)
        parts = [f"{name[5:]} {value:.4g}" for name, value in logs.items() if name.startswith("loss_")]
        terms = f" ({', '.join(parts)})" if len(parts) > 1 else ""
        print(
            f"{self.label}: step {state.global_step}/{state.max_steps}, loss {logs['loss']:.4g}{terms}, "
            f"gradient {logs.get('grad_norm', 0):.3g}, learning rate {logs['learning_rate']:.2g}, {left:.0f} s left",
            flush=True,
        )


class AutoLearningRate(TrainerCallback):
    """Move the learning rate to the vertex of the kept terms' loss along the update, every `every` steps.

    Two more forwards over the step's batch: the loss before the update, after it, and as far to the other side. The
    schedule goes on from the new rate, and a checkpoint keeps it. Source: AutoLR of NGDiff after GeN.
    """

    def __init__(self, trainer, every: int):
        self.trainer, self.every, self._before = trainer, every, None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._before = None
        if (state.global_step + 1) % self.every == 0:
            self._before = [parameter.detach().clone() for parameter in self._parameters()]
            self._loss_before = self._kept_loss()

    def on_optimizer_step(self, args, state, control, **kwargs):
        optimizer, scheduler = self.trainer.optimizer, self.trainer.lr_scheduler
        rate = optimizer.param_groups[0]["lr"]
        if self._before is None or rate <= 0:
            return
        parameters = self._parameters()
        after = [parameter.detach().clone() for parameter in parameters]
        loss_after = self._kept_loss()
        with torch.no_grad():
            for parameter, old, new in zip(parameters, self._before, after, strict=True):
                parameter.copy_(2 * old - new)
            loss_behind = self._kept_loss()
            for parameter, new in zip(parameters, after, strict=True):
                parameter.copy_(new)
        factor = next_learning_rate(rate, (loss_behind, self._loss_before, loss_after)) / rate
        scheduler.base_lrs = [base * factor for base in scheduler.base_lrs]
        self._before = None

    def _parameters(self) -> Sequence[torch.Tensor]:
        return [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def _kept_loss(self) -> float:
        return self.trainer.mean_loss([term for term in self.trainer.method.terms if term.keeps])


def mean_over_processes(value: float, device: torch.device) -> float:
    """Average a number over all processes, so that each takes the same decision from it."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = torch.tensor(value, device=device)
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()
