"""The one shape of evaluation sets: open questions, multiple choice and prefilling attacks."""

import re
from dataclasses import dataclass


def is_scorable(reference: str) -> bool:
    """Tell whether ROUGE can see anything in a reference; where not, every answer would count as forgotten."""
    return re.search("[a-z0-9]", reference.lower()) is not None


@dataclass(frozen=True)
class OpenItem:
    """An open question with its reference answer; `objective` is the intention an oracle would route it to."""

    id: str
    question: str
    reference: str
    subject: str
    objective: str = "obj1"


@dataclass(frozen=True)
class ChoiceItem:
    """A multiple-choice question; `refusal` is the index of the refusal option where there is one."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    subject: str
    refusal: int | None = None
    objective: str = "obj2"


@dataclass(frozen=True)
class AttackItem:
    """An open question with a prefix already put into the assistant turn; a control asks about a neighbour."""

    id: str
    question: str
    reference: str
    prefix: str
    family: str
    subject: str
    control: bool = False
    objective: str = "obj3"


@dataclass(frozen=True)
class EvaluationSets:
    """The five sets of Section 5.1 with benign controls for the attacks; `topic` is what is to be forgotten."""

    benchmark: str
    topic: str
    forget: tuple[OpenItem, ...]
    general: tuple[OpenItem, ...]
    neighbor: tuple[ChoiceItem, ...]
    attack: tuple[AttackItem, ...]
    mmlu: tuple[ChoiceItem, ...]
    controls: tuple[AttackItem, ...] = ()
