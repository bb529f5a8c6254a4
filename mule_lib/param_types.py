"""Types of parameters that several notebooks take, checked without importing torch; messages name the nearest value."""

from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from mule_lib.benchmarks.load import BENCHMARKS
from mule_lib.method_catalogue import catalogue, nearest, options_of
from mule_lib.runs import repository_path

PRECISIONS = ("fp32", "bf16")
EMBEDDED = ("base", "gold")


def one_of(names: Callable[[], Iterable[str]]) -> AfterValidator:
    """Accept the names that `names()` holds, asked when a value is checked; ValueError with the nearest for others."""

    def check(value: str) -> str:
        known = list(names())
        if value not in known:
            raise ValueError(nearest(value, known))
        return value

    return AfterValidator(check)


def _model(value: str) -> str:
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


def _folder(value: str) -> str:
    if value and not repository_path(value).is_dir():
        raise ValueError("no such folder")
    return value


def _options(value: dict, info: ValidationInfo) -> dict:
    if "method" in info.data:  # it is declared first, and missing here only if it was refused
        options_of(info.data["method"], value)
    return value


Benchmark = Annotated[str, one_of(lambda: BENCHMARKS)]
MethodName = Annotated[str, one_of(catalogue)]
Options = Annotated[dict, AfterValidator(_options)]
Precision = Annotated[str, one_of(lambda: PRECISIONS)]
# base, gold, a folder with a config.json, or a hub id
ModelName = Annotated[str, AfterValidator(_model)]
# a folder that has to exist, or "" for none
Folder = Annotated[str, AfterValidator(_folder)]
