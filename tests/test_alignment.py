"""The pilot study: what a cosine is made of, that the model is left alone, its data, and its tables."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from mule_lib import data, methods, params
from mule_lib.methods import MethodError
from mule_lib.report import cosines as tables
from mule_lib.suite.notebook import run_notebook
from mule_lib.training import TeacherFileError, alignment, teacher
from mule_lib.training.batches import draw_balanced, encode

OBJECTIVES = ("obj1", "obj2", "obj3")


@pytest.fixture(scope="module")
def answers():
    method = tiny.method("mule", max_answer_tokens=5)
    return teacher.teacher_answers(tiny.model(), tiny.tokenizer(), tiny.benchmark(), method, max_thought_tokens=4)


def measure(model, method="sft", answers=(), *, records=None, **changed):
    small = {"steps": [0], "batches": 3, "draws": 1, "layers": 1, "train_batch_size": 6, "train_seeds": 1}
    p = params.GradientCosine(method=method, **{**small, **changed})
    formats = {"standardized": records or tiny.records()}
    study = alignment.Study(tiny.benchmark(), formats, {"standardized": list(answers)})
    return alignment.cosines(p, study, model, tiny.tokenizer())["standardized"]


def test_cosines_are_those_of_the_plain_losses():
    """Against gradients by hand: each objective's cross-entropy on the same draws, last layer only."""
    model = tiny.model()
    (found,) = measure(model)[0]
    assert found.shape == (3, 3, 3, 3)
    draws = draw_balanced(encode(tiny.tokenizer(), tiny.records(), tiny.method("sft")), 3, seed=10_000)
    parameters = list(model.model.layers[1].parameters())
    vectors = []
    for objective, draw in product(OBJECTIVES, draws):
        total, tokens = 0.0, 0
        for example in (example for example in draw if example.group.objective == objective):
            answer = example.continuations["desired"]
            logits = model(torch.tensor([[*example.context, *answer]])).logits[0, len(example.context) - 1 : -1].float()
            total = total - logits.log_softmax(1)[range(len(answer)), list(answer)].sum()
            tokens += len(answer)
        gradient = torch.autograd.grad(total / tokens, parameters)
        vectors.append(torch.cat([part.flatten() for part in gradient]))
    unit = torch.stack([vector / vector.norm() for vector in vectors])
    np.testing.assert_allclose(found.reshape(9, 9), (unit @ unit.T).numpy(), atol=1e-4)


def test_mule_needs_and_uses_the_teacher(answers):
    """MULE's loss gives cosines in -1 to 1, 1 on the diagonal; other answers of the teacher give others."""
    found = measure(tiny.model(), "mule", answers)[0].reshape(9, 9)
    np.testing.assert_allclose(np.diag(found), 1)
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(found, found.T)
    other = [replace(answer, answer_ids=tuple(reversed(answer.answer_ids))) for answer in answers]
    assert np.abs(measure(tiny.model(), "mule", other)[0].reshape(9, 9) - found).max() > 1e-3


def test_the_model_is_left_as_it_was_and_training_in_between_is_repeatable(answers):
    """Weights, flags and mode are untouched, also after a measurement that trains a copy."""
    model = tiny.model()
    model.model.embed_tokens.weight.requires_grad_(False)
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    found = measure(model, "mule", answers, steps=[0, 2])
    assert list(found) == [0, 2] and found[2].shape == (1, 3, 3, 3, 3)
    assert np.abs(found[0] - found[2]).max() > 1e-3
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0]) and value.requires_grad == before[name][1], name
        assert value.grad is None
    assert not model.training
    one, two = (measure(tiny.model(), "mule", answers, steps=[2])[2] for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("method", "changed", "error", "message"),
    [
        ("ngdiff", {}, MethodError, "combines gradients by a rule"),
        ("ga", {}, MethodError, "has no loss for obj3"),
        ("sft", {"draws": 4}, ValueError, "disjoint batches would need 12 records of obj1/forget, the data has 4"),
        ("sft", {"layers": 3}, ValueError, "layers: 3; the model has 2"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(method, changed, error, message):
    with pytest.raises(error, match=message):
        measure(tiny.model(), method, **changed)


@pytest.fixture
def asked(monkeypatch):
    """A teacher that writes its question back, and a list of what it was asked."""
    questions = []

    def write_back(model, tokenizer, benchmark, method, **sizes):
        questions.extend(benchmark.records)
        return [
            teacher.TeacherAnswer(r.id, r.objective, r.role, "", r.question, True, (1,), (len(r.question),))
            for r in benchmark.records
        ]

    monkeypatch.setattr(teacher, "teacher_answers", write_back)
    return questions


def sizes(records):
    return pd.Series([str(record.group) for record in records]).value_counts()


def test_pairs_are_kept_together_and_without_anchors_fill_up():
    """As many of every group as asked for, each record to refuse with its anchor, in the order of the data."""
    records = data.load_benchmark("books").records
    some = alignment.some_pairs(records, 20)
    assert len(sizes(some)) == 6 and (sizes(some) == 20).all()
    ids = {record.id for record in some}
    assert all(record.anchor in ids for record in some)
    assert some == [record for record in records if record.id in ids]
    assert alignment.some_pairs(records, 20, seed=1) != some
    assert alignment.some_pairs(records, 0) == alignment.some_pairs(records, 9999) == records
    assert (sizes(alignment.some_pairs([replace(r, anchor=None) for r in records], 7)) == 7).all()


def test_the_teacher_is_asked_questions_and_reads_passages_as_they_are(asked, fable_tokenizer):
    """All formats share the answers to the questions; a passage stands behind the thought that its question had."""

    def study(**changed):
        return alignment.prepare_study(params.GradientCosine(pairs=5, **changed), "books", None, fable_tokenizer)

    shared = study()
    answers = shared.teacher_answers
    assert answers["raw_prompts"] == answers["standardized"] and list(answers) == ["raw", "raw_prompts", "standardized"]
    assert [record.question for record in asked] == [record.question for record in shared.formats["standardized"]]
    changed = [a.group for a, b in zip(shared.formats["raw"], answers["raw"], strict=True) if b.answer == a.answer]
    assert changed and set(changed) == {("obj1", "forget")} and len(shared.obedience) == 17
    without = study(method="sft")
    assert not any(without.teacher_answers.values()) and without.obedience.empty


def test_a_shared_teacher_file_is_read_and_checked(asked, tmp_path, fable_tokenizer):
    """With teacher_dir nobody is asked, the file has to be of this data, and the study takes its part of it."""
    books, file = data.load_benchmark("books"), tmp_path / "books" / "oracle-cot.jsonl"
    teacher.shared(file, books, methods.get("mule"), model="abc", load=lambda: (None, None))
    asked.clear()
    p = params.GradientCosine(benchmarks=["books"], pairs=5, teacher_dir=str(tmp_path))
    study = alignment.prepare_study(p, "books", None, fable_tokenizer, model_hash="abc")
    assert not asked and len(study.teacher_answers["raw"]) == 30
    with pytest.raises(TeacherFileError, match="made with other model"):
        alignment.prepare_study(p, "books", None, fable_tokenizer, model_hash="abd")


def unit_cosines(shared, *, batches=6, size=400, noise=0.3, seed=0):
    """[1, 3, B, 3, B] of unit vectors that share `shared` of their direction, with noise from batch to batch."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=size), rng.normal(size=(3, size))
    mean = shared * common + (1 - shared) * own
    vectors = (mean[:, None] + noise * rng.normal(size=(3, batches, size))).reshape(3 * batches, size)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (unit @ unit.T).reshape(1, 3, batches, 3, batches)


@pytest.fixture(scope="module")
def measured():
    return {
        name: {
            "raw": {0: unit_cosines(0.0, seed=i), 10: unit_cosines(0.3, seed=i)},
            "standardized": {0: unit_cosines(0.9, seed=i), 10: unit_cosines(0.7, seed=i)},
        }
        for i, name in enumerate(("books", "cyber"))
    }


def test_means_leave_out_equal_batches(measured):
    """The estimate is the mean over pairs of different batches: for one objective, without the ones of the diagonal."""
    table = tables.cosine_table(measured).set_index(["benchmark", "step", "format", *tables.PAIR])
    cosines, off = measured["books"]["raw"][0], ~np.eye(6, dtype=bool)
    for (i, a), (j, b) in [((0, "obj1"), (0, "obj1")), ((0, "obj1"), (2, "obj3"))]:
        line = table.loc[("books", 0, "raw", a, b)]
        assert line["cosine"] == pytest.approx(cosines[0, i, :, j, :][off].mean())
        assert line["low"] < line["cosine"] < line["high"] and line["batches"] == 6
    assert len(table) == 2 * 2 * 2 * 9
    with pytest.raises(ValueError, match="measure at least 3"):
        tables.cosine_table({"books": {"raw": {0: unit_cosines(0.5, batches=2)}}})


def test_interval_covers_the_true_cosine():
    """In most of 60 repetitions the 95 % interval of two independent directions holds their true cosine."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 300))
    truth, hits = a @ b / np.sqrt((a @ a + 300) * (b @ b + 300)), 0  # noise of variance 1 adds its size to each norm
    for _ in range(60):
        vectors = np.stack([center + rng.normal(size=(8, 300)) for center in (a, b, b)]).reshape(24, 300)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        table = tables.cosine_table({"x": {"raw": {0: (unit @ unit.T).reshape(1, 3, 8, 3, 8)}}})
        line = table.query("objective_a == 'obj1' and objective_b == 'obj2'").iloc[0]
        hits += line["low"] <= truth <= line["high"]
    assert hits >= 50


def test_gains_are_paired(measured):
    """Standardized minus raw; the same cosines on both sides give exactly 0."""
    change = tables.gain_table(measured)
    table = tables.cosine_table(measured).set_index(["benchmark", "step", *tables.PAIR, "format"])["cosine"]
    line = change.iloc[1]
    key = line[["benchmark", "step", *tables.PAIR]]
    assert line["gain"] == pytest.approx(table[(*key, "standardized")] - table[(*key, "raw")])
    assert (tables.pairs(change)["low"] > 0).all()
    same = {"books": {form: {0: unit_cosines(0.5)} for form in ("raw", "standardized")}}
    assert (tables.gain_table(same)[["gain", "low", "high"]] == 0).all(axis=None)
    assert tables.gain_table({"muse_books": {"standardized": {0: unit_cosines(0.5)}}}).empty


def test_batches_hold_every_cosine_once(measured):
    table = tables.batch_table({"books": measured["books"]})
    assert (table["training"] == 0).all() and len(table) == 4 * (18 * 17 // 2)
    line = table.iloc[40]
    i, j = (OBJECTIVES.index(line[side]) for side in tables.PAIR)
    cosines = measured["books"][line["format"]][line["step"]]
    assert line["cosine"] == pytest.approx(cosines[0, i, line["batch_a"], j, line["batch_b"]], abs=1e-6)


def test_words_follow_the_numbers(measured):
    """Counts in the text are those of the table, in both directions."""
    first = tables.findings(tables.cosine_table(measured), tables.gain_table(measured))[0]
    assert all(each in first for each in ("Baseline", "3 of 3 near zero", "3 above 0.5", "raises 3 and lowers 0"))
    turned = {name: {"raw": f["standardized"], "standardized": f["raw"]} for name, f in measured.items()}
    assert "raises 0 and lowers 3" in tables.findings(tables.cosine_table(turned), tables.gain_table(turned))[0]


def test_spread_between_trainings_widens_the_interval():
    """Three trainings that differ are wider than one; three equal ones are not."""
    ones = [unit_cosines(shared) for shared in (0.2, 0.5, 0.8)]
    widths = {}
    for name, stacked in {"one": ones[1:2], "equal": ones[1:2] * 3, "different": ones}.items():
        line = tables.pairs(tables.cosine_table({"books": {"standardized": {5: np.concatenate(stacked)}}})).iloc[0]
        widths[name] = line["high"] - line["low"]
        assert line["seeds"] == len(stacked)
        off = ~np.eye(6, dtype=bool)
        assert line["cosine"] == pytest.approx(np.mean([one[0, 0, :, 1, :][off].mean() for one in stacked]))
    assert widths["equal"] == pytest.approx(widths["one"], rel=0.1)
    assert widths["different"] > 2 * widths["one"]


@pytest.mark.slow
def test_notebook_02_runs_under_papermill(no_kernel, tmp_path):
    """Headless, small: all files are there, and Figure 2 has a line for every pair in both formats."""
    out = tmp_path / "02_gradient_cosine"
    small = {"benchmarks": ["cyber"], "steps": [0], "batches": 3, "draws": 2, "pairs": 6, "train_seeds": 1}
    notebook = params.ROOT / "notebooks" / "02_gradient_cosine.ipynb"
    run_notebook(notebook, tmp_path / "executed.ipynb", overrides={**small, "out_dir": str(out)})
    files = "cosines.csv changes.csv batches.csv obedience.csv provenance.json"
    files += " ../figures/figure2.csv ../figures/figure2.png ../figures/figure2.pdf ../figures/figure2.txt"
    assert all((out / name).stat().st_size > 0 for name in files.split())
    table = pd.read_csv(tmp_path / "figures" / "figure2.csv")
    assert len(table) == 2 * 9 and set(table["format"]) == {"raw", "standardized"}
