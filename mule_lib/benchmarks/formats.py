"""A benchmark's training records in the two formats of the pilot study: raw and standardized."""

from pathlib import Path

from mule_lib.benchmarks.load import BenchmarkError, Loaded, load
from mule_lib.data import records
from mule_lib.data.records import Record
from mule_lib.params import FABLE

FORMATS = ("raw", "standardized")
RAW_FILE = "raw.jsonl"


def by_format(benchmark: str, data_dir: str | Path = "") -> tuple[Loaded, dict[str, list[Record]]]:
    """The loaded benchmark, and its training records by format: same ids, roles, refusals and order in both.

    Fable's raw records are built in code; others stand in `raw.jsonl` of `data_dir`, and without it there is no raw
    format. Raises BenchmarkError or RecordError for data that is missing or malformed, and where the two formats do
    not have the same records.
    """
    loaded = load(benchmark, data_dir)
    if benchmark in FABLE:
        from mule_lib.benchmarks.fable.raw import raw_records
        from mule_lib.benchmarks.fable.worlds import build

        raw, where = raw_records(build(0), benchmark), f"{benchmark}, built in code"
    elif (file := Path(data_dir) / RAW_FILE).is_file():
        raw, where = records.read(file), str(file)
    else:
        return loaded, {"standardized": loaded.records}
    by_id = {record.id: record for record in raw}
    for record in loaded.records:
        other = by_id.get(record.id)
        if other is None or (other.objective, other.role) != (record.objective, record.role):
            raise BenchmarkError(f"{where}: no raw record with the id, objective and role of {record.id!r}")
    return loaded, {"raw": [by_id[record.id] for record in loaded.records], "standardized": loaded.records}
