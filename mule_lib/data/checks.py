"""What notebook 01 shows of a benchmark's records: samples before and after, counts, and the checks that they pass."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mule_lib.data import Benchmark
from mule_lib.data.items import SETS, EvaluationSets
from mule_lib.data.records import REFUSED, Record
from mule_lib.data.standardize.checks import similarities
from mule_lib.data.text import normalise


def samples(formats: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """A record of every objective and role, with its text in each format, the attacker's prefix and its target."""
    lines = {}
    for place, record in enumerate(list(formats.values())[-1]):
        texts = {form: records[place].question for form, records in formats.items()}
        line = {"objective": record.objective, "role": record.role, **texts}
        lines.setdefault(record.group, {**line, "prefix": record.prefix or "", "target": record.target})
    return pd.DataFrame(lines.values())


def record_counts(splits: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Records by objective and role (rows) and split (columns), with how many facts they rest on."""
    columns = ["objective", "role", "refused", "split"]
    lines = [
        (*map(str, r.group), r.role in REFUSED, split, r.source) for split, records in splits.items() for r in records
    ]
    groups = pd.DataFrame(lines, columns=[*columns, "fact"]).groupby(columns, sort=False)["fact"]
    return groups.agg(records="size", facts="nunique").unstack("split", sort=False)


def lengths(formats: Mapping[str, Sequence[Record]], tokenizer) -> pd.DataFrame:
    """Median number of tokens of the questions, by objective (rows) and format (columns)."""
    lines = [
        (record.objective, form, len(tokenizer(record.question, add_special_tokens=False)["input_ids"]))
        for form, records in formats.items()
        for record in records
    ]
    table = pd.DataFrame(lines, columns=["objective", "format", "tokens"])
    return table.groupby(["objective", "format"], sort=False)["tokens"].median().unstack().astype(int)


def checks(data: Benchmark, *, near_duplicate: float = 0.8) -> pd.DataFrame:
    """How many records break each rule of the unified form, what is allowed, and whether the rule holds.

    `near_duplicate` (0 to 1) is the similarity of character 5-grams from which two questions with the same answer
    count as one. Asking one fact under two objectives is meant, so doubles are sought within an objective and role.
    """
    train, everything = data.records, [*data.records, *data.validation]
    asked = {normalise(question) for question, _ in _items(data.sets)}
    evaluated = {item.id for name in SETS for item in getattr(data.sets, name)}
    held = {record.source for record in data.validation}
    answered = {record.id for record in everything if record.role not in REFUSED}
    pairs = [(record.question, record.answer) for record in everything]
    found = {
        "training question stands in an evaluation set": sum(normalise(r.question) in asked for r in everything),
        "training fact is evaluated": sum(r.source in evaluated for r in everything),
        "training fact is a validation fact": sum(r.source in held for r in train),
        "training question is nearly an evaluation question": _doubled(pairs, _items(data.sets), near_duplicate),
        "question nearly repeats one of its objective and role": _repeats(train, near_duplicate),
        "question names its own answer": sum(
            f" {normalise(r.answer)} " in f" {normalise(r.question)} " for r in everything
        ),
        "record to refuse without an anchor to answer": sum(
            r.role in REFUSED and r.anchor not in answered for r in everything
        ),
        "answer is a refusal": sum(normalise(r.answer) == normalise(r.refusal) for r in everything),
    }
    lines = [(rule, number, 0, number == 0) for rule, number in found.items()]
    return pd.DataFrame(lines, columns=["rule", "records", "allowed", "holds"])


def _items(sets: EvaluationSets) -> list[tuple[str, str]]:
    """Question and right answer of every evaluation item."""
    return [
        (item.question, item.reference if hasattr(item, "reference") else item.options[item.answer])
        for name in SETS
        for item in getattr(sets, name)
    ]


def _repeats(records: Sequence[Record], threshold: float) -> int:
    count = 0
    for group in sorted({(r.objective, r.role) for r in records}):
        # A general fact may stand beside several facts to refuse: the same question about the same fact is one text.
        own = {(r.question, r.answer, r.source) for r in records if (r.objective, r.role) == group}
        pairs = [(question, answer) for question, answer, _ in sorted(own)]
        count += _doubled(pairs, [], threshold)
    return count


def _doubled(pairs: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]], threshold: float) -> int:
    """How many of `pairs` are nearly one of `others`, or without others, nearly an earlier one of `pairs`."""
    everything = [*pairs, *others]
    answers = np.array([normalise(answer) for _, answer in everything])
    count = 0
    for i, alike in itertools.islice(similarities([question for question, _ in everything]), len(pairs)):
        rivals = slice(len(pairs), None) if others else slice(0, i)
        count += ((alike[rivals] >= threshold) & (answers[rivals] == answers[i])).any()
    return int(count)
