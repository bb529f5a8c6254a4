"""One self-contained HTML page of a suite: tables, figures with alt text, claims, provenance; read from files alone."""

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mule_lib.data.files import write_text
from mule_lib.evaluate.result import ResultError, RunResult
from mule_lib.params import FABLE, ROOT, read_yaml
from mule_lib.report import results
from mule_lib.report.names import EMBEDDED, GOLD, PAPER_MODEL, benchmark_name, label, listed

LAYOUT = Path(__file__).with_suffix(".yaml")
TEMPLATE = Path(__file__).parent.parent / "templates" / "report.html.jinja"
WARNING = (
    "They are of different models and different questions: no measured number here is the paper's, and no level may be "
    "compared with a reported one; only orders and directions can."
)


def write_report(suite: Path) -> Path:
    """Write `suite`/report.html and return its path. Raises what `report_html` does."""
    write_text(suite / "report.html", report_html(suite))
    return suite / "report.html"


def report_html(suite: Path) -> str:
    """The page as text; the same files give the same bytes, and no link leads to a file that is not there.

    Tables and figures that are missing are named with the command that makes them. Raises ResultError for a missing or
    empty folder, and for a run folder that cannot be read.
    """
    if not any((suite / name).is_dir() for name in ("runs", "tables", "figures")):
        raise ResultError(f"{suite}: no runs, tables or figures there; `make reproduce` or `mule run` makes them")
    runs = results.load_runs(suite) if (suite / "runs").is_dir() else []
    layout = read_yaml(LAYOUT)
    sections = [{**one, "parts": list(_parts(suite, one["parts"], layout["own_folder"]))} for one in layout["sections"]]
    parts = {part["file"]: (section, part) for section in sections for part in section["parts"]}
    options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    page = (
        jinja2.Environment(**options)
        .from_string(TEMPLATE.read_text("utf-8"))
        .render(
            name=suite.name,
            banner=banner(runs),
            sections=sections,
            findings=[(*parts[name], parts[name][1]["alt"]) for name in layout["leading"] if parts[name][1]["alt"]],
            missing=[part for _, part in parts.values() if part["missing"]],
            facts=_facts(runs),
            runs=[(run, benchmark_name(run.benchmark), label(run.row, {run.row: run.label})) for run in runs],
            suite=suite,
            notebooks=[file.relative_to(suite).as_posix() for file in sorted((suite / "executed").glob("*.ipynb"))],
        )
    )
    return live_links(page, suite)


def live_links(page: str, folder: Path) -> str:
    """A page for `folder` in which links to files that are not there are plain text."""

    there = lambda link: link[0] if (folder / link[1]).exists() else link[2]  # noqa: E731
    return re.sub(r'<a href="(?!#|http)([^"]+)">(.*?)</a>', there, page)


def banner(runs: Sequence[RunResult]) -> dict[str, str]:
    """Whose numbers stand on the page: what was measured here on what, and what is the paper's."""
    benchmarks = dict.fromkeys(run.benchmark for run in runs)
    models = dict.fromkeys(results.run_file(run, "params.json").get("model", "") for run in runs if run.row != GOLD)
    shown = [EMBEDDED.get(model, model) for model in models if model]
    return {
        "measured": f"{listed([*map(benchmark_name, benchmarks)])} with {listed(shown)}" if runs else "no runs yet",
        "reported": f"MUSE-Books and WMDP-Cyber with {PAPER_MODEL} (arXiv 2604.15482)",
        "warning": WARNING if not runs or set(benchmarks) & set(FABLE) else "",
    }


def _parts(suite: Path, parts: Iterable[Sequence[str]], own_folder: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A table (`html`) or figure (`image`, base64 PNG) per file; one that is missing has the `command` that makes it.

    `alt` states the finding; `links` are its files by suffix, relative to the page.
    """
    for pattern, title, notebook in parts:
        own = (ROOT / "params" / notebook / f"{suite.name}.yaml").is_file()
        command = (
            f"mule run notebooks/{notebook}.ipynb -f params/{notebook}/{suite.name if own else 'fable'}.yaml "
            f"-p out_dir=outputs/{suite.name}{own_folder.get(notebook, '')}"
        )
        before, _, after = pattern.partition("*")
        for file in sorted(suite.glob(pattern)) or [suite / pattern]:
            inside, text, there = file.relative_to(suite), file.with_suffix(".txt"), file.exists()
            benchmark = inside.as_posix().removeprefix(before).removesuffix(after) if after and there else ""
            links = {suffix: inside.with_suffix(f".{suffix}") for suffix in ("csv", "md", "tex", "png", "pdf")}
            yield {
                "file": inside.as_posix(),
                "title": f"{title}, {benchmark_name(benchmark)}" if benchmark else title,
                "command": command,
                "missing": not there,
                "html": file.read_text("utf-8") if there and file.suffix == ".html" else "",
                "image": base64.b64encode(file.read_bytes()).decode() if there and file.suffix == ".png" else "",
                "alt": text.read_text("utf-8").strip() if text.exists() else "",
                "links": {suffix: link.as_posix() for suffix, link in links.items() if (suite / link).exists()},
            }


def _facts(runs: Sequence[RunResult]) -> dict[str, str]:
    """Facts behind all runs, each with every value that occurs."""
    sources = [results.run_file(run, "provenance.json") for run in runs]
    minutes = [sum(run.timing[name] for run in runs) / 60 for name in ("train_seconds", "evaluate_seconds")]
    facts = {
        "Commit": [(source["git"]["commit"] or "unknown")[:12] for source in sources],
        "Models": [source["identity"]["model"] for source in sources],
        "Python": [source["python"] for source in sources],
        "Machine": [source["machine"] for source in sources],
        "Packages": sorted(f"{name} {version}" for source in sources for name, version in source["packages"].items()),
    }
    return {
        "Runs": f"{len(runs)}, of {len({(run.benchmark, run.row) for run in runs})} rows",
        "Time": f"{minutes[0]:.0f} minutes of training, {minutes[1]:.0f} of evaluation",
        **{name: "; ".join(dict.fromkeys(values)) or "unknown" for name, values in facts.items()},
        "Changes not committed": "yes" if any(source["git"]["dirty"] for source in sources) else "none",
    }
