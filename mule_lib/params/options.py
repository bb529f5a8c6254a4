"""Every method's own options; what each method is made of stands in `mule_lib.methods`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model

from mule_lib.params.checked import Checked, ParameterError, nearest

Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
MOST = 1_000_000_000  # of anything that is counted: more is a slip
CountFrom0, Count, AtLeast2 = (Annotated[int, Field(ge=least, le=MOST)] for least in (0, 1, 2))
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Teacher, Positions = Literal["oracle", "ensemble"], Literal["answer", "first"]


class MethodOptions(Checked):
    """A method's own switches. Without any: nothing is trained and nothing steers the model."""

    trains: ClassVar[bool] = False  # whether the method changes the model
    teacher_name: ClassVar[str | None] = None  # stem of its file of shared teacher answers, where a teacher writes any


class TrainedOptions(MethodOptions):
    """What all methods that train take. Without `anchors` partners share no batch and anchor-only groups are unused."""

    trains: ClassVar[bool] = True
    anchors: bool = True
    positions: Positions = "answer"
    max_answer_tokens: Count = 64


# Steered in context; nothing is trained.
PromptedOptions = create_model("PromptedOptions", __base__=MethodOptions, teacher=(Teacher, "oracle"), cot=(bool, True))
EnsembleOptions = create_model("EnsembleOptions", __base__=PromptedOptions, teacher=(Teacher, "ensemble"))
WeightedOptions = create_model(
    "WeightedOptions", __base__=TrainedOptions, forget_weight=(Weight, 1.0), retain_weight=(Weight, 1.0)
)
PreferenceOptions = create_model("PreferenceOptions", __base__=WeightedOptions, beta=(Above0, 0.1))
SimNPOOptions = create_model(  # the authors' values for TOFU forget10 (Fan 2025)
    "SimNPOOptions", __base__=WeightedOptions, forget_weight=(Weight, 0.125), beta=(Above0, 4.5), margin=(float, 0.0)
)
Divergence = Literal["total_variation", "kl", "jensen_shannon", "pearson"]  # those of losses.DIVERGENCES
FLATOptions = create_model("FLATOptions", __base__=TrainedOptions, divergence=(Divergence, "total_variation"))
NGDiffOptions = create_model("NGDiffOptions", __base__=TrainedOptions, auto_learning_rate_every=(Seed, 10))
MOLLMOptions = create_model("MOLLMOptions", __base__=TrainedOptions, kl_weight=(Weight, 1.0), normalize=(bool, False))


class DistilledOptions(TrainedOptions):
    """Methods that copy a steered teacher; `answers="given"` puts the records' own answers behind its context."""

    teacher: Teacher = "oracle"
    cot: bool = True
    answers: Literal["teacher", "given"] = "teacher"
    top_k: Count = 10

    @property
    def teacher_name(self) -> str | None:
        """Such as "oracle-cot"."""
        return f"{self.teacher}{'-cot' * self.cot}" if self.answers == "teacher" else None


SmoothL1Options = create_model(
    "SmoothL1Options", __base__=DistilledOptions, beta=(Above0, 1.0), over_k=(Literal["mean", "sum"], "mean")
)
DUETOptions = create_model(
    "DUETOptions", __base__=SmoothL1Options, teacher=(Teacher, "ensemble"), positions=(Positions, "first")
)
BiLDOptions = create_model("BiLDOptions", __base__=DistilledOptions, top_k=(AtLeast2, 8), temperature=(Above0, 3.0))

METHOD_OPTIONS: dict[str, type[MethodOptions]] = {
    "base": MethodOptions,
    "upper_bound": PromptedOptions,
    "ensemble_teacher": EnsembleOptions,
    "ga": TrainedOptions,
    "graddiff": WeightedOptions,
    "npo": PreferenceOptions,
    "simnpo": SimNPOOptions,
    "idk_dpo": PreferenceOptions,
    "flat": FLATOptions,
    "sft": TrainedOptions,
    "ngdiff": NGDiffOptions,
    "mollm": MOLLMOptions,
    "duet": DUETOptions,
    "mule": SmoothL1Options,
    "mule_duet_loss": SmoothL1Options,
    "mule_bild_loss": BiLDOptions,
}


def method_options(method: str, changed: Mapping[str, Any] | None = None) -> MethodOptions:
    """A method's options with some of them changed. Raises ParameterError for an unknown name, with the nearest."""
    if method not in METHOD_OPTIONS:
        raise ParameterError(f"no such method; {nearest(method, METHOD_OPTIONS)}")
    return METHOD_OPTIONS[method](**(changed or {}))
