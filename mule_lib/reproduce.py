"""Start Snakemake on a suite, say how far it is and how long it will take, and name what failed."""

import fcntl
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from mule_lib import run_folder, stale_runs, suite
from mule_lib.params import ROOT, ParameterError
from mule_lib.run import THREADS
from mule_lib.warm_kernels import warm_kernels

NOTHING = "Nothing to be done"


class ReproduceError(RuntimeError):
    """Some step of the suite failed; the message names its notebook and error."""


@dataclass
class Progress:
    """What Snakemake has said so far: jobs by rule (all and done), steps that failed with their text logs."""

    cores: int
    begun: float
    jobs: Counter = field(default_factory=Counter)
    done: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)
    started: dict[str, tuple[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    nothing: bool = False
    _rule: str = ""
    _failing: str = ""
    _job: str = ""
    _names: dict[str, str] = field(default_factory=dict)
    _table: bool = False

    def read(self, line: str, now: float) -> str | None:
        """Take one line of Snakemake's output at the time `now`; the line to show, if there is something to say."""
        text = line.strip()
        if NOTHING in text:
            self.nothing = True
        if text.startswith("Job stats:"):
            self._table = True
        elif self._table and (match := re.fullmatch(r"(\w+)\s+(\d+)", text)):
            if match[1] == "total":
                self._table = False
            elif match[1] != "all":
                self.jobs[match[1]] = int(match[2])
        elif match := re.match(r"(?:local)?rule (\w+):", text):
            self._rule, self._failing = match[1], ""
        elif match := re.match(r"Error in rule (\w+)", text):
            self._failing = match[1]
        elif match := re.match(r"jobid: (\d+)", text):
            self._job = match[1]
            if self._rule and not self._failing:
                self.started[self._job] = (self._rule, now)
        elif match := re.match(r"wildcards: (.+)", text):
            self._names[self._job] = " ".join(pair.split("=", 1)[1] for pair in match[1].split(", "))
        elif self._failing and (match := re.match(r"log: (\S+)", text)):
            self.failed[match[1].rstrip(",")] = self._failing
        elif match := re.search(r"Finished jobid: (\d+) \(Rule: (\w+)\)", text):
            rule, began = self.started.pop(match[1], (match[2], now))
            if rule == "all":  # the last one, which only asks for the others
                return None
            self.done[rule] += 1
            self.seconds[rule] += now - began
            return self.line(f"{rule} {self._names.get(match[1], '')}".strip(), now)
        return None

    def line(self, step: str, now: float) -> str:
        """How many steps are done, the time so far and about how much is left."""
        finished, total = sum(self.done.values()), sum(self.jobs.values())
        return f"[{finished}/{total}] {step}; {_time(now - self.begun)} so far, about {_time(self.left())} left"

    def left(self) -> float:
        """Seconds left: what is left of each rule at that rule's own mean, shared by all cores."""
        mean = sum(self.seconds.values()) / max(1, sum(self.done.values()))
        each = {rule: self.seconds[rule] / self.done[rule] if self.done[rule] else mean for rule in self.jobs}
        return sum((self.jobs[rule] - self.done[rule]) * each[rule] for rule in self.jobs) / self.cores


def reproduce(
    file: Path,
    *,
    name: str | None = None,
    seeds: int | None = None,
    profile: Path = Path("profiles/local"),
    cores: int | None = None,
    dry_run: bool = False,
    more: Sequence[str] = (),
) -> None:
    """Run a suite's graph; steps whose inputs did not change are not run again.

    `more` goes to Snakemake as it is. Raises ParameterError for a bad suite, a missing profile or a second start beside
    a running one; ReproduceError when a step failed.
    """
    begun = time.monotonic()
    chosen = suite.read(file, name=name, seeds=seeds)
    out = ROOT / "outputs" / chosen.name
    if not (ROOT / profile / "config.yaml").is_file():
        names = ", ".join(f"profiles/{path.parent.name}" for path in sorted(ROOT.glob("profiles/*/config.yaml")))
        raise ParameterError(f"--profile {profile}: no config.yaml there; choose from {names}")
    print(suite.describe(chosen, suite.runs(chosen)), flush=True)
    command = _command(file, chosen, profile, cores, dry_run, more)
    if dry_run:
        raise_on = subprocess.run(command, cwd=ROOT, env=_environment()).returncode
        if raise_on:
            raise ReproduceError(f"snakemake ended with status {raise_on}")
        return
    with _alone(out):
        run_folder.remove_drafts(out / "runs")
        wanted = {out / "runs" / run.benchmark / run.row / f"seed-{run.seed}" for run in suite.runs(chosen)}
        for place in stale_runs.set_aside(out, wanted):
            print(f"set aside {place.relative_to(ROOT)}: not asked for, and of an earlier state", flush=True)
        progress = Progress(cores or _cores(), begun)
        # A graphics driver does not survive a fork, so jobs with a GPU start cold.
        with nullcontext(_environment()) if chosen.gpus_per_run else warm_kernels(_environment()) as environment:
            status = _follow(command, out / "logs" / "snakemake.txt", progress, environment)
    _conclude(status, progress, out, time.monotonic() - begun)


def _command(file: Path, chosen: suite.Suite, profile: Path, cores: int | None, dry_run: bool, more) -> list[str]:
    config = [f"name={chosen.name}", *([f"seeds={chosen.seeds}"] if chosen.seeds else [])]
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", "Snakefile", "--directory", str(ROOT)),
        *("--workflow-profile", "none", "--profile", str(profile), "--configfile", str(file.resolve())),
        # Our own lock goes away with the process; Snakemake's would outlive a crash.
        *("--nolock", "--config", *config),
        *(["--cores", str(cores)] if cores else []),
        *(["--dry-run", "--quiet", "rules"] if dry_run else []),
        *more,
    ]


def _environment() -> dict[str, str]:
    """One thread a job, the interpreter's own folder first, and Snakemake's cache beside its state, not at home.

    `python` in a rule is then the one that runs this; models of the hub stay where they are.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": str(ROOT / ".snakemake" / "cache"),
        "HF_HOME": os.environ.get("HF_HOME", str(home / "huggingface")),
        **dict.fromkeys(THREADS, "1"),
    }


def _follow(command: Sequence[str], log: Path, progress: Progress, environment: dict[str, str]) -> int:
    """Run Snakemake, keep all it says in `log`, and print a line per finished step; its exit status."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8", buffering=1) as kept:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            for line in process.stdout:
                kept.write(line)
                shown = progress.read(line, time.monotonic())
                if shown:
                    print(shown, flush=True)
            return process.wait()
        except KeyboardInterrupt:
            # Snakemake got the same signal from the terminal and ends its jobs.
            process.wait()
            raise ReproduceError("interrupted; the same command goes on from here") from None


def _conclude(status: int, progress: Progress, out: Path, seconds: float) -> None:
    if status == 0:
        where = out.relative_to(ROOT)
        if progress.nothing:
            print(f"nothing to do: {where} is up to date ({seconds:.0f} s); see {where}/report.html")
        else:
            print(f"done in {_time(seconds)}; tables, figures and report.html are in {where}")
        return
    if not progress.failed:
        log = out / "logs" / "snakemake.txt"
        lines = [line for line in log.read_text("utf-8").splitlines() if line.strip()]
        print("\n".join(lines[-15:]), file=sys.stderr)
        raise ReproduceError(f"snakemake ended with status {status}; all it said is in {log.relative_to(ROOT)}")
    lines = [f"{rule}: {_last_line(ROOT / text)}" for text, rule in progress.failed.items()]
    for line in lines[:-1]:
        print(f"failed: {line}", file=sys.stderr)
    raise ReproduceError(f"{len(lines)} failed; the same command tries again. Last: {lines[-1]}")


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), f"it wrote nothing to {log}")


def _cores() -> int:
    """Cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the suite's folder. Raises ParameterError while another process holds it; a crash lets go of it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ParameterError(f"{out.relative_to(ROOT)}: another `mule reproduce` is at work there") from None
        yield
