"""The unlearned model in its run folder: safetensors and a model card."""

import json
from pathlib import Path

from mule_lib.data.files import write_json, write_text
from mule_lib.evaluate.result import RunResult
from mule_lib.params import Training, repository_path

BASE_FILE = "base.json"  # beside the weights: which model they were trained from, with that one's hash


def save_model(folder: Path, model, tokenizer, p: Training, result: RunResult, *, base: str) -> None:
    """Write an unlearned model (of an adapter, it alone) with its tokenizer and card; `base` is its base's hash."""
    adapter = hasattr(model, "peft_config")
    for config in model.peft_config.values() if adapter else ():  # not a path of this machine
        config.base_model_name_or_path, config.revision = p.model, p.revision or None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / BASE_FILE, {"model": p.model, "revision": p.revision, "adapter": p.adapter, "hash": base})
    hub = f"base_model: {p.model}\n" if "/" in p.model and not repository_path(p.model).exists() else ""
    weights = f"LoRA of rank {p.lora_rank}" if adapter else "all weights"
    call = "PeftModel.from_pretrained(base, folder)" if adapter else "AutoModelForCausalLM.from_pretrained(folder)"
    name = p.model + f" at {p.revision}" * bool(p.revision) + f" with {p.adapter} merged" * bool(p.adapter)
    lines = [
        f"---\n{hub}library_name: {'peft' if adapter else 'transformers'}\ntags: [unlearning]\n---\n",
        f"# {result.label} on {p.benchmark}, seed {result.seed}\n",
        f"- Base: {name} (`{base}`)",
        f"- Method: {p.method}, options `{json.dumps(p.options)}`, {result.timing['steps']} steps, {weights}",
        f"- Data: {p.benchmark} ({p.data_dir or 'built in code'}), {p.data_format}",
        f"- Load: `{call}`\n",
        "Points of 100 on held-out items; lower is better for forget and asr.\n\n| metric | points |\n|---|---:|",
        *(f"| {metric} | {value:.1f} |" for metric, value in result.metrics.items()),
    ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")
