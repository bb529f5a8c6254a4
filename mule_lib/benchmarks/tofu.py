"""TOFU (Maini 2024): questions about invented authors. Only a model that was taught them (TOFU's `full`) knows them."""

from dataclasses import dataclass
from pathlib import Path

from mule_lib.benchmarks.hub import HubData
from mule_lib.benchmarks.raw import table
from mule_lib.benchmarks.schema import Column
from mule_lib.data.items import OpenItem

HUB = HubData("locuslab/TOFU", "324592d84ae4f482ac7249b9285c2ecdb53e3a68")
LICENCE = "MIT"
_QA = (Column("question"), Column("answer", "reference"))
_PERTURBED = (
    Column("question"),
    Column("answer", "reference"),
    Column("paraphrased_question", required=False),
    Column("paraphrased_answer", required=False),
    Column("perturbed_answer", "texts"),
)


@dataclass(frozen=True)
class Perturbed:
    """A question with wrong answers of the same form, and its paraphrase where there is one."""

    item: OpenItem
    paraphrase: str
    right: str
    wrong: tuple[str, ...]


def pairs(source: str | Path = "", *, config: str = "forget01", revision: str | None = None) -> tuple[OpenItem, ...]:
    """Questions of one configuration: forget01/05/10, retain99/95/90, real_authors, world_facts, full.

    Twenty questions follow each other per author. Raises DataFileError or DataAccessError.
    """
    rows = table(source, HUB, _QA, config=config, splits=_splits(config, source), revision=revision)
    return tuple(OpenItem(f"{config}/{n}", v["question"], v["answer"], config) for n, (_, v) in enumerate(rows, 1))


def perturbed(source: str | Path = "", *, config: str, revision: str | None = None) -> tuple[Perturbed, ...]:
    """Questions of `<config>_perturbed` with their wrong answers. Raises DataFileError or DataAccessError."""
    name = f"{config}_perturbed"
    rows = table(source, HUB, _PERTURBED, config=name, splits=_splits(name, source), revision=revision)
    return tuple(
        Perturbed(
            OpenItem(f"{name}/{n}", v["question"], v["answer"], config),
            v.get("paraphrased_question", v["question"]),
            v.get("paraphrased_answer", v["answer"]),
            v["perturbed_answer"],
        )
        for n, (_, v) in enumerate(rows, 1)
    )


def _splits(config: str, source: str | Path) -> tuple[str, ...]:
    return ("train",) if source == "" else (config,)
