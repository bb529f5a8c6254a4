"""What notebook 03 says before it loads a model: memory, hours, and what does not fit."""

import torch

from mule_lib import memory, methods
from mule_lib.param_types import EMBEDDED
from mule_lib.runs import repository_path
from mule_lib.training_params import TrainingParams

GROUPS = ("obj1/forget", "obj1/retain", "obj2/forget", "obj2/neighbor", "obj3/adversarial", "obj3/benign")


def before_loading(p: TrainingParams, *, records: int, items: int = 1000) -> str:
    """One line of estimates for a run on `records` training records; "" for the embedded models, which fit anywhere.

    Reads config.json only. Raises NotEnoughMemoryError where the device has less, RuntimeError where the model cannot
    be had.
    """
    if p.model in EMBEDDED:
        return ""
    folder = repository_path(p.model)
    shape = memory.shape_of(memory.config_of(str(folder) if folder.is_dir() else p.model, p.revision))
    work = work_of(p, records=records, items=items)
    found = memory.estimate(shape, work)
    device, free = free_memory()
    memory.check_fits(found, free, device=device)
    expected = memory.hours(shape, work, teacher="teacher" in methods.find(p.method).options and not p.teacher_file)
    return f"memory, estimated: {found.line()}; {device} has {free / memory.GIB:.1f} GiB. Time: {expected.line()}."


def work_of(p: TrainingParams, *, records: int, items: int = 1000) -> memory.Work:
    """How notebook 03 uses the model with these parameters; micro-batches are counted as the trainer cuts them."""
    row = methods.on_groups(methods.with_options(p.method, p.options), GROUPS)
    groups = len({group for term in row.terms for group in term.groups}) or len(GROUPS)
    continuations = max((len(term.continuations) for term in row.terms), default=1)
    draws = max(1, round(p.train_batch_size / groups))
    micro = next(n for n in range(min(p.accumulation, draws), draws + 1) if draws % n == 0)
    return memory.Work(
        trains=bool(row.terms),
        precision=p.precision,
        lora_rank=p.lora_rank,
        checkpointing=p.activation_checkpointing,
        held_gradients=len(row.terms) + 1 if row.rule else 0,
        sequences=draws // micro * groups * continuations,
        records=records,
        steps=p.steps,
        batch_size=p.train_batch_size,
        evaluation_batch=p.batch_size,
        evaluation_items=items,
    )


def free_memory() -> tuple[str, float]:
    """Name of the device that a run will use, and its free bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), float(torch.cuda.mem_get_info()[0])
    import psutil

    return "this machine's CPU", float(psutil.virtual_memory().available)
