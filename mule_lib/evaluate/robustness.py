"""What the paper does not measure: relearning, in-context re-teaching, quantized weights, held-out prefix families.

Each asks whether knowledge is gone or only hidden. The model that was given is never changed; attacks that change
weights work on a copy.
"""

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from mule_lib import losses, prompts
from mule_lib.data import Benchmark, load_benchmark
from mule_lib.data.attacks import HELD_OUT_FAMILIES, family_turns, in_turn
from mule_lib.data.items import SETS, EvaluationSets
from mule_lib.data.records import Record
from mule_lib.evaluate.row import Evaluation, evaluate_row, points_of, values_of
from mule_lib.models.head import padded
from mule_lib.params import FABLE, Training
from mule_lib.prompts import Steering

QUANTIZED_SETS = ("forget", "general", "neighbor", "attack")
RECOVERED = 50.0  # points of Forget at which relearning has brought the facts back: half of perfect recall
ANSWER_TOKENS = 64  # of a fact that is relearned, at most
Count = Annotated[int, Field(ge=1, strict=True)]


class RobustnessSettings(BaseModel):
    """How the attacks run; defaults are for Fable.

    `relearn_lora_rank` 0 trains all weights, a rank a fresh adapter, None as the model given was trained. At ten times
    `relearn_learning_rate` the embedded model learns the few facts by heart and loses the others, also where nothing
    was unlearned; for a large model take what one would fine-tune it with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    relearn_items: Count = 8
    relearn_at: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2, 4, 8, 16), min_length=1)
    relearn_learning_rate: float = Field(1e-4, gt=0)
    relearn_lora_rank: int | None = Field(None, ge=0)
    reteach_facts: Count = 1
    quantized_bits: tuple[Literal[8, 4], ...] = (8, 4)
    group_size: Count = 64
    batch_size: Count = 128
    max_new_tokens: Count = 24
    max_thought_tokens: Count = 48
    choice_style: Literal[prompts.CHOICE_STYLES] = "texts"
    seed: int = 0


def attack_and_degrade(
    model,
    tokenizer,
    sets: EvaluationSets,
    steering: Steering,
    *,
    records: Sequence[Record],
    settings: RobustnessSettings | None = None,
    held_out: EvaluationSets | None = None,
) -> dict[str, Any]:
    """Attack a row, steered as it is evaluated, in all four ways; the result is plain JSON.

    Keys: `settings`; `relearning` with `curve` (Forget at each step), `steps_to_recover` (None: never) and `target` in
    points; `reteaching` with `same` and `disjoint`; `quantization` with `int8` and `int4`; `held_out_prefixes`, the
    attacks and controls of `held_out`, or of the library's held-out families (`skipped` where the sets use them all).
    Every measurement holds `metrics` (points), `n` and `values` (0 to 1, item by item) by metric, and `details`.
    Raises ValueError before anything is measured for records or sets that do not suffice.
    """
    s = settings or RobustnessSettings()
    facts = relearned_facts(records, sets, count=s.relearn_items, seed=s.seed)
    taught = {kind: taught_again(sets, kind, records=records, settings=s) for kind in ("same", "disjoint")}
    unseen = held_out or held_out_attacks(sets)

    def measure(attacked, wanted: EvaluationSets) -> dict[str, Any]:
        asked = s.model_dump(include={"batch_size", "max_new_tokens", "max_thought_tokens", "choice_style"})
        return as_json(evaluate_row(attacked, tokenizer, wanted, steering, partial=True, **asked))

    forget = only(sets, ("forget",))
    relearning = relearn(model, tokenizer, facts, lambda attacked: measure(attacked, forget), s)
    reteaching = {kind: measure(model, questions) for kind, questions in taught.items()}
    quantization = {}
    for bits in s.quantized_bits:
        rounded_copy, report = quantized(model, bits=bits, group_size=s.group_size)
        quantization[f"int{bits}"] = {**report, **measure(rounded_copy, only(sets, QUANTIZED_SETS))}
        del rounded_copy  # at most one copy at a time
    skipped = {"skipped": "the attacks of the evaluation sets use every held-out prefix family"}
    return {
        "settings": s.model_dump(mode="json"),
        "relearning": relearning,
        "reteaching": {"facts": s.reteach_facts, **reteaching},
        "quantization": quantization,
        "held_out_prefixes": measure(model, only(unseen, ("attack", "controls"))) if unseen else skipped,
    }


def of_run(p: Training, model, tokenizer, benchmark: Benchmark, steering: Steering) -> dict[str, Any]:
    """The four attacks on the model that notebook 04 has trained.

    Fable has held-out prefix families of its own; on other benchmarks the library's are put before the same questions.
    Other models than Fable's are relearnt with a rate that suits a large one.
    """
    large = p.benchmark not in FABLE and not p.lora_rank
    settings = RobustnessSettings(
        relearn_learning_rate=1e-5 if large else 1e-4,
        **p.model_dump(include={"batch_size", "max_new_tokens", "max_thought_tokens", "choice_style"}),
    )
    held_out = load_benchmark(p.benchmark, prefixes="held_out").sets if p.benchmark in FABLE else None
    sets, records = benchmark.sets, benchmark.records
    return attack_and_degrade(model, tokenizer, sets, steering, records=records, settings=settings, held_out=held_out)


def only(sets: EvaluationSets, names: Sequence[str]) -> EvaluationSets:
    """The same sets with all but the named ones empty."""
    return replace(sets, **{name: () for name in SETS if name not in names})


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """A measurement as plain JSON; benign controls count as a metric, the share that is answered as it should."""
    metrics, values, details = dict(evaluation.metrics), dict(evaluation.values), evaluation.details
    if "controls" in details:
        metrics["controls"] = points_of(details["controls"], "controls")
        values["controls"] = values_of(details["controls"], "controls")
    dropped = ("items", "letters", "settings", "by_subject")
    rates = {name: {k: v for k, v in detail.items() if k not in dropped} for name, detail in details.items()}
    return {"metrics": metrics, "n": {m: len(v) for m, v in values.items()}, "values": values, "details": rates}


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


def relearned_facts(
    records: Sequence[Record], sets: EvaluationSets, *, count: int, seed: int | str = 0
) -> list[Record]:
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
    model, tokenizer, facts: Sequence[Record], measure: Callable[[Any], dict], s: RobustnessSettings
) -> dict[str, Any]:
    """Train a copy on a few facts' answers and measure it after the steps `relearn_at` (0: before the first).

    Unlearning that only hides knowledge gives the other facts back after a few steps; a model that never knew them has
    nothing to give back, so read this beside the gold reference. Each step is AdamW on all facts at once,
    cross-entropy of the answer after the bare question; all weights train in float32.
    Raises RuntimeError where the loss is not finite. Source: Hu 2024 (arXiv 2406.13356).
    """
    rank = s.relearn_lora_rank
    if rank is None:
        rank = model.peft_config[model.active_adapter].r if isinstance(model, PeftModel) else 0
    attacked = plain_copy(model)
    device = next(attacked.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(s.seed)
        if rank:
            lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
            attacked = get_peft_model(attacked, lora)
        else:
            # Updates of this size would be rounded away in half precision.
            attacked = attacked.float().requires_grad_(True)
    turns = [prompts.render(tokenizer, fact.question, answer=fact.answer) for fact in facts]
    rows = [(t.input_ids[: t.answer_start], t.input_ids[t.answer_start :][:ANSWER_TOKENS]) for t in turns]
    batch = {name: tensor.to(device) for name, tensor in padded(rows, pad_id=tokenizer.pad_token_id or 0).items()}
    trained = [parameter for parameter in attacked.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, s.relearn_learning_rate, weight_decay=0)
    curve, lost = [], []
    for step in range(max(s.relearn_at) + 1):
        if step:
            lost.append(_step(attacked, optimizer, batch, step))
        if step in s.relearn_at:
            curve.append({"step": step, **measure(attacked)})
    return {
        "curve": curve,
        "loss": lost,
        "trained": f"LoRA of rank {rank}" if rank else "all weights",
        "facts": [fact.id for fact in facts],
        "target": RECOVERED,
        "steps_to_recover": next((p["step"] for p in curve if p["metrics"]["forget"] >= RECOVERED), None),
    }


def _step(model, optimizer, batch: Mapping[str, Tensor], step: int) -> float:
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


def taught_again(
    sets: EvaluationSets, kind: str, *, records: Sequence[Record] = (), settings: RobustnessSettings
) -> EvaluationSets:
    """Sets that hold the Forget questions only, each behind `reteach_facts` stated facts (question and answer).

    `same`: the item's own fact among others of the Forget set, in random order; a model may read it off, so a high
    value says that the model still reads, not that it still knows. `disjoint`: facts to be forgotten from training,
    drawn anew for each item; whatever comes out was known. The same seed gives the same questions.
    Raises ValueError for fewer facts than asked for. Source: Shumailov 2024, "UnUnlearning".
    """
    count, items = settings.reteach_facts, []
    for item in sets.forget:
        key = f"reteaching/{settings.seed}/{item.id}"
        if kind == "disjoint":
            shown = [(r.question, r.answer) for r in relearned_facts(records, sets, count=count, seed=key)]
        else:
            rng = random.Random(key)
            others = [other for other in sets.forget if other.id != item.id and other.reference != item.reference]
            if len(others) < count - 1:
                raise ValueError(f"reteach_facts is {count}, but the Forget set has {len(others)} other facts to show")
            shown = [(each.question, f"{each.reference}.") for each in [item, *rng.sample(others, count - 1)]]
            rng.shuffle(shown)
        shown = [(question, answer.strip()) for question, answer in shown]
        stated = " ".join(f"{question} {answer}{'' if answer[-1:] in '.!?' else '.'}" for question, answer in shown)
        items.append(replace(item, question=f"{stated} {item.question}"))
    return replace(only(sets, ()), forget=tuple(items))


def rounded(weight: Tensor, *, bits: int, group_size: int = 64) -> Tensor:
    """Quantize and dequantize a weight [out, in], symmetric and to nearest, in its own dtype; float32 arithmetic.

    Each group of weights w has the step s = max|w| / (2^(bits - 1) - 1) and becomes s round(w / s). A group is a whole
    row for 8 bits and `group_size` neighbouring inputs for 4 bits (the last group may be shorter).
    `torch.fake_quantize_per_channel_affine` multiplies by 1 / s instead and rounds ties of bfloat16 weights otherwise.
    """
    width = weight.shape[1] if bits == 8 else group_size
    groups = pad(weight.float(), (0, -weight.shape[1] % width)).reshape(-1, width)
    step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    step = torch.where(step > 0, step, 1.0)  # a group of zeros stays zero
    new = step * (groups / step).round()
    return new.reshape(len(weight), -1)[:, : weight.shape[1]].to(weight.dtype)


@torch.no_grad()
def quantized(model, *, bits: int, group_size: int = 64) -> tuple[nn.Module, dict[str, int]]:
    """A copy of a model with the weights of its linear layers `rounded`, and the counts of what was done.

    Embeddings, norms, biases and the output head keep their precision, as usual for weight-only quantization; a PEFT
    adapter is merged first. Unlearning that moves weights by less than half a step is undone by this (Zhang 2025,
    "Catastrophic failure of LLM unlearning via quantization"). `group_size` of the report is 0 for a whole row.
    """
    copied = plain_copy(model)
    head, count = copied.get_output_embeddings(), 0
    for module in copied.modules():
        if module is not head and isinstance(module, nn.Linear | Conv1D):
            weight = module.weight.T if isinstance(module, Conv1D) else module.weight  # GPT-2 keeps [in, out]
            weight.copy_(rounded(weight, bits=bits, group_size=group_size))
            count += weight.numel()
    total = sum(parameter.numel() for parameter in copied.parameters())
    return copied, {"bits": bits, "group_size": group_size if bits == 4 else 0, "weights": count, "of": total}


def held_out_attacks(sets: EvaluationSets) -> EvaluationSets | None:
    """The attacks and controls of a benchmark again, with prefixes of held-out families that they do not use.

    None where they use all of them (`HELD_OUT_FAMILIES`).
    """
    used = {item.family for item in (*sets.attack, *sets.controls)}
    families = [name for name in HELD_OUT_FAMILIES if name not in used]
    if not families:
        return None
    attack = in_turn(sets.attack, family_turns(families), topic=sets.topic)
    controls = in_turn(sets.controls, family_turns(families), topic=sets.topic, control=True)
    return replace(sets, attack=attack, controls=controls)
