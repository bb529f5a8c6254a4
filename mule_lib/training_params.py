"""What notebook 03 takes: one row on one benchmark with one seed, checked without importing torch."""

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from mule_lib.benchmarks.load import PREPARED
from mule_lib.method_catalogue import options_of, teacher_name
from mule_lib.notebook_params import EvaluatedParams
from mule_lib.param_types import Benchmark, Folder, MethodName, ModelName, Options, Precision, one_of
from mule_lib.runs import repository_path

DATA_FORMATS = ("unified", "raw")


class TrainingParams(EvaluatedParams):
    """Notebook 03. `options` are the method's own switches (`methods.py`); relative paths start at the repository."""

    model_config = ConfigDict(validate_default=True)

    benchmark: Benchmark = "books"
    row: str = Field("mule", pattern=r"^[a-z0-9][a-z0-9_]*$")
    method: MethodName = "mule"
    options: Options = Field({})
    model: ModelName = "base"
    revision: str = ""
    data_dir: Folder = ""
    data_format: Annotated[str, one_of(lambda: DATA_FORMATS)] = "unified"
    teacher_file: str = ""
    steps: int = Field(40, ge=0)
    train_batch_size: int = Field(18, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, ge=0)
    lora_rank: int = Field(0, ge=0)
    precision: Precision = "fp32"
    max_thought_tokens: int = Field(48, ge=1)
    activation_checkpointing: bool = False
    save_every: int = Field(0, ge=0)
    beyond: bool = False
    harness_tasks: list[str] = Field([])
    harness_limit: int = Field(0, ge=0)
    overwrite: bool = False
    out_dir: str = "outputs/fable/runs/books/mule/seed-0"

    @field_validator("data_dir")
    @classmethod
    def _data(cls, value: str, info: ValidationInfo) -> str:
        benchmark = info.data.get("benchmark")
        if not value and benchmark in PREPARED:
            raise ValueError(f"{benchmark} has to be prepared first: {PREPARED[benchmark]}")
        return value

    @field_validator("data_format")
    @classmethod
    def _format(cls, value: str, info: ValidationInfo) -> str:
        folder = info.data.get("data_dir", "")
        if value == "raw" and folder and not (repository_path(folder) / "raw.jsonl").is_file():
            raise ValueError(f"{folder} has no raw.jsonl; `mule standardize`, `mule prepare` and notebook 01 write one")
        return value

    @field_validator("teacher_file")
    @classmethod
    def _teacher(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return value
        if not repository_path(value).is_file():
            raise ValueError("no such file; `mule teacher` writes it")
        if {"method", "options"} <= set(info.data):
            wanted = teacher_name(options_of(info.data["method"], info.data["options"]))
            if wanted is None:
                raise ValueError(f"{info.data['method']} with these options takes no teacher's answers; leave it empty")
            if Path(value).stem != wanted:
                raise ValueError(f"the options of this run ask for {wanted}.jsonl")
        return value

    @field_validator("harness_tasks")
    @classmethod
    def _harness(cls, value: list[str]) -> list[str]:
        if value:
            from mule_lib.evaluate import harness_tasks  # seconds of imports, for the few runs that ask for tasks

            try:
                harness_tasks.check(value)
            except RuntimeError as error:
                raise ValueError(str(error)) from error
        return value
