"""What a method is made of: the answers a loss sees, a term over some groups, a row of terms.

A method is a sum of terms, and a term is a pure loss over the answers of some groups; the trainer knows nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from torch import Tensor

from mule_lib import losses
from mule_lib.losses import sum_over_rows
from mule_lib.prompts import Steering, steering

Options = Mapping[str, Any]
Rule = Callable[[Sequence[Tensor], Sequence[Tensor], Options], Tensor]


@dataclass(frozen=True)
class Answers:
    """What a loss sees of one continuation of B records: logits [B, A + 1, V] and labels [B, A + 1] of answers only.

    `frozen` is the teacher (or the base) at the same tokens, where the term asks for it.
    """

    logits: Tensor
    labels: Tensor
    frozen: Any = None

    @property
    def student(self) -> Tensor:
        """Student logits of the answer tokens, float32 [N, V], aligned with `frozen`."""
        return losses.answer_logits(self.logits, self.labels)

    @property
    def frozen_nll(self) -> Tensor:
        """Frozen model's NLL of each row's answer, [B], in nats."""
        return sum_over_rows(self.frozen.nll, self.labels)


@dataclass(frozen=True)
class Term:
    """A loss over the answers of some groups.

    `groups` are patterns such as "*/forget". `loss` takes one `Answers` per name in `continuations`, then the options,
    and returns a mean over `unit` (answer tokens, or rows), which is what accumulation weighs by. `weight` is a number
    or the name of an option. `keeps` tells gradient rules which side the term is on; `frozen` asks for the frozen
    model's answers.
    """

    name: str
    groups: tuple[str, ...]
    continuations: tuple[str, ...]
    loss: Callable[..., Tensor]
    unit: str = "tokens"
    weight: float | str = 1.0
    keeps: bool = False
    frozen: bool = False

    def takes(self, group: str) -> bool:
        """Whether the term reads records of a group."""
        return any(fnmatch(group, pattern) for pattern in self.groups)


@dataclass(frozen=True)
class Method:
    """A row. No terms: nothing is trained and `teacher` steers the model in context at evaluation.

    `options` are this row's switches with their defaults, `learning_rate` those of full tuning and of LoRA; `rule`
    combines the gradients of the terms (None: their losses are added up); `auto_learning_rate` follows the loss of the
    terms that keep.
    """

    label: str
    terms: tuple[Term, ...] = ()
    options: Options = field(default_factory=dict)
    learning_rate: tuple[float, float] = (1e-5, 1e-4)
    rule: Rule | None = None
    auto_learning_rate: bool = False
    source: str = ""

    def weight(self, term: Term) -> float:
        """What a term's loss counts in the sum."""
        return self.options[term.weight] if isinstance(term.weight, str) else term.weight

    def teacher_steering(self, topic: str, *, name: str = "fable") -> Steering:
        """How the teacher whose answers are copied is steered."""
        return steering(self.options["teacher"], topic, cot=self.options["cot"], name=name)


class MethodError(ValueError):
    """A method or its options do not exist, or the data lacks what the method needs."""
