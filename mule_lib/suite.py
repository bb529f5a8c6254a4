"""A suite as data: which rows on which benchmarks with which seeds, and the files that each of its steps needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mule_lib.benchmarks.load import BENCHMARKS, FABLE, PREPARED
from mule_lib.closure import ROOT, behind_results
from mule_lib.method_catalogue import catalogue, nearest, options_of, teacher_name
from mule_lib.params import ParameterError, error_line, read_yaml

TRAINING = "03_training"
_TAUGHT_BY = {"model": "base", "revision": "", "precision": "fp32", "max_thought_tokens": 48}


class RunGroup(BaseModel):
    """Rows that run on the same benchmarks with the same number of seeds; rows that train nothing run once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: list[str] = Field(min_length=1)
    benchmarks: list[str] = Field(min_length=1)
    seeds: int = Field(1, ge=1)


class SuiteParams(BaseModel):
    """`params/suite/*.yaml`: `params` names the rows' folder below params/03_training and the other notebooks' files.

    `data` maps benchmarks that are prepared outside of the suite to their folder. `beyond` rows are also measured
    beyond the paper, with their first seed on the benchmarks given. `seeds` caps the seeds of all groups.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]+$")
    params: str
    runs: list[RunGroup] = Field(min_length=1)
    beyond: list[RunGroup] = []
    data: dict[str, str] = {}
    seeds: int | None = Field(None, ge=1)
    gpus_per_run: int = Field(0, ge=0)


@dataclass(frozen=True)
class Run:
    """One training run of a suite; `teacher` is the stem of its teacher's file, None without one."""

    benchmark: str
    row: str
    seed: int
    params: Path
    teacher: str | None
    beyond: bool = False


def read(file: Path, **changed: Any) -> SuiteParams:
    """Read a suite file with some keys changed; None leaves a key as it is. Raises ParameterError as `check` does."""
    return check({**read_yaml(file), **{k: v for k, v in changed.items() if v is not None}}, source=str(file))


def check(values: Mapping[str, Any], *, source: str = "suite") -> SuiteParams:
    """The checked suite. Raises ParameterError with key and nearest name for what does not exist or has no data."""
    try:
        suite = SuiteParams(**values)
    except ValidationError as error:
        raise ParameterError(
            "; ".join(
                error_line(source, item, RunGroup if len(item["loc"]) > 1 else SuiteParams) for item in error.errors()
            )
        ) from None
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
                if benchmark not in BENCHMARKS:
                    raise ParameterError(f"{source}: {key}: benchmark {benchmark!r}: {nearest(benchmark, BENCHMARKS)}")
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


def runs(suite: SuiteParams) -> list[Run]:
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


def teacher_model(suite: SuiteParams, benchmark: str, teacher: str) -> str:
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


def benchmarks(suite: SuiteParams) -> list[str]:
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


def prepared_files(suite: SuiteParams, benchmark: str) -> list[str]:
    """What notebook 01 reads of a benchmark that was prepared outside of the suite, [] for one that it builds."""
    if is_built(benchmark):
        return []
    folder = Path(suite.data[benchmark])
    names = ("train.jsonl", "raw.jsonl", "validation.jsonl", "evaluation/sets.json")
    return [(folder / name).as_posix() for name in names if (ROOT / folder / name).is_file()]


def all_have_teacher(suite: SuiteParams, teacher: str) -> bool:
    """Whether some row of every benchmark trains with this shared teacher."""
    return {run.benchmark for run in runs(suite) if run.teacher == teacher} == set(benchmarks(suite))


@cache
def _row(params: str, row: str) -> dict[str, Any]:
    file = ROOT / "params" / TRAINING / params / f"{row}.yaml"
    values = yaml.safe_load(file.read_text("utf-8")) or {}
    method = values.get("method", "mule")
    try:
        options = options_of(method, values.get("options") or {})
    except ValueError as error:
        raise ParameterError(f"{file}: {error}") from None
    trains = catalogue()[method]["trains"]
    return {"trains": trains, "teacher": teacher_name(options) if trains else None}


def describe(suite: SuiteParams, found: Sequence[Run]) -> str:
    """One line: what a suite will run."""
    rows = len({run.row for run in found})
    return f"{suite.name}: {len(found)} runs of {rows} rows on {', '.join(benchmarks(suite))}"


def params_file(stem: str, params: str) -> list[str]:
    """The file of a notebook's parameters for a suite, [] where there is none and its defaults hold."""
    file = Path("params") / stem / f"{params}.yaml"
    return [file.as_posix()] if (ROOT / file).is_file() else []
