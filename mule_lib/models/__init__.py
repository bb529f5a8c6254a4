"""Load models (embedded ones by hash, others of the hub, a folder or a GGUF file), and what memory they take."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import torch
from jinja2.exceptions import TemplateError
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.pytorch_utils import Conv1D
from transformers.utils.quantization_config import GgufConfig

from mule_lib.models.generate import ask, contexts, decode, evaluating, greedy, option_log_likelihoods
from mule_lib.params import EMBEDDED, OneLineError, repository_path

__all__ = ["ask", "check_memory", "contexts", "decode", "frozen", "greedy", "load", "option_log_likelihoods"]
__all__ += ["ModelFileError", "NotEnoughMemoryError"]

FOLDER = Path(__file__).parent.parent / "embedded" / "weights"
REPAIR = "restore it with `git checkout -- mule_lib/embedded/weights`, or train it again with `make embedded`"
GIB = 2**30
TOKENS, ANSWER_TOKENS = 128, 24  # of a training sequence: guesses for MUSE-Books in Llama's tokens


class ModelFileError(OneLineError, RuntimeError):
    """A model file is missing, damaged, out of reach, or lacks what the suite needs of it."""


class NotEnoughMemoryError(OneLineError, RuntimeError):
    """The device has less memory than a run needs."""


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_embedded(which: str, folder: Path = FOLDER) -> Path:
    """Folder of an embedded model whose files all match the committed hashes.

    Raises ModelFileError with the file and the command that repairs it.
    """
    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise ModelFileError(f"{manifest} is missing; {REPAIR}")
    for name, digest in json.loads(manifest.read_text("utf-8"))["sha256"].items():
        path = folder / name
        if name.startswith(f"{which}/") and not path.exists():
            raise ModelFileError(f"{path} is missing; {REPAIR}")
        if name.startswith(f"{which}/") and sha256(path) != digest:
            raise ModelFileError(f"{path} does not match its SHA-256 in manifest.json; {REPAIR}")
    return folder / which


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer, or ModelFileError where its chat template is missing or loses messages, or no token ends turns."""
    if not tokenizer.chat_template:
        raise ModelFileError(
            f"{name}: the tokenizer has no chat template; use an instruction-tuned model; for the embedded one {REPAIR}"
        )
    if tokenizer.eos_token_id is None:
        raise ModelFileError(f"{name}: the tokenizer has no eos_token; set one in its tokenizer_config.json")
    asked, told = ({"role": role, "content": f"mule-{role}"} for role in ("user", "system"))
    for turns in ([asked], [told, asked]):
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            text = "" if len(turns) == 1 else "mule-user"  # without a system role, it opens the user's message
            why = f" ({error})"
        else:
            why = ""
        if text.count("mule-user") != 1 or text.count("mule-system") > 1:
            raise ModelFileError(f"{name}: the chat template drops or doubles a message{why}; set another one")
    return tokenizer


def config_of(name: str, revision: str = "") -> Any:
    """The configuration of a folder, GGUF file or hub id; of a hub model only config.json is fetched.

    Raises ModelFileError in one line: an architecture that is not known, a model that is gated or out of reach (with
    its page and command).
    """
    place = repository_path(name)
    try:
        return AutoConfig.from_pretrained(**_source(name), revision=revision or None)
    except (OSError, ValueError, ImportError) as error:
        why = " ".join(str(error).split())
    if place.exists():
        raise ModelFileError(f"{name}: transformers cannot read it ({why[:200]})")
    page = f"https://huggingface.co/{name}"
    gated = "gated" in why.lower() or "401" in why or "403" in why
    hint = f"gated; accept its terms at {page}, then `hf auth login`" if gated else f"{why[:160]}; see {page}"
    at = f" --revision {revision}" if revision else ""
    command = f"hf download {name}{at} --local-dir models/{name.rsplit('/', 1)[-1]}"
    raise ModelFileError(f"{name}: {hint}; or `{command}` and give that folder")


def load(
    name: str, *, revision: str = "", adapter: str = "", dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer, on the accelerator where there is one.

    `name` is `base` or `gold` (embedded), `smollm2` (packaged), a folder, a GGUF file or a hub id; `adapter` is a
    folder with a LoRA, which is merged into the weights. The dtype is always set: transformers 5 would otherwise take
    the checkpoint's (the embedded files hold bfloat16). Code that comes with a model is never run, pickled weights are
    not read.
    Raises ModelFileError for a damaged embedded model, one out of reach or of an unsupported architecture, a tokenizer
    without a chat template, an adapter of another base.
    """
    if name in EMBEDDED:
        check_embedded(name)
    source, revised = _source(name), {"revision": revision or None}
    config = config_of(name, revision)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelFileError(f"{name}: {config.model_type} is no causal language model")
    tokenizer = check_tokenizer(AutoTokenizer.from_pretrained(**source, **revised), name)
    settings = {"config": config, "dtype": dtype, **revised}
    if name in EMBEDDED:  # CPU flash attention costs about twice the plain product on short sequences
        settings["attn_implementation"] = "eager"
    # Plain weights of a packed file, or they could be neither trained nor saved.
    plain = {"quantization_config": GgufConfig(dequantize=True)}
    settings |= plain if "gguf_file" in source else {"use_safetensors": True}
    model, found = AutoModelForCausalLM.from_pretrained(**source, **settings, output_loading_info=True)
    if found["missing_keys"]:  # transformers would leave them random
        raise ModelFileError(f"{name}: lacks {min(found['missing_keys'])}; download it again")
    if adapter:
        try:
            model = PeftModel.from_pretrained(model, str(repository_path(adapter))).merge_and_unload()
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelFileError(f"adapter {adapter}: does not fit {name} ({str(error).split(chr(10))[0]})") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return model.to(device).eval(), tokenizer


@contextmanager
def frozen(model) -> Iterator[None]:
    """The base model within: adapters off, evaluation mode, no gradients; on leaving, every flag is as it was.

    Leaving `disable_adapter` alone would make adapter weights trainable that were frozen by hand.
    """
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    plain = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
    try:
        with evaluating(model), plain, torch.no_grad():
            yield
    finally:
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)


def precision(wanted: str, name: str = "", device: torch.device | None = None) -> str:
    """fp32 or bf16 as wanted; `auto` is bf16 where it is native: on a GPU, or a CPU with AVX512-BF16 or AMX.

    An embedded model takes fp32 then, for the same numbers on all machines. Warns where a CPU emulates bf16; raises
    ValueError where the accelerator has none. `device` is by default the accelerator, or the CPU.
    """
    device = device or (torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None)
    kind = device.type if device else "cpu"
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = kind == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if wanted == "auto":
        return "bf16" if native and name not in EMBEDDED else "fp32"
    if wanted == "bf16" and not native:
        if kind != "cpu":
            raise ValueError(f"precision: this {kind} device has no bfloat16; use fp32")
        warnings.warn("precision: this CPU emulates bfloat16, about 20 times slower than fp32; use auto", stacklevel=2)
    return wanted


def memory_parts(
    config: Any, *, trains: bool, precision: str, lora_rank: int, checkpointing: bool = False, gradients: int = 1,
    sequences: int = 6, batch_size: int = 64,
) -> dict[str, float]:  # fmt: skip
    """Bytes that a run with AdamW needs, by part; weights are counted exactly on a model built without memory.

    `gradients` are whole gradients held at once (a gradient rule keeps one per term), `sequences` stand in a training
    micro-batch, `batch_size` in an evaluation batch. Autograd keeps inputs and outputs of the linear layers, roughly;
    the head sees answer tokens only (`models.head`).
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    widths = sum(sum(layer.weight.shape) for layer in linear)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    each = 2 if precision == "bf16" and (lora_rank or not trains) else 4
    parts = {"weights": parameters * each, "evaluation": 8 * batch_size * config.vocab_size}
    if not trains:
        return parts
    trained = lora_rank * widths if lora_rank else parameters
    kept = (3 if each == 2 else 4) * widths / (config.num_hidden_layers if checkpointing else 1)
    kept += 4 * config.hidden_size * config.num_hidden_layers * checkpointing
    return parts | {
        "gradients": 4 * trained * gradients,
        "optimizer": 8 * trained,
        "activations": sequences * TOKENS * kept,
        # bfloat16 logits, their float32 copy, and the gradients of both.
        "logits": sequences * ANSWER_TOKENS * config.vocab_size * 20,
    }


def free_memory() -> tuple[str, float]:
    """Name of the device that a run will use, and its free bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), float(torch.cuda.mem_get_info()[0])
    return "this machine's CPU", float(psutil.virtual_memory().available)


def check_memory(name: str, *, revision: str = "", **work: Any) -> str:
    """One line of what a run will need, from config.json alone; "" for the embedded models, which fit anywhere.

    `work` goes to `memory_parts`.

    Raises NotEnoughMemoryError where the device has less, ModelFileError where the model cannot be had.
    """
    if name in EMBEDDED:
        return ""
    parts = memory_parts(config_of(name, revision), **work)
    total = 1.1 * sum(parts.values()) + 0.8 * GIB  # fragmentation; what CUDA and its libraries take
    device, free = free_memory()
    shown = ", ".join(f"{part} {size / GIB:.1f}" for part, size in sorted(parts.items(), key=lambda p: -p[1]))
    line = f"{total / GIB:.1f} GiB ({shown}), {device} has {free / GIB:.1f} GiB free (estimated)"
    if total > free:
        raise NotEnoughMemoryError(
            f"model: about {line}; set activation_checkpointing: true, a larger accumulation, a smaller batch_size, or "
            "lora_rank: 16 with precision: bf16"
        )
    return f"memory: about {line}"


def _source(name: str) -> dict[str, str]:
    """Where transformers finds a model."""
    place = FOLDER / name if name in EMBEDDED else repository_path(name)
    if place.is_file():
        return {"pretrained_model_name_or_path": str(place.parent), "gguf_file": place.name}
    return {"pretrained_model_name_or_path": str(place) if place.is_dir() else name}
