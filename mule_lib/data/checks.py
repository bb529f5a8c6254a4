"""What notebook 01 shows of a benchmark's records: samples before and after, counts, and the checks that they pass."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mule_lib.data import Benchmark
from mule_lib.data.items import SETS, ChoiceItem
from mule_lib.data.records import REFUSED, Record
from mule_lib.data.standardize.checks import similarities
from mule_lib.data.text import normalise


def samples(formats: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """A record of every objective and role, with its text in each format, the attacker's prefix and its target."""
    lines = {}
    for each in zip(*formats.values(), strict=True):
        texts = {form: record.question for form, record in zip(formats, each, strict=True)}
        line = {"objective": each[-1].objective, "role": each[-1].role, **texts}
        lines.setdefault(each[-1].group, {**line, "prefix": each[-1].prefix or "", "target": each[-1].target})
    return pd.DataFrame(lines.values())


def record_counts(splits: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Records by objective and role (rows) and split (columns), with how many facts they rest on."""
    columns = ["objective", "role", "refused", "split"]
    lines = [
        (*map(str, r.group), r.role in REFUSED, split, r.source) for split, records in splits.items() for r in records
    ]
    groups = pd.DataFrame(lines, columns=[*columns, "fact"]).groupby(columns, sort=False)["fact"]
    return groups.agg(records="size", facts="nunique").unstack("split", sort=False)


def checks(data: Benchmark, *, near_duplicate: float = 0.8) -> pd.DataFrame:
    """How many records break each rule of the unified form, what is allowed, and whether the rule holds.

    `near_duplicate` (0 to 1) is the similarity of character 5-grams from which two questions with the same answer
    count as one. Asking one fact under two objectives is meant, so doubles are sought within an objective and role.
    """
    train, everything = data.records, [*data.records, *data.validation]
    items = [item for name in SETS for item in getattr(data.sets, name)]
    evaluated = [
        (item.question, item.options[item.answer] if isinstance(item, ChoiceItem) else item.reference) for item in items
    ]
    asked, ids = {normalise(question) for question, _ in evaluated}, {item.id for item in items}
    held = {record.source for record in data.validation}
    answered = {record.id for record in everything if record.role not in REFUSED}
    # A general fact may stand beside several facts to refuse: the same question about the same fact is one text.
    own: dict[str, set[tuple[str, str, str]]] = {}
    for r in train:
        own.setdefault(str(r.group), set()).add((r.question, r.answer, r.source))
    broken = {
        "training question stands in an evaluation set": [normalise(r.question) in asked for r in everything],
        "training fact is evaluated": [r.source in ids for r in everything],
        "training fact is a validation fact": [r.source in held for r in train],
        "training question is nearly an evaluation question": [
            _doubled([(r.question, r.answer) for r in everything], evaluated, near_duplicate)
        ],
        "question nearly repeats one of its objective and role": [
            _doubled([pair[:2] for pair in sorted(group)], [], near_duplicate) for group in own.values()
        ],
        "question names its own answer": [
            f" {normalise(r.answer)} " in f" {normalise(r.question)} " for r in everything
        ],
        "record to refuse without an anchor to answer": [
            r.role in REFUSED and r.anchor not in answered for r in everything
        ],
        "answer is a refusal": [normalise(r.answer) == normalise(r.refusal) for r in everything],
    }
    table = pd.DataFrame({"rule": list(broken), "records": [sum(each) for each in broken.values()], "allowed": 0})
    return table.assign(holds=table["records"] == 0)


def _doubled(pairs: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]], threshold: float) -> int:
    """How many of `pairs` are nearly one of `others`, or without others, nearly an earlier one of `pairs`."""
    everything = [*pairs, *others]
    answers = np.array([normalise(answer) for _, answer in everything])
    count = 0
    for i, alike in itertools.islice(similarities([question for question, _ in everything]), len(pairs)):
        rivals = slice(len(pairs), None) if others else slice(0, i)
        count += ((alike[rivals] >= threshold) & (answers[rivals] == answers[i])).any()
    return int(count)
