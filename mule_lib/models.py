"""Load models: the embedded ones by hash, any other causal LM of the hub or of a folder by name."""

import hashlib
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = ("base", "gold")
FOLDER = Path(__file__).parent / "embedded" / "weights"
REPAIR = "restore it with `git checkout -- mule_lib/embedded/weights`, or train it again with `make embedded`"


class ModelFileError(RuntimeError):
    """A model file is missing, damaged, or lacks what the suite needs of it."""


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_embedded(which: str, folder: Path = FOLDER) -> Path:
    """Folder of an embedded model whose files all match the committed hashes.

    Raises ModelFileError with the file and the command that repairs it.
    """
    if which not in EMBEDDED:
        raise ModelFileError(f"model={which!r}: embedded models are {', '.join(EMBEDDED)}")
    manifest = folder / "manifest.json"
    if not manifest.exists():
        raise ModelFileError(f"{manifest} is missing; {REPAIR}")
    for name, digest in json.loads(manifest.read_text("utf-8"))["sha256"].items():
        path = folder / name
        if not name.startswith(f"{which}/"):
            continue
        if not path.exists():
            raise ModelFileError(f"{path} is missing; {REPAIR}")
        if sha256(path) != digest:
            raise ModelFileError(f"{path} does not match its SHA-256 in manifest.json; {REPAIR}")
    return folder / which


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer, or ModelFileError when it has no chat template or no end-of-turn token."""
    if not tokenizer.chat_template:
        raise ModelFileError(
            f"{name}: the tokenizer has no chat template; use an instruction-tuned model; for the embedded one {REPAIR}"
        )
    if tokenizer.eos_token_id is None:
        raise ModelFileError(f"{name}: the tokenizer has no eos_token; set one in its tokenizer_config.json")
    return tokenizer


def load(
    name: str, *, dtype: torch.dtype = torch.float32, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer: `base` and `gold` are the embedded ones, anything else a hub id or a folder.

    The dtype is always set: transformers 5 would otherwise take the checkpoint's (the embedded files hold bfloat16).
    Raises ModelFileError for a damaged embedded model or a tokenizer without a chat template.
    """
    source = check_embedded(name) if name in EMBEDDED else name
    tokenizer = check_tokenizer(AutoTokenizer.from_pretrained(source, revision=revision), name)
    # CPU flash attention costs about twice the plain product on the embedded model's short sequences.
    attention = {"attn_implementation": "eager"} if name in EMBEDDED else {}
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, revision=revision, **attention)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return model.eval(), tokenizer


def embedded_hashes() -> dict[str, str]:
    """SHA-256 of the shipped weights by model, for provenance."""
    hashes = json.loads((FOLDER / "manifest.json").read_text("utf-8"))["sha256"]
    return {which: hashes[f"{which}/model.safetensors"] for which in EMBEDDED}
