"""Train one method on one model in one call: everything is checked before the first step."""

import hashlib
import json
import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import Field
from transformers import TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from mule_lib import methods, models, params
from mule_lib.data import Benchmark
from mule_lib.data.files import write_json, write_jsonl
from mule_lib.data.records import check
from mule_lib.losses import check_top_k
from mule_lib.methods import Method, MethodError
from mule_lib.training import teacher
from mule_lib.training.batches import draw_balanced, encode, frozen_cache, places
from mule_lib.training.teacher import TeacherAnswer
from mule_lib.training.trainer import MultiObjectiveTrainer, trained_parameters


class Settings(params.Checked):
    """How a run trains, whatever its method. Defaults are the house's where the paper is silent.

    `steps` 0 takes `epochs` passes over the largest group. `batch_size` counts records per optimizer step over all
    groups, processes and micro-batches, and is rounded to whole draws (`batches.places`) on each process;
    `accumulation` is the least number of micro-batches it is worked off in, and changes memory, not results.
    `learning_rate` 0 takes the method's. `lora_rank` 0 is full tuning; `lora_alpha` None is twice the rank. `log_every`
    0 puts about twenty points on the curve.
    Raises ParameterError naming the setting that is wrong.
    """

    steps: int = Field(0, ge=0)
    epochs: float = Field(5.0, ge=0)
    batch_size: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(0.0, ge=0)
    schedule: Literal["constant_with_warmup", "linear", "cosine"] = "constant_with_warmup"
    warmup: float = Field(0.05, ge=0, le=1)  # share of the steps
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    lora_rank: int = Field(0, ge=0)
    lora_alpha: int | None = None
    activation_checkpointing: bool = False
    seed: int = Field(0, ge=0)
    save_every: int = Field(0, ge=0)  # steps; 0 = no checkpoints
    log_every: int = Field(10, ge=0)
    teacher_batch_size: int = Field(64, ge=1)
    max_thought_tokens: int = Field(48, ge=1)
    min_obedience: float = Field(0.8, ge=0, le=1)

    @classmethod
    def of(cls, p: params.Training, seed: int = 0) -> "Settings":
        """The settings of notebook 04's parameters."""
        same = p.model_dump(include=cls.model_fields.keys() - {"batch_size", "precision"})
        taken = models.precision(p.precision, p.model)
        return cls(**same, precision=taken, batch_size=p.train_batch_size, log_every=0, seed=seed)


@dataclass(frozen=True)
class Trained:
    """The model, in evaluation mode, and how it came about.

    `log` holds one entry per logged step; `obedience` the teacher's rates by objective and role; `step_flops` counts
    the floating-point operations of the last step on this process.
    """

    model: Any
    method: Method
    settings: Settings
    log: list[dict] = field(default_factory=list)
    obedience: list[dict] = field(default_factory=list)
    teacher_answers: list[TeacherAnswer] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    step_flops: int = 0


def train(
    model,
    tokenizer,
    data: Benchmark,
    method: str | Method,
    *,
    settings: Settings | None = None,
    options: Mapping[str, Any] | None = None,
    teacher_answers: Sequence[TeacherAnswer] | None = None,
    folder: Path | str | None = None,
) -> Trained:
    """Unlearn a benchmark's topic with one of `methods.METHODS`, some of its options changed.

    The model is changed in place (with LoRA, wrapped). The teacher is the model as it comes in, adapter off;
    `teacher_answers` spare asking it again. With `folder`, the teacher's answers are written there, checkpoints every
    `settings.save_every` steps, and the same call goes on from the newest one. Methods that train nothing return the
    model untouched.
    Raises ValueError in one line, before any step, for a method, option, group of records, K or precision that does not
    fit; DivergedError when a loss is not finite.
    """
    settings, begun = settings or Settings(), time.monotonic()
    method = methods.get(method, options)
    if not method.terms:
        return Trained(model, method, settings)
    method = _checked(model, data, method)
    data = replace(data, records=[r for r in data.records if any(term.takes(r.group) for term in method.terms)])
    groups = Counter(record.group for record in data.records)
    with nullcontext(str(folder)) if folder else tempfile.TemporaryDirectory() as name:
        place = Path(name)
        arguments, draws = training_arguments(
            settings,
            place,
            records=sum(places(groups).values()),
            largest=max(groups.values()),
            rates=method.learning_rate,
        )
        checkpoint = _checkpoint(place, data, method, settings) if folder else None
        set_seed(settings.seed)
        model.unlearned_by = method.label  # its own weights change from here on, also if the run is interrupted
        model = _trainable(model.to(arguments.device), method, settings)
        answers = []
        if method.distils:
            file = place / "teacher_answers.jsonl"
            if teacher_answers is None and checkpoint and file.exists():  # a resumed run takes the very same
                teacher_answers = teacher.read_answers(file)
            if teacher_answers is None:
                sizes = {"batch_size": settings.teacher_batch_size, "max_thought_tokens": settings.max_thought_tokens}
                teacher_answers = teacher.teacher_answers(model, tokenizer, data, method, **sizes)
                write_jsonl(file, map(asdict, teacher_answers))
            answers = teacher.answers_to(tokenizer, data, method, teacher_answers)
        rates = teacher.obedience(answers)
        teacher.warn_if_disobedient(rates, settings.min_obedience)
        examples = encode(tokenizer, data.records, method, answers)
        sizes = {"copy_head": not settings.lora_rank, "batch_size": settings.teacher_batch_size}
        trainer = MultiObjectiveTrainer(
            model,
            arguments,
            draw_balanced(examples, draws, anchors=method.options.anchors, seed=settings.seed),
            method,
            cache=frozen_cache(model, examples, method, **sizes),
        )
        trainer.train(resume_from_checkpoint=checkpoint)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    seconds = time.monotonic() - begun
    cost = {"steps": trainer.state.global_step, "seconds": seconds, "step_flops": trainer.step_flops()}
    return Trained(_finished(trainer), method, settings, log, rates, answers, **cost)


def load_model(p: params.Training, data: Benchmark | None = None, *, frozen: bool = False):
    """Model and tokenizer of notebook 04, in bfloat16 where its own weights are kept.

    With `data`, prints first what memory training will need, for any model but the embedded ones. Raises
    NotEnoughMemoryError before anything is loaded.
    """
    method, precision = methods.get(p.method, p.options), models.precision(p.precision, p.model)
    if data is not None:
        available = {record.group for record in data.records}
        taken = {group for term in method.on_groups(available).terms for group in term.groups} or available
        draws = max(1, round(p.train_batch_size / sum(places(taken).values())))
        continuations = max((len(term.continuations) for term in method.terms), default=1)
        line = models.check_memory(
            p.model,
            revision=p.revision,
            trains=bool(method.terms),
            precision=precision,
            lora_rank=p.lora_rank,
            checkpointing=p.activation_checkpointing,
            gradients=len(method.terms) + 1 if method.rule else 1,
            sequences=draws // micro_batches(draws, p.accumulation) * len(taken) * continuations,
            batch_size=p.batch_size,
        )
        print(line, end="\n" if line else "")
    half = precision == "bf16" and (frozen or p.lora_rank > 0 or not method.terms)
    dtype = torch.bfloat16 if half else torch.float32
    return models.load(p.model, dtype=dtype, revision=p.revision, adapter=p.adapter)


def micro_batches(draws: int, least: int) -> int:
    """How many micro-batches of one size, `least` or more, a process works its draws off in.

    Of one size only, or the batch would depend on how it is worked off.
    """
    return next(number for number in range(min(least, draws), draws + 1) if draws % number == 0)


def training_arguments(
    settings: Settings, folder: Path, *, records: int, largest: int, rates: tuple[float, float]
) -> tuple[TrainingArguments, int]:
    """Arguments of transformers' Trainer for these settings, and the number of draws that the run consumes.

    `records`: how many a draw has; `largest`: how many the largest group has; `rates`: the method's learning rates for
    full tuning and for LoRA. Raises ValueError when the device lacks the precision.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    models.precision(settings.precision, device=accelerator)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        learning_rate=settings.learning_rate or rates[settings.lora_rank > 0],
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
        logging_nan_inf_filter=False,  # a NaN would be logged as 0
        remove_unused_columns=False,  # transformers knows no column of our batches and would drop them all
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
        use_cpu=accelerator is None,
    )
    each = max(1, round(settings.batch_size / records / arguments.world_size))  # draws of a step on one process
    micro = micro_batches(each, settings.accumulation)
    arguments.gradient_accumulation_steps = micro
    arguments.per_device_train_batch_size = each // micro
    per_step = each * arguments.world_size
    arguments.max_steps = settings.steps or max(1, math.ceil(settings.epochs * largest / per_step))
    arguments.logging_steps = settings.log_every or max(1, arguments.max_steps // 20)
    arguments.warmup_steps = math.ceil(settings.warmup * arguments.max_steps)
    return arguments, arguments.max_steps * per_step


def _checked(model, data: Benchmark, method: Method) -> Method:
    """The method with its groups resolved, after everything that can be wrong with the input was looked at."""
    check([replace(record, anchor=None) for record in data.records])  # partners may have been left out on purpose
    method = method.on_groups({record.group for record in data.records})
    if method.distils:
        check_top_k(method.options.top_k, model.get_output_embeddings().weight.shape[0])
    if (before := getattr(model, "unlearned_by", "")) and not isinstance(model, PeftModel):
        raise MethodError(f"model: already trained by {before!r} and would teach itself; load it anew")
    return method


def _checkpoint(folder: Path, data: Benchmark, method: Method, settings: Settings) -> str | None:
    """The newest checkpoint in `folder`, if any. Raises ValueError when another run wrote it."""
    run = {
        "method": method.label,
        "options": method.options.model_dump(),
        "settings": settings.model_dump(exclude={"save_every", "log_every"}),
        "topic": data.topic,
        "prompt_name": data.prompt_name,
        "records": hashlib.sha256(json.dumps([asdict(record) for record in data.records]).encode()).hexdigest(),
    }
    file, checkpoint = folder / "training.json", get_last_checkpoint(str(folder)) if folder.is_dir() else None
    before = json.loads(file.read_text("utf-8")) if checkpoint and file.exists() else run
    if changed := [name for name in run if run[name] != before.get(name)]:
        raise ValueError(f"folder: {folder} holds a run with other {', '.join(changed)}; use another folder")
    write_json(file, run)
    return checkpoint


def _trainable(model, method: Method, settings: Settings):
    """The model, with a fresh adapter where LoRA is asked for."""
    if settings.lora_rank and not isinstance(model, PeftModel):
        alpha = settings.lora_alpha or 2 * settings.lora_rank
        sizes = {"r": settings.lora_rank, "lora_alpha": alpha, "target_modules": "all-linear"}
        model = get_peft_model(model, LoraConfig(**sizes, bias="none", task_type="CAUSAL_LM"))
    trained = trained_parameters(model)
    if not trained:
        raise MethodError(f"{method.label} finds no parameter to train in {type(model).__name__}")
    if any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in trained):
        warnings.warn(
            f"trained weights are {trained[0].dtype}, which rounds small updates away; load the model in float32 with "
            "precision='bf16', or use LoRA",
            stacklevel=3,
        )
    return model


def _finished(trainer: MultiObjectiveTrainer):
    """The model without what training put around it, ready to generate."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    trainer.accelerator.free_memory()
    model.zero_grad()
    if trainer.args.activation_checkpointing:
        model.activation_checkpointing_disable()
    model.config.use_cache = True
    return model.eval()
