"""One self-contained HTML page of a suite: tables, figures with alt text, claims, provenance; read from files alone."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from mule_lib.data.files import write_text
from mule_lib.evaluate.result import RunResult
from mule_lib.params import FABLE, ROOT
from mule_lib.report import results
from mule_lib.report.names import EMBEDDED, GOLD, PAPER_MODEL, benchmark_name, label, listed


class ReportError(ValueError):
    """There is nothing to report on; the message names the folder and what makes it."""


WARNING = (
    "They are of different models and different questions: no measured number here is the paper's, and no level may be "
    "compared with a reported one; only orders and directions can."
)
MAIN, ABLATION, SECOND, CLAIMS, PILOT = (
    "05_main_results", "06_ablation", "07_wmdp_radar", "08_claims", "02_gradient_cosine",
)  # fmt: skip
# Notebooks with a folder of their own below the suite's; the others write into the suite's.
OWN_FOLDER = {
    "00_meet_the_model": "/00_meet_the_model",
    "01_data_standardization": "/01_data/books",
    PILOT: f"/{PILOT}",
}
# Anchor, title, what to look for, and the parts: file below the suite (`*` is each benchmark), title, notebook.
SECTIONS = (
    ("claims", "Claims", "Does what the paper claims hold here?", (
        ("figures/claims.png", "All verdicts at one look", CLAIMS),
        ("tables/claims.html", "The paper's claims, one by one", CLAIMS),
    )),
    ("main", "Main results", "Which method does all at once?", (
        ("tables/table1.html", "Table 1 · Main results", MAIN),
        ("figures/overall_*.png", "Overall Performance", MAIN),
        ("tables/directions.html", "Does each method move as its own paper says?", MAIN),
        ("tables/directions_table3.html", "Does each method move as its own paper says? Second benchmark", SECOND),
    )),
    ("second", "Second benchmark", "Does the picture hold?", (
        ("tables/table3.html", "Table 3 · Second benchmark", SECOND),
        ("figures/figure3.png", "Figure 3 · Radar of five metrics", SECOND),
    )),
    ("ablation", "Ablation", "Which parts carry MULE's result?", (
        ("tables/table2.html", "Table 2 · Ablation", ABLATION),
        ("figures/ablation.png", "What each change to MULE costs", ABLATION),
    )),
    ("pilot", "Pilot study", "Do the objectives pull the same way, before and after?", (
        ("figures/figure2.png", "Figure 2 · Cosines between the objectives' gradients", PILOT),
        ("figures/figure2_changes.png", "Figure 2 · Change by standardization", PILOT),
        ("01_data/*/corpora.png", "Distance between the objectives' corpora", "01_data_standardization"),
    )),
    ("rates", "Behind the metrics", "Who refuses, who fails?", (
        ("tables/rates.html", "How rows come to their metrics, Table 1", MAIN),
        ("tables/rates_table3.html", "How rows come to their metrics, Table 3", SECOND),
    )),
    ("beyond", "Beyond the paper", "Does forgotten knowledge come back?", (
        ("figures/robustness_*.png", "Forgotten knowledge under later attacks", MAIN),
        ("tables/beyond.html", "Attacks beyond the paper's metrics", MAIN),
    )),
    ("training", "Training", "What happened in the runs?", (
        ("figures/training_*.png", "Training curves", MAIN),
        ("figures/obedience_*.png", "The teacher's obedience", MAIN),
        ("00_meet_the_model/rows.png", "The embedded model and how it obeys", "00_meet_the_model"),
    )),
    ("paper", "The paper itself", "Where do its own numbers disagree?", (
        ("tables/inconsistencies.html", "Inconsistencies inside the paper", CLAIMS),
    )),
)  # fmt: skip
LEADING = (
    "figures/claims.png",
    "tables/table1.html",
    "tables/table3.html",
    "tables/table2.html",
    "figures/figure2.png",
)


@dataclass(frozen=True)
class Part:
    """A table or figure of the page: `html` of a table or `image` (base64 PNG), neither where it is missing.

    `alt` states the finding; `links` are its files by suffix, relative to the page; `command` is what makes it.
    """

    file: str
    title: str
    command: str
    html: str = ""
    image: str = ""
    alt: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> bool:
        return not (self.html or self.image)


def write(suite: Path) -> Path:
    """Write `suite`/report.html and return its path. Raises ReportError for a folder without anything to show."""
    write_text(suite / "report.html", build(suite))
    return suite / "report.html"


def build(suite: Path) -> str:
    """The page as text; the same files give the same bytes, and no link leads to a file that is not there.

    Tables and figures that are missing are named with the command that makes them. Raises ReportError for a missing or
    empty folder, ResultError for a run folder that cannot be read.
    """
    if not any((suite / name).is_dir() for name in ("runs", "tables", "figures")):
        raise ReportError(f"{suite}: no runs, tables or figures there; `make reproduce` or `mule run` makes them")
    runs = results.load_runs(suite) if (suite / "runs").is_dir() else []
    sections = [
        {"anchor": anchor, "title": title, "text": text, "parts": list(_parts(suite, parts))}
        for anchor, title, text, parts in SECTIONS
    ]
    parts = {part.file: (section, part) for section in sections for part in section["parts"]}
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = resources.files("mule_lib").joinpath("templates/report.html.jinja").read_text("utf-8")
    page = environment.from_string(template).render(
        name=suite.name,
        banner=banner(runs),
        sections=sections,
        findings=[(*parts[name], parts[name][1].alt) for name in LEADING if parts[name][1].alt],
        missing=[part for _, part in parts.values() if part.missing],
        facts=_facts(runs),
        runs=[_run(suite, run) for run in runs],
        notebooks=[file.relative_to(suite).as_posix() for file in sorted((suite / "executed").glob("*.ipynb"))],
    )
    return live_links(page, suite)


def live_links(page: str, folder: Path) -> str:
    """A page for `folder` in which links to files that are not there are plain text."""

    def keep(link: re.Match) -> str:
        target = link[1]
        return link[0] if target.startswith(("#", "http")) or (folder / target).exists() else link[2]

    return re.sub(r'<a href="([^"]+)">(.*?)</a>', keep, page)


def banner(runs: Sequence[RunResult]) -> dict[str, str]:
    """Whose numbers stand on the page: what was measured here on what, and what is the paper's."""
    names = [benchmark_name(name) for name in dict.fromkeys(run.benchmark for run in runs)]
    models = dict.fromkeys(results.params(run).get("model", "") for run in runs if run.row != GOLD)
    shown = [EMBEDDED.get(model, model) for model in models if model]
    same = bool(runs) and not {run.benchmark for run in runs} & set(FABLE)
    return {
        "measured": f"{listed(names)} with {listed(shown)}" if runs else "no runs yet",
        "reported": f"MUSE-Books and WMDP-Cyber with {PAPER_MODEL} (arXiv 2604.15482)",
        "warning": "" if same else WARNING,
    }


def _parts(suite: Path, parts: Iterable[tuple[str, str, str]]) -> Iterator[Part]:
    for pattern, title, notebook in parts:
        files = sorted(suite.glob(pattern)) if "*" in pattern else [suite / pattern]
        for file in files or [suite / pattern]:
            before, after = pattern.split("*") if "*" in pattern else ("", "")
            inside = file.relative_to(suite).as_posix()
            benchmark = inside.removeprefix(before).removesuffix(after) if "*" in pattern and files else ""
            yield _part(suite, file, f"{title}, {benchmark_name(benchmark)}" if benchmark else title, notebook)


def _part(suite: Path, file: Path, title: str, notebook: str) -> Part:
    inside = file.relative_to(suite)
    own = (ROOT / "params" / notebook / f"{suite.name}.yaml").is_file()
    params = f"params/{notebook}/{suite.name if own else 'fable'}.yaml"
    out = f"outputs/{suite.name}{OWN_FOLDER.get(notebook, '')}"
    command = f"mule run notebooks/{notebook}.ipynb -f {params} -p out_dir={out}"
    if not file.exists():
        return Part(inside.as_posix(), title, command)
    text = file.with_suffix(".txt")
    alt = text.read_text("utf-8").strip() if text.exists() else ""
    links = {suffix: inside.with_suffix(f".{suffix}").as_posix() for suffix in ("csv", "md", "tex", "png", "pdf")}
    links = {suffix: link for suffix, link in links.items() if (suite / link).exists()}
    if file.suffix == ".html":
        return Part(inside.as_posix(), title, command, html=file.read_text("utf-8"), alt=alt, links=links)
    image = base64.b64encode(file.read_bytes()).decode("ascii")
    return Part(inside.as_posix(), title, command, image=image, alt=alt or title, links=links)


def _facts(runs: Sequence[RunResult]) -> dict[str, str]:
    """Facts behind all runs, each with every value that occurs."""
    sources = [results.provenance(run) for run in runs]
    packages = sorted({f"{name} {version}" for source in sources for name, version in source["packages"].items()})
    commits = [(source["git"]["commit"] or "unknown")[:12] for source in sources]
    dirty = any(source["git"]["dirty"] for source in sources)
    return {
        "Runs": f"{len(runs)}, of {len({(run.benchmark, run.row) for run in runs})} rows",
        "Training": f"{sum(run.timing['train_seconds'] for run in runs) / 60:.0f} minutes",
        "Evaluation": f"{sum(run.timing['evaluate_seconds'] for run in runs) / 60:.0f} minutes",
        "Commit": _values(commits) + (", with changes not committed" if dirty else ""),
        "Models": _values(source["identity"]["model"] for source in sources),
        "Python": _values(source["python"] for source in sources),
        "Machine": _values(source["machine"] for source in sources),
        "Packages": ", ".join(packages) or "unknown",
    }


def _values(found: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(found)) or "unknown"


def _run(suite: Path, run: RunResult) -> dict[str, Any]:
    return {
        "benchmark": benchmark_name(run.benchmark),
        "row": label(run.row, {run.row: run.label}),
        "seed": run.seed,
        "steps": run.timing["steps"],
        "seconds": f"{run.timing['train_seconds'] + run.timing['evaluate_seconds']:.0f}",
        "identity": run.identity,
        "folder": run.folder.relative_to(suite).as_posix(),
    }
