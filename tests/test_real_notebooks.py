"""The paper's suite, notebooks 01 to 08, on the published benchmarks' rows with a small random model: size differs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import in_process
import numpy as np
import pandas as pd
import pytest
import test_standardize as small
import tiny
import torch
import yaml
from encoding import build_tokenizer
from scripted import ScriptedLLM
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib.data.standardize.ask import Job, Standardize
from mule_lib.data.standardize.pipeline import standardize, write_standardized
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.params import ROOT
from mule_lib.suite import graph, times

BENCHMARKS = ("muse_books", "wmdp_cyber")
ROWS = {"muse_books": ("base", "mule", "mule_duet_loss"), "wmdp_cyber": ("base", "mule")}
# All that is changed of the paper's params files: the model, how long it trains, and how much it writes.
SIZE = {
    "revision": "", "steps": 2, "train_batch_size": 6, "accumulation": 1, "batch_size": 128, "max_new_tokens": 4,
    "max_thought_tokens": 4, "draws": 2, "repeats": 1,
}  # fmt: skip
# `MULE_REAL_MODEL=smollm2 pytest tests/test_real_notebooks.py`: a real model on 8 items a set (docs/real_model.md).
REAL = os.environ.get("MULE_REAL_MODEL", "")
SIZE |= {"precision": "fp32"} if REAL else {}
# Small chunks, so that the few articles hold enough facts for every part.
DATA = small.SMALL | {"chunk_chars": 400, "forget_chunks": 1000}
pytestmark = [small.pytestmark, pytest.mark.slow]


def prepared(folder: Path) -> list[str]:
    """Both benchmarks' data folders, as `mule standardize` writes them; all texts in them."""
    texts = [tiny.REFUSAL]
    for benchmark in BENCHMARKS:
        job, sources = Job(Standardize(**DATA, benchmark=benchmark), ScriptedLLM()), small.sources(benchmark)
        made = standardize(job, sources)
        write_standardized(folder / benchmark, made, job, sources)
        texts += [f"{r.question} {r.answer}" for r in (*made.benchmark.records, *made.raw)]
    return texts


def random_llama(folder: Path, texts: list[str]) -> Path:
    """A Llama of three narrow layers with a tokenizer of the texts, saved as any model is."""
    tokenizer = build_tokenizer(texts, vocab_size=600)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, num_key_value_heads=2, **shape, **ends)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def shrunk(file: Path, model: Path | str) -> None:
    """A params file of the paper with another model and smaller sizes, under the same keys."""
    values = yaml.safe_load(file.read_text("utf-8"))
    # The pilot study's steps are a list: the places where it measures, and no length.
    place = values.get("defaults", values)
    known = {key: value for key, value in SIZE.items() if isinstance(place.get(key), type(value))}
    place.update(known, model=str(model))
    file.write_text(yaml.safe_dump(values), "utf-8")


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A copy of this repository without its embedded models, where `mule reproduce` ran the paper's suite."""
    home = tmp_path_factory.mktemp("real") / "repository"
    home.mkdir()
    weights = shutil.ignore_patterns("weights", "__pycache__")
    for name in ("mule_lib", "notebooks", "params", "profiles"):
        shutil.copytree(ROOT / name, home / name, ignore=weights)
    shutil.copy(ROOT / "Snakefile", home)
    texts = prepared(home / "data")
    model = REAL or random_llama(home / "model", texts)
    for file in (home / "data").rglob("evaluation/*.jsonl"):  # a claim needs 30 items
        file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[: 8 if REAL else 30]), "utf-8")
    for file in (home / "params").glob("0[124]_*/paper.yaml"):
        shrunk(file, model)
    file = home / "params" / "suite" / "paper.yaml"
    groups = [{"rows": list(rows), "benchmarks": [name], "seeds": 1} for name, rows in ROWS.items()]
    cut = {"runs": groups, "gpus_per_run": 0}
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text("utf-8")), **cut}), "utf-8")
    # All steps share a process but one, which starts as every step does elsewhere, with a kernel of its own.
    alone = "01_data_standardization/paper.yaml -p benchmark=wmdp_cyber"
    command = [sys.executable, in_process.__file__, str(home), alone, "reproduce", "--suite", str(file), "--cores", "1"]
    places = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    own = os.environ | {"PYTHONPATH": places, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=home, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return home / "outputs" / "paper"


@pytest.mark.parametrize(("name", "benchmark"), [("table1", "muse_books"), ("table3", "wmdp_cyber")])
def test_tables_hold_what_was_run_and_nothing_else(suite, name, benchmark):
    """Rows that ran have five numbers of their benchmark; rows that did not have none."""
    table = pd.read_csv(suite / "tables" / f"{name}.csv")
    assert set(table["benchmark"]) == {benchmark}
    points = table[table["metric"].isin(METRICS)].set_index(["row", "metric"])["measured"]
    for row in dict.fromkeys(table["row"]):
        if row in ROWS[benchmark]:
            assert points[row].between(0, 100).all() and len(points[row]) == len(METRICS)
        else:
            assert points[row].isna().all()
    assert {"base", "mule", "sft", "duet"} <= set(table["row"]) and points["base"].max() > 0
    assert (suite / "tables" / f"{name}.tex").read_text("utf-8").count("\\begin{tabular") == 1


def test_the_ablation_compares_losses(suite):
    """Table 2 holds MULE with its own and DUET's loss; BiLD's was not run and stays empty."""
    table = pd.read_csv(suite / "tables" / "table2.csv").set_index(["row", "metric"])["measured"]
    assert np.isfinite(table["mule", "forget"]) and np.isfinite(table["mule_duet_loss", "forget"])
    assert np.isnan(table["mule_bild_loss", "forget"])


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_set_was_evaluated_whole(suite, benchmark):
    """As many items as the prepared folder has, the paper's other settings, and a training of two finite steps."""
    folder = suite.parent.parent / "data" / benchmark / "evaluation"
    for row in ROWS[benchmark]:
        out = suite / "runs" / benchmark / row / "seed-0"
        found = json.loads((out / "metrics.json").read_text("utf-8"))
        asked = {name: len((folder / f"{name}.jsonl").read_text("utf-8").splitlines()) for name in ("forget", "mmlu")}
        assert {name: found["n"][name] for name in asked} == asked
        params = json.loads((out / "params.json").read_text("utf-8"))
        paper = graph.row_of("paper", row).model_dump(mode="json")
        own = {*SIZE, "model", "benchmark", "data_dir", "teacher_file", "out_dir", "overwrite"}
        assert {name: params[name] for name in params if name not in own} == {
            n: paper[n] for n in paper if n not in own
        }
    log = pd.DataFrame(RunResult.read(suite / "runs" / benchmark / "mule" / "seed-0").log)
    assert log["step"].max() == 2 and np.isfinite(log["loss"]).all() and (log["loss"] > 0).any()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_pilot_study_read_both_formats(suite, benchmark):
    """Notebooks 01 and 02 measured distances and cosines of raw and of standardized data, each in its range."""
    distances = pd.read_csv(suite / "01_data" / benchmark / "distances.csv")
    cosines = pd.read_csv(suite / "figures" / "figure2.csv")
    cosines = cosines[cosines["benchmark"] == benchmark]
    for table, column, least, most in ((distances, "distance", -2, 2), (cosines, "cosine", -1, 1)):
        assert set(table["format"]) == {"raw", "standardized"}
        assert table[column].between(least, most).all() and len(table) >= 12
    pairs = cosines[cosines["objective_a"] != cosines["objective_b"]]
    values = pairs.groupby("format")["cosine"].mean()
    assert values["raw"] != values["standardized"]
    written = (suite / "01_data" / benchmark / "raw.jsonl").read_bytes()
    assert written == (suite.parent.parent / "data" / benchmark / "raw.jsonl").read_bytes()


def test_figures_claims_and_report(suite):
    """Every figure of the report is there, each claim has a verdict, and no name of Fable's stands beside real rows."""
    names = ("figure2", "figure3", "ablation", "claims")
    by_benchmark = [f"{name}_{benchmark}" for name in ("overall", "obedience") for benchmark in BENCHMARKS]
    for name in (*names, *by_benchmark):
        assert (suite / "figures" / f"{name}.png").stat().st_size > 5_000, name
        assert "Fable" not in (suite / "figures" / f"{name}.txt").read_text("utf-8"), name
    claims = pd.read_csv(suite / "tables" / "claims.csv").set_index("id")
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"} and len(claims) >= 25
    # What the pilot study measured is judged; what needs later steps, or a row that was not run, says so.
    assert claims["measured"].notna()["standardization_tightens_bound"]
    assert "5" in claims.loc["standardization_aligns_gradients", "explanation"]
    assert "not run: muse_books/mule_bild_loss" in claims.loc["magnitudes_beat_rankings", "explanation"]
    parts = pd.read_csv(suite / "tables" / "claims_comparisons.csv")
    read = parts[parts["measured"].notna()].groupby("benchmark")["id"].nunique()
    assert set(read.index) == set(BENCHMARKS) and (read >= 5).all()
    spent = times.by_step(suite)  # of the one step that started as it does elsewhere
    assert spent["jobs"].to_dict() == {"01_data_standardization": 1, "04_training": 0, "all": 1}
    assert (spent.loc["all"] > 0).all()
    page = (suite / "report.html").read_text("utf-8")
    assert "MUSE-Books" in page and "WMDP-Cyber" in page and "Table 3" in page
