"""Relearning attack: a few forgotten facts are trained again, and Forget is measured on the others.

Unlearning that only hides knowledge gives the other facts back after a few steps; a model that never knew them has
nothing to give back, so read this beside the gold reference. Source: Hu 2024 (arXiv 2406.13356); beyond the paper.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from mule_lib import losses, prompts
from mule_lib.copies import plain_copy
from mule_lib.data.items import EvaluationSets
from mule_lib.data.records import Record
from mule_lib.models.head import padded

Measure = Callable[[Any], dict]


def relearned_facts(records: Sequence[Record], sets: EvaluationSets, *, count: int, seed: int = 0) -> list[Record]:
    """Draw `count` facts to be forgotten from the training records, none of them asked about in the evaluation.

    Raises ValueError when there are fewer.
    """
    items = (*sets.forget, *sets.attack)
    ids, asked = {item.id for item in items}, {item.question for item in items}
    facts: dict[str, Record] = {}
    for record in records:
        if record.objective == "obj1" and record.role == "forget":
            facts.setdefault(record.source or record.id, record)
    free = [record for source, record in facts.items() if source not in ids and record.question not in asked]
    if len(free) < count:
        raise ValueError(f"relearn_items is {count}, but {len(free)} training facts to forget are outside evaluation")
    return random.Random(f"relearning/{seed}").sample(free, count)


def relearn(
    model,
    tokenizer,
    facts: Sequence[Record],
    measure: Measure,
    *,
    at: Sequence[int] = (0, 1, 2, 4, 8, 16),
    learning_rate: float = 1e-4,
    lora_rank: int | None = None,
    max_answer_tokens: int = 64,
    seed: int = 0,
) -> tuple[list[dict], list[float], str]:
    """Train a copy on the facts' answers and measure it after the steps `at` (0: before the first).

    Each step is AdamW on all facts at once, cross-entropy of the answer after the bare question. `lora_rank` 0 trains
    all weights (in float32), a rank a fresh adapter; None does as the model given was trained: an adapter of the same
    rank for a PEFT model, whose own adapter is merged, else all weights. `measure(model)` returns a dict, to which the
    step is added. Returns these, the loss of every step in nats, and what was trained.
    Raises ValueError for no facts or bad steps, RuntimeError where the loss is not finite.
    """
    steps = sorted(set(at))
    if not facts or not steps or steps[0] < 0:
        raise ValueError(
            f"{len(facts)} facts and steps {list(at)}; at least one fact and steps of 0 or more are needed"
        )
    if lora_rank is None:
        lora_rank = model.peft_config[model.active_adapter].r if isinstance(model, PeftModel) else 0
    attacked = plain_copy(model)
    with torch.random.fork_rng(devices=_cuda_devices(attacked)):
        torch.manual_seed(seed)
        attacked = _trainable(attacked, lora_rank)
    batch = _batch(attacked, tokenizer, facts, max_answer_tokens)
    optimizer = torch.optim.AdamW([p for p in attacked.parameters() if p.requires_grad], learning_rate, weight_decay=0)
    curve, lost = [], []
    for step in range(steps[-1] + 1):
        if step:
            lost.append(_step(attacked, optimizer, batch, step))
        if step in steps:
            curve.append({"step": step, **measure(attacked)})
    return curve, lost, f"LoRA of rank {lora_rank}" if lora_rank else "all weights"


def steps_to_recover(curve: Sequence[Mapping], *, share: float, base: float) -> int | None:
    """First measured step at which Forget reaches `share` of the base's (points); None where no measured step does."""
    for point in curve:
        if point["metrics"]["forget"] >= share * base:
            return point["step"]
    return None


def _trainable(model, rank: int):
    if not rank:
        # Updates of this size would be rounded away in half precision.
        return model.float().requires_grad_(True)
    return get_peft_model(
        model,
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", bias="none", task_type="CAUSAL_LM"),
    )


def _batch(model, tokenizer, facts: Sequence[Record], most: int) -> dict[str, torch.Tensor]:
    rows = []
    for fact in facts:
        prompt = prompts.render(tokenizer, fact.question, answer=fact.answer)
        rows.append((prompt.input_ids[: prompt.answer_start], prompt.input_ids[prompt.answer_start :][:most]))
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in padded(rows, pad_id=tokenizer.pad_token_id or 0).items()}


def _step(model, optimizer, batch: Mapping[str, torch.Tensor], step: int) -> float:
    # Dropout stays off (evaluation mode): the attack is the same in every run.
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    loss = losses.cross_entropy(output.logits, batch["labels"])
    if not math.isfinite(value := float(loss.detach())):
        raise RuntimeError(f"relearning: the loss is {value} at step {step}; lower relearn_learning_rate")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return value


def _cuda_devices(model) -> list[torch.device]:
    device = next(model.parameters()).device
    return [device] if device.type == "cuda" else []
