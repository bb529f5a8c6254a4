"""One door to every benchmark: training records, validation records and evaluation sets, built in code or read."""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mule_lib.data import records
from mule_lib.data.items import HEADER, EvaluationSets, read_sets, write_sets
from mule_lib.data.records import Record
from mule_lib.params import BENCHMARKS, FABLE, PREPARED, nearest


class BenchmarkError(ValueError):
    """A benchmark is unknown, or its data is missing or incomplete; one line that says what would be right."""


@dataclass(frozen=True)
class Loaded:
    """A benchmark ready to train on and to evaluate; `prompt_name` names its prompt texts, `topic` is to be forgotten.

    `validation` may be empty where the folder has none.
    """

    records: list[Record]
    validation: list[Record]
    sets: EvaluationSets
    prompt_name: str
    topic: str


def load(benchmark: str, data_dir: str | Path = "", *, prefixes: str = "train") -> Loaded:
    """A benchmark's records and evaluation sets.

    Fable is built in code (attacks use its prefix families of `prefixes`); its records, and its sets where there are
    some, come from `data_dir` when that is given. The real benchmarks need a `data_dir` with `train.jsonl`,
    `evaluation/*.jsonl` and perhaps `validation.jsonl`. Raises BenchmarkError, RecordError or DataFileError.
    """
    check_name(benchmark)
    folder = Path(data_dir) if data_dir else None
    if benchmark in FABLE:
        return _fable(benchmark, folder, prefixes)
    if folder is None:
        raise BenchmarkError(f"data_dir: empty; {benchmark} has to be prepared first: {PREPARED[benchmark]}")
    train, validation = _records(folder, benchmark)
    sets = read_sets(folder / "evaluation")
    if sets.benchmark != benchmark:
        raise BenchmarkError(f"{folder / 'evaluation' / HEADER}: is of {sets.benchmark}, asked for is {benchmark}")
    return Loaded(train, validation, sets, _prompt_name(benchmark), sets.topic)


def save(folder: str | Path, loaded: Loaded) -> None:
    """Write a prepared benchmark to a folder that `load` reads: train, validation and evaluation/*.jsonl."""
    folder = Path(folder)
    records.write(folder / "train.jsonl", loaded.records)
    if loaded.validation:
        records.write(folder / "validation.jsonl", loaded.validation)
    write_sets(folder / "evaluation", loaded.sets)


def check_name(benchmark: str) -> None:
    """Raise BenchmarkError with the nearest name unless the benchmark exists."""
    if benchmark not in BENCHMARKS:
        raise BenchmarkError(f"benchmark={benchmark!r} is unknown; {nearest(benchmark, BENCHMARKS)}")


def _fable(benchmark: str, folder: Path | None, prefixes: str) -> Loaded:
    from mule_lib.benchmarks.fable.evaluation import evaluation_sets
    from mule_lib.benchmarks.fable.unlearning import unlearning_records
    from mule_lib.benchmarks.fable.worlds import build

    fable = build(0)
    sets = evaluation_sets(fable, benchmark, prefixes=prefixes)
    if folder is None:
        both = (unlearning_records(fable, benchmark, split=split) for split in ("train", "validation"))
        return Loaded(*both, sets, "fable", sets.topic)
    train, validation = _records(folder, benchmark)
    if (folder / "evaluation").is_dir():
        sets = read_sets(folder / "evaluation")
        if sets.benchmark != f"fable-{benchmark}":
            raise BenchmarkError(f"{folder / 'evaluation' / HEADER}: is of {sets.benchmark}, not of fable-{benchmark}")
    return Loaded(train, validation, sets, "fable", sets.topic)


def _records(folder: Path, benchmark: str) -> tuple[list[Record], list[Record]]:
    file = folder / "train.jsonl"
    if not file.is_file():
        how = f"; make it by: {PREPARED[benchmark]}" if benchmark in PREPARED else ""
        raise BenchmarkError(f"{file}: missing{how}")
    validation = folder / "validation.jsonl"
    return records.read(file), records.read(validation) if validation.is_file() else []


def _prompt_name(benchmark: str) -> str:
    file = resources.files("mule_lib").joinpath("prompt_texts", f"{benchmark}.yaml")
    if not file.is_file():
        raise BenchmarkError(f"mule_lib/prompt_texts/{benchmark}.yaml: missing; it holds the intentions of {benchmark}")
    return benchmark


def describe(loaded: Loaded) -> str:
    """Counts of a loaded benchmark, as JSON on one line."""
    names = ("forget", "general", "neighbor", "attack", "mmlu", "controls")
    counts = {name: len(getattr(loaded.sets, name)) for name in names}
    return json.dumps({"train": len(loaded.records), "validation": len(loaded.validation), **counts})
