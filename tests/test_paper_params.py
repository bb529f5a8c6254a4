"""The paper-scale params: every row has a file, one model and commit, and a teacher that its rows can share."""

from pathlib import Path

import pytest
import yaml

from mule_lib import methods, params, suite
from mule_lib.params import ParameterError
from mule_lib.suite import Suite

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("paper", "paper_full")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / "params" / "04_training" / folder).glob("*.yaml"))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_row_has_a_file(folder):
    """All methods, and all rows of the paper's suite."""
    rows = {file.stem for file in FILES if file.parent.name == folder}
    named = yaml.safe_load((ROOT / "params" / "suite" / "paper.yaml").read_text("utf-8"))["runs"]
    assert rows >= set(params.METHOD_OPTIONS) | {row for group in named for row in group["rows"]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_file_is_of_its_row_and_of_the_pinned_model(file):
    """The same model at the same commit everywhere; trained rows take the method's own learning rate."""
    p = params.load("04_training", file)
    assert p.row == file.stem
    assert p.model == "meta-llama/Llama-3.2-3B-Instruct" and len(p.revision) == 40
    assert p.precision == "bf16" and p.choice_style == "letters"
    if methods.get(p.method).terms:
        assert p.learning_rate == 0 and p.steps == 0 and p.activation_checkpointing
        by_rule = methods.get(p.method).rule is not None
        assert p.lora_rank == (16 if file.parent.name == "paper" or by_rule else 0)


def suite_of(folder, rows):
    return Suite(name="x", params=folder, runs=[{"rows": rows, "benchmarks": ["muse_books"], "seeds": 1}])


def test_the_shared_teacher_is_the_rows_own_model():
    """`mule teacher` is started with the model, commit and precision of the rows; the embedded suite needs none."""
    asked = suite.teacher_model(suite_of("paper", ["mule", "mule_bild_loss"]), "muse_books", "oracle-cot")
    assert asked.startswith("--model meta-llama/Llama-3.2-3B-Instruct --revision ")
    assert asked.endswith("--precision bf16 --max-thought-tokens 256")
    assert suite.teacher_model(suite_of("fable", ["mule"]), "muse_books", "oracle-cot") == ""


def test_rows_of_two_models_share_no_teacher(tmp_path, monkeypatch):
    """Two rows with one teacher and different models are refused in one line."""
    folder = tmp_path / "params" / "04_training" / "mixed"
    folder.mkdir(parents=True)
    for row, model in (("mule", "base"), ("mule_k1", "gold")):
        (folder / f"{row}.yaml").write_text(f"row: {row}\nmethod: mule\nmodel: {model}\n", "utf-8")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    with pytest.raises(ParameterError, match=r"rows that share a teacher differ in model.*\(base, gold\)"):
        suite.teacher_model(suite_of("mixed", ["mule", "mule_k1"]), "muse_books", "oracle-cot")
