"""What is refused before anything is loaded: by parameters, files, the headers of weights, and the Hub within 5 s."""

import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mule_lib.evaluate.result import METRICS_FILE, RunResult
from mule_lib.params import (
    EMBEDDED,
    DataStandardization,
    GradientCosine,
    ModelNotebook,
    MuleByHand,
    Notebook,
    ParameterError,
    ResultsNotebook,
    Training,
    method_options,
    nearest,
    repository_path,
)  # fmt: skip
from mule_lib.suite.identity import WEIGHTS, cached_config, model_hash

BASE_FILE = "base.json"  # beside a saved model: which one it was trained from, with that one's hash
HUB_SECONDS = 5.0
ROOM = 64 * 2**20  # bytes that a run without weights leaves behind, at most
# With these, every method finds what it needs.
EVERY_GROUP = {"obj1/forget", "obj1/retain", "obj2/forget", "obj2/neighbor", "obj3/adversarial", "obj3/benign"}
CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def before_run(p: Notebook) -> None:
    """Raise ParameterError in one line for all that a notebook would find out late."""
    size, out = 0, repository_path(p.out_dir)
    if getattr(p, "model", "") in EMBEDDED and (torch := sys.modules.get("torch")):
        torch.set_num_threads(1)  # with more, last digits hang on their number
    if isinstance(p, ResultsNotebook):
        if not out.is_dir():
            raise ParameterError(f"out_dir = {p.out_dir!r}: no such folder; `make reproduce` or `mule run` fills it")
        for file in sorted((out / "runs").glob(f"*/*/seed-*/{METRICS_FILE}")):
            RunResult.read(file.parent)
    if isinstance(p, MuleByHand):
        from mule_lib import data

        attacked = [record.id for record in data.load_benchmark("books").records if record.role == "adversarial"]
        if p.record not in attacked:
            raise ParameterError(f"record = {p.record!r}: no attacked record of books; {nearest(p.record, attacked)}")
    if isinstance(p, ModelNotebook):
        config, size = model_header(p.model, p.revision)
        if p.adapter:
            _check_adapter(p, config)
        _check_against(p, config)
        _check_records(p)
    check_writable("out_dir", out, room=_room(p, size))


def check_writable(name: str, folder: Path, *, room: int = ROOM) -> None:
    """Raise ParameterError unless `folder` is or can become a folder to write `room` bytes into; leaves no trace."""
    there = folder
    while not (there.exists() or there.is_symlink()):
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        raise ParameterError(f"{name} = {str(folder)!r}: cannot be written ({error.strerror} at {there})") from None
    if free < room:
        raise ParameterError(
            f"{name} = {str(folder)!r}: {free / 2**30:.1f} GiB free there, about {room / 2**30:.1f} are needed; "
            "give another folder, save_every: 0 or save_model: false"
        )


def _room(p: Notebook, size: int) -> int:
    """Bytes that a run may write: two checkpoints and a third under way (weights and two moments), the model itself."""
    if not isinstance(p, Training) or not method_options(p.method, p.options).trains:
        return ROOM
    trained = size // 10 if p.lora_rank else 2 * size  # an adapter; weights of a bfloat16 file in float32
    return ROOM + trained * (9 * bool(p.save_every) + len(p.seeds) * p.save_model)


# Models by their headers


def model_header(name: str, revision: str = "") -> tuple[dict[str, Any], int]:
    """A model's configuration ({} where it is not here yet, or a GGUF file) and the bytes of its weights (0: unknown).

    Raises ParameterError for a folder that cannot be loaded, or could run code, and a hub id that is out of reach.
    """
    place = WEIGHTS.parent / name if name in EMBEDDED else repository_path(name)
    if place.is_file():
        head = place.open("rb").read(256)
        if head[:4] != b"GGUF":
            raise ParameterError(f"model = {name!r}: no GGUF file, or a Git LFS pointer to one")
        # The first entry, as a rule: its name with a length before it, a type of four bytes, a length of eight, a text.
        if (after := head.partition(b"general.architecture")[2][4:]) and _no_gguf(kind := _text_of(after)):
            raise ParameterError(f"model = {name!r}: transformers reads no GGUF files of architecture {kind!r}")
        if find_spec("gguf") is None:
            raise ParameterError(f"model = {name!r}: GGUF files are read by the package gguf; `pip install gguf`")
        return {}, 3 * place.stat().st_size  # as in bfloat16; its weights have about 5 bits
    if place.is_dir():
        return _folder_header(place, name)
    if name in EMBEDDED:
        return {}, 0
    if (cached := cached_config(name, revision)) is None:
        _check_hub(f"model = {name!r}", f"hf download {name}, and give its folder")
    return (json_object(cached, f"model = {name!r}") if cached else {}), 0


def _folder_header(place: Path, name: str) -> tuple[dict[str, Any], int]:
    shown = f"model = {name!r}"
    config = json_object(place / "config.json", shown)
    file = place / "tokenizer_config.json"
    tokenizer = json_object(file, shown) if file.is_file() else {}
    for each in sorted(place.glob("*config.json")):
        if "auto_map" in json_object(each, shown):
            raise ParameterError(f"{shown}: {each.name} asks for custom code (auto_map), which is never run")
    kind, classes = str(config.get("model_type", "")), config.get("architectures") or []
    if classes and not any(str(each).endswith(CAUSAL) for each in classes):
        raise ParameterError(f"{shown}: architecture {classes[0]} is no causal language model")
    if not kind or (not (Path(find_spec("transformers").origin).parent / "models" / kind).is_dir() and _unknown(kind)):
        raise ParameterError(f"{shown}: config.json: model_type {kind!r} is unknown to transformers")
    size, shapes = _weights(place, shown)
    _check_sizes(config, shapes, shown)
    if not any((place / each).is_file() for each in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ParameterError(f"{shown}: has no tokenizer.json")
    _check_tokenizer(place, tokenizer, shown)
    return config, size


def _check_sizes(config: Mapping[str, Any], shapes: Mapping[str, list[int]], shown: str) -> None:
    """The sizes of config.json are numbers, and those of the weights."""
    sizes = {**config, **_text_config(config)}
    wanted = [sizes.get(name) for name in ("vocab_size", "hidden_size", "num_hidden_layers")]
    if any(type(size) is not int or size < 1 for size in wanted if "vocab_size" in sizes):
        raise ParameterError(f"{shown}: config.json: vocab_size, hidden_size, num_hidden_layers are {wanted}")
    layers = {int(number[1]) + 1 for name in shapes if (number := re.search(r"\blayers\.(\d+)\.", name))}
    tables = [shape for name, shape in shapes.items() if name.endswith("embed_tokens.weight")]
    if (tables and tables[0] != wanted[:2]) or (layers and max(layers) != wanted[2]):
        raise ParameterError(f"{shown}: its weights are of other sizes than config.json says {wanted}")


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("text_config")
    return found if isinstance(found, dict) else {}


def _check_tokenizer(place: Path, config: Mapping[str, Any], shown: str) -> None:
    """tokenizer.json can be read, and a chat template, which gets at nothing but its messages."""
    from jinja2.sandbox import SandboxedEnvironment
    from tokenizers import Tokenizer

    file, own = place / "tokenizer.json", place / "chat_template.jinja"
    template = own.read_text("utf-8", errors="replace") if own.is_file() else config.get("chat_template")
    if not template or (isinstance(template, str) and not template.strip()):
        raise ParameterError(f"{shown}: the tokenizer has no chat template; use an instruction-tuned model")
    try:
        what = "tokenizer.json"
        if file.is_file():
            Tokenizer.from_file(str(file))
        what = "the chat template"
        if isinstance(template, str) and "generation %}" not in template:  # a tag of transformers' own
            made = SandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).from_string(template)
            asked = {"messages": [{"role": "user", "content": "mule"}], "add_generation_prompt": True}
            if "mule" not in made.render(**asked, **dict.fromkeys(("strftime_now", "raise_exception"), str)):
                raise ValueError("it drops the question")
    except Exception as error:  # the tokenizers package raises no other
        raise ParameterError(f"{shown}: {what} cannot be used ({' '.join(str(error).split())[:120]})") from None


def _unknown(kind: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # takes a second

    return kind not in CONFIG_MAPPING_NAMES


def _text_of(counted: bytes) -> str:
    return counted[8 : 8 + int.from_bytes(counted[:8], "little")].decode(errors="replace")


def _no_gguf(kind: str) -> bool:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    return re.sub("[-_]", "", kind) not in {re.sub("_", "", name) for name in GGUF_CONFIG_MAPPING}


def _weights(place: Path, shown: str, files: str = "*.safetensors") -> tuple[int, dict[str, list[int]]]:
    """Bytes of the safetensors in a folder, each of them whole, and the shapes of their tensors."""
    there, index = sorted(place.glob(files)), place / "model.safetensors.index.json"
    if not there:
        pickled = sorted(file.name for file in place.iterdir() if file.suffix in PICKLED)
        why = f"{pickled[0]} is pickled and could run code; save it as safetensors" if pickled else f"has no {files}"
        raise ParameterError(f"{shown}: {why}")
    needed = json_object(index, shown).get("weight_map") if index.is_file() else {}
    if not isinstance(needed, dict):
        raise ParameterError(f"{shown}: {index.name} has no weight_map")
    if missing := sorted({*map(str, needed.values())} - {file.name for file in there}):
        raise ParameterError(f"{shown}: {missing[0]} of {index.name} is missing")
    shapes = {name: shape for file in there for name, shape in _shapes(file, shown).items()}
    return sum(file.stat().st_size for file in there), shapes


def _shapes(file: Path, shown: str) -> dict[str, list[int]]:
    """Shape of each tensor of a safetensors file, whose header has to fit its length."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as held:
            return {name: held.get_slice(name).get_shape() for name in held.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        what = "is not whole" if "not fully covered" in str(error) else "is no safetensors file (or a Git LFS pointer)"
        raise ParameterError(f"{shown}: {file.name} {what}; download it again") from None


def _check_adapter(p: ModelNotebook, config: Mapping[str, Any]) -> None:
    folder, shown = repository_path(p.adapter), f"adapter = {p.adapter!r}"
    if not folder.is_dir():
        raise ParameterError(f"{shown}: no such folder; `make teach` makes those of build/smollm2")
    asked = json_object(folder / "adapter_config.json", shown)
    kind = [asked.get("peft_type"), asked.get("task_type") or "CAUSAL_LM"]
    if kind != ["LORA", "CAUSAL_LM"] or asked.get("auto_mapping"):
        raise ParameterError(f"{shown}: peft_type {kind[0]!r} for {kind[1]!r}; a plain LORA is needed")
    _, shapes = _weights(folder, shown, "adapter_model.safetensors")
    widths = {shape[-1] for name, shape in shapes.items() if name.endswith("q_proj.lora_A.weight")}
    ranks = {shape[0] for name, shape in shapes.items() if name.endswith(".lora_A.weight")}
    if not ranks or (ranks != {asked.get("r")} and not asked.get("rank_pattern")):
        raise ParameterError(f"{shown}: adapter_config.json: r = {asked.get('r')!r}, its weights have {sorted(ranks)}")
    base = str(asked.get("base_model_name_or_path") or "")
    held = (folder / BASE_FILE).is_file() and json_object(folder / BASE_FILE, shown).get("hash")
    other = held and held != model_hash(p.model, p.revision)
    other |= "/" in base and not held and not repository_path(p.model).exists() and base != p.model
    if other or (widths and config.get("hidden_size") and widths != {config["hidden_size"]}):
        raise ParameterError(f"{shown}: belongs to another base ({base}) than model = {p.model!r}")


def _check_against(p: ModelNotebook, config: Mapping[str, Any]) -> None:
    """K, the adapter's rank and the number of layers against the model's own sizes, where they are known."""
    sizes = {**config, **_text_config(config)}
    top_k = method_options(p.method, p.options).model_dump().get("top_k", 0) if hasattr(p, "options") else 0
    for name, value, size in (
        ("options: top_k", top_k, "vocab_size"),
        ("lora_rank", getattr(p, "lora_rank", 0), "hidden_size"),
        ("layers", getattr(p, "layers", 0), "num_hidden_layers"),
        ("max_thought_tokens", getattr(p, "max_thought_tokens", 0), "max_position_embeddings"),
    ):
        if size in sizes and value > sizes[size]:
            raise ParameterError(f"{name} = {value}: {p.model} has {size} {sizes[size]}")


# Data


def _check_records(p: ModelNotebook) -> None:
    """Everything in `data_dir` is read, and the method finds the groups that it needs."""
    if not p.data_dir or not isinstance(p, DataStandardization | GradientCosine | Training):
        return
    from mule_lib import data

    several = {name: f"{p.data_dir}/{name}" for name in getattr(p, "benchmarks", ())}
    more = {"data_format": p.data_format, "objectives": p.objectives} if isinstance(p, Training) else {}
    try:
        for name, place in (several or {p.benchmark: p.data_dir}).items():
            groups = {record.group for record in data.load_benchmark(name, place, **more).records}
            if hasattr(p, "options") and not set(map(str, groups)) >= EVERY_GROUP:
                from mule_lib import methods  # torch, which takes seconds

                methods.get(p.method, p.options).on_groups(groups)
    except (ValueError, OSError, RecursionError) as error:
        raise ParameterError(f"data_dir = {p.data_dir!r}: {' '.join(str(error).split())}") from None


def json_object(file: Path, shown: str) -> dict[str, Any]:
    """The JSON object in a file. Raises ParameterError, which starts with `shown`."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ParameterError(f"{shown}: {file.name} is missing, or no JSON object")
    return values


# The Hub


def check_sources(**sources: str) -> None:
    """Raise ParameterError where a source is the Hub ("") and that is out of reach, unless the cache is asked for."""
    wanting = ", ".join(name for name, source in sources.items() if not source)
    if wanting and not _offline():
        _check_hub(wanting, "give a file or folder (docs/data.md), or set HF_HUB_OFFLINE=1 for the cache")


def _check_hub(shown: str, remedy: str) -> None:
    """Raise ParameterError unless the Hub answers; a name that is looked up in vain would take longer by itself."""
    import urllib.error
    import urllib.request

    answered = threading.Event()
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS)
        except urllib.error.HTTPError:
            pass  # it answers
        except (OSError, ValueError):
            return
        answered.set()

    if not _offline():
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(HUB_SECONDS)
    if not answered.is_set():
        why = "is switched off by HF_HUB_OFFLINE" if _offline() else f"does not answer within {HUB_SECONDS:.0f} s"
        raise ParameterError(f"{shown}: not here, and {address} {why}; {remedy}")


def _offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return HF_HUB_OFFLINE
