"""One table of all methods: which data a row uses, which teacher, which losses, which gradient rule, which defaults.

To add a method, write a loss and a row; the trainer knows no method by name.
"""

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from torch import Tensor

from mule_lib import gradients, losses
from mule_lib.method_terms import Answers, Method, MethodError, Options, Term
from mule_lib.prompts import Steering, steering

FORGET, RETAIN, NEIGHBOR, ATTACK = "*/forget", "obj1/retain", "obj2/neighbor", "obj3/adversarial"
# Present only to sharpen the boundary (Section 3.3); the other groups are the objectives' own data.
ANCHOR_GROUPS = frozenset({"obj2/forget", "obj3/benign"})
OBJECTIVES = ("obj1", "obj2", "obj3")
# Anchors: contrastive partners share a batch, and the groups that exist only as anchors are used.
DATA = {"anchors": True, "positions": "answer", "max_answer_tokens": 64}
STEERED = {**DATA, "teacher": "oracle", "cot": True, "answers": "teacher"}


def _ascend(answer: Answers, o: Options) -> Tensor:
    return losses.gradient_ascent(answer.logits, answer.labels)


def _likelihood(answer: Answers, o: Options) -> Tensor:
    return losses.cross_entropy(answer.logits, answer.labels)


def _npo(answer: Answers, o: Options) -> Tensor:
    return losses.npo(answer.logits, answer.frozen_nll, answer.labels, beta=o["beta"])


def _simnpo(answer: Answers, o: Options) -> Tensor:
    return losses.simnpo(answer.logits, answer.labels, beta=o["beta"], margin=o["margin"])


def _idk_dpo(refusal: Answers, answer: Answers, o: Options) -> Tensor:
    idk, forget = ((side.logits, side.frozen_nll, side.labels) for side in (refusal, answer))
    return losses.idk_dpo(*idk, *forget, beta=o["beta"])


def _flat(refusal: Answers, answer: Answers, o: Options) -> Tensor:
    return losses.flat(refusal.logits, refusal.labels, answer.logits, answer.labels, divergence=o["divergence"])


def _unlearning_cross_entropy(answer: Answers, o: Options) -> Tensor:
    return losses.unlearning_cross_entropy(answer.logits, answer.labels)


def _likelihood_and_kl(answer: Answers, o: Options) -> Tensor:
    kl = losses.kl_retain(answer.logits, answer.frozen.logits(), answer.labels)
    return _likelihood(answer, o) + o["kl_weight"] * kl


def _mule(answer: Answers, o: Options) -> Tensor:
    return losses.bidirectional_topk(
        answer.student, answer.frozen, top_k=o["top_k"], beta=o["beta"], over_k=o["over_k"]
    )


def _duet(answer: Answers, o: Options) -> Tensor:
    return losses.duet(answer.student, answer.frozen, top_k=o["top_k"], beta=o["beta"], over_k=o["over_k"])


def _bild(answer: Answers, o: Options) -> Tensor:
    return losses.bild(answer.student, answer.frozen, top_k=o["top_k"], temperature=o["temperature"])


def _ngdiff(keep: Sequence[Tensor], forget: Sequence[Tensor], o: Options) -> Tensor:
    return gradients.ngdiff(keep, forget)


def _min_norm(keep: Sequence[Tensor], forget: Sequence[Tensor], o: Options) -> Tensor:
    return gradients.min_norm_direction([*keep, *forget], normalize=o["normalize"])


def _retain(weight: float | str = "retain_weight") -> Term:
    return Term("retain", (RETAIN,), ("answer",), _likelihood, weight=weight, keeps=True)


def _distil(loss: Callable[..., Tensor]) -> tuple[Term, ...]:
    """One term per objective, added with weight 1 each, as L_i of Section 3.1."""
    return tuple(Term(name, (f"{name}/*",), ("taught",), loss, frozen=True) for name in OBJECTIVES)


WEIGHTS = {"forget_weight": 1.0, "retain_weight": 1.0}
TOP_K = {"top_k": 10, "beta": 1.0, "over_k": "mean"}

METHODS: dict[str, Method] = {
    "base": Method("Base", source="the model before unlearning"),
    "upper_bound": Method("Upper Bound", options={"teacher": "oracle", "cot": True}, source="MULE 5.1"),
    "ensemble_teacher": Method("Ensemble Teacher", options={"teacher": "ensemble", "cot": True}, source="MULE 5.1"),
    "ga": Method("GA", (Term("forget", (FORGET,), ("answer",), _ascend),), DATA, source="Jang 2023"),
    "graddiff": Method(
        "GradDiff",
        (Term("forget", (FORGET,), ("answer",), _ascend, weight="forget_weight"), _retain()),
        {**DATA, **WEIGHTS},
    ),
    "npo": Method(
        "NPO",
        (
            Term("forget", (FORGET,), ("answer",), _npo, unit="rows", weight="forget_weight", frozen=True),
            _retain(),
        ),
        {**DATA, **WEIGHTS, "beta": 0.1},
        source="Zhang 2024",
    ),
    "simnpo": Method(
        "SimNPO",
        (Term("forget", (FORGET,), ("answer",), _simnpo, unit="rows", weight="forget_weight"), _retain()),
        {**DATA, "forget_weight": 0.125, "retain_weight": 1.0, "beta": 4.5, "margin": 0.0},
        source="Fan 2025, the authors' values for TOFU forget10",
    ),
    "idk_dpo": Method(
        "IdkDPO",
        (
            Term("forget", (FORGET,), ("refusal", "answer"), _idk_dpo, "rows", "forget_weight", frozen=True),
            _retain(),
        ),
        {**DATA, **WEIGHTS, "beta": 0.1},
    ),
    "flat": Method(
        "FLAT",
        (Term("forget", (FORGET,), ("refusal", "answer"), _flat, unit="rows"),),
        {**DATA, "divergence": "total_variation"},
        source="Wang 2025, without retain data",
    ),
    "sft": Method("SFT", (Term("all", ("*",), ("desired",), _likelihood),), DATA, source="MULE 5.1"),
    "ngdiff": Method(
        "NGDiff",
        (
            Term("retain", (RETAIN,), ("answer",), _likelihood, keeps=True),
            Term("neighbor", (NEIGHBOR,), ("answer",), _likelihood, keeps=True),
            Term("forget", (FORGET,), ("answer",), _likelihood),
            Term("attack", (ATTACK,), ("answer",), _likelihood),
        ),
        {**DATA, "auto_learning_rate_every": 10},
        rule=_ngdiff,
        auto_learning_rate=True,
        source="Jin and Bu 2025, to three objectives",
    ),
    "mollm": Method(
        "MOLLM",
        (
            Term("retain", (RETAIN,), ("answer",), _likelihood_and_kl, keeps=True, frozen=True),
            Term("neighbor", (NEIGHBOR,), ("answer",), _likelihood, keeps=True),
            Term("forget", (FORGET,), ("answer",), _unlearning_cross_entropy),
            Term("attack", (ATTACK,), ("answer",), _unlearning_cross_entropy),
        ),
        {**DATA, "kl_weight": 1.0, "normalize": False},
        rule=_min_norm,
        source="Pan 2025, to three objectives",
    ),
    "duet": Method(
        "DUET",
        (Term("all", ("*",), ("taught",), _duet, frozen=True),),
        {**STEERED, **TOP_K, "teacher": "ensemble", "positions": "first"},
        source="Zhong 2026, distilled from the Ensemble Teacher",
    ),
    "mule": Method("MULE", _distil(_mule), {**STEERED, **TOP_K}, source="MULE Eq. 3"),
    "mule_duet_loss": Method("Ours w/ DUET Loss", _distil(_duet), {**STEERED, **TOP_K}, source="MULE Table 2"),
    "mule_bild_loss": Method(
        "Ours w/ BILD Loss", _distil(_bild), {**STEERED, "top_k": 8, "temperature": 3.0}, source="MULE Table 2"
    ),
}


def find(method: str | Method) -> Method:
    """The row of a name; a `Method` passes through. Raises MethodError with the nearest name."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise MethodError(f"method={method!r} is unknown; {_nearest(method, METHODS)}")
    return METHODS[method]


def with_options(method: str | Method, options: Options) -> Method:
    """The row with some of its options changed. Raises MethodError for an option the row does not have."""
    row = find(method)
    for name in options:
        if name not in row.options:
            raise MethodError(f"{name}: {row.label} has no such option; {_nearest(name, row.options)}")
    return replace(row, options={**row.options, **options})


def on_groups(row: Method, available: Collection[str]) -> Method:
    """The row with the patterns of its terms resolved to the groups at hand.

    Raises MethodError when a term finds no group at all, which names what the data lacks.
    """
    usable = [group for group in sorted(available) if row.options.get("anchors", True) or group not in ANCHOR_GROUPS]
    terms = []
    for term in row.terms:
        found = tuple(g for g in usable if any(fnmatch(g, pattern) for pattern in term.groups))
        if not found:
            raise MethodError(
                f"{row.label} needs records of {' or '.join(term.groups)} for its term {term.name!r}; "
                f"the data has {', '.join(usable) or 'none'}"
            )
        terms.append(replace(term, groups=found))
    return replace(row, terms=tuple(terms))


def steering_of(method: str | Method, topic: str, *, name: str = "fable") -> Steering:
    """How a row is steered when it is evaluated; rows that are trained answer without any help."""
    row = find(method)
    if row.terms or "teacher" not in row.options:
        return steering("none", topic)
    return steering(row.options["teacher"], topic, cot=row.options["cot"], name=name)


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known) or 'none'}"
