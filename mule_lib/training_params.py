"""What notebook 03 takes: one row on one benchmark with one seed, checked without importing torch."""

from pathlib import Path

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from mule_lib.benchmarks.load import BENCHMARKS, PREPARED
from mule_lib.method_catalogue import catalogue, nearest, options_of, teacher_name
from mule_lib.notebook_params import EvaluatedParams
from mule_lib.runs import repository_path

PRECISIONS = ("fp32", "bf16")
DATA_FORMATS = ("unified", "raw")
EMBEDDED = ("base", "gold")


class TrainingParams(EvaluatedParams):
    """Notebook 03. `options` are the method's own switches (`methods.py`); relative paths start at the repository."""

    model_config = ConfigDict(validate_default=True)

    benchmark: str = "books"
    row: str = Field("mule", pattern=r"^[a-z0-9][a-z0-9_]*$")
    method: str = "mule"
    options: dict = Field({})
    model: str = "base"
    revision: str = ""
    data_dir: str = ""
    data_format: str = "unified"
    teacher_file: str = ""
    steps: int = Field(40, ge=0)
    train_batch_size: int = Field(18, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, ge=0)
    lora_rank: int = Field(0, ge=0)
    precision: str = "fp32"
    max_thought_tokens: int = Field(48, ge=1)
    activation_checkpointing: bool = False
    save_every: int = Field(0, ge=0)
    beyond: bool = False
    harness_tasks: list[str] = Field([])
    harness_limit: int = Field(0, ge=0)
    overwrite: bool = False
    out_dir: str = "outputs/fable/runs/books/mule/seed-0"

    @field_validator("benchmark")
    @classmethod
    def _benchmark(cls, value: str) -> str:
        return _known(value, BENCHMARKS)

    @field_validator("method")
    @classmethod
    def _method(cls, value: str) -> str:
        return _known(value, catalogue())

    @field_validator("options")
    @classmethod
    def _options(cls, value: dict, info: ValidationInfo) -> dict:
        if "method" in info.data:
            options_of(info.data["method"], value)
        return value

    @field_validator("model")
    @classmethod
    def _model(cls, value: str) -> str:
        if value in EMBEDDED or (repository_path(value) / "config.json").is_file():
            return value
        if repository_path(value).is_dir():
            raise ValueError("the folder has no config.json; it should hold a model that transformers can load")
        parts = value.split("/")
        if len(parts) == 2 and all(parts) and parts[0][0] not in ".~":  # the form of a hub id
            return value
        if len(parts) > 1:
            raise ValueError(f"no such model folder ({repository_path(value)})")
        raise ValueError(f"{nearest(value, EMBEDDED)} Else give a folder or a hub id (organisation/name)")

    @field_validator("data_dir")
    @classmethod
    def _data(cls, value: str, info: ValidationInfo) -> str:
        benchmark = info.data.get("benchmark")
        if not value and benchmark in PREPARED:
            raise ValueError(f"{benchmark} has to be prepared first: {PREPARED[benchmark]}")
        if value and not repository_path(value).is_dir():
            raise ValueError("no such folder")
        return value

    @field_validator("data_format")
    @classmethod
    def _format(cls, value: str, info: ValidationInfo) -> str:
        folder = info.data.get("data_dir", "")
        if value == "raw" and folder and not (repository_path(folder) / "raw.jsonl").is_file():
            raise ValueError(f"{folder} has no raw.jsonl; `mule standardize`, `mule prepare` and notebook 01 write one")
        return _known(value, DATA_FORMATS)

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

    @field_validator("precision")
    @classmethod
    def _precision(cls, value: str) -> str:
        return _known(value, PRECISIONS)

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


def _known(value: str, allowed) -> str:
    if value not in allowed:
        raise ValueError(nearest(value, allowed))
    return value
