"""What the paper does not measure: relearning, in-context re-teaching, quantized weights.

Each asks whether knowledge is gone or only hidden. The model that was given is never changed; attacks that change
weights work on a copy.
"""

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from mule_lib import losses, prompts
from mule_lib.data import Benchmark
from mule_lib.data.items import SETS, EvaluationSets
from mule_lib.data.records import Record
from mule_lib.evaluate.row import evaluate_row
from mule_lib.models.head import padded
from mule_lib.params import FABLE
from mule_lib.prompts import Steering

RELEARNED, STEPS = 8, (0, 1, 2, 4, 8, 16)  # facts that are trained again, and the steps at which Forget is measured
# At ten times Fable's rate the embedded model learns the few facts by heart and loses the others, also where nothing
# was unlearned; a large model whose own weights are trained takes what one would fine-tune it with.
RATE, LARGE_RATE = 1e-4, 1e-5
RECOVERED = 50.0  # points of Forget at which relearning has brought the facts back: half of perfect recall
ANSWER_TOKENS = 64  # of a fact that is relearned, at most
QUANTIZED = {8: None, 4: 64}  # by bits: neighbouring inputs that share a step, None for a whole row
QUANTIZED_SETS = ("forget", "general", "neighbor", "attack")


def attack_and_degrade(model, tokenizer, benchmark: Benchmark, steering: Steering, **sizes: Any) -> dict[str, Any]:
    """Attack a row, steered as it is evaluated, in all three ways; the result is plain JSON.

    Keys: `relearning` with `curve` (Forget at each step), `steps_to_recover` (None: never) and `target` in points;
    `reteaching` with `same` and `disjoint`; `quantization` with `int8` and `int4`. Every measurement holds `metrics`
    (points), `n` and `values` (0 to 1, item by item) by metric. `sizes` go to `evaluate_row`.
    Raises ValueError before anything is measured for records that do not suffice.
    """
    sets, records = benchmark.sets, benchmark.records
    facts = relearned_facts(records, sets, RELEARNED)
    taught = {kind: taught_again(sets, kind, records) for kind in ("same", "disjoint")}

    def measure(attacked, wanted: EvaluationSets) -> dict[str, Any]:
        found = evaluate_row(attacked, tokenizer, wanted, steering, partial=True, **sizes)
        counted = {metric: len(each) for metric, each in found.values.items()}
        return {"metrics": found.metrics, "n": counted, "values": found.values}

    rate = RATE if benchmark.name in FABLE or isinstance(model, PeftModel) else LARGE_RATE
    return {
        "relearning": relearn(
            model, tokenizer, facts, lambda attacked: measure(attacked, only(sets, ("forget",))), learning_rate=rate
        ),
        "reteaching": {kind: measure(model, questions) for kind, questions in taught.items()},
        # One copy at a time.
        "quantization": {f"int{b}": measure(quantized(model, b), only(sets, QUANTIZED_SETS)) for b in QUANTIZED},
    }


def only(sets: EvaluationSets, names: Sequence[str]) -> EvaluationSets:
    """The same sets with all but the named ones empty."""
    return replace(sets, **{name: () for name in SETS if name not in names})


def plain_copy(model):
    """A copy in evaluation mode without gradients; a PEFT adapter is merged into its weights.

    A merged model is what its owner would release, and what a quantizer or an attacker with the weights then gets.
    """
    copied = copy.deepcopy(model)
    if isinstance(copied, PeftModel):
        copied = copied.merge_and_unload()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return copied.eval()


def relearned_facts(records: Sequence[Record], sets: EvaluationSets, count: int, key: str = "0") -> list[Record]:
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
        raise ValueError(f"relearning takes {count} training facts to forget outside the evaluation, {len(free)} found")
    return random.Random(f"relearning/{key}").sample(free, count)


def relearn(
    model, tokenizer, facts: Sequence[Record], measure: Callable[[Any], dict], *, learning_rate: float
) -> dict[str, Any]:
    """Train a copy on a few facts' answers and measure it after each of `STEPS` (0: before the first).

    Unlearning that only hides knowledge gives the other facts back after a few steps; a model that never knew them has
    nothing to give back, so read this beside the gold reference. Each step is AdamW on all facts at once,
    cross-entropy of the answer after the bare question, without dropout; a fresh adapter of the same rank trains where
    the model has one, else all weights, in float32.
    Raises RuntimeError where the loss is not finite. Source: Hu 2024 (arXiv 2406.13356).
    """
    attacked = plain_copy(model)
    device = next(attacked.parameters()).device
    if isinstance(model, PeftModel):
        rank = model.peft_config[model.active_adapter].r
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
            attacked = get_peft_model(attacked, lora).eval()
    else:
        # Updates of this size would be rounded away in half precision.
        attacked = attacked.float().requires_grad_(True)
    turns = [prompts.render(tokenizer, fact.question, answer=fact.answer) for fact in facts]
    rows = [(t.input_ids[: t.answer_start], t.input_ids[t.answer_start :][:ANSWER_TOKENS]) for t in turns]
    batch = {name: tensor.to(device) for name, tensor in padded(rows, pad_id=tokenizer.pad_token_id or 0).items()}
    labels, trained = batch.pop("labels"), [weight for weight in attacked.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, learning_rate, weight_decay=0)
    curve, lost = [], []
    for step in range(max(STEPS) + 1):
        if step:
            loss = losses.cross_entropy(attacked(**batch, use_cache=False).logits, labels)
            lost.append(float(loss.detach()))
            if not math.isfinite(lost[-1]):
                raise RuntimeError(f"relearning: the loss is {lost[-1]} at step {step}; a smaller rate may help")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        if step in STEPS:
            curve.append({"step": step, **measure(attacked)})
    back = next((point["step"] for point in curve if point["metrics"]["forget"] >= RECOVERED), None)
    return {"curve": curve, "loss": lost, "target": RECOVERED, "steps_to_recover": back}


def taught_again(sets: EvaluationSets, kind: str, records: Sequence[Record]) -> EvaluationSets:
    """Sets that hold the Forget questions only, each behind one stated fact (question and answer).

    `same`: the item's own fact; a model may read it off, so a high value says that the model still reads, not that it
    still knows. `disjoint`: a fact to be forgotten from training, drawn anew for each item; whatever comes out was
    known. Source: Shumailov 2024, "UnUnlearning".
    """
    items = []
    for item in sets.forget:
        asked, answer = item.question, f"{item.reference}."
        if kind == "disjoint":
            [fact] = relearned_facts(records, sets, 1, key=f"reteaching/0/{item.id}")
            asked, answer = fact.question, f"{fact.answer.strip().removesuffix('.')}."
        items.append(replace(item, question=f"{asked} {answer} {item.question}"))
    return replace(only(sets, ()), forget=tuple(items))


def rounded(weight: Tensor, *, bits: int, group: int | None = None) -> Tensor:
    """Quantize and dequantize a weight [out, in], symmetric and to nearest, in its own dtype; float32 arithmetic.

    Each group of weights w has the step s = max|w| / (2^(bits - 1) - 1) and becomes s round(w / s). A group is `group`
    neighbouring inputs (the last one may be shorter), None a whole row.
    `torch.fake_quantize_per_channel_affine` multiplies by 1 / s instead and rounds ties of bfloat16 weights otherwise.
    """
    width = group or weight.shape[1]
    groups = pad(weight.float(), (0, -weight.shape[1] % width)).reshape(-1, width)
    step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    step = torch.where(step > 0, step, 1.0)  # a group of zeros stays zero
    new = step * (groups / step).round()
    return new.reshape(len(weight), -1)[:, : weight.shape[1]].to(weight.dtype)


@torch.no_grad()
def quantized(model, bits: int) -> nn.Module:
    """A copy of a model with the weights of its linear layers `rounded`, in groups as `QUANTIZED` has them.

    Embeddings, norms, biases and the output head keep their precision, as usual for weight-only quantization; a PEFT
    adapter is merged first. Unlearning that moves weights by less than half a step is undone by this (Zhang 2025,
    "Catastrophic failure of LLM unlearning via quantization").
    """
    copied = plain_copy(model)
    for module in copied.modules():
        if module is not copied.get_output_embeddings() and isinstance(module, nn.Linear | Conv1D):
            weight = module.weight.T if isinstance(module, Conv1D) else module.weight  # GPT-2 keeps [in, out]
            weight.copy_(rounded(weight, bits=bits, group=QUANTIZED[bits]))
    return copied
