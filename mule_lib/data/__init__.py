"""Raw text to records and evaluation sets: the record and its checks, Fable, published benchmarks, text judges.

One door to every benchmark: `load_benchmark` builds Fable in code and reads prepared folders, which `save` writes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mule_lib.data import items, records
from mule_lib.data.fable.benchmark import evaluation_sets, fable_raw_records, unlearning_records
from mule_lib.data.fable.worlds import build
from mule_lib.data.items import EvaluationSets, prefix_templates
from mule_lib.data.records import Record
from mule_lib.params import BENCHMARKS, DATA_FORMATS, FABLE, LIBRARY, OBJECTIVES, PREPARED, nearest, repository_path

RAW_FILE = "raw.jsonl"


class BenchmarkError(ValueError):
    """A benchmark is unknown, or its data is missing or incomplete; one line that says what would be right."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark ready to train on and to evaluate; `prompt_name` names its prompt texts, `topic` is to be forgotten.

    `unified` are the training records in question-answer form where `records` have another one.
    `validation` may be empty where the folder has none.
    """

    name: str
    topic: str
    prompt_name: str
    records: list[Record]
    validation: list[Record]
    sets: EvaluationSets
    unified: Sequence[Record] = ()

    @property
    def asked(self) -> list[Record]:
        """What a teacher is asked: the records as questions, whatever form the student reads."""
        by_id = {record.id: record for record in self.unified}
        return [by_id.get(record.id, record) for record in self.records]

    @property
    def refusal(self) -> str:
        """The refusal that most records teach."""
        return Counter(record.refusal for record in self.records).most_common(1)[0][0]

    @property
    def attack_templates(self) -> list[str]:
        """The prefixes of all families, as templates for a search."""
        return [each.text for part in ("train", "held_out") for each in prefix_templates(self.prompt_name, part)]

    def counts(self) -> dict[str, int]:
        """How many records and items there are."""
        sets = {name: len(getattr(self.sets, name)) for name in items.SETS}
        return {"train": len(self.records), "validation": len(self.validation), **sets}


def load_benchmark(
    benchmark: str, data_dir: str | Path = "", *, data_format: str = "unified", objectives: Sequence[str] = OBJECTIVES
) -> Benchmark:
    """A benchmark's records and evaluation sets; training records of `objectives` alone.

    Fable is built in code; its records, and its sets where there are some, come from `data_dir` when that is given.
    The others need a `data_dir` that `save` wrote. Other `data_format`s than unified change the training records and
    keep their ids, objectives, roles and order; those of Fable are built in code.
    Raises BenchmarkError, also for raw formats without any passage to forget, or DataFileError.
    """
    if benchmark not in BENCHMARKS:
        raise BenchmarkError(f"benchmark={benchmark!r} is unknown; {nearest(benchmark, BENCHMARKS)}")
    if data_format not in DATA_FORMATS:
        raise BenchmarkError(f"data_format={data_format!r} is unknown; {nearest(data_format, DATA_FORMATS)}")
    folder = repository_path(data_dir) if data_dir else None
    fable = build(0) if benchmark in FABLE else None
    if fable is None and folder is None:
        raise BenchmarkError(f"data_dir: empty; {benchmark} has to be prepared first: {PREPARED[benchmark]}")
    prompt_name = "fable" if fable else benchmark
    if not (LIBRARY / "prompt_texts" / f"{prompt_name}.yaml").is_file():
        raise BenchmarkError(f"mule_lib/prompt_texts/{prompt_name}.yaml: missing; it holds the intentions")
    if folder is None:
        train, validation = (unlearning_records(fable, benchmark, split=split) for split in ("train", "validation"))
    else:
        file, other = folder / "train.jsonl", folder / "validation.jsonl"
        if not file.is_file():
            remedy = f"; make it by: {PREPARED[benchmark]}" if benchmark in PREPARED else ""
            raise BenchmarkError(f"{file}: missing{remedy}")
        train = records.read_records(file)
        validation = records.read_records(other) if other.is_file() else []
    if fable and not (folder and (folder / "evaluation").is_dir()):
        sets = evaluation_sets(fable, benchmark)
    else:
        sets = items.read_sets(folder / "evaluation")
        expected = f"fable-{benchmark}" if fable else benchmark
        if sets.benchmark != expected:
            header = folder / "evaluation" / items.HEADER
            raise BenchmarkError(f"{header}: is of {sets.benchmark}, asked for is {expected}")
    train = [record for record in train if record.objective in objectives]
    if not train:
        raise BenchmarkError(f"objectives={list(objectives)}: {benchmark} has no training records of these")
    read = train if data_format == "unified" else _raw(train, benchmark, folder, data_format)
    told = [record.verbatim for record in read if record.group == ("obj1", "forget")]
    if data_format == "raw" and told and not any(told):
        raise BenchmarkError(
            f"data_format='raw': no record of {benchmark} to forget has a passage to train on verbatim"
        )
    return Benchmark(benchmark, sets.topic, prompt_name, read, validation, sets, train)


def by_format(benchmark: str, data_dir: str | Path = "") -> tuple[Benchmark, dict[str, list[Record]]]:
    """The benchmark, and its training records by format, raw ones (where there are some) and unified, in one order."""
    unified, folder = load_benchmark(benchmark, data_dir), Path(data_dir) if data_dir else None
    raw = ("raw", "raw_prompts") if benchmark in FABLE else ("raw",) if (folder / RAW_FILE).is_file() else ()
    formats = {form: _raw(unified.records, benchmark, folder, form) for form in raw}
    return unified, {**formats, "standardized": unified.records}


def save(folder: str | Path, benchmark: Benchmark, *, raw: Sequence[Record] = ()) -> None:
    """Write a benchmark to a folder that `load_benchmark` reads: training, validation, evaluation and raw records."""
    folder = Path(folder)
    if raw:
        records.write_records(folder / RAW_FILE, raw)
    records.write_records(folder / "train.jsonl", benchmark.records)
    if benchmark.validation:
        records.write_records(folder / "validation.jsonl", benchmark.validation)
    items.write_sets(folder / "evaluation", benchmark.sets)


def _raw(unified: list[Record], benchmark: str, folder: Path | None, data_format: str) -> list[Record]:
    """Unified records in another form, in their order."""
    if benchmark in FABLE:
        raw, where = fable_raw_records(build(0), benchmark, data_format), f"{benchmark}, built in code"
    else:
        raw, where = records.read_records(folder / RAW_FILE), str(folder / RAW_FILE)
    by_id = {record.id: record for record in raw}
    for record in unified:
        if record.id not in by_id or by_id[record.id].group != record.group:
            raise BenchmarkError(f"{where}: no raw record with the id, objective and role of {record.id!r}")
    return [by_id[record.id] for record in unified]
