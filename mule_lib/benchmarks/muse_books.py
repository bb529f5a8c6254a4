"""MUSE-Books (Shi 2024): questions about four books of one series, their text, and text of the same world to retain.

MUSE's "retain" questions are about the same fictional world, so here they are neighbours and not MULE's General set.
There is no `sust` and no `scal` configuration (only MUSE-News has them).
"""

from dataclasses import dataclass
from pathlib import Path

from mule_lib.benchmarks.hub import HubData
from mule_lib.benchmarks.raw import RawText, table
from mule_lib.benchmarks.schema import Column
from mule_lib.data.items import OpenItem

HUB = HubData("muse-bench/MUSE-Books", "051ba90319e920d410d87cfdbd61f25843c1b892")
LICENCE = "CC-BY-4.0"
_QA = (Column("question"), Column("answer", "reference"))
# Older revisions (63a49b0, 52332cd) named the retain splits `retain2_*`.
_KNOWMEM = {
    "forget": ("forget_qa",),
    "retain": ("retain_qa", "retain2_qa"),
    "forget_shots": ("forget_qa_icl",),
    "retain_shots": ("retain_qa_icl", "retain2_qa_icl"),
}
RAW_SPLITS = ("forget", "retain1", "retain2", "holdout")


@dataclass(frozen=True)
class KnowMem:
    """MUSE's knowledge memorisation questions; `*_shots` are the few-shot pairs, which evaluate nothing."""

    forget: tuple[OpenItem, ...]
    retain: tuple[OpenItem, ...]
    forget_shots: tuple[OpenItem, ...]
    retain_shots: tuple[OpenItem, ...]


def knowmem(source: str | Path = "", *, revision: str | None = None) -> KnowMem:
    """The four splits of `knowmem` (100, 100, 10, 10 rows) from the Hub (`source` "") or from a folder.

    Raises DataFileError for a bad row and DataAccessError where the dataset cannot be had.
    """
    parts = {}
    for part, splits in _KNOWMEM.items():
        rows = table(source, HUB, _QA, config="knowmem", splits=splits, revision=revision)
        parts[part] = tuple(
            OpenItem(f"knowmem/{part}/{n}", values["question"], values["answer"], f"muse_{part}")
            for n, (_, values) in enumerate(rows, 1)
        )
    return KnowMem(**parts)


def raw(source: str | Path = "", *, split: str = "forget", revision: str | None = None) -> list[RawText]:
    """Whole books (`forget`, 4 rows) or pages about their world (`retain1`, `retain2`) as raw texts.

    A row is a whole book of about a million characters: chunk it. Raises ValueError for another split, DataFileError
    or DataAccessError for the data.
    """
    if split not in RAW_SPLITS:
        raise ValueError(f"split={split!r}: the raw texts have {', '.join(RAW_SPLITS)}")
    rows = table(source, HUB, (Column("text"),), config="raw", splits=(split,), revision=revision)
    role = "forget" if split == "forget" else "retain"
    return [
        RawText(f"raw/{split}/{n}", v["text"], f"{r.where}#{r.number}", "", role) for n, (r, v) in enumerate(rows, 1)
    ]
