"""What a run will need before anything is loaded: memory and hours, estimated from a model's config.json alone.

Parameter, gradient and optimizer bytes are exact; activations follow coefficients that were measured on the Llama block
of transformers 5.23 (`tests/test_memory.py` measures them again); hours rest on an assumed throughput, and say so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30
# Bytes kept for the backward pass per token and layer, as multiples of hidden, intermediate and key-value width.
ACTIVATION_BYTES = {
    ("fp32", False): (32.5, 16.0, 8.0),
    ("fp32", True): (33.5, 16.5, 8.5),
    ("bf16", False): (32.5, 11.0, 6.0),  # weights in float32, products in bfloat16
    ("bf16", True): (25.8, 8.3, 4.2),  # weights in bfloat16, adapters in float32
}
LOGIT_BYTES = 20  # bfloat16 logits, their float32 copy, and gradients of both
OVERHEAD = 1.1  # fragmentation
CONTEXT = 0.8 * GIB  # what CUDA and its libraries take


class NotEnoughMemoryError(RuntimeError):
    """The device has less memory than the run needs; one line with the parts and what would help."""


@dataclass(frozen=True)
class Shape:
    """Widths and counts of a causal LM; `linear` sums inputs and outputs over all linear layers but the head."""

    parameters: int
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    key_value: int
    linear: int


@dataclass(frozen=True)
class Work:
    """How a run uses its model: `sequences` of `tokens` each in a micro-batch, `answer_tokens` of them supervised.

    `held_gradients` counts whole gradients that a rule keeps beside the usual one; `records` are what the frozen
    model's hidden states are kept for. Defaults of lengths are guesses for MUSE-Books, in Llama's tokens.
    """

    trains: bool = True
    precision: str = "bf16"
    lora_rank: int = 0
    checkpointing: bool = False
    held_gradients: int = 0
    sequences: int = 6
    tokens: int = 128
    answer_tokens: int = 24
    records: int = 3000
    steps: int = 0
    batch_size: int = 18
    evaluation_batch: int = 64
    evaluation_items: int = 1000
    evaluation_tokens: int = 320


@dataclass(frozen=True)
class Estimate:
    """Bytes by part and their sum, which is the larger of training and evaluation with `OVERHEAD` and `CONTEXT`."""

    parts: dict[str, float]
    total: float

    def line(self) -> str:
        """One line in GiB, the largest parts first."""
        parts = sorted(self.parts.items(), key=lambda part: -part[1])
        return (
            f"{self.total / GIB:.1f} GiB (" + ", ".join(f"{n} {v / GIB:.1f}" for n, v in parts if v > 0.05 * GIB) + ")"
        )


def config_of(name: str, revision: str = "") -> Any:
    """The configuration of a folder or hub id; of a hub model only config.json is fetched.

    Raises RuntimeError in one line, with page and command, for a model that is gated, unknown or out of reach.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, revision=revision or None)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        page = f"https://huggingface.co/{name}"
        gated = "gated" in why.lower() or "401" in why or "403" in why
        hint = f"gated; accept its terms at {page}, then `hf auth login`" if gated else f"{why[:160]}; see {page}"
        at = f" --revision {revision}" if revision else ""
        command = f"hf download {name}{at} --local-dir models/{name.rsplit('/', 1)[-1]}"
        raise RuntimeError(f"{name}: {hint}; or `{command}` and give that folder") from None


def shape_of(config: Any) -> Shape:
    """Counts of a configuration, exact for any architecture: the model is built without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        layers=config.num_hidden_layers,
        key_value=heads * width,
        linear=sum(layer.in_features + layer.out_features for layer in linear),
    )


def trained_parameters(shape: Shape, work: Work) -> int:
    """How many numbers the optimizer changes: rank times inputs and outputs of each linear layer, or all."""
    return work.lora_rank * shape.linear if work.lora_rank else shape.parameters


def estimate(shape: Shape, work: Work) -> Estimate:
    """Peak memory in bytes of a run with AdamW and the frozen side kept as hidden states (`teacher_cache`)."""
    half = work.precision == "bf16" and (work.lora_rank > 0 or not work.trains)
    each = 2 if half else 4
    cached = work.evaluation_tokens * shape.layers * 2 * shape.key_value * (2 if work.precision == "bf16" else 4)
    weights = {"weights": shape.parameters * each}
    evaluation = weights | {"evaluation": work.evaluation_batch * (cached + 8 * shape.vocabulary)}
    if not work.trains:
        return _of(evaluation)
    trained = trained_parameters(shape, work)
    training = {
        "weights": shape.parameters * each + (trained * 4 if work.lora_rank else 0),
        "gradients": trained * 4 * (1 + work.held_gradients),
        "optimizer": trained * 8,
        "activations": activation_bytes(shape, work),
        "logits": work.sequences * work.answer_tokens * shape.vocabulary * LOGIT_BYTES,
        "frozen side": work.records * work.answer_tokens * shape.hidden * each
        + (0 if work.lora_rank else shape.vocabulary * shape.hidden * 4),
    }
    if work.precision == "bf16" and not half:
        training["bfloat16 copies"] = shape.parameters * 2  # autocast keeps them until the backward pass is over
    # The optimizer's state is still there while the trained model is evaluated.
    after = training | {"activations": 0, "logits": 0, "bfloat16 copies": 0, "evaluation": evaluation["evaluation"]}
    return max(_of(training), _of(after), key=lambda found: found.total)


def activation_bytes(shape: Shape, work: Work) -> float:
    """Bytes kept for the backward pass of one micro-batch, the head left out (it sees answer tokens only)."""
    hidden, intermediate, key_value = ACTIVATION_BYTES[work.precision, work.lora_rank > 0]
    block = hidden * shape.hidden + intermediate * shape.intermediate + key_value * shape.key_value
    block += 28 * work.lora_rank
    tokens = work.sequences * work.tokens
    if work.checkpointing:
        kept = shape.hidden * (2 if work.lora_rank and work.precision == "bf16" else 4)
        return tokens * (shape.layers * kept + block)
    return tokens * shape.layers * block


def check_fits(found: Estimate, available: float, *, device: str = "the device") -> None:
    """Raise NotEnoughMemoryError where the estimate is larger than what is available, in bytes."""
    if found.total > available:
        raise NotEnoughMemoryError(
            f"model: about {found.line()} are needed, {device} has {available / GIB:.1f} GiB free (estimated); set "
            "activation_checkpointing: true, a larger accumulation, a smaller batch_size, or lora_rank: 16 with "
            "precision: bf16"
        )


@dataclass(frozen=True)
class Hours:
    """GPU hours by part, estimated: `tflops` is what the device is assumed to reach, `bandwidth` in GB/s."""

    parts: dict[str, float]
    tflops: float
    bandwidth: float

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())

    def line(self) -> str:
        """One line that says what was assumed."""
        parts = ", ".join(f"{name} {hours:.2f}" for name, hours in self.parts.items() if hours >= 0.005)
        return (
            f"about {self.total:.2f} GPU hours ({parts or 'next to nothing'}); estimated, not measured: "
            f"{self.tflops:.0f} TFLOP/s and {self.bandwidth:.0f} GB/s assumed"
        )


def hours(shape: Shape, work: Work, *, teacher: bool = True, tflops: float = 100.0, bandwidth: float = 1000.0) -> Hours:
    """Expected GPU hours of a run: 6 (LoRA: 4) operations per parameter and trained token, 2 more with checkpointing.

    Generation reads all weights once per token of a batch, which takes longer than its arithmetic.
    """
    each = 2 if work.precision == "bf16" else 4
    per_second = tflops * 1e12
    generated = math.ceil(work.evaluation_items / work.evaluation_batch) * 64
    parts = {
        "evaluation": 2 * shape.parameters * work.evaluation_items * work.evaluation_tokens / per_second
        + generated * shape.parameters * each / (bandwidth * 1e9)
    }
    if work.trains:
        factor = (4 if work.lora_rank else 6) + (2 if work.checkpointing else 0)
        tokens = steps_of(work) * work.batch_size * work.tokens
        parts["training"] = factor * shape.parameters * tokens / per_second
        if teacher:
            asked = 2 * shape.parameters * work.records * 2 * work.evaluation_tokens / per_second
            written = math.ceil(work.records / 64) * 112 * shape.parameters * each / (bandwidth * 1e9)
            parts["teacher"] = asked + written
    return Hours({name: value / 3600 for name, value in parts.items()}, tflops, bandwidth)


def steps_of(work: Work) -> int:
    """The optimizer steps: those asked for, or five passes over the data."""
    return work.steps or max(1, math.ceil(5 * work.records / work.batch_size))


def _of(parts: Mapping[str, float]) -> Estimate:
    return Estimate(dict(parts), sum(parts.values()) * OVERHEAD + CONTEXT)
