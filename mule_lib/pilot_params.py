"""What notebooks 01 and 02 take: the pilot study of Section 3.1, checked without importing torch."""

from typing import Annotated

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from mule_lib.benchmarks.load import FABLE, PREPARED
from mule_lib.notebook_params import NotebookParams
from mule_lib.param_types import Benchmark, Folder, MethodName, ModelName, Options, Precision, one_of

TEACHER_READS = ("questions", "own format")


class DataParams(NotebookParams):
    """Notebook 01. `data_dir` is a folder that `benchmarks.load.save` wrote; empty: Fable is built in code."""

    model_config = ConfigDict(validate_default=True)

    benchmark: Benchmark = "books"
    data_dir: Folder = ""
    model: ModelName = "base"
    revision: str = ""
    precision: Precision = "fp32"
    near_duplicate: float = Field(0.8, gt=0, le=1)
    repeats: int = Field(3, ge=1)
    batch_size: int = Field(64, ge=1)
    out_dir: str = "outputs/fable/01_data/books"

    @field_validator("data_dir")
    @classmethod
    def _data(cls, value: str, info: ValidationInfo) -> str:
        return _prepared(value, [info.data["benchmark"]] if "benchmark" in info.data else [])


class GradientParams(NotebookParams):
    """Notebook 02. `data_dir` holds a folder per benchmark, `teacher_dir` one per benchmark with its teacher's file."""

    model_config = ConfigDict(validate_default=True)

    benchmarks: list[Benchmark] = Field(["books", "cyber"])
    data_dir: Folder = ""
    model: ModelName = "base"
    revision: str = ""
    precision: Precision = "fp32"
    method: MethodName = "mule"
    options: Options = Field({})
    teacher_reads: Annotated[str, one_of(lambda: TEACHER_READS)] = "questions"
    teacher_dir: Folder = ""
    max_thought_tokens: int = Field(48, ge=1)
    steps: list[int] = Field([0, 5])
    batches: int = Field(6, ge=3)
    draws: int = Field(4, ge=1)
    pairs: int = Field(28, ge=0)
    layers: int = Field(3, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    train_batch_size: int = Field(18, ge=1)
    train_seeds: int = Field(3, ge=1)
    out_dir: str = "outputs/fable/02_gradient_cosine"

    @field_validator("benchmarks")
    @classmethod
    def _benchmarks(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("name at least one benchmark")
        return value

    @field_validator("data_dir")
    @classmethod
    def _data(cls, value: str, info: ValidationInfo) -> str:
        return _prepared(value, info.data.get("benchmarks", []))

    @field_validator("teacher_dir")
    @classmethod
    def _teacher(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("teacher_reads") == TEACHER_READS[1]:
            raise ValueError("files hold answers to questions; leave it empty for teacher_reads 'own format'")
        return value

    @field_validator("steps")
    @classmethod
    def _steps(cls, value: list[int], info: ValidationInfo) -> list[int]:
        if not value or min(value) < 0 or len(set(value)) != len(value):
            raise ValueError("give different numbers of steps, none below 0; 0 is the model before training")
        if max(value) > 0 and info.data.get("precision") == "bf16":
            raise ValueError("bfloat16 weights lose the small updates of a training; give [0], or precision fp32")
        return sorted(value)


def _prepared(value: str, benchmarks: list[str]) -> str:
    lacking = [name for name in benchmarks if name not in FABLE] if not value else []
    if lacking:
        raise ValueError(f"{lacking[0]} has to be prepared first: {PREPARED[lacking[0]]}")
    return value
