"""What notebook 02 does around the measurement: the data in both formats, the teacher's answers, the model."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mule_lib import methods, pilot, targets, teacher_files
from mule_lib.benchmarks.formats import by_format
from mule_lib.benchmarks.load import Loaded
from mule_lib.data_overview import samples
from mule_lib.fingerprint import model_hash
from mule_lib.params import TEACHER_READS, GradientCosine, method_options, repository_path
from mule_lib.prompts import steering
from mule_lib.records import REFUSED, Record
from mule_lib.targets import Target
from mule_lib.training_data import group_of


@dataclass(frozen=True)
class Study:
    """One benchmark, ready to be measured: records and teacher's answers (None: it has no teacher) by format."""

    data: Loaded
    formats: dict[str, list[Record]]
    said: dict[str, list[Target] | None]

    @property
    def obedience(self) -> pd.DataFrame:
        """How often the teacher did what its intention says, 0 to 1, by format, objective and role."""
        lines = [{"format": form, **rate} for form, said in self.said.items() for rate in targets.obedience(said or [])]
        return pd.DataFrame(lines, columns=["format", "objective", "role", "obeyed", "n"])

    @property
    def samples(self) -> pd.DataFrame:
        """One record of each objective that is to be refused, in each format."""
        table = samples(self.formats)
        return table[table["role"].isin(("forget", "adversarial"))].drop(columns=["role"])


def prepare(p: GradientCosine, benchmark: str, model, tokenizer) -> Study:
    """The records of a benchmark in both formats and what the teacher says to them.

    Raises what `by_format` does, and TeacherFileError where `teacher_dir` lacks the file or holds another's.
    """
    folder = repository_path(p.data_dir) / benchmark if p.data_dir else ""
    data, formats = by_format(benchmark, folder)
    kept = {record.id for record in some_pairs(data.records, p.pairs, seed=p.seed)}
    formats = {form: [r for r in records if r.id in kept] for form, records in formats.items()}
    row = methods.with_options(p.method, p.options)
    if "teacher" not in row.options:
        return Study(data, formats, dict.fromkeys(formats))
    if p.teacher_reads == TEACHER_READS[0]:  # records of one id share the teacher's answer
        asked = data.records if p.teacher_dir else formats["standardized"]
        answers = _said(p, row, data, asked, model, tokenizer)
        answers = [one for one in answers if one.id in kept]
        return Study(data, formats, dict.fromkeys(formats, answers))
    said = {form: _said(p, row, data, records, model, tokenizer) for form, records in formats.items()}
    return Study(data, formats, said)


def measure(p: GradientCosine, study: Study, model, tokenizer) -> dict:
    """Cosines by format and number of steps, {format: {steps: [S, 3, B, 3, B]}}, as `pilot_tables` reads them."""
    settings = pilot.PilotSettings(
        steps=tuple(p.steps),
        batches=p.batches,
        draws=p.draws,
        layers=p.layers,
        learning_rate=p.learning_rate,
        train_batch_size=p.train_batch_size,
        train_seeds=p.train_seeds,
        seed=p.seed,
    )
    return {
        form: pilot.cosines_over_training(
            model,
            tokenizer,
            records,
            p.method,
            topic=study.data.topic,
            said=study.said[form],
            settings=settings,
            prompt_name=study.data.prompt_name,
            **p.options,
        )
        for form, records in study.formats.items()
    }


def some_pairs(records: Sequence[Record], number: int, *, seed: int = 0) -> list[Record]:
    """`number` records of every objective and role, partners together where they name each other; 0 takes all.

    Smaller groups are taken whole. The order is that of `records`.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(group_of(record), []).append(record)
    kept: set[str] = set()
    # The groups to refuse lead, so that the others can follow their anchors.
    for name in sorted(groups, key=lambda name: (name.split("/")[1] not in REFUSED, name)):
        shuffled = random.Random(f"pairs/{name}/{seed}").sample(groups[name], len(groups[name]))
        shuffled.sort(key=lambda record: record.anchor not in kept)
        kept |= {record.id for record in shuffled[: number or None]}
    return [record for record in records if record.id in kept]


def _said(p: GradientCosine, row, data: Loaded, records: Sequence[Record], model, tokenizer) -> list[Target]:
    how = steering(row.options["teacher"], data.topic, cot=row.options["cot"], name=data.prompt_name)
    limits = {
        "max_answer_tokens": row.options["max_answer_tokens"],
        "max_thought_tokens": p.max_thought_tokens,
    }
    if p.teacher_dir:
        name = f"{method_options(p.method, p.options).teacher_name}.jsonl"
        file = repository_path(p.teacher_dir) / data.sets.benchmark.removeprefix("fable-") / name
        return teacher_files.read(
            file, teacher_files.told_of(records, how, model=model_hash(p.model, p.revision), **limits)
        )
    return targets.teacher_targets(model, tokenizer, records, how, answers=row.options["answers"], **limits)
