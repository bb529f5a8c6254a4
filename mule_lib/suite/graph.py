"""A suite as a graph of files: which methods, benchmarks and seeds, what each step needs, and its start."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import filelock
import psutil
from pydantic import BeforeValidator, Field

from mule_lib import params
from mule_lib.params import FABLE, FOLDER_NAME, PREPARED, ROOT, Benchmark, Checked, CountFrom0, ParameterError
from mule_lib.suite import identity, runs
from mule_lib.suite.notebook import THREADS

TRAINING = "04_training"
TAUGHT_BY = ("model", "revision", "adapter", "precision", "max_thought_tokens")
NUMBERS = ("prompts.py", "losses.py", "gradients.py", "data", "models", "methods.py", "training", "evaluate")
# Host and process of the `mule reproduce` behind a process; how long what it started may take to end.
DRIVER, ENDING_SECONDS = "MULE_DRIVER", 2.0
# The rooms behind each step, for Snakemake; what is behind a training is in `code_behind`.
ROOMS = {
    "00_meet_the_model": ("params", "prompts.py", "data", "models", "evaluate", "report"),
    "01_data_standardization": ("params", "prompts.py", "data", "models", "report"),
    "02_gradient_cosine": ("params", *NUMBERS, "report"),
    "teacher": ("prompts.py", "data", "models", "training/teacher.py"),
    "report": ("paper.py", "evaluate/intervals.py", "evaluate/result.py", "report", "templates"),
}


Seeds = Annotated[int, Field(ge=1, le=1000)]


class RunGroup(Checked):
    """Rows that run on the same benchmarks with the same number of seeds; rows that train nothing run once."""

    rows: list[str] = Field(min_length=1)
    benchmarks: list[Benchmark] = Field(min_length=1)
    seeds: Seeds = 1


Groups = list[Annotated[RunGroup, BeforeValidator(lambda v: RunGroup(**v) if isinstance(v, dict) else v)]]


class Suite(Checked):
    """A file of `params/suite`; `params` names the scale, the params file of that name of every notebook.

    `data` maps prepared benchmarks (Fable's may be, too) to their folder. The first seed of `beyond` rows is also
    measured beyond the paper. `seeds` caps the seeds of all groups; one job carries `seeds_per_job` of a row on a
    benchmark (0: all).
    """

    name: str = Field(pattern=FOLDER_NAME)
    params: str = Field(pattern=FOLDER_NAME)
    runs: Groups = Field(min_length=1)
    beyond: Groups = Field(default_factory=list)
    data: dict[Benchmark, str] = Field(default_factory=dict)
    seeds: Seeds | None = None
    seeds_per_job: CountFrom0 = 0
    gpus_per_run: int = Field(0, ge=0, le=64)

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.name.startswith("reference"):
            yield "name", "outputs/reference* keep what was committed; choose another"


@dataclass(frozen=True)
class TrainingJob:
    """One start of notebook 04: a row of the params file on one benchmark with some of its seeds.

    `teacher` is the stem of its file of shared teacher answers, None without one.
    """

    benchmark: str
    row: str
    seeds: tuple[int, ...]
    teacher: str | None
    beyond: bool = False

    @property
    def name(self) -> str:
        """What the job's log and executed copy are called."""
        return f"{self.benchmark}-{self.row}-{'-'.join(map(str, self.seeds))}"

    def folders(self, suite: Suite) -> list[Path]:
        """The run folder of each seed, from the repository."""
        return [Path("outputs", suite.name, "runs", self.benchmark, self.row, f"seed-{seed}") for seed in self.seeds]


def read_suite(file: Path, **changed: Any) -> Suite:
    """Read a suite file with some keys changed; None leaves a key as it is. Raises ParameterError as `check` does."""
    return check_suite(
        {**params.read_yaml(file), **{k: v for k, v in changed.items() if v is not None}}, source=str(file)
    )


def check_suite(values: Mapping[str, Any], *, source: str = "suite") -> Suite:
    """The checked suite. Raises ParameterError with key and nearest name for what does not exist or has no data."""
    suite = params.validate(Suite, values, source=source)
    known = params.read_yaml(ROOT / "params" / TRAINING / f"{suite.params}.yaml").get("rows", {})
    for _, row in _pairs(suite.runs):
        if row not in known:
            raise ParameterError(f"{source}: runs: row {row!r}: {params.nearest(row, known)}")
    for benchmark in benchmarks(suite):
        where = suite.data.get(benchmark, f"(no folder is set for {benchmark})")
        prepared = benchmark in PREPARED or benchmark in suite.data
        if prepared and not (ROOT / where / "train.jsonl").is_file():
            command = PREPARED.get(benchmark, "make teach")
            raise ParameterError(f"{source}: data: {where} has no train.jsonl; prepare it by {command}")
    for benchmark, teacher in {(job.benchmark, job.teacher) for job in jobs(suite) if job.teacher}:
        teacher_row(suite, benchmark, teacher)
    for benchmark, row in _pairs(suite.beyond):
        if (benchmark, row) not in _pairs(suite.runs):
            raise ParameterError(f"{source}: beyond: {row!r} on {benchmark!r} is not among the runs")
    return suite


def _pairs(groups: Sequence[RunGroup]) -> dict[tuple[str, str], int]:
    """The most seeds that some group asks for, by benchmark and row."""
    wanted: dict[tuple[str, str], int] = {}
    for group in groups:
        for pair in product(group.benchmarks, group.rows):
            wanted[pair] = max(wanted.get(pair, 0), group.seeds)
    return wanted


def jobs(suite: Suite) -> list[TrainingJob]:
    """Every training of a suite, those with first seeds first; a job carries at most `seeds_per_job` seeds."""
    found = []
    for (benchmark, row), wanted in _pairs(suite.runs).items():
        p = row_of(suite.params, row)
        options = params.method_options(p.method, p.options)
        seeds = range(min(wanted, suite.seeds or wanted) if options.trains else 1)
        each = suite.seeds_per_job or len(seeds)
        for first in seeds[::each]:
            beyond = first == 0 and (benchmark, row) in _pairs(suite.beyond)
            found.append(TrainingJob(benchmark, row, tuple(seeds[first : first + each]), options.teacher_name, beyond))
    return sorted(found, key=lambda job: job.seeds[0])


@cache
def row_of(scale: str, row: str) -> params.Training:
    """The parameters of a row of params/04_training/<scale>.yaml; within one start, files stay as they are."""
    return params.read_parameters(TRAINING, ROOT / "params" / TRAINING / f"{scale}.yaml", {"row": row})


def teacher_row(suite: Suite, benchmark: str, teacher: str) -> str:
    """The row whose parameters `mule teacher` takes: the first of those that share a teacher.

    Raises ParameterError where those rows train different models, which cannot share a teacher's answers.
    """
    rows = [job.row for job in jobs(suite) if (job.benchmark, job.teacher) == (benchmark, teacher)]
    asked = {tuple(getattr(row_of(suite.params, row), name) for name in TAUGHT_BY) for row in rows}
    if len(asked) > 1:
        models = ", ".join(sorted({model for model, *_ in asked}))
        raise ParameterError(
            f"params/{TRAINING}/{suite.params}.yaml: rows that share a teacher differ in model, revision or "
            f"precision ({models}); give them one, or a params file each"
        )
    return rows[0]


def all_have_teacher(suite: Suite, teacher: str) -> bool:
    """Whether some row of every benchmark trains with this shared teacher."""
    return {job.benchmark for job in jobs(suite) if job.teacher == teacher} == set(benchmarks(suite))


def benchmarks(suite: Suite) -> list[str]:
    """The benchmarks of a suite, in the order in which its file names them."""
    return list(dict.fromkeys(name for group in suite.runs for name in group.benchmarks))


def in_code(suite: Suite) -> list[str]:
    """The benchmarks that are built in code, for the embedded models."""
    return [name for name in benchmarks(suite) if name in FABLE and name not in suite.data]


def notebook(stem: str) -> list[str]:
    """What a step that runs a notebook depends on besides its data: the notebook, first, and the rooms behind it."""
    return [f"notebooks/{stem}.ipynb", *rooms(stem if stem in ROOMS else "report")]


def rooms(step: str) -> list[str]:
    """The library's files behind a step."""
    places = [ROOT / "mule_lib" / room for room in ROOMS[step]]
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.*")))]
    return [file.relative_to(ROOT).as_posix() for file in files if file.suffix in (".py", ".jinja", ".yaml")]


def code_behind(suite: Suite, job: TrainingJob) -> str:
    """Hash of a job's parameters and of the code that its method runs through; other rows do not enter it."""
    p = row_of(suite.params, job.row)
    return identity.fingerprint([p.model_dump(mode="json"), identity.code_hashes(p.method)])


def prepared_files(suite: Suite, benchmark: str) -> list[str]:
    """What notebook 01 reads of a benchmark that was prepared outside of the suite, [] for one that it builds."""
    if benchmark not in suite.data:
        return []
    folder = Path(suite.data[benchmark])
    files = [file for pattern in identity.DATA_FILES for file in sorted((ROOT / folder).glob(pattern))]
    return [(folder / file.relative_to(ROOT / folder)).as_posix() for file in files]


def params_file(stem: str, suite: Suite) -> list[str]:
    """The file of a notebook's parameters for a suite, [] where there is none and its defaults hold."""
    file = Path("params") / stem / f"{suite.params}.yaml"
    return [file.as_posix()] if (ROOT / file).is_file() else []


def reproduce(
    file: Path,
    *,
    name: str | None = None,
    seeds: int | None = None,
    profile: Path = Path("profiles/local"),
    cores: int | None = None,
    dry_run: bool = False,
    snakemake: Sequence[str] = (),
) -> None:
    """Run a suite's graph; steps whose inputs did not change are not run again.

    `snakemake` are its further arguments. Raises ParameterError for a bad suite, a missing profile or a second start
    beside a running one; RuntimeError when a step failed, with its notebook and error.
    """
    begun, suite = time.time(), read_suite(file, name=name, seeds=seeds)
    out = ROOT / "outputs" / suite.name
    if not (ROOT / profile / "config.yaml").is_file():
        names = ", ".join(f"profiles/{path.parent.name}" for path in sorted(ROOT.glob("profiles/*/config.yaml")))
        raise ParameterError(f"--profile {profile}: no config.yaml there; choose from {names}")
    folders = [folder for job in jobs(suite) for folder in job.folders(suite)]
    print(f"{suite.name}: {len(folders)} runs on {', '.join(benchmarks(suite))}", flush=True)
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", "Snakefile", "--directory", str(ROOT)),
        *("--workflow-profile", "none", "--profile", str(profile), "--configfile", str(file.resolve())),
        # Our own lock goes away with the process; Snakemake's would outlive a crash.
        *("--nolock", "--quiet", "rules", "host", "reason"),
        *("--config", f"name={suite.name}", *([f"seeds={suite.seeds}"] if suite.seeds else [])),
        *(["--cores", str(cores)] if cores else []),
        *(["--dry-run"] if dry_run else []),
        *snakemake,
    ]
    if not dry_run:
        out.mkdir(parents=True, exist_ok=True)
    try:
        with nullcontext() if dry_run else filelock.FileLock(out / ".lock", timeout=0):
            for place in () if dry_run else runs.set_aside(out, {ROOT / folder for folder in folders}):
                print(f"set aside {place.relative_to(ROOT)}: not asked for, and of an earlier state", flush=True)
            status = drive(command)
    except filelock.Timeout:
        raise ParameterError(f"outputs/{suite.name}: another `mule reproduce` is at work there") from None
    if status:
        failed = failures(out / "logs", begun) or [f"snakemake ended with status {status}, see above"]
        raise RuntimeError(f"{len(failed)} failed; the same command tries again. Last: {failed[-1]}")
    if not dry_run:
        minutes, spent = (time.time() - begun) / 60, os.times()
        cpu = f"{(spent.children_user + spent.children_system) / 60:.1f} CPU minutes"
        print(f"done in {minutes:.1f} min, {cpu}; tables, figures and report.html are in outputs/{suite.name}")


def drive(command: Sequence[str]) -> int:
    """Run a command of many processes and return its status; they all end with this one, in whatever way it ends.

    After Ctrl-C, SIGTERM or SIGHUP they are gone before this returns, so that no other suite starts beside them.
    """
    # A group of its own: Ctrl-C reaches this process alone, which then ends the others in order.
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), process_group=0)
    try:
        return process.wait()
    except KeyboardInterrupt:
        started = psutil.Process().children(recursive=True)
        process.send_signal(signal.SIGINT)  # Snakemake starts no further job, and cancels those of a cluster
        _end([other for other in started if other.pid != process.pid], ENDING_SECONDS)
        _end([psutil.Process(process.pid)] if process.poll() is None else [], ENDING_SECONDS)
        raise


def end_with_driver() -> None:
    """End this process and its children within a second after the `mule reproduce` behind it, on this machine."""
    host, _, pid = os.environ.get(DRIVER, "").rpartition(" ")
    if host == platform.node():
        threading.Thread(target=_watch, args=(int(pid),), daemon=True).start()


def _watch(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(pid)
        while driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    _end(psutil.Process().children(recursive=True), 0)
    os._exit(1)


def _end(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Ask processes to end, and end those that have not after some seconds."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=seconds)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def failures(logs: Path, begun: float) -> list[str]:
    """The last line of each step's log since `begun` (seconds since the epoch) that ends in a refusal of `mule`."""
    files = [file for file in sorted(logs.glob("*.txt")) if file.stat().st_mtime >= begun]
    lines = [file.read_text("utf-8", errors="replace").strip().rpartition("\n")[2] for file in files]
    return [f"{file.stem}: {line}" for file, line in zip(files, lines, strict=True) if line.startswith("mule ")]


def environment() -> dict[str, str]:
    """One thread a job, the interpreter's own folder first, and Snakemake's cache beside its state, not at home.

    `python` in a rule is then the one that runs this; models of the hub stay where they are.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONUNBUFFERED": "1",
        DRIVER: f"{platform.node()} {os.getpid()}",
        "XDG_CACHE_HOME": str(ROOT / ".snakemake" / "cache"),
        "HF_HOME": os.environ.get("HF_HOME", str(home / "huggingface")),
        **dict.fromkeys(THREADS, "1"),
    }
