"""A suite as data: which rows on which benchmarks with which seeds, and the files that each of its steps needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mule_lib.closure import behind_results
from mule_lib.params import FABLE, PREPARED, ROOT, ParameterError, Suite, method_options, nearest, read_yaml, validate

TRAINING = "04_training"
_TAUGHT_BY = {"model": "base", "revision": "", "precision": "fp32", "max_thought_tokens": 48}


@dataclass(frozen=True)
class Run:
    """One training run of a suite; `teacher` is the stem of its teacher's file, None without one."""

    benchmark: str
    row: str
    seed: int
    params: Path
    teacher: str | None
    beyond: bool = False


def read(file: Path, **changed: Any) -> Suite:
    """Read a suite file with some keys changed; None leaves a key as it is. Raises ParameterError as `check` does."""
    return check({**read_yaml(file), **{k: v for k, v in changed.items() if v is not None}}, source=str(file))


def check(values: Mapping[str, Any], *, source: str = "suite") -> Suite:
    """The checked suite. Raises ParameterError with key and nearest name for what does not exist or has no data."""
    suite = validate("suite", values, source=source)
    folder = ROOT / "params" / TRAINING / suite.params
    if not folder.is_dir():
        names = [path.name for path in folder.parent.iterdir() if path.is_dir()]
        raise ParameterError(f"{source}: params = {suite.params!r}: {nearest(suite.params, names)}")
    known = [path.stem for path in folder.glob("*.yaml")]
    for key in ("runs", "beyond"):
        for group in getattr(suite, key):
            for row in group.rows:
                if row not in known:
                    raise ParameterError(f"{source}: {key}: row {row!r} has no file in {folder}; {nearest(row, known)}")
            for benchmark in group.benchmarks:
                if benchmark in PREPARED and not (ROOT / suite.data.get(benchmark, "-") / "train.jsonl").is_file():
                    where = suite.data.get(benchmark, f"(no folder is set for {benchmark})")
                    raise ParameterError(
                        f"{source}: data: {where} has no train.jsonl; prepare it by {PREPARED[benchmark]}"
                    )
    measured = {(run.benchmark, run.row) for run in runs(suite)}
    for group in suite.beyond:
        for pair in ((benchmark, row) for benchmark in group.benchmarks for row in group.rows):
            if pair not in measured:
                raise ParameterError(f"{source}: beyond: {pair[1]!r} on {pair[0]!r} is not among the runs")
    return suite


def runs(suite: Suite) -> list[Run]:
    """Every training run of a suite, ordered by seed."""
    wanted: dict[tuple[str, str], int] = {}
    for group in suite.runs:
        for benchmark in group.benchmarks:
            for row in group.rows:
                seeds = min(group.seeds, suite.seeds or group.seeds) if _row(suite.params, row)["trains"] else 1
                wanted[benchmark, row] = max(wanted.get((benchmark, row), 0), seeds)
    further = {(b, row) for group in suite.beyond for b in group.benchmarks for row in group.rows}
    found = [
        Run(
            benchmark,
            row,
            seed,
            Path("params") / TRAINING / suite.params / f"{row}.yaml",
            _row(suite.params, row)["teacher"],
            seed == 0 and (benchmark, row) in further,
        )
        for (benchmark, row), seeds in wanted.items()
        for seed in range(seeds)
    ]
    return sorted(found, key=lambda run: run.seed)


def teacher_model(suite: Suite, benchmark: str, teacher: str) -> str:
    """Options of `mule teacher` for the model that the rows sharing a teacher train, "" for the embedded one.

    Raises ParameterError where those rows train different models, which cannot share a teacher's answers.
    """
    files = {run.params for run in runs(suite) if (run.benchmark, run.teacher) == (benchmark, teacher)}
    asked = set()
    for file in files:
        values = yaml.safe_load((ROOT / file).read_text("utf-8")) or {}
        asked.add(tuple(values.get(key, default) for key, default in _TAUGHT_BY.items()))
    if len(asked) > 1:
        models = ", ".join(sorted({str(model) for model, *_ in asked}))
        raise ParameterError(
            f"params/{TRAINING}/{suite.params}: rows that share a teacher differ in model, revision or "
            f"precision ({models}); give them one, or a params folder each"
        )
    given = dict(zip(_TAUGHT_BY, asked.pop(), strict=True)) if asked else _TAUGHT_BY
    return " ".join(f"--{key.replace('_', '-')} {value}" for key, value in given.items() if value != _TAUGHT_BY[key])


def benchmarks(suite: Suite) -> list[str]:
    """The benchmarks of a suite, in the order in which its file names them."""
    return list(dict.fromkeys(name for group in suite.runs for name in group.benchmarks))


def notebook(stem: str) -> list[str]:
    """What a step that runs a notebook depends on besides its data: the notebook, first, and the library behind it."""
    own = f"notebooks/{stem}.ipynb"
    if not (ROOT / own).is_file():
        return [own]
    return [own, *(file.as_posix() for file in behind_results(ROOT / own) if file.as_posix() != own)]


def module(name: str) -> list[str]:
    """What a step that calls a module of the library depends on."""
    own = f"mule_lib/{name}.py"
    return [file.as_posix() for file in behind_results(ROOT / own)] if (ROOT / own).is_file() else [own]


def is_built(benchmark: str) -> bool:
    """Whether the suite makes a benchmark's data itself."""
    return benchmark in FABLE


def prepared_files(suite: Suite, benchmark: str) -> list[str]:
    """What notebook 01 reads of a benchmark that was prepared outside of the suite, [] for one that it builds."""
    if is_built(benchmark):
        return []
    folder = Path(suite.data[benchmark])
    names = ("train.jsonl", "raw.jsonl", "validation.jsonl", "evaluation/sets.json")
    return [(folder / name).as_posix() for name in names if (ROOT / folder / name).is_file()]


def all_have_teacher(suite: Suite, teacher: str) -> bool:
    """Whether some row of every benchmark trains with this shared teacher."""
    return {run.benchmark for run in runs(suite) if run.teacher == teacher} == set(benchmarks(suite))


@cache
def _row(params: str, row: str) -> dict[str, Any]:
    file = ROOT / "params" / TRAINING / params / f"{row}.yaml"
    values = yaml.safe_load(file.read_text("utf-8")) or {}
    try:
        options = method_options(values.get("method", "mule"), values.get("options"))
    except ValueError as error:
        raise ParameterError(f"{file}: {error}") from None
    return {"trains": options.trains, "teacher": options.teacher_name}


def describe(suite: Suite, found: Sequence[Run]) -> str:
    """One line: what a suite will run."""
    rows = len({run.row for run in found})
    return f"{suite.name}: {len(found)} runs of {rows} rows on {', '.join(benchmarks(suite))}"


def params_file(stem: str, params: str) -> list[str]:
    """The file of a notebook's parameters for a suite, [] where there is none and its defaults hold."""
    file = Path("params") / stem / f"{params}.yaml"
    return [file.as_posix()] if (ROOT / file).is_file() else []
