"""The data of notebook 02: which records it takes, who answers, its parameters, and the notebooks themselves."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import tiny
from mule_lib.training_data import group_of

from mule_lib import pilot_study, targets, teacher_files
from mule_lib.data import load
from mule_lib.params import GradientCosine, ParameterError, validate
from mule_lib.run import run_notebook

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def answering(monkeypatch):
    """A teacher that writes its question back, and a list of what it was asked."""
    asked = []

    def said(model, tokenizer, records, how, **limits):
        asked.extend(records)
        return [
            targets.Target(r.id, r.objective, r.role, "", r.question, True, (1,), (len(r.question),)) for r in records
        ]

    monkeypatch.setattr(targets, "teacher_targets", said)
    return asked


def test_pairs_are_kept_together():
    """As many of every group as asked for, each record to refuse with its anchor, in the order of the data."""
    records = load("books").records
    some = pilot_study.some_pairs(records, 20)
    sizes = pd.Series([group_of(record) for record in some]).value_counts()
    assert len(sizes) == 6 and (sizes == 20).all()
    ids = {record.id for record in some}
    assert all(record.anchor in ids for record in some)
    assert some == [record for record in records if record.id in ids]
    assert pilot_study.some_pairs(records, 20, seed=1) != some
    assert pilot_study.some_pairs(records, 0) == pilot_study.some_pairs(records, 9999) == records


def test_pairs_without_anchors_fill_up():
    records = [replace(record, anchor=None) for record in load("books").records]
    sizes = pd.Series([group_of(record) for record in pilot_study.some_pairs(records, 7)]).value_counts()
    assert (sizes == 7).all()


def test_the_teacher_reads_questions_or_the_own_format(answering):
    """By default both formats share the answers to the questions; otherwise each has the answers to its own texts."""
    study = pilot_study.prepare(GradientCosine(pairs=5), "books", None, None)
    assert study.said["raw"] is study.said["standardized"]
    assert [record.question for record in answering] == [record.question for record in study.formats["standardized"]]
    assert {record.id for record in study.formats["raw"]} == {target.id for target in study.said["raw"]}
    assert len(study.obedience) == 12 and len(study.samples) == 3
    own = pilot_study.prepare(GradientCosine(pairs=5, teacher_reads="own format"), "books", None, None)
    assert [one.answer for one in own.said["raw"]] == [record.question for record in own.formats["raw"]]
    without = pilot_study.prepare(GradientCosine(pairs=5, method="sft"), "books", None, None)
    assert without.said == {"raw": None, "standardized": None} and without.obedience.empty


def test_a_shared_teacher_file_is_read_and_checked(answering, tmp_path):
    """With teacher_dir nobody is asked, the file has to be of this data, and the study takes its part of it."""
    from mule_lib.fingerprint import model_hash
    from mule_lib.prompts import steering

    data = load("books")
    how = steering("oracle", data.topic, cot=True)
    said = targets.teacher_targets(None, None, data.records, how)
    told = teacher_files.told_of(data.records, how, model=model_hash("base"))
    (tmp_path / "books").mkdir()
    teacher_files.write(tmp_path / "books" / "oracle-cot.jsonl", said, told)
    answering.clear()
    study = pilot_study.prepare(GradientCosine(pairs=5, teacher_dir=str(tmp_path)), "books", None, None)
    assert not answering and len(study.said["raw"]) == 30
    teacher_files.write(tmp_path / "books" / "oracle-cot.jsonl", said, {**told, "records": "others"})
    with pytest.raises(teacher_files.TeacherFileError, match="made with other records"):
        pilot_study.prepare(GradientCosine(pairs=5, teacher_dir=str(tmp_path)), "books", None, None)


def test_measure_gives_what_the_tables_read():
    """One small benchmark through the whole path: formats, numbers of steps, [1, 3, B, 3, B]."""
    p = GradientCosine(method="sft", steps=[0], batches=3, draws=1, layers=1)
    other = [replace(record, question=f"so {record.question}") for record in tiny.records()]
    formats = {"raw": other, "standardized": tiny.records()}
    study = pilot_study.Study(load("books"), formats, dict.fromkeys(formats))
    found = pilot_study.measure(p, study, tiny.model(), tiny.tokenizer())
    assert {form: {step: c.shape for step, c in steps.items()} for form, steps in found.items()} == {
        "raw": {0: (1, 3, 3, 3, 3)},
        "standardized": {0: (1, 3, 3, 3, 3)},
    }
    assert (found["raw"][0] != found["standardized"][0]).any()


@pytest.mark.parametrize(
    ("notebook", "values", "message"),
    [
        ("02_gradient_cosine", {"method": "mul"}, "method = 'mul': .*did you mean 'mule'"),
        ("02_gradient_cosine", {"options": {"topk": 3}}, "options = .*has no option 'topk'; did you mean 'top_k'"),
        ("02_gradient_cosine", {"steps": [0, 0]}, "steps = .*different numbers"),
        ("02_gradient_cosine", {"steps": []}, "steps = .*different numbers"),
        ("02_gradient_cosine", {"precision": "bf16"}, "steps = .*give \\[0\\], or precision fp32"),
        ("01_data_standardization", {"precision": "fp16"}, "precision = 'fp16': .*'bf16'"),
        ("02_gradient_cosine", {"batches": 2}, "batches = 2: .*greater than or equal to 3"),
        ("02_gradient_cosine", {"benchmarks": ["boks"]}, "benchmarks.0 = 'boks': did you mean 'books'"),
        ("02_gradient_cosine", {"benchmarks": ["wmdp_cyber"]}, "data_dir = '': .*wmdp_cyber has to be prepared first"),
        ("02_gradient_cosine", {"teacher_reads": "question"}, "teacher_reads = 'question': .*'questions'"),
        ("02_gradient_cosine", {"teacher_dir": "nowhere"}, "teacher_dir = 'nowhere': .*no such folder"),
        ("02_gradient_cosine", {"layer": 2}, "unknown parameter 'layer'; did you mean 'layers'"),
        ("01_data_standardization", {"benchmark": "cybr"}, "benchmark = 'cybr': .*did you mean 'cyber'"),
        ("01_data_standardization", {"benchmark": "muse_books"}, "data_dir = '': .*muse_books has to be prepared"),
        ("01_data_standardization", {"data_dir": "nowhere"}, "data_dir = 'nowhere': .*no such folder"),
        ("01_data_standardization", {"near_duplicate": 1.5}, "near_duplicate = 1.5"),
    ],
)
def test_bad_parameters_are_refused_by_name(notebook, values, message):
    with pytest.raises(ParameterError, match=message) as error:
        validate(notebook, values)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "folder", "overrides", "files"),
    [
        (
            "01_data_standardization",
            "01_data/cyber",
            {"benchmark": "cyber", "repeats": 1},
            "train.jsonl validation.jsonl raw.jsonl evaluation/forget.jsonl distances.csv checks.csv corpora.png"
            " provenance.json",
        ),
        (
            "02_gradient_cosine",
            "02_gradient_cosine",
            {"benchmarks": ["cyber"], "steps": [0], "batches": 3, "draws": 2, "pairs": 6, "train_seeds": 1},
            "cosines.csv changes.csv batches.csv obedience.csv provenance.json ../figures/figure2.csv"
            " ../figures/figure2.png ../figures/figure2.pdf ../figures/figure2.txt",
        ),
    ],
)
def test_notebook_runs_under_papermill(tmp_path, stem, folder, overrides, files):
    """Headless, small: all files are there, and the study's figure has a line for every pair in both formats."""
    out = tmp_path / folder
    done = tmp_path / "executed.ipynb"
    run_notebook(ROOT / "notebooks" / f"{stem}.ipynb", done, overrides={**overrides, "out_dir": str(out)})
    for name in files.split():
        assert (out / name).stat().st_size > 0, name
    if stem == "02_gradient_cosine":
        table = pd.read_csv(out / "../figures/figure2.csv")
        assert len(table) == 2 * 9 and set(table["format"]) == {"raw", "standardized"}
