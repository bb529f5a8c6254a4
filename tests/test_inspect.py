"""Looks at what is there: `mule compare`, `list`, `show-prompt`, `doctor` and the committed reference."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from run_folders import write_run, write_runs

from mule_lib import models, prompts, training
from mule_lib.data import files, load_benchmark
from mule_lib.evaluate import evaluate_row
from mule_lib.evaluate.result import RunResult
from mule_lib.methods import METHODS
from mule_lib.paper import METRICS
from mule_lib.params import ParameterError
from mule_lib.suite import cli, inspect
from mule_lib.suite.inspect import compare, listing
from mule_lib.suite.runs import written_whole

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "outputs" / "reference"


# Runs


def run_of(folder, *, steps, forget, n=20):
    held = {"params": {"steps": steps, "seed": 0}, "code": {"mule_lib/trainer.py": f"hash{steps}"}, "model": "m"}
    values = {metric: [float(i < forget if metric == "forget" else 1) for i in range(n)] for metric in METRICS}
    result = RunResult(
        benchmark="books", row="mule", method="mule", label="MULE", seed=0, identity=f"print{steps}", values=values,
        metrics={metric: 100 * sum(v) / n for metric, v in values.items()}, n={}, timing={"seconds": 9.0},
        details={"forget": {"refusal_rate": 1 - forget / n, "by_family": {}}},
    )  # fmt: skip
    with written_whole(folder) as draft:
        files.write_json(draft / "provenance.json", {"identity": held})
        result.write(draft)
    return folder


def test_compare_names_settings_and_numbers_that_differ(tmp_path):
    """A changed parameter, changed code, changed metrics with a paired interval and changed rates; nothing else."""
    one = run_of(tmp_path / "a", steps=40, forget=4)
    other = run_of(tmp_path / "b", steps=80, forget=14)
    lines = compare(one, other)
    assert "settings: 2 differ" in lines
    assert "params.steps: 40 | 80" in lines and "code.mule_lib/trainer.py: 'hash40' | 'hash80'" in lines
    table = {line.split()[0]: line.split()[1:] for line in lines.split("\n") if line.endswith("20/20")}
    assert table["forget"][:3] == ["20.0", "70.0", "50.0"] and table["general"][2:] == ["0.0", "0.0", "0.0", "20/20"]
    assert "forget.refusal_rate: 0.8 | 0.3" in lines and "seed:" not in lines
    assert "settings: all agree" in compare(one, one)
    assert "20/10" in compare(one, run_of(tmp_path / "c", steps=1, forget=4, n=10))
    with pytest.raises(ParameterError, match=r"no run lies there; a run folder has metrics.json and provenance.json"):
        compare(tmp_path, tmp_path)
    # A line per run; hidden drafts are passed over.
    run_of(tmp_path / ".a@host.1.draft", steps=2, forget=10)
    assert [line.split()[0] for line in listing(tmp_path).split("\n")] == ["run", "a", "b", "c"]


def test_doctor_names_what_is_wrong(monkeypatch):
    """Every look is a line; a package of another version than the lock's is marked, with both versions."""
    found = {finding.name: finding for finding in inspect.examine()}
    assert {"python", "packages", "kernel", "embedded models", "accelerator", "machine", "disk"} <= set(found)
    assert str(found["python"]).startswith("ok  python: 3.")
    monkeypatch.setattr(inspect, "version", lambda name: "0.1")
    packages = inspect._packages()
    assert not packages.good and "torch 0.1, requirements.lock has 2" in str(packages)


# Prompts


@pytest.fixture(scope="module")
def embedded():
    return models.load("base")


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch, embedded):
    monkeypatch.setattr(training, "load_model", lambda p: embedded)


@pytest.fixture(scope="module")
def data():
    return load_benchmark("books")


@pytest.mark.parametrize(("row", "objective"), [("upper_bound", "obj3"), ("ensemble_teacher", "obj1"), ("ga", "obj3")])
def test_an_open_prompt_is_the_evaluated_one(embedded, data, row, objective):
    """Prompt and output of the evaluation's own sample, special tokens shown, the output between the marks."""
    name = inspect.SETS[objective]
    alone = {each: () for each in ("forget", "general", "neighbor", "attack", "mmlu", "controls")}
    sets = type(data.sets)("b", data.topic, **{**alone, name: getattr(data.sets, name)[2:3]})
    sample = evaluate_row(*embedded, sets, METHODS[row].steering(data.topic), partial=True).samples[0]
    head, text, compared = inspect.row_prompts(row, objective=objective, item=2)
    prompt, output = re.fullmatch(r"(.*)⟪(.*)⟫", text, re.DOTALL).groups()
    assert sample["id"] in head
    assert prompt == sample["prompt"]
    assert prompt.startswith("<|bos|>") and prompt.count("<|bos|>") == 1
    assert output.strip() == sample["output"]
    assert compared == f"compared with: {sample['reference']}"
    assert ("<|system|>" in prompt) is (row != "ga")


def test_every_option_of_a_choice_is_scored(embedded, data):
    """One marked line an option, the likeliest one that of the evaluation."""
    for part in ("neighbor", "mmlu"):
        for style in prompts.CHOICE_STYLES:
            item = getattr(data.sets, part)[1]
            alone = {each: () for each in ("forget", "general", "neighbor", "attack", "mmlu", "controls")}
            sets = type(data.sets)("b", data.topic, **{**alone, part: (item,)})
            how = METHODS["base"].steering(data.topic)
            sample = evaluate_row(*embedded, sets, how, choice_style=style, partial=True).samples[0]
            lines = inspect.row_prompts("base", part=part, item=1, choice_style=style)
            options = [line for line in "\n".join(lines).split("\n") if line.startswith("  ⟪")]
            assert len(options) == len(item.options)
            assert sum("likeliest" in line for line in options) == 1
            likeliest = next(line for line in options if "likeliest" in line)
            assert re.search("⟪ ?(.*)⟫", likeliest)[1] == sample["output"]
            assert " right" in options[item.answer]
            assert item.refusal is None or " refusal" in options[item.refusal]


@pytest.mark.parametrize("row", [name for name, method in METHODS.items() if method.terms])
@pytest.mark.parametrize("objective", ["obj1", "obj3"])
def test_every_trained_row_shows_its_training_prompts(row, objective):
    """Student and frozen model end in the same scored tokens; the student never sees a system message."""
    lines = inspect.row_prompts(row, objective=objective, stage="training")
    students = [line for line in lines if ", student, " in line]
    others = [line for line in lines if ", teacher, " in line or ", frozen model, " in line]
    if not students:  # the row reads the other objective only
        assert lines[-1] == f"{METHODS[row].label} does not use this group"
        return
    assert not any("<|system|>" in line for line in students)
    scored = {line.split(", ")[2].split(":")[0]: re.search("⟪(.*)⟫", line, re.DOTALL)[1] for line in students}
    for line in others:
        assert re.search("⟪(.*)⟫", line, re.DOTALL)[1] == scored[line.split(", ")[2].split(":")[0]]
    teachers = [line for line in others if ", teacher, " in line]
    assert all("<|system|>" in line for line in teachers)
    assert bool(teachers) == METHODS[row].distils


def test_a_variant_is_found_by_its_file():
    """Its options count: without the chain of thought the teacher's context holds no thought."""
    for row, thinks in (("mule_no_cot", False), ("mule", True)):
        teacher = next(line for line in inspect.row_prompts(row, stage="training") if ", teacher, " in line)
        assert (prompts.THINK in teacher) is thinks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "muel"], "--row muel: method = 'muel': did you mean 'mule'?"),
        (["--row", "mule", "--set", "mlu"], "--set mlu: not here; there are forget, general"),
        (["--row", "mule", "--stage", "training", "--set", "retainn"], "--set retainn: not here; there are"),
        (["--row", "mule", "--item", "999"], "--item 999: forget has 109 items, 0 to 108"),
        (["--row", "mule", "--item", "-1"], "--item -1: forget has"),
        (["--row", "base", "--stage", "training"], "base trains nothing"),
        (["--row", "mule", "--benchmark", "bokks"], "benchmark = 'bokks': did you mean 'books'?"),
    ],
)
def test_refusals_are_one_line(monkeypatch, words, message):
    """On standard error with exit status 1, before a model is loaded."""

    def never(p):
        raise AssertionError("loaded")

    monkeypatch.setattr(training, "load_model", never)
    monkeypatch.setattr(sys, "argv", ["mule", "show-prompt", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# The reference


def test_the_reference_has_every_artifact_with_its_columns():
    tables, figures = KEPT / "tables", KEPT / "figures"
    columns = ["benchmark", "row", "metric", "reported", "measured", "low", "high", "n", "seeds"]
    for name in ("table1", "table2", "table3"):
        assert list(pd.read_csv(tables / f"{name}.csv").columns)[: len(columns)] == columns
        assert all((tables / f"{name}.{kind}").is_file() for kind in ("md", "tex", "html"))
    claims = pd.read_csv(tables / "claims.csv")
    assert {"id", "claim", "where", "reported", "measured", "low", "high", "verdict"} <= set(claims.columns)
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}
    for name in ("figure2", "figure3"):
        assert all((figures / f"{name}.{kind}").is_file() for kind in ("png", "pdf", "csv", "txt"))
    assert (KEPT / "report.html").is_file()
    assert sum(file.stat().st_size for file in KEPT.rglob("*") if inspect.is_kept(file, KEPT)) < 12_000_000


def test_the_tables_are_those_of_the_runs_listed_beside_them():
    """Means over seeds of runs.csv are the measured numbers of the tables, in points; trained rows have five seeds."""
    runs = pd.read_csv(KEPT / "runs.csv")
    means = runs.groupby(["benchmark", "row"])[list(METRICS)].mean()
    for name in ("table1", "table2", "table3"):
        table = pd.read_csv(KEPT / "tables" / f"{name}.csv").dropna(subset=["measured"])
        table = table[table["metric"].isin(METRICS)]
        assert len(table) >= 15
        for line in table.itertuples():
            assert means.loc[(line.benchmark, line.row), line.metric] == pytest.approx(line.measured, abs=0.06)
    counts = runs.groupby(["benchmark", "row"]).size()
    for benchmark in ("books", "cyber"):
        for row in ("ga", "simnpo", "flat", "sft", "ngdiff", "mollm", "duet", "mule"):
            assert counts[benchmark, row] == 5


@pytest.mark.slow
@pytest.mark.parametrize("row", ["base", "mule"])
def test_a_fresh_run_is_the_reference_s_within_tolerance(row, tmp_path):
    file, out = ROOT / "params" / "04_training" / "fable.yaml", tmp_path / "runs" / "books" / row
    command = [sys.executable, "-m", "mule_lib.suite.cli", "run", "notebooks/04_training.ipynb", "-f", str(file)]
    command += ["-p", f"row={row}", "-p", f"out_dir={out}", "-o", str(tmp_path / "executed.ipynb"), "--threads", "1"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert inspect.reference_differences(tmp_path, KEPT) == (1, [])


def test_only_small_files_of_an_ended_suite_are_kept(tmp_path):
    """A suite without a report is refused; samples and executed copies stay behind; the rest agrees with itself."""
    suite, kept = write_runs(tmp_path / "suite", rows=("base", "mule"), seeds=2), tmp_path / "kept"
    with pytest.raises(ParameterError, match=r"no report\.html"):
        inspect.keep_reference(suite, kept)
    (suite / "report.html").write_text("<p>")
    for name in ("tables/table1.csv", "tables/samples.jsonl", "executed/one.csv"):
        (suite / name).parent.mkdir(exist_ok=True)
        (suite / name).write_text("a\n")
    kept.mkdir()
    (kept / "old.csv").write_text("a\n")
    inspect.keep_reference(suite, kept)
    assert {file.name for file in kept.rglob("*.*")} == {"report.html", "table1.csv", "runs.csv"}
    assert inspect.reference_differences(suite, kept) == (6, [])
    # A run beyond its tolerance is named.
    write_run(tmp_path / "fresh", "books", "base", 0, points=(60, 92, 98, 97, 80))
    compared, beyond = inspect.reference_differences(tmp_path / "fresh", tmp_path / "kept")
    assert compared == 1
    assert any(line.startswith("books/base/seed-0: forget is") for line in beyond)
