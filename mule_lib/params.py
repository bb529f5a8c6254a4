"""Every parameter of the suite: one frozen model per notebook, one per method's options; YAML in, one-line errors out.

Nothing of the library and no torch is imported here, so bad input is refused at once.
"""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

ROOT = Path(__file__).resolve().parent.parent
FABLE = ("books", "cyber")
# Benchmarks that have to be prepared, and the command that does it.
PREPARED = {
    "muse_books": "mule standardize -f params/01_data_standardization/paper_muse_books.yaml",
    "wmdp_cyber": "mule standardize -f params/01_data_standardization/paper_wmdp_cyber.yaml",
    "rwku": "mule prepare rwku --help",
    "tofu": "mule prepare tofu --help",
}
BENCHMARKS = (*FABLE, *PREPARED)
EMBEDDED = ("base", "gold")  # the models that the library ships
PRECISIONS = ("fp32", "bf16")
CHOICE_STYLES = ("letters", "texts")
DATA_FORMATS = ("unified", "raw")
TEACHER_READS = ("questions", "own format")


class ParameterError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message names it and what would be right."""


def repository_path(path: str | Path) -> Path:
    """A path of a params file: relative ones start at the repository, wherever the kernel was started."""
    return ROOT / path


def nearest(name: str, known: Collection[str]) -> str:
    """The hint that an error about an unknown name ends with."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known) or 'none'}"


def _one_of(names: Collection[str]) -> AfterValidator:
    """Accept the names that the collection holds when a value is checked."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(nearest(value, names))
        return value

    return AfterValidator(check)


class Checked(BaseModel):
    """A frozen model whose constructor raises ParameterError in one line: unknown key, wrong type, out of range."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParameterError("; ".join(_line(item, type(self)) for item in error.errors())) from None


def _line(error: Mapping[str, Any], schema: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = schema.model_fields if len(error["loc"]) == 1 else RunGroup.model_fields
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"valid names are {', '.join(known)}"
        return f"unknown parameter {key!r}; {hint}"
    if error["type"] == "missing":
        return f"{key}: missing"
    return f"{key} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


# Options of the methods

Weight = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Teacher = Annotated[str, _one_of(("oracle", "ensemble"))]
Positions = Annotated[str, _one_of(("answer", "first"))]


class MethodOptions(Checked):
    """A method's own switches. Without any: nothing is trained and nothing steers the model."""

    @property
    def trains(self) -> bool:
        """Whether the method changes the model."""
        return isinstance(self, TrainedOptions)

    @property
    def teacher_name(self) -> str | None:
        """Stem of the file of shared teacher answers, such as "oracle-cot"; None where no teacher writes any."""
        if not isinstance(self, DistilledOptions) or self.answers != "teacher":
            return None
        return f"{self.teacher}-cot" if self.cot else self.teacher


class PromptedOptions(MethodOptions):
    """Methods that steer the model in context and train nothing."""

    teacher: Teacher = "oracle"
    cot: bool = True


class EnsembleOptions(PromptedOptions):
    teacher: Teacher = "ensemble"


class TrainedOptions(MethodOptions):
    """What all methods that train take. Without `anchors` partners share no batch and anchor-only groups are unused."""

    anchors: bool = True
    positions: Positions = "answer"
    max_answer_tokens: Count = 64


class WeightedOptions(TrainedOptions):
    forget_weight: Weight = 1.0
    retain_weight: Weight = 1.0


class PreferenceOptions(WeightedOptions):
    beta: Above0 = 0.1


class SimNPOOptions(WeightedOptions):
    """The authors' values for TOFU forget10 (Fan 2025)."""

    forget_weight: Weight = 0.125
    beta: Above0 = 4.5
    margin: float = 0.0


class FLATOptions(TrainedOptions):
    divergence: str = "total_variation"


class NGDiffOptions(TrainedOptions):
    auto_learning_rate_every: Seed = 10


class MOLLMOptions(TrainedOptions):
    kl_weight: Weight = 1.0
    normalize: bool = False


class DistilledOptions(TrainedOptions):
    """Methods that copy a steered teacher; `answers="given"` puts the records' own answers behind its context."""

    teacher: Teacher = "oracle"
    cot: bool = True
    answers: Annotated[str, _one_of(("teacher", "given"))] = "teacher"
    top_k: Count = 10


class SmoothL1Options(DistilledOptions):
    beta: Above0 = 1.0
    over_k: Annotated[str, _one_of(("mean", "sum"))] = "mean"


class DUETOptions(SmoothL1Options):
    """DUET's own setting: the Ensemble Teacher, at the first answer token."""

    teacher: Teacher = "ensemble"
    positions: Positions = "first"


class BiLDOptions(DistilledOptions):
    top_k: int = Field(8, ge=2)
    temperature: Above0 = 3.0


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
    schema = METHOD_OPTIONS[method]
    for name in changed or {}:
        if name not in schema.model_fields:
            raise ParameterError(f"{method} has no option {name!r}; {nearest(name, schema.model_fields)}")
    return schema(**(changed or {}))


# Types that several notebooks take


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


def _data(value: str, info: ValidationInfo) -> str:
    for name in info.data.get("benchmarks", [info.data.get("benchmark")]):
        if not value and name in PREPARED:
            raise ValueError(f"{name} has to be prepared first: {PREPARED[name]}")
    return _folder(value)


def _options(value: dict, info: ValidationInfo) -> dict:
    if "method" in info.data:  # it is declared first, and missing here only if it was refused
        method_options(info.data["method"], value)
    return value


Benchmark = Annotated[str, _one_of(BENCHMARKS)]
MethodName = Annotated[str, _one_of(METHOD_OPTIONS)]
Options = Annotated[dict, AfterValidator(_options)]
Precision = Annotated[str, _one_of(PRECISIONS)]
ChoiceStyle = Annotated[str, _one_of(CHOICE_STYLES)]
ModelName = Annotated[str, AfterValidator(_model)]  # base, gold, a folder with a config.json, or a hub id
Folder = Annotated[str, AfterValidator(_folder)]  # has to exist; "" for none
DataFolder = Annotated[str, AfterValidator(_data)]  # may be "" only for benchmarks that are built in code


# Notebooks


class Notebook(Checked):
    """What all notebooks take; relative paths start at the repository."""

    out_dir: str


class MeetTheModel(Notebook):
    """Notebook 00."""

    benchmarks: list[Annotated[str, _one_of(FABLE)]] = Field(list(FABLE), min_length=1)
    seed: Seed = 0
    batch_size: Count = 128
    max_new_tokens: int = Field(24, ge=1, le=256)
    choice_style: ChoiceStyle = "texts"
    out_dir: str = "outputs/scratch/00_meet_the_model"


class DataStandardization(Notebook):
    """Notebook 01. `data_dir` is a folder that `data.save` wrote; empty: Fable is built in code."""

    benchmark: Benchmark = "books"
    data_dir: DataFolder = ""
    model: ModelName = "base"
    revision: str = ""
    precision: Precision = "fp32"
    near_duplicate: float = Field(0.8, gt=0, le=1)
    repeats: Count = 3
    seed: Seed = 0
    batch_size: Count = 64
    out_dir: str = "outputs/scratch/01_data_standardization/books"


class GradientCosine(Notebook):
    """Notebook 02. `data_dir` holds a folder per benchmark, `teacher_dir` one per benchmark with its teacher's file."""

    benchmarks: list[Benchmark] = Field(list(FABLE), min_length=1)
    data_dir: DataFolder = ""
    model: ModelName = "base"
    revision: str = ""
    precision: Precision = "fp32"
    method: MethodName = "mule"
    options: Options = {}
    teacher_reads: Annotated[str, _one_of(TEACHER_READS)] = "questions"
    teacher_dir: Folder = ""
    max_thought_tokens: Count = 48
    steps: list[int] = [0, 5]
    batches: int = Field(6, ge=3)
    draws: Count = 4
    pairs: int = Field(28, ge=0)
    layers: Count = 3
    learning_rate: Above0 = 1e-3
    train_batch_size: Count = 18
    train_seeds: Count = 3
    seed: Seed = 0
    out_dir: str = "outputs/scratch/02_gradient_cosine"

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


class Training(Notebook):
    """Notebook 04: one method on one benchmark, with each of `seeds` in a folder of its own below `out_dir`.

    `options` are the method's switches that differ from its defaults.
    """

    benchmark: Benchmark = "books"
    row: str = Field("mule", pattern=r"^[a-z0-9][a-z0-9_]*$")
    method: MethodName = "mule"
    options: Options = {}
    seeds: list[Seed] = Field([0], min_length=1)
    model: ModelName = "base"
    revision: str = ""
    data_dir: DataFolder = ""
    data_format: Annotated[str, _one_of(DATA_FORMATS)] = "unified"
    teacher_file: str = ""
    steps: int = Field(40, ge=0)
    train_batch_size: Count = 18
    accumulation: Count = 1
    learning_rate: Weight = 5e-4
    lora_rank: int = Field(0, ge=0)
    precision: Precision = "fp32"
    max_thought_tokens: Count = 48
    activation_checkpointing: bool = False
    save_every: int = Field(0, ge=0)
    beyond: bool = False
    harness_tasks: list[str] = []
    harness_limit: int = Field(0, ge=0)
    overwrite: bool = False
    rerun: bool = False
    batch_size: Count = 128
    max_new_tokens: int = Field(24, ge=1, le=256)
    choice_style: ChoiceStyle = "texts"
    out_dir: str = "outputs/scratch/04_training/books/mule"

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
        if not value or not {"method", "options"} <= set(info.data):
            return value
        if not repository_path(value).is_file():
            raise ValueError("no such file; `mule teacher` writes it")
        wanted = method_options(info.data["method"], info.data["options"]).teacher_name
        if wanted is None:
            raise ValueError(f"{info.data['method']} with these options takes no teacher's answers; leave it empty")
        if Path(value).stem != wanted:
            raise ValueError(f"the options of this run ask for {wanted}.jsonl")
        return value


class Table(Notebook):
    """Notebooks 05 and 06, which only read run folders; `benchmark` stands for MUSE-Books."""

    seed: Seed = 0
    name: str = "fable"
    benchmark: Benchmark = "books"
    out_dir: str = "outputs/fable"


class Radar(Table):
    """Notebook 07; `benchmark` stands for WMDP-Cyber."""

    benchmark: Benchmark = "cyber"


class Claims(Notebook):
    """Notebook 08. `benchmarks` stand for MUSE-Books and WMDP-Cyber, in this order."""

    seed: Seed = 0
    name: str = "fable"
    benchmarks: list[str] = ["books", "cyber"]
    resamples: int = Field(10_000, ge=5_000)
    out_dir: str = "outputs/fable"

    @field_validator("benchmarks")
    @classmethod
    def _one_for_each(cls, value: list[str]) -> list[str]:
        allowed = (("books", "muse_books"), ("cyber", "wmdp_cyber"))
        if len(value) != 2 or any(name not in names for name, names in zip(value, allowed, strict=True)):
            raise ValueError("give two: books or muse_books, then cyber or wmdp_cyber")
        return value


class Standardize(Checked):
    """`mule standardize`. Sources: "" is the Hub at the pinned commit, else a file or folder. All counts are ours."""

    benchmark: Annotated[str, _one_of(("muse_books", "wmdp_cyber"))] = "muse_books"  # also names its prompt texts
    out_dir: str = "data/muse_books"
    seed: Seed = 0

    forget_source: str = ""
    questions_source: str = ""  # MUSE's knowmem, WMDP's questions
    general_source: str = ""  # Wikipedia
    mmlu_source: str = ""
    mmlu_split: Annotated[str, _one_of(("test", "validation", "dev"))] = "test"
    forget_chunks: Count = 400  # drawn at random from all; about 60 % of them train
    general_articles: Count = 300  # one chunk of each
    questions: Count = 300  # WMDP questions drawn for open form

    chunk_chars: int = Field(2400, ge=200)
    pairs_per_chunk: int = Field(4, ge=1, le=20)
    answer_words: Count = 12
    support: float = Field(0.6, ge=0, le=1)
    near_duplicate: float = Field(0.7, gt=0, le=1)
    concepts_per_field: Count = 12
    pairs_per_concept: int = Field(4, ge=1, le=20)
    verify: bool = True  # a second look at pairs without a source
    distractors: int = Field(3, ge=1, le=6)
    refusals: int = Field(40, ge=0)  # beside our own
    # Share of the pairs to refuse that get a counterpart; beside the others, general and neighbour pairs are drawn.
    anchor_share: float = Field(0.5, ge=0, lt=1)
    evaluation_share: float = Field(0.1, gt=0, lt=0.4)  # of the sources, for each evaluation set
    validation_share: float = Field(0.1, gt=0, lt=0.4)
    evaluation_prefixes: Annotated[str, _one_of(("train", "held_out"))] = "train"

    attacker_rounds: int = Field(0, ge=0)  # 0: the prefix families as they are, and no model is loaded
    attacker_candidates: Count = 4
    attacker_target: str = "base"  # the model under attack: a hub id or a folder
    attacker_tokens: Count = 32

    # Any OpenAI-compatible endpoint, a local transformers model, or recorded replies.
    generator: Annotated[str, _one_of(("openai", "local", "replay"))] = "openai"
    generator_model: str = ""
    replay_file: str = ""
    cache_file: str = ""  # "" is <out_dir>/replies.jsonl
    budget_tokens: Count = 5_000_000
    concurrency: Count = 8
    max_failed: float = Field(0.05, ge=0, le=1)  # share of requests; above it nothing is written

    @field_validator("generator_model", "replay_file")
    @classmethod
    def _named(cls, value: str, info: ValidationInfo) -> str:
        # A missing name would show only when the first reply is asked for.
        generator = info.data.get("generator")
        if not value and generator == "replay" and info.field_name == "replay_file":
            raise ValueError("name the file of recorded replies for generator 'replay'")
        if not value and generator in ("openai", "local") and info.field_name == "generator_model":
            raise ValueError(f"name the model for generator {generator!r}")
        return value

    def identity(self) -> dict[str, Any]:
        """The parameters that shape the data; a folder may be finished with other values of the rest."""
        costs = {"out_dir", "cache_file", "budget_tokens", "concurrency", "max_failed", "replay_file"}
        return self.model_dump(exclude=costs)


class RunGroup(BaseModel):
    """Rows that run on the same benchmarks with the same number of seeds; rows that train nothing run once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: list[str] = Field(min_length=1)
    benchmarks: list[Benchmark] = Field(min_length=1)
    seeds: Count = 1


class Suite(Checked):
    """`params/suite/*.yaml`: `params` names the scale, the params file of that name of every notebook.

    `data` maps benchmarks that are prepared outside of the suite to their folder. `beyond` rows are also measured
    beyond the paper, with their first seed on the benchmarks given. `seeds` caps the seeds of all groups. One job
    carries all seeds of a row on a benchmark, or `seeds_per_job` where several machines should share them.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    params: str
    runs: list[RunGroup] = Field(min_length=1)
    beyond: list[RunGroup] = []
    data: dict[str, str] = {}
    seeds: int | None = Field(None, ge=1)
    seeds_per_job: int = Field(0, ge=0)
    gpus_per_run: int = Field(0, ge=0)


# YAML

NOTEBOOKS: dict[str, type[Notebook]] = {
    "00_meet_the_model": MeetTheModel,
    "01_data_standardization": DataStandardization,
    "02_gradient_cosine": GradientCosine,
    "04_training": Training,
    "05_main_results": Table,
    "06_ablation": Table,
    "07_wmdp_radar": Radar,
    "08_claims": Claims,
}
SCHEMAS: dict[str, type[Checked]] = {**NOTEBOOKS, "standardize": Standardize, "suite": Suite}


def validate(notebook: str, values: Mapping[str, Any], *, source: str = "parameters") -> Any:
    """The checked parameters of a notebook (its file stem), of "standardize" or of a "suite".

    Raises ParameterError in one line that starts with `source`.
    """
    if notebook not in SCHEMAS:
        raise ParameterError(f"{notebook}: no such notebook; there are {', '.join(NOTEBOOKS)}")
    try:
        return SCHEMAS[notebook](**values)
    except ParameterError as error:
        raise ParameterError(f"{source}: {error}") from None


def load(notebook: str, file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Any:
    """Read a YAML file (flat keys), put the overrides over it and validate.

    A file of many rows (`defaults`, and what each of `rows` changes) gives the row that the overrides name.
    Raises ParameterError for a missing file, text that is not such a mapping, or a bad value.
    """
    changed = dict(overrides or {})
    values = read_yaml(file) if file is not None else {}
    if "rows" in values:
        values = row_values(values, changed.get("row"), source=str(file))
    return validate(notebook, {**values, **changed}, source=str(file) if file else "parameters")


def row_values(values: Mapping[str, Any], row: str | None, *, source: str) -> dict[str, Any]:
    """The flat parameters of one row of a params file; its method is the one of its name unless it names another."""
    if unknown := set(values) - {"defaults", "rows"}:
        raise ParameterError(f"{source}: unknown key {min(unknown)!r}; a file of rows has defaults and rows")
    rows = values["rows"] or {}
    if row not in rows:
        hint = f"row {row!r}: {nearest(row, rows)}" if row else f"{len(rows)} rows; choose one by -p row=NAME"
        raise ParameterError(f"{source}: {hint}")
    return {"row": row, "method": row, **(values.get("defaults") or {}), **(rows[row] or {})}


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of keys and values. Raises ParameterError for a missing file, a doubled key or no such mapping."""
    if not file.exists():
        near = difflib.get_close_matches(file.name, [path.name for path in file.parent.glob("*.yaml")], n=1)
        raise ParameterError(f"{file}: no such params file{f'; did you mean {near[0]}?' if near else ''}")
    try:
        read = yaml.load(file.read_text("utf-8"), Loader=_Loader) or {}
    except ParameterError as error:
        raise ParameterError(f"{file}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(read, dict):
        raise ParameterError(f"{file}: should be a flat mapping of parameter to value")
    return read


class _Loader(yaml.SafeLoader):
    """YAML without its silent trap: of a key that stands twice, the first value is lost."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if doubled := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise ParameterError(f"the key {doubled[0]!r} stands twice, from line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)
