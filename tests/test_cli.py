"""Looks at what is there: `mule compare`, `show-prompt`, `doctor` and the committed reference."""

import re

import pandas as pd
import pytest
from run_folders import write_run, write_runs

from mule_lib import models, prompts, training
from mule_lib.data import load_benchmark
from mule_lib.data.items import SETS
from mule_lib.evaluate import evaluate_row
from mule_lib.evaluate.result import RunResult
from mule_lib.methods import METHODS
from mule_lib.paper import METRICS
from mule_lib.params import ROOT, ParameterError, read_parameters
from mule_lib.suite import cli, open_run
from mule_lib.suite.cli import compare

KEPT = ROOT / "outputs" / "reference"
FABLE = ROOT / "params" / "04_training" / "fable.yaml"


# Runs


def test_compare_names_settings_and_numbers_that_differ(tmp_path):
    """A changed model, changed metrics with a paired interval and changed rates; nothing where a run meets itself."""
    one, other = (write_run(tmp_path, "books", row, 0) for row in ("base", "gold"))
    lines = compare(one, other)
    assert "settings: 1 differ\n  model: 'embedded/base@0123456789abcdef' | 'embedded/gold@0123456789abcdef'" in lines
    table = {line.split()[0]: line.split()[1:] for line in lines.split("\n") if line.endswith("60/60")}
    left, right = (RunResult.read(run).metrics["forget"] for run in (one, other))
    assert table["forget"][:3] == [f"{left:.1f}", f"{right:.1f}", f"{right - left:.1f}"]
    assert float(table["forget"][3]) < right - left < float(table["forget"][4]) < 0
    assert "seed:" not in lines
    same = compare(one, one)
    assert "settings: all agree" in same and ": " not in same.split("interval:")[1]
    with pytest.raises(ParameterError, match=r"no run lies there; a run folder has metrics.json and provenance.json"):
        compare(tmp_path, tmp_path)


def test_doctor_names_what_is_wrong(monkeypatch):
    """A package of another version than the lock's is marked, with both versions; here the rest is as it should be."""
    monkeypatch.setattr(cli, "version", lambda name: "0.1")
    found = cli.examine()
    assert [name for name, (_, good) in found.items() if not good] == ["packages"]
    assert found["python"][0].startswith("3.") and "torch 0.1, requirements.lock has 2" in found["packages"][0]


# Prompts


@pytest.fixture(scope="module")
def data():
    return load_benchmark("books")


@pytest.fixture
def shown(monkeypatch, data):
    """A prompt as it is shown, and the evaluation's own sample of the same item."""
    embedded = models.load("base")
    monkeypatch.setattr(training, "load_model", lambda p: embedded)

    def both(row, part, style="texts"):
        alone = dict.fromkeys(SETS, ()) | {part: getattr(data.sets, part)[1:2]}
        sets, steering = type(data.sets)("b", data.topic, **alone), METHODS[row].steering(data.topic)
        p = read_parameters("04_training", FABLE, {"row": row, "choice_style": style})
        sample = evaluate_row(*embedded, sets, steering, choice_style=style, partial=True).samples[0]
        return cli.prompt(p, part, 1), sample, *alone[part]

    return both


@pytest.mark.parametrize(("row", "part"), [("upper_bound", "attack"), ("ensemble_teacher", "forget"), ("ga", "attack")])
def test_an_open_prompt_is_the_evaluated_one(shown, row, part):
    """Prompt and output of the evaluation's own sample, special tokens shown, the output between the marks."""
    (head, text, compared), sample, _ = shown(row, part)
    prompt, output = re.fullmatch(r"(.*)⟪(.*)⟫", text, re.DOTALL).groups()
    assert sample["id"] in head
    assert prompt == sample["prompt"]
    assert prompt.startswith("<|bos|>") and prompt.count("<|bos|>") == 1
    assert output.strip() == sample["output"]
    assert compared == f"compared with: {sample['reference']}"
    assert ("<|system|>" in prompt) is (row != "ga")


@pytest.mark.parametrize("part", ["neighbor", "mmlu"])
@pytest.mark.parametrize("style", prompts.CHOICE_STYLES)
def test_every_option_of_a_choice_is_scored(shown, part, style):
    """One marked line an option, the likeliest one that of the evaluation."""
    lines, sample, item = shown("base", part, style)
    options = [line for line in lines if line.startswith("  ⟪")]
    assert len(options) == len(item.options)
    (likeliest,) = [line for line in options if "likeliest" in line]
    assert re.search("⟪ ?(.*)⟫", likeliest)[1] == sample["output"]
    assert " right" in options[item.answer]
    assert item.refusal is None or " refusal" in options[item.refusal]


# The reference


def test_the_reference_has_every_artifact_with_its_columns():
    tables, figures = KEPT / "tables", KEPT / "figures"
    columns = ["benchmark", "row", "condition", "metric", "reported", "measured", "low", "high", "n", "seeds"]
    for name in ("table1", "table2", "table3"):
        assert list(pd.read_csv(tables / f"{name}.csv").columns)[: len(columns)] == columns
        assert all((tables / f"{name}.{kind}").is_file() for kind in ("md", "tex", "html"))
    claims = pd.read_csv(tables / "claims.csv")
    assert {"id", "claim", "where", "reported", "measured", "low", "high", "verdict"} <= set(claims.columns)
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}
    for name in ("figure2", "figure3"):
        assert all((figures / f"{name}.{kind}").is_file() for kind in ("png", "pdf", "csv", "txt"))
    assert sum(file.stat().st_size for file in KEPT.rglob("*")) < 12_000_000


def test_the_tables_are_those_of_the_runs_listed_beside_them():
    """Means over seeds of runs.csv are the measured numbers of the tables, in points; trained rows have three seeds."""
    runs = pd.read_csv(KEPT / "runs.csv")
    means = runs.groupby(["benchmark", "row"])[list(METRICS)].mean()
    for name in ("table1", "table2", "table3"):
        table = pd.read_csv(KEPT / "tables" / f"{name}.csv").dropna(subset=["measured"])
        table = table[table["metric"].isin(METRICS)]
        assert len(table) >= 15
        for line in table.itertuples():
            run = next(n for n in (f"{line.row}_{line.condition}", line.row) if (line.benchmark, n) in means.index)
            assert means.loc[(line.benchmark, run), line.metric] == pytest.approx(line.measured, abs=0.06)
    counts = runs.groupby(["benchmark", "row"]).size()
    for benchmark in ("books", "cyber"):
        for row in ("ga", "simnpo", "flat", "sft", "ngdiff", "mollm", "duet", "mule"):
            assert counts[benchmark, row] == 3


@pytest.mark.slow
def test_a_fresh_run_is_the_reference_s_within_tolerance(data, tmp_path):
    """Base, and MULE trained for all its steps, by the calls of notebook 04 (which test_runs.py executes)."""
    sizes = {"batch_size", "max_new_tokens", "max_thought_tokens", "choice_style"}
    for row in ("base", "mule"):
        p = read_parameters("04_training", FABLE, {"row": row, "out_dir": str(tmp_path / row)})
        model, tokenizer = models.load(p.model)
        trained = training.train(model, tokenizer, data, p.method, settings=training.Settings.of(p, 0))
        asked = {"refusal": data.refusal, **p.model_dump(include=sizes)}
        evaluation = evaluate_row(trained.model, tokenizer, data.sets, trained.method.steering(data.topic), **asked)
        open_run(p).write(0, trained, evaluation, evaluate_seconds=0)
    assert cli.reference_differences(tmp_path, KEPT) == (2, [])


def test_only_small_files_of_an_ended_suite_are_kept(tmp_path):
    """A suite without a report is refused; samples stay behind, shipped models stay; it agrees with itself."""
    suite, kept = write_runs(tmp_path / "suite", rows=("base", "mule"), seeds=2), tmp_path / "kept"
    with pytest.raises(ParameterError, match=r"no report\.html"):
        cli.keep_reference(suite, kept)
    (suite / "report.html").write_text("<p>")
    for name in ("tables/table1.csv", "tables/samples.jsonl", "executed/one.csv"):
        (suite / name).parent.mkdir(exist_ok=True)
        (suite / name).write_text("a\n")
    (kept / "models").mkdir(parents=True)
    for name in ("old.csv", "models/shipped.json"):
        (kept / name).write_text("a\n")
    cli.keep_reference(suite, kept)
    assert {file.name for file in kept.rglob("*.*")} == {"report.html", "table1.csv", "runs.csv", "shipped.json"}
    assert cli.reference_differences(suite, kept) == (6, [])
    # A run beyond its tolerance is named.
    write_run(tmp_path / "fresh", "books", "base", 0, points=(60, 92, 98, 97, 80))
    compared, beyond = cli.reference_differences(tmp_path / "fresh", tmp_path / "kept")
    assert compared == 1
    assert any(line.startswith("books/base/seed-0: forget is") for line in beyond)
