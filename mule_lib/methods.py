"""One table of all methods: which data a method uses, which teacher, losses and gradient rule, which options.

A method is a sum of terms, and a term is a pure loss over the answers of some groups; the trainer knows no method by
name. To add one, write a loss, an entry of `METHODS` and, for options of its own, a class of `params.options`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from mule_lib import gradients, losses, params, prompts
from mule_lib.data.records import Group, Objective, Role
from mule_lib.params import options as own

Rule = Callable[[Sequence[Tensor], Sequence[Tensor], Any], Tensor]
# Present only to sharpen the boundary (Section 3.3); the other groups are the objectives' own data.
ANCHOR_GROUPS = frozenset({Group(Objective.OBJ2, Role.FORGET), Group(Objective.OBJ3, Role.BENIGN)})


class MethodError(ValueError):
    """A method or its options do not exist, or the data lacks what the method needs."""


@dataclass(frozen=True)
class Answers:
    """What a loss sees of one continuation of B records: logits [B, A + 1, V] and labels [B, A + 1] of answers only.

    Where all logits would be many, `logits` are those of the supervised tokens, read in parts.
    `frozen` is the teacher (or the base) at the same tokens, where the term asks for it: a `losses.TeacherLogits` that
    also knows each token's `nll` [N] and all `logits()` [N, V].
    """

    logits: losses.Logits
    labels: Tensor
    frozen: Any = None

    @property
    def student(self) -> losses.Logits:
        """Student logits of the answer tokens, float32 [N, V], aligned with `frozen`."""
        return losses.answer_logits(self.logits, self.labels)

    @property
    def frozen_nll(self) -> Tensor:
        """Frozen model's NLL of each row's answer, [B], in nats."""
        return losses.sum_over_rows(self.frozen.nll, self.labels)


@dataclass(frozen=True)
class Term:
    """A loss over the answers of some objectives' records in some roles.

    `loss` takes one `Answers` per name in `continuations`, then the options, and returns a mean over `unit` ("tokens"
    or "rows"), which is what accumulation weighs by. `weight` is a number or the name of an option. `keeps` tells
    gradient rules which side the term is on; `frozen` asks for the frozen model's answers. `groups` are those of the
    data at hand, filled in by `Method.on_groups`.
    """

    name: str
    loss: Callable[..., Tensor]
    continuations: tuple[str, ...] = ("answer",)
    objectives: tuple[Objective, ...] = tuple(Objective)
    roles: tuple[Role, ...] = tuple(Role)
    unit: str = "tokens"
    weight: float | str = 1.0
    keeps: bool = False
    frozen: bool = False
    groups: tuple[Group, ...] = ()

    def takes(self, group: Group) -> bool:
        """Whether the term reads records of a group: one of `groups` where these are known."""
        if self.groups:
            return group in self.groups
        return group.objective in self.objectives and group.role in self.roles


@dataclass(frozen=True)
class Method:
    """A method. No terms: nothing is trained, and a teacher in the options steers the model at evaluation.

    `learning_rate` are the defaults of full tuning and of LoRA; `rule` combines the gradients of the terms (None: their
    losses are added up); `auto_learning_rate` follows the loss of the terms that keep.
    """

    label: str
    terms: tuple[Term, ...] = ()
    options: own.MethodOptions = field(default_factory=own.MethodOptions)
    rule: Rule | None = None
    auto_learning_rate: bool = False
    source: str = ""
    learning_rate: tuple[float, float] = (1e-5, 1e-4)

    @property
    def distils(self) -> bool:
        """Whether it is trained on what a steered teacher answers."""
        return any("taught" in term.continuations for term in self.terms)

    def weight(self, term: Term) -> float:
        """The weight of a term under these options."""
        return getattr(self.options, term.weight) if isinstance(term.weight, str) else term.weight

    def teacher_steering(self, topic: str, *, name: str = "fable") -> prompts.Steering:
        """The intentions and the chain of thought that its options put before a model."""
        return prompts.steering(self.options.teacher, topic, cot=self.options.cot, name=name)

    def steering(self, topic: str, *, name: str = "fable") -> prompts.Steering:
        """What steers the model when it is evaluated; trained methods answer without any help."""
        if self.terms or not hasattr(self.options, "teacher"):
            return prompts.steering("none", topic)
        return self.teacher_steering(topic, name=name)

    def on_groups(self, available: Collection[Group]) -> "Method":
        """The method with its terms on the groups at hand.

        Raises MethodError when a term finds no group at all, which names what the data lacks.
        """
        anchors = getattr(self.options, "anchors", True)
        usable = [group for group in sorted(available) if anchors or group not in ANCHOR_GROUPS]
        terms = [replace(term, groups=tuple(filter(term.takes, usable))) for term in self.terms]
        for term in terms:
            if not term.groups:
                sides = ((term.objectives, Objective), (term.roles, Role))
                wanted = "/".join("*" if len(some) == len(every) else " or ".join(some) for some, every in sides)
                raise MethodError(
                    f"{self.label} needs records of {wanted} for its term {term.name!r}; "
                    f"the data has {', '.join(map(str, usable)) or 'none'}"
                )
        return replace(self, terms=tuple(terms))


def _term_loss(loss: Callable[..., Tensor], parts: Sequence[str], *options: str) -> Callable[..., Tensor]:
    """A pure loss of these parts of each continuation's answers, in order, and of the options with these names."""

    def of_answers(*given) -> Tensor:
        *answers, chosen = given
        tensors = (getattr(answer, part) for answer in answers for part in parts)
        return loss(*tensors, **{name: getattr(chosen, name) for name in options})

    return of_answers


def _likelihood_and_kl(answer: Answers, options) -> Tensor:
    frozen = answer.frozen.logits() if isinstance(answer.logits, Tensor) else answer.frozen  # read in parts, like these
    kl = losses.kl_retain(answer.logits, frozen, answer.labels)
    return LIKELIHOOD(answer, options) + options.kl_weight * kl


SEQUENCE, REFERENCED, ALIGNED = ("logits", "labels"), ("logits", "frozen_nll", "labels"), ("student", "frozen")
LIKELIHOOD = _term_loss(losses.cross_entropy, SEQUENCE)
ASCENT = _term_loss(losses.gradient_ascent, SEQUENCE)
UCE = _term_loss(losses.unlearning_cross_entropy, SEQUENCE)
SIMNPO = _term_loss(losses.simnpo, SEQUENCE, "beta", "margin")
FLAT = _term_loss(losses.flat, SEQUENCE, "divergence")
NPO = _term_loss(losses.npo, REFERENCED, "beta")
IDK_DPO = _term_loss(losses.idk_dpo, REFERENCED, "beta")
BIDIRECTIONAL_TOPK = _term_loss(losses.bidirectional_topk, ALIGNED, "top_k", "beta", "over_k")
DUET = _term_loss(losses.duet, ALIGNED, "top_k", "beta", "over_k")
BILD = _term_loss(losses.bild, ALIGNED, "top_k", "temperature")


def _distil(loss: Callable[..., Tensor]) -> tuple[Term, ...]:
    """One term per objective, added with weight 1 each, as L_i of Section 3.1."""
    return tuple(Term(objective.value, loss, ("taught",), (objective,), frozen=True) for objective in Objective)


FORGET = partial(Term, "forget", roles=(Role.FORGET,))
ATTACK = partial(Term, "attack", objectives=(Objective.OBJ3,), roles=(Role.ADVERSARIAL,))
RETAIN = partial(Term, "retain", objectives=(Objective.OBJ1,), roles=(Role.RETAIN,), keeps=True)
NEIGHBOR = Term("neighbor", LIKELIHOOD, objectives=(Objective.OBJ2,), roles=(Role.NEIGHBOR,), keeps=True)
BOTH = ("refusal", "answer")
WEIGHTED = {"unit": "rows", "weight": "forget_weight"}
BESIDE = RETAIN(LIKELIHOOD, weight="retain_weight")

METHODS: dict[str, Method] = {
    "base": Method("Base", source="the model before unlearning"),
    "upper_bound": Method("Upper Bound", options=own.PromptedOptions(), source="MULE 5.1"),
    "ensemble_teacher": Method("Ensemble Teacher", options=own.EnsembleOptions(), source="MULE 5.1"),
    "ga": Method("GA", (FORGET(ASCENT),), own.TrainedOptions(), source="Jang 2023"),
    "graddiff": Method("GradDiff", (FORGET(ASCENT, weight="forget_weight"), BESIDE), own.WeightedOptions()),
    "npo": Method("NPO", (FORGET(NPO, frozen=True, **WEIGHTED), BESIDE), own.PreferenceOptions(), source="Zhang 2024"),
    "simnpo": Method(
        "SimNPO", (FORGET(SIMNPO, **WEIGHTED), BESIDE), own.SimNPOOptions(), source="Fan 2025, for TOFU forget10"
    ),
    "idk_dpo": Method("IdkDPO", (FORGET(IDK_DPO, BOTH, frozen=True, **WEIGHTED), BESIDE), own.PreferenceOptions()),
    "flat": Method(
        "FLAT", (FORGET(FLAT, BOTH, unit="rows"),), own.FLATOptions(), source="Wang 2025, without retain data"
    ),
    "sft": Method("SFT", (Term("all", LIKELIHOOD, ("desired",)),), own.TrainedOptions(), source="MULE 5.1"),
    "ngdiff": Method(
        "NGDiff",
        (RETAIN(LIKELIHOOD), NEIGHBOR, FORGET(LIKELIHOOD), ATTACK(LIKELIHOOD)),
        own.NGDiffOptions(),
        rule=lambda keep, forget, _: gradients.ngdiff(keep, forget),
        auto_learning_rate=True,
        source="Jin and Bu 2025, to three objectives",
    ),
    "mollm": Method(
        "MOLLM",
        (RETAIN(_likelihood_and_kl, frozen=True), NEIGHBOR, FORGET(UCE), ATTACK(UCE)),
        own.MOLLMOptions(),
        rule=lambda keep, forget, o: gradients.min_norm_direction([*keep, *forget], normalize=o.normalize),
        source="Pan 2025, to three objectives",
    ),
    "duet": Method(
        "DUET", (Term("all", DUET, ("taught",), frozen=True),), own.DUETOptions(), source="Zhong 2026, ensemble"
    ),
    "mule": Method("MULE", _distil(BIDIRECTIONAL_TOPK), own.SmoothL1Options(), source="MULE Eq. 3"),
    "mule_duet_loss": Method("Ours w/ DUET Loss", _distil(DUET), own.SmoothL1Options(), source="MULE Table 2"),
    "mule_bild_loss": Method("Ours w/ BILD Loss", _distil(BILD), own.BiLDOptions(), source="MULE Table 2"),
}


def get(method: str | Method, options: Mapping[str, Any] | None = None) -> Method:
    """A method by its name (a `Method` passes through) with some of its options changed.

    Raises MethodError with the nearest name for a method or an option that does not exist, and for a value that an
    option cannot take.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise MethodError(f"method={method!r} is unknown; {params.nearest(method, METHODS)}")
        method = METHODS[method]
    try:
        return replace(method, options=type(method.options)(**dict(method.options) | dict(options or {})))
    except params.ParameterError as error:
        raise MethodError(f"{method.label}: {error}") from None
