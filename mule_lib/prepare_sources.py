"""`mule prepare`: the published questions of RWKU and TOFU, put together by `prepare` and written to a data folder."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

from mule_lib import prompts
from mule_lib.benchmarks import mmlu, rwku, tofu
from mule_lib.data import Benchmark
from mule_lib.data.files import DataFileError, iterate
from mule_lib.data.text import is_refusal
from mule_lib.prepare import PrepareError, Questions, assemble


def prepared_rwku(
    subject: str,
    *,
    source: str = "",
    mmlu_source: str = "",
    refusals: str = "",
    levels: Sequence[int] = rwku.LEVELS,
    seed: int = 0,
) -> Benchmark:
    """RWKU's data for one person: probes of `levels`, those of its neighbours, TriviaQA as General, RWKU's MMLU.

    A person has about 14 probes a level; `mmlu_source` takes MMLU's questions from elsewhere.
    Raises PrepareError without a subject, DataFileError or DataAccessError for the data.
    """
    if not subject:
        raise PrepareError(f"subject: empty; name the person to forget, for example {rwku.targets(source)[0]!r}")
    questions = Questions(
        forget=[item for level in levels for item in rwku.probes(source, subject=subject, level=level)],
        neighbor=[item for level in levels for item in rwku.probes(source, subject=subject, level=level, near=True)],
        general=rwku.general(source),
        mmlu=mmlu.questions(mmlu_source) if mmlu_source else rwku.mmlu(source),
        refusals=_refusals("rwku", refusals),
    )
    return assemble("rwku", subject, questions, seed=seed)


def prepared_tofu(
    topic: str,
    *,
    forget: str = "forget10",
    source: str = "",
    mmlu_source: str = "",
    refusals: str = "",
    seed: int = 0,
) -> Benchmark:
    """TOFU's data: the authors of `forget`, other invented authors as neighbours, real authors and facts as General.

    `topic` names the authors to forget, which the teacher's intention needs. The model has to know TOFU: give one that
    was trained on `full`. Raises PrepareError without a topic, DataFileError or DataAccessError for the data.
    """
    if not topic:
        raise PrepareError(
            f"subject: empty; name the authors of {forget}, as 'the writers ...', for the teacher's intention"
        )
    near = tofu.perturbed(source, config="retain")
    general = [item for config in ("real_authors", "world_facts") for item in tofu.pairs(source, config=config)]
    questions = Questions(
        forget=tofu.pairs(source, config=forget),
        neighbor=[entry.item for entry in near],
        general=general,
        mmlu=mmlu.questions(mmlu_source),
        refusals=_refusals("tofu", refusals),
        right_and_wrong={entry.item.id: (entry.right, entry.wrong) for entry in near},
    )
    return assemble("tofu", topic, questions, seed=seed)


def read_refusals(path: str | Path) -> list[str]:
    """Refusal sentences from a text file (one a line) or a CSV file (one column), those that the judge recognises.

    A first line without a full stop is a header. The judge would count the others as answers, so they are left out
    with a warning. Raises DataFileError where none is left.
    """
    path = Path(path)
    if path.suffix == ".csv":
        [*_] = iterate(path, header=("refusal",))  # the checks of every data file
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [row[0] for row in csv.reader(stream) if row]
    else:
        lines = [line for _, values in _lines(path) for line in values]
    if lines and lines[0].strip()[-1:] not in ".!?":
        lines = lines[1:]
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    seen = [text for text in texts if is_refusal(text)]
    if not seen:
        raise DataFileError(f"{path}: none of its {len(texts)} lines is a refusal that the judge recognises")
    if len(seen) < len(texts):
        warnings.warn(
            f"{path}: {len(texts) - len(seen)} of {len(texts)} lines left out, no refusals to the judge", stacklevel=2
        )
    return seen


def _lines(path: Path):
    for row, values in iterate(path):
        yield row, values["text"].splitlines()


def _refusals(benchmark: str, path: str) -> Sequence[str]:
    return read_refusals(path) if path else prompts.texts(benchmark)["refusals"]
