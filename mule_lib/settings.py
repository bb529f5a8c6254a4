"""How a run trains, whatever its method: length, batch, optimizer, precision, adapter, checkpoints."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments

from mule_lib.params import PRECISIONS

SCHEDULES = ("constant_with_warmup", "linear", "cosine")


@dataclass(frozen=True)
class Settings:
    """Defaults are the house's where the paper is silent. Raises ValueError naming the setting that is wrong.

    `steps` 0 takes `epochs` passes over the largest group. `batch_size` counts records per optimizer step over all
    groups, processes and micro-batches, and is rounded to whole draws of one record per group on each process;
    `accumulation` is the least number of micro-batches it is worked off in, and changes memory, not results.
    `learning_rate` None takes the method's. `lora_rank` 0 is full tuning; `lora_alpha` None is twice the rank.
    """

    steps: int = 0
    epochs: float = 5.0
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float | None = None
    schedule: str = "constant_with_warmup"
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    precision: str = "fp32"
    lora_rank: int = 0
    lora_alpha: int | None = None
    activation_checkpointing: bool = False
    seed: int = 0
    save_every: int = 0  # steps; 0 = no checkpoints
    log_every: int = 10
    teacher_batch_size: int = 64
    max_thought_tokens: int = 48
    min_obedience: float = 0.8

    def __post_init__(self):
        for name, least in (
            ("steps", 0), ("batch_size", 1), ("accumulation", 1), ("lora_rank", 0), ("save_every", 0), ("log_every", 1),
            ("teacher_batch_size", 1), ("max_thought_tokens", 1), ("seed", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: {value!r} is not an integer of {least} or more")
        for name, low, high in (
            ("epochs", 0, math.inf), ("warmup", 0, 1), ("weight_decay", 0, math.inf), ("max_grad_norm", 0, math.inf),
            ("min_obedience", 0, 1), ("learning_rate", 0, math.inf),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and low <= value <= high):
                raise ValueError(f"{name}: {value!r} is not a number from {low} to {high}")
        for name, allowed in (("precision", PRECISIONS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r} is unknown; use one of {', '.join(allowed)}")

    def rate(self, defaults: tuple[float, float]) -> float:
        """The learning rate, of a method's defaults for full tuning and for LoRA where none is set."""
        return self.learning_rate if self.learning_rate is not None else defaults[self.lora_rank > 0]


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError unless the device computes in this precision."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("precision: this GPU has no bfloat16; use fp32")
    if precision == "bf16" and device.type == "mps":
        raise ValueError("precision: bf16 is not supported on mps; use fp32")


def training_arguments(
    settings: Settings, folder: Path, *, groups: int, largest: int, rates: tuple[float, float]
) -> tuple[TrainingArguments, int]:
    """Arguments of transformers' Trainer for these settings, and the number of draws that the run consumes.

    `groups`: how many groups a draw has one record of; `largest`: records in the largest. Raises ValueError when the
    device lacks the precision.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    check_precision(settings.precision, accelerator or torch.device("cpu"))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        learning_rate=settings.rate(rates),
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.precision == "bf16",
        activation_checkpointing=settings.activation_checkpointing,
        seed=settings.seed,
        data_seed=settings.seed,
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 500,
        save_total_limit=2,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
        use_cpu=accelerator is None,
    )
    each = max(1, round(settings.batch_size / groups / arguments.world_size))  # draws of a step on one process
    # Micro-batches of one size only, or the batch would depend on how it is worked off.
    micro = next(number for number in range(min(settings.accumulation, each), each + 1) if each % number == 0)
    arguments.gradient_accumulation_steps = micro
    arguments.per_device_train_batch_size = each // micro
    per_step = each * arguments.world_size
    arguments.max_steps = settings.steps or max(1, math.ceil(settings.epochs * largest / per_step))
    arguments.warmup_steps = math.ceil(settings.warmup * arguments.max_steps)
    return arguments, arguments.max_steps * per_step
