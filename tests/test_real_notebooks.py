"""The suite's notebooks on the published benchmarks' rows with a small random model: only size differs."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import test_real_benchmarks as real
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib.benchmarks import load
from mule_lib.embedded.tokenizer import build_tokenizer
from mule_lib.prepare import assemble

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [real.pytestmark, pytest.mark.slow]


def run(stem, folder, **given):
    pairs = [part for name, value in given.items() for part in ("-p", f"{name}={value}")]
    command = [sys.executable, "-m", "mule_lib.cli", "run", str(ROOT / "notebooks" / f"{stem}.ipynb"), *pairs]
    executed = folder / "executed" / f"{stem}-{given.get('row', '')}.ipynb"
    done = subprocess.run([*command, "-o", str(executed), "--threads", "1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_training_and_table_1_on_muse_books(tmp_path):
    """Notebook 03 on a folder of prepared rows and a folder with a model, twice; then 04 collects Table 1 from them."""
    data, model, suite = tmp_path / "data", tmp_path / "model", tmp_path / "suite"
    made = assemble("muse_books", "the forbidden subject", real.questions_of("muse_books"), prompt_name="rwku")
    load.save(data, made)
    tokenizer = build_tokenizer([f"{r.question} {r.answer}" for r in made.records] + [tiny.REFUSAL], vocab_size=600)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, num_key_value_heads=2, **shape, **ends)
    ).save_pretrained(model)
    tokenizer.save_pretrained(model)
    common = {"benchmark": "muse_books", "model": model, "data_dir": data, "choice_style": "letters"}
    short = {"steps": 2, "train_batch_size": 6, "max_new_tokens": 4, "max_thought_tokens": 4}
    for row in ("base", "mule"):
        out = suite / "runs" / "muse_books" / row / "seed-0"
        run("03_training", suite, row=row, method=row, out_dir=out, **common, **short)
    run("04_main_results", suite, name="real", benchmark="muse_books", out_dir=suite)
    table = pd.read_csv(suite / "tables" / "table1.csv")
    measured = table[table["row"].isin(["base", "mule"]) & table["metric"].isin(["forget", "mmlu"])]
    assert len(measured) == 4 and measured["measured"].between(0, 100).all()
    assert set(measured["benchmark"]) == {"muse_books"}
    assert table[table["row"] == "sft"]["measured"].isna().all()  # not run, and never invented
