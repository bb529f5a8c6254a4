"""Evaluation sets: open questions, multiple choice, prefilling attacks and how these are made; JSON Lines files."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

from mule_lib import prompts
from mule_lib.data import files
from mule_lib.data.files import STRICT, DataFileError
from mule_lib.data.records import Objective

REFUSAL_OPTION = "I do not know"  # the paper's own example (5.1)
Routed = Annotated[str, files.member_of(Objective)]


@dataclass(frozen=True)
class OpenItem:
    """An open question with its reference answer; `objective` is the intention an oracle would route it to.

    `pool` names the values of the reference's kind in `EvaluationSets.pools`, "" where they are unknown.
    """

    __pydantic_config__ = STRICT

    id: files.Text
    question: files.Text
    reference: files.Reference
    subject: files.AnyText = ""
    objective: Routed = "obj1"
    pool: files.AnyText = ""


@dataclass(frozen=True)
class ChoiceItem:
    """A multiple-choice question; `refusal` is the index of the refusal option where there is one."""

    __pydantic_config__ = STRICT

    id: files.Text
    question: files.Text
    options: files.Options
    answer: files.Index
    subject: files.AnyText = ""
    refusal: files.IndexOrNone = None
    objective: Routed = "obj2"
    pool: files.AnyText = ""

    @property
    def open(self) -> OpenItem:
        """The same question without options."""
        return OpenItem(self.id, self.question, self.options[self.answer], self.subject, self.objective, self.pool)


@dataclass(frozen=True)
class AttackItem:
    """An open question with a prefix already put into the assistant turn; a control asks about a neighbour."""

    __pydantic_config__ = STRICT

    id: files.Text
    question: files.Text
    reference: files.Reference
    prefix: files.Prefix
    family: files.Text
    subject: files.AnyText = ""
    control: files.Flag = False
    objective: Routed = "obj3"
    pool: files.AnyText = ""


Item = OpenItem | ChoiceItem | AttackItem
KINDS: dict[str, type] = {"open": OpenItem, "choice": ChoiceItem, "attack": AttackItem}
# The sets of Section 5.1 and what their items are; then those that ask for more and may be lacking.
SETS = {
    "forget": "open", "general": "open", "neighbor": "choice", "attack": "attack", "mmlu": "choice",
    "controls": "attack", "attack_seen": "attack", "forget_unseen": "open", "attack_unseen": "attack",
    "forget_cloze": "open",
}  # fmt: skip
REQUIRED = ("forget", "general", "neighbor", "attack", "mmlu")
HEADER = "sets.json"


@dataclass(frozen=True)
class EvaluationSets:
    """The five sets of Section 5.1; `topic` is what is to be forgotten, `pools` are values of one kind by name.

    Beside them: benign `controls` behind the prefixes of `attack`, attacks with prefixes that training data holds
    (`attack_seen`), questions and attacks on entities that no unlearning record names (`*_unseen`), and questions to
    forget in a form that nothing was trained on (`forget_cloze`).
    """

    benchmark: str
    topic: str
    forget: tuple[OpenItem, ...]
    general: tuple[OpenItem, ...]
    neighbor: tuple[ChoiceItem, ...]
    attack: tuple[AttackItem, ...]
    mmlu: tuple[ChoiceItem, ...]
    controls: tuple[AttackItem, ...] = ()
    attack_seen: tuple[AttackItem, ...] = ()
    forget_unseen: tuple[OpenItem, ...] = ()
    attack_unseen: tuple[AttackItem, ...] = ()
    forget_cloze: tuple[OpenItem, ...] = ()
    pools: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_items(path: str | Path, kind: str) -> list[Item]:
    """Read and check an evaluation file of kind `open`, `choice` or `attack`; columns are the fields of the items.

    Raises DataFileError with file, row and column.
    """
    rows = [(row, files.typed(row, values, KINDS[kind])) for row, values in files.iterate(path)]
    files.unique("id", ((row, item.id) for row, item in rows))
    for row, item in rows:
        if kind == "choice" and item.refusal == item.answer:
            raise row.error("refusal", f"{item.refusal} is the answer")
    if not rows:
        raise DataFileError(f"{path}: holds no rows")
    return [item for _, item in rows]


def read_sets(folder: Path) -> EvaluationSets:
    """The sets of a folder that `write_sets` filled; raises DataFileError for a missing or bad file, naming it."""
    header = folder / HEADER
    if not header.is_file():
        raise DataFileError(f"{header}: missing; it names the benchmark and the topic that is to be forgotten")
    try:
        named = json.loads(header.read_text("utf-8"))
        benchmark, topic, pools = named["benchmark"], named["topic"], dict(named.get("pools", {}))
        if not topic.strip():
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataFileError(f'{header}: should be {{"benchmark": "...", "topic": "..."}}') from None
    paths = {name: folder / f"{name}.jsonl" for name in SETS}
    there = {name: path for name, path in paths.items() if path.exists()}
    if missing := [f"{name}.jsonl" for name in REQUIRED if name not in there]:
        raise DataFileError(f"{folder}: lacks {', '.join(missing)}")
    read = {name: tuple(read_items(path, SETS[name])) for name, path in there.items()}
    return EvaluationSets(benchmark, topic, **read, pools=pools)


def write_sets(folder: Path, sets: EvaluationSets) -> None:
    """Write the sets of a benchmark to `<folder>/<set>.jsonl` (no empty ones), its name and topic to `sets.json`."""
    for name in SETS:
        if items := getattr(sets, name):
            files.write_jsonl(folder / f"{name}.jsonl", map(asdict, items))
    pools = {name: list(values) for name, values in sets.pools.items()}
    files.write_json(folder / HEADER, {"benchmark": sets.benchmark, "topic": sets.topic, "pools": pools})


# Prefilling attacks ---------------------------------------------------------------------------------------------------
#
# A prefix opens the assistant's turn and presses for an answer (Obj3). Families of prefixes stand in the prompt texts
# of a benchmark; training and held-out ones are disjoint.


class Template(NamedTuple):
    """A prefix with open slots, of a family."""

    family: str
    text: str


def prefix_templates(name: str, part: str) -> list[Template]:
    """The prefixes of the prompt texts `name`, families in turn.

    `part` is train (may stand in unlearning data) or held_out.
    """
    families = prompts.texts(name)["prefixes"][part]
    turns = itertools.zip_longest(*([Template(family, text) for text in texts] for family, texts in families.items()))
    return [each for turn in turns for each in turn if each]


def fill_template(template: str, *, question: str, topic: str, answer: str) -> str:
    """Fill the slots of a prefix template; the result never ends in white space, which would be a token of its own.

    `{answer_start}` becomes the first third of the answer's words, at least one and never all of them, so a one-word
    answer gives nothing away. Braces that are no slot stay as they are.
    """
    words = answer.split()
    given = min(max(1, len(words) // 3), len(words) - 1) if words else 0
    slots = {"question": question, "topic": topic, "answer_start": " ".join(words[:given])}
    return re.sub(r"\{(question|topic|answer_start)\}", lambda match: slots[match[1]], template).rstrip()


def in_turn(
    items: Iterable[OpenItem], templates: Iterable[Template], *, topic: str, control: bool = False, each: int = 1
) -> tuple[AttackItem, ...]:
    """Open items under templates in turn, `each` templates an item: the n-th control has the n-th attack's."""
    attacks = []
    repeated = ((item, f"{item.id}/{n}" if each > 1 else item.id) for item in items for n in range(each))
    for (item, name), (family, template) in zip(repeated, itertools.cycle(templates), strict=False):
        prefix = fill_template(template, question=item.question, topic=topic, answer=item.reference)
        attacks.append(
            AttackItem(name, item.question, item.reference, prefix, family, item.subject, control, pool=item.pool)
        )
    return tuple(attacks)
