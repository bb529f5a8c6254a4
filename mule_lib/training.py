"""Train one method on one model in one call: everything is checked before the first step."""

import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from mule_lib import methods, targets
from mule_lib.losses import check_top_k
from mule_lib.method_terms import Method, MethodError
from mule_lib.prompts import steering
from mule_lib.records import Record, check
from mule_lib.settings import Settings, training_arguments
from mule_lib.targets import Target
from mule_lib.teacher_cache import build_cache
from mule_lib.trainer import MultiObjectiveTrainer
from mule_lib.training_callbacks import AutoLearningRate, Progress
from mule_lib.training_data import Example, draw_balanced, encode, group_of
from mule_lib.training_identity import claim, identity_of


@dataclass(frozen=True)
class Trained:
    """The model, in evaluation mode, and how it came about.

    `log` holds one entry per logged step; `obedience` the teacher's rates by objective and role; `targets` what the
    teacher said; `groups` how many records of each group stand in a step's batch.
    """

    model: Any
    method: Method
    settings: Settings
    log: list[dict] = field(default_factory=list)
    obedience: list[dict] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0


def train(
    model,
    tokenizer,
    records: Sequence[Record],
    method: str | Method,
    *,
    topic: str = "",
    settings: Settings | None = None,
    teacher_model=None,
    teacher_tokenizer=None,
    out_dir: Path | str | None = None,
    prompt_name: str = "fable",
    said: Sequence[Target] | None = None,
    **options: Any,
) -> Trained:
    """Unlearn `topic` with one row of `methods.METHODS`, some of its options changed, and return the trained model.

    The model is changed in place (with LoRA, wrapped). The teacher is the model as it comes in, adapter off, unless
    another is given; `said`, from `targets.teacher_targets`, spares asking it again. With `out_dir`, the teacher's
    targets are written there, checkpoints every `settings.save_every` steps, and the same call goes on from the newest
    one. Rows that train nothing return the model untouched.
    Raises ValueError in one line, before any training, for a method, option, group of records, K, precision or
    tokenizer that does not fit; DivergedError when a loss is not finite.
    """
    settings, begun = settings or Settings(), time.monotonic()
    row = methods.with_options(method, options)
    if not row.terms:
        return Trained(model, row, settings)
    row = _checked(model, tokenizer, records, row, topic, teacher_model, teacher_tokenizer)
    wanted: dict[str, set[str]] = {}
    for term in row.terms:
        for group in term.groups:
            wanted.setdefault(group, set()).update(term.continuations)
    used = [record for record in records if group_of(record) in wanted]
    if said is not None:
        said = targets.of(used, said) if "teacher" in row.options else []
    sizes = {group: sum(group_of(record) == group for record in used) for group in wanted}
    with nullcontext(str(out_dir)) if out_dir else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments, draws = training_arguments(
            settings, folder, groups=len(wanted), largest=max(sizes.values()), rates=row.learning_rate
        )
        identity = identity_of(model, teacher_model, used, row, settings, topic, prompt_name)
        checkpoint = claim(folder, identity) if out_dir else None
        set_seed(settings.seed)
        model.unlearned_by = row.label  # from here on its own weights change, also if the run is interrupted
        model = _trainable(model.to(arguments.device), row, settings)
        source = model if teacher_model is None else teacher_model.to(arguments.device)
        if said is None:
            said = _said(
                source, tokenizer, used, row, topic, settings, prompt_name, folder / "targets.jsonl", checkpoint
            )
        rates = targets.obedience(said)
        targets.warn_if_disobedient(rates, settings.min_obedience)
        examples = encode(
            tokenizer,
            used,
            {group: sorted(names) for group, names in wanted.items()},
            targets=said,
            positions=row.options["positions"],
            max_answer_tokens=row.options["max_answer_tokens"],
        )
        trainer = MultiObjectiveTrainer(
            model,
            arguments,
            draw_balanced(examples, draws, anchors=row.options["anchors"], seed=settings.seed),
            row,
            cache=_cache(source, examples, row, settings, copy_head=source is model and not settings.lora_rank),
            pad_id=tokenizer.pad_token_id or 0,
        )
        _run(trainer, checkpoint)
    per_group = draws // arguments.max_steps
    return Trained(
        _finished(trainer),
        row,
        settings,
        [entry for entry in trainer.state.log_history if "loss" in entry],
        rates,
        said,
        dict.fromkeys(sorted(wanted), per_group),
        trainer.state.global_step,
        time.monotonic() - begun,
    )


def _checked(model, tokenizer, records, row: Method, topic: str, teacher, teacher_tokenizer) -> Method:
    """The row with its groups resolved, after everything that can be wrong with the input was looked at."""
    check([replace(record, anchor=None) for record in records])  # partners may have been left out on purpose
    row = methods.on_groups(row, {group_of(record) for record in records})
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if "top_k" in row.options:
        check_top_k(row.options["top_k"], vocabulary)
    if "teacher" in row.options:
        if not topic:
            raise ValueError("topic: empty; the teacher's intention needs the name of what is to be forgotten")
        if row.options["teacher"] == "none":
            raise ValueError("teacher: 'none' would teach the student itself; use 'oracle' or 'ensemble'")
        if row.options["answers"] not in targets.ANSWERS:
            raise ValueError(f"answers: {row.options['answers']!r}; use one of {', '.join(targets.ANSWERS)}")
        steering(row.options["teacher"], topic, cot=row.options["cot"])
    if teacher_tokenizer is not None and teacher_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError("teacher: its tokenizer is not the student's; logits are compared token by token")
    if teacher is not None and teacher.get_output_embeddings().weight.shape[0] != vocabulary:
        size = teacher.get_output_embeddings().weight.shape[0]
        raise ValueError(f"teacher: {size} logits, the student has {vocabulary}; both need the same tokenizer")
    before = getattr(model, "unlearned_by", None)
    if before and teacher is None and not isinstance(model, PeftModel):
        raise MethodError(
            f"model: already trained by {before!r} and would teach itself; load it anew or give teacher_model"
        )
    return row


def _trainable(model, row: Method, settings: Settings):
    """The model with a fresh adapter where LoRA is asked for, and only what the row trains left trainable."""
    if settings.lora_rank and not isinstance(model, PeftModel):
        model = get_peft_model(
            model,
            LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
                target_modules="all-linear",
                bias="none",
                task_type="CAUSAL_LM",
            ),
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise MethodError(f"{row.label} finds no parameter to train in {type(model).__name__}")
    if any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in trained):
        warnings.warn(
            f"trained weights are {trained[0].dtype}, which rounds small updates away; load the model in float32 with "
            "precision='bf16', or use LoRA",
            stacklevel=3,
        )
    return model


def _said(source, tokenizer, records, row: Method, topic, settings: Settings, prompt_name, file: Path, checkpoint):
    """The teacher's targets, written beside the checkpoints so that a resumed run takes the very same."""
    if "teacher" not in row.options:
        return []
    if checkpoint and file.exists():
        return targets.read(file)
    said = targets.teacher_targets(
        source,
        tokenizer,
        records,
        steering(row.options["teacher"], topic, cot=row.options["cot"], name=prompt_name),
        answers=row.options["answers"],
        max_answer_tokens=row.options["max_answer_tokens"],
        max_thought_tokens=settings.max_thought_tokens,
        batch_size=settings.teacher_batch_size,
    )
    targets.write(file, said)
    return said


def _cache(source, examples: Sequence[Example], row: Method, settings: Settings, *, copy_head: bool):
    needed = {
        (group, name) for term in row.terms if term.frozen for group in term.groups for name in term.continuations
    }
    sequences = {
        (example.id, name): example.frozen_sequence(name)
        for example in examples
        for name in example.continuations
        if (example.group, name) in needed
    }
    if not sequences:
        return None
    return build_cache(
        source,
        sequences,
        top_k=row.options.get("top_k", 0),
        copy_head=copy_head,
        batch_size=settings.teacher_batch_size,
    )


def _run(trainer: MultiObjectiveTrainer, checkpoint: str | None) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress(trainer.method.label))
    every = trainer.method.options.get("auto_learning_rate_every", 0)
    if every:
        trainer.add_callback(AutoLearningRate(trainer, every))
    trainer.try_losses()
    trainer.train(resume_from_checkpoint=checkpoint)


def _finished(trainer: MultiObjectiveTrainer):
    """The model without what training put around it, ready to generate."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    trainer.accelerator.free_memory()
    for parameter in model.parameters():
        parameter.grad = None
    if trainer.args.activation_checkpointing:
        model.activation_checkpointing_disable()
    model.config.use_cache = True
    return model.eval()
