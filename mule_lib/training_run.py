"""What notebook 04 does around training: its data, teacher and settings, answers to look at, and the run folder."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mule_lib import methods, run_folder, runs
from mule_lib.data import Benchmark, files, load
from mule_lib.data.items import EvaluationSets
from mule_lib.data.records import Record
from mule_lib.evaluate.intervals import bootstrap_interval
from mule_lib.evaluate.result import RunResult
from mule_lib.evaluate.row import Evaluation
from mule_lib.fingerprint import fingerprint, model_hash
from mule_lib.models import ask
from mule_lib.paper import METRICS
from mule_lib.params import FABLE, Training, repository_path
from mule_lib.prompts import Steering
from mule_lib.training import Trained, load_model, teacher
from mule_lib.training.teacher import TeacherAnswer


def load_data(p: Training) -> Benchmark:
    """The benchmark of a run, in the parameters' `data_format`. Raises what `data.load` does."""
    return load(p.benchmark, repository_path(p.data_dir) if p.data_dir else "", data_format=p.data_format)


def checkpoints_of(p: Training, told: Mapping[str, Any]) -> Path | None:
    """Where an interrupted run goes on from: a hidden folder of this very run beside its own; None without any."""
    out = repository_path(p.out_dir)
    return out.parent / f".{out.name}.checkpoints-{fingerprint(told)}" if p.save_every else None


def taught(p: Training, data: Benchmark) -> list[TeacherAnswer] | None:
    """The shared teacher answers of a run with a `teacher_file`; None where training asks the teacher itself.

    The file is of the unified records also where the student reads raw ones: both have the same ids, and a teacher that
    does not understand a format would hide what the format does to the student.
    Raises TeacherFileError when the file was made with other data, another model or other texts.
    """
    if not p.teacher_file:
        return None
    unified = load_data(p.model_copy(update={"data_format": "unified"}))
    file, method = repository_path(p.teacher_file), methods.get(p.method, p.options)
    sizes = {"model": model_hash(p.model, p.revision), "max_thought_tokens": p.max_thought_tokens}
    return teacher.shared(file, unified, method, **sizes)[0]


def write_teacher(file: Path, p: Training, *, batch_size: int = 64, overwrite: bool = False) -> tuple[int, str]:
    """Ask the teacher of a row's options about all training records and write its answers.

    Returns the number of answers and "reused" or "written". Raises TeacherFileError for a row without a teacher, and
    for a file of other answers unless `overwrite`.
    """
    answers, asked = teacher.shared(
        file,
        load_data(p),
        methods.get(p.method, p.options),
        model=model_hash(p.model, p.revision),
        load=lambda: load_model(p, frozen=True),
        max_thought_tokens=p.max_thought_tokens,
        batch_size=batch_size,
        overwrite=overwrite,
    )
    return len(answers), "written" if asked else "reused"


def groups(records: Sequence[Record]) -> pd.DataFrame:
    """Records by objective and role, with one question of each."""
    lines: dict[str, dict] = {}
    for record in records:
        line = lines.setdefault(str(record.group), {"records": 0, "prefix": record.prefix, "question": record.question})
        line["records"] += 1
        line["target"] = line.get("target", record.target)
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("group")


def terms(row: methods.Method) -> pd.DataFrame:
    """What a method adds up: each term's groups, the text its loss reads, the loss, and its weight."""
    lines = [
        (t.name, ", ".join(map(str, t.groups)), ", ".join(t.continuations), t.loss.__name__.strip("_"), t.weight)
        for t in row.terms
    ]
    return pd.DataFrame(lines, columns=["term", "groups", "texts", "loss", "weight"])


def sample_answers(model, tokenizer, sets: EvaluationSets, how: Steering, *, each: int = 2) -> pd.DataFrame:
    """What the model answers to a few items to forget, to attack with and to keep, steered as `how` says."""
    lines = []
    for name in ("forget", "attack", "general"):
        for item in getattr(sets, name)[:each]:
            system, prefix = how.systems[item.objective], getattr(item, "prefix", None)
            reply = ask(model, tokenizer, item.question, system=system, think=how.cot, prefix=prefix)
            lines.append((name, item.question, prefix or "", item.reference, reply.answer))
    return pd.DataFrame(lines, columns=["set", "question", "prefix", "reference", "answer"])


def intervals(evaluation: Evaluation, *, seed: int = 0) -> pd.DataFrame:
    """The five metrics in points with bootstrap 95 % intervals over items."""
    lines = []
    for metric in METRICS:
        found = bootstrap_interval(evaluation.values[metric], seed=seed)
        lines.append((metric, *(round(100 * value, 1) for value in found[:3]), found.n))
    return pd.DataFrame(lines, columns=["metric", "measured", "low", "high", "n"]).set_index("metric")


def beyond(p: Training, trained: Trained, tokenizer, data: Benchmark, how: Steering) -> dict[str, Any]:
    """What the paper does not measure: relearning, re-teaching, quantization, held-out prefix families.

    Fable has held-out families of its own; on other benchmarks the library's are put before the same questions. Other
    models than Fable's are relearnt with a rate that suits a large one.
    """
    from mule_lib.evaluate import robustness  # only a few rows are asked for it

    held_out = load(p.benchmark, prefixes="held_out").sets if p.benchmark in FABLE else None
    gentle = p.benchmark not in FABLE and not p.lora_rank
    settings = robustness.RobustnessSettings(
        relearn_learning_rate=1e-5 if gentle else 1e-4,
        batch_size=p.batch_size,
        max_new_tokens=p.max_new_tokens,
        max_thought_tokens=p.max_thought_tokens,
        choice_style=p.choice_style,
    )
    return robustness.run(
        trained.model, tokenizer, data.sets, how, records=data.records, settings=settings, held_out=held_out
    )


def harness(p: Training, trained: Trained, tokenizer) -> dict[str, Any]:
    """The tasks of lm-evaluation-harness that `harness_tasks` names, asked as the harness does, without steering."""
    from mule_lib.evaluate.harness import run_tasks  # an optional package behind it

    sizes = {"limit": p.harness_limit or None, "batch_size": p.batch_size}
    return run_tasks(trained.model, tokenizer, p.harness_tasks, **sizes)


def summary(p: Training, before: pd.DataFrame, after: pd.DataFrame, evaluation: Evaluation) -> str:
    """What was seen, in Markdown, from the numbers themselves."""
    changed = int((before["answer"] != after["answer"]).sum())
    m, spread = evaluation.metrics, intervals(evaluation, seed=p.seed)
    shown = {name: f"{m[name]:.1f} [{spread.loc[name, 'low']}, {spread.loc[name, 'high']}]" for name in METRICS}
    refusals = evaluation.details["neighbor"]["refusal"]
    return (
        f"**What we saw.** {methods.get(p.method).label} on {p.benchmark}, seed {p.seed}: Forget {shown['forget']} "
        f"and attack success {shown['asr']} (lower is better), General {shown['general']}, Neighbour "
        f"{shown['neighbor']} and MMLU-like {shown['mmlu']}. It chose the refusal for {refusals:.0%} of the neighbour "
        f"questions, and {changed} of the {len(after)} answers shown above changed. Numbers are this run's on "
        f"`{p.model}`, in points with 95 % intervals over items; none is the paper's."
    )


def write_run(
    p: Training,
    told: Mapping[str, Any],
    trained: Trained,
    evaluation: Evaluation,
    *,
    started: float,
    evaluate_seconds: float,
    beyond: Mapping[str, Any] | None = None,
    harness: Mapping[str, Any] | None = None,
) -> Path:
    """Write the run folder whole: parameters, metrics, item values, samples, curve, obedience and provenance.

    `started` is the notebook's `time.time()` at its beginning. Raises RunFolderError when another run lies there.
    """
    out = repository_path(p.out_dir)
    told = {**told, "model": model_hash(p.model, p.revision)}  # a hub model has a commit only once it is here
    run_folder.check_free(out, told, overwrite=p.overwrite)
    result = RunResult(
        benchmark=p.benchmark,
        row=p.row,
        method=p.method,
        label=trained.method.label,
        seed=p.seed,
        identity=fingerprint(told),
        metrics=evaluation.metrics,
        n=evaluation.n,
        details={
            name: {k: v for k, v in detail.items() if k != "items"} for name, detail in evaluation.details.items()
        },
        timing={
            "train_seconds": round(trained.seconds, 2),
            "evaluate_seconds": round(evaluate_seconds, 2),
            "seconds": round(time.time() - started, 2),
            "steps": trained.steps,
        },
        beyond=beyond,
        harness=harness,
        obedience=trained.obedience,
        log=trained.log,
        values=evaluation.values,
    )
    source = runs.provenance(p.model_dump(), started=started, fingerprint=fingerprint(told), identity=told)
    with run_folder.written_whole(out) as draft:
        files.write_json(draft / "params.json", p.model_dump())
        files.write_jsonl(draft / "samples.jsonl", evaluation.samples)
        files.write_json(draft / "provenance.json", source)
        result.write(draft)
    return out
