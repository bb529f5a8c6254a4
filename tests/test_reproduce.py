"""What `mule reproduce` says of Snakemake's work, from a real Snakemake on a small graph."""

import fcntl
import subprocess
import sys

import pytest

from mule_lib import reproduce
from mule_lib.params import ParameterError
from mule_lib.reproduce import Progress, ReproduceError

GRAPH = """
rule all:
    input: expand("out/{name}.txt", name=["a", "b"])
rule make:
    output: "out/{name}.txt"
    log: "log/{name}.txt"
    shell: "(echo working; test {wildcards.name} = a || (echo 'ValueError: no b' ; false)) > {log} && touch {output}"
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Snakemake's words about a graph with one good and one failing job, and about the good one asked for again."""
    folder = tmp_path_factory.mktemp("graph")
    (folder / "Snakefile").write_text(GRAPH)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", "--nolock", "--scheduler", "greedy"]
    command += ["--directory", str(folder), "--snakefile", str(folder / "Snakefile")]
    both = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    again = subprocess.run([*command, "out/a.txt"], capture_output=True, text=True, cwd=folder)
    return folder, (both.stdout + both.stderr).splitlines(), (again.stdout + again.stderr).splitlines()


def _progress(lines, *, cores=1):
    progress, shown = Progress(cores, 0.0), []
    for second, line in enumerate(lines):
        shown.append(progress.read(line, float(second)))
    return progress, [line for line in shown if line]


def test_finished_steps_are_counted_with_the_time_left(said):
    """The good job is named with its wildcard, one of two; time left is what is left at the mean so far."""
    progress, shown = _progress(said[1])
    assert progress.jobs == {"make": 2} and progress.done == {"make": 1}
    assert len(shown) == 1 and shown[0].startswith("[1/2] make a; ") and "left" in shown[0]
    assert progress.left() == progress.seconds["make"] > 0
    assert _progress(said[1], cores=2)[0].left() == progress.seconds["make"] / 2


def test_the_failing_step_is_named_with_its_log(said, tmp_path, monkeypatch, capsys):
    """The last line says which step failed and why, in the words of its own log."""
    progress, _ = _progress(said[1])
    assert progress.failed == {"log/b.txt": "make"}
    monkeypatch.setattr(reproduce, "ROOT", said[0])
    with pytest.raises(ReproduceError, match=r"^1 failed; .* Last: make: ValueError: no b$"):
        reproduce._conclude(1, progress, said[0] / "out", 3.0)


def test_nothing_to_do_is_said(said, monkeypatch, capsys):
    """A second start says that all is there."""
    progress, shown = _progress(said[2])
    assert progress.nothing and not shown
    monkeypatch.setattr(reproduce, "ROOT", said[0])
    reproduce._conclude(0, progress, said[0] / "out", 2.4)
    assert capsys.readouterr().out == "nothing to do: out is up to date (2 s); see out/report.html\n"


def test_an_error_before_any_job_shows_snakemakes_words(tmp_path, monkeypatch, capsys):
    """A broken graph has no failed job; what Snakemake said is shown, and where all of it lies."""
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "snakemake.txt").write_text("MissingInputException in rule all\n")
    with pytest.raises(ReproduceError, match=r"status 1; all it said is in logs/snakemake.txt"):
        reproduce._conclude(1, Progress(1, 0.0), tmp_path, 1.0)
    assert "MissingInputException" in capsys.readouterr().err


def test_one_at_a_time(tmp_path, monkeypatch):
    """A second start beside a running one is refused; a lock that a dead process left is none."""
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    second = reproduce._alone(tmp_path / "fable")
    refused = pytest.raises(ParameterError, match="fable: another `mule reproduce` is at work there")
    with reproduce._alone(tmp_path / "fable"), refused, second:
        pass
    assert (tmp_path / "fable" / ".lock").exists()
    with (tmp_path / "fable" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again


def test_jobs_run_on_one_thread_with_this_python():
    """Every numeric library of a job is limited, and `python` in a rule is the one that runs this."""
    environment = reproduce._environment()
    assert {environment[name] for name in reproduce.THREADS} == {"1"}
    assert environment["HF_HOME"] and ".snakemake" not in environment["HF_HOME"]
    found = subprocess.run(
        ["python", "-c", "import sys; print(sys.prefix)"], env=environment, capture_output=True, text=True
    )
    assert found.stdout.strip() == sys.prefix
