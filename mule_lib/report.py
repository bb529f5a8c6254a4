"""One self-contained HTML page of a suite: tables, figures with alt text, claims, provenance; read from files alone."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from mule_lib import report_parts, report_provenance
from mule_lib.data.files import write_text
from mule_lib.report_parts import Part, Section, command
from mule_lib.results import RunResult, load_runs
from mule_lib.row_names import BENCHMARK_NAMES, PAPER_MODEL, model_name

FABLE = ("books", "cyber")


class ReportError(ValueError):
    """There is nothing to report on; the message names the folder and what makes it."""


# Title and notebook by name; None where the benchmark decides which notebook draws it.
TABLES = {
    "table1": ("Table 1 · Main results", "05_main_results"),
    "table2": ("Table 2 · Ablation", "06_ablation"),
    "table3": ("Table 3 · Second benchmark", "07_wmdp_radar"),
    "claims": ("The paper's claims, one by one", "08_claims"),
    "inconsistencies": ("Inconsistencies inside the paper", "08_claims"),
    "directions": ("Does each row move as its own paper says?", "05_main_results"),
    "directions_table3": ("Does each row move as its own paper says? Second benchmark", "07_wmdp_radar"),
    "rates": ("How rows come to their metrics, Table 1", "05_main_results"),
    "rates_table3": ("How rows come to their metrics, Table 3", "07_wmdp_radar"),
    "beyond": ("Attacks beyond the paper's metrics", None),
}
FIGURES = {
    "figure2": ("Figure 2 · Cosines between the objectives' gradients", "02_gradient_cosine"),
    "figure2_changes": ("Figure 2 · Change by standardization", "02_gradient_cosine"),
    "figure3": ("Figure 3 · Radar of five metrics", "07_wmdp_radar"),
    "claims": ("All verdicts at one look", "08_claims"),
    "ablation": ("What each change to MULE costs", "06_ablation"),
    "overall": ("Overall Performance", None),
    "training": ("Training curves", None),
    "obedience": ("The teacher's obedience", None),
    "robustness": ("Forgotten knowledge under later attacks", None),
}
# Which notebook draws a figure of a benchmark.
BY_BENCHMARK = {"books": "05_main_results", "muse_books": "05_main_results"}
SECOND = "07_wmdp_radar"
WARNING = (
    "They are of different models and different questions: no measured number here is the paper's, and no level may be "
    "compared with a reported one; only orders and directions can."
)


def write(suite: Path) -> Path:
    """Write `suite`/report.html and return its path. Raises ReportError for a folder without anything to show."""
    page = build(suite)
    write_text(suite / "report.html", page)
    return suite / "report.html"


def build(suite: Path) -> str:
    """The page as text; the same files give the same bytes.

    Tables and figures that are missing are named with the command that makes them. Raises ReportError for a missing or
    empty folder, ResultError for a run folder that cannot be read.
    """
    import jinja2

    if not suite.is_dir() or not any((suite / name).is_dir() for name in ("runs", "tables", "figures")):
        raise ReportError(f"{suite}: no runs, tables or figures there; `make reproduce` or `mule run` makes them")
    runs = load_runs(suite) if (suite / "runs").is_dir() else []
    sections = _sections(suite, list(dict.fromkeys(run.benchmark for run in runs)))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = resources.files("mule_lib").joinpath("templates/report.html.jinja").read_text("utf-8")
    return environment.from_string(template).render(
        name=suite.name,
        banner=banner(runs),
        sections=sections,
        findings=_findings(sections),
        missing=[part for section in sections for part in section.parts if part.missing],
        provenance=report_provenance.collect(suite, runs),
    )


def banner(runs: Sequence[RunResult]) -> dict[str, str]:
    """Whose numbers stand on the page: what was measured here on what, and what is the paper's."""
    names = [BENCHMARK_NAMES.get(name, name) for name in dict.fromkeys(run.benchmark for run in runs)]
    models = dict.fromkeys(model_name(run.params.get("model", "")) for run in runs if run.row != "gold")
    measured = f"{' and '.join(names)} with {' and '.join(filter(None, models))}" if runs else "no runs yet"
    reported = f"MUSE-Books and WMDP-Cyber with {PAPER_MODEL} (arXiv 2604.15482)"
    same = bool(runs) and not {run.benchmark for run in runs} & set(FABLE)
    return {
        "measured": measured,
        "reported": reported,
        "warning": "" if same else WARNING,
    }


def _sections(suite: Path, benchmarks: Sequence[str]) -> list[Section]:
    def table(name: str) -> Part:
        title, notebook = TABLES[name]
        return report_parts.table(suite, name, title, command=command(suite, notebook))

    def figure(name: str) -> Part:
        title, notebook = FIGURES[name]
        return report_parts.figure(suite, name, title, command=command(suite, notebook))

    def each(name: str) -> list[Part]:
        return [_of_benchmark(suite, name, benchmark) for benchmark in benchmarks]

    attacked = [part for part in each("robustness") if not part.missing] or [figure("robustness")]
    pilot = [figure("figure2"), figure("figure2_changes"), *_corpora(suite)]
    main = [table("table1"), *each("overall"), table("directions"), table("directions_table3")]
    listed = [
        Section("claims", "Claims", "Does what the paper claims hold here?", [figure("claims"), table("claims")]),
        Section("main", "Main results", "Which method does all at once?", main),
        Section("second", "Second benchmark", "Does the picture hold?", [table("table3"), figure("figure3")]),
        Section("ablation", "Ablation", "Which parts carry MULE's result?", [table("table2"), figure("ablation")]),
        Section("pilot", "Pilot study", "Do the objectives pull the same way, before and after?", pilot),
        Section("rates", "Behind the metrics", "Who refuses, who fails?", [table("rates"), table("rates_table3")]),
        Section("beyond", "Beyond the paper", "Does forgotten knowledge come back?", [*attacked, table("beyond")]),
        Section("training", "Training", "What happened in the runs?", [*each("training"), *each("obedience")]),
        Section("paper", "The paper itself", "Where do its own numbers disagree?", [table("inconsistencies")]),
    ]
    shown = {part.name for section in listed for part in section.parts}
    further = [file.stem for file in sorted((suite / "figures").glob("*.png")) if file.stem not in shown]
    others = [report_parts.figure(suite, name, name.replace("_", " "), command="") for name in further]
    others += _model(suite)
    if others:
        listed.append(Section("further", "Further figures", "Also in the suite's folder.", others))
    return listed


def _of_benchmark(suite: Path, name: str, benchmark: str) -> Part:
    title, notebook = FIGURES[name]
    shown = f"{title}, {BENCHMARK_NAMES.get(benchmark, benchmark)}"
    made_by = command(suite, notebook or BY_BENCHMARK.get(benchmark, SECOND))
    return report_parts.figure(suite, f"{name}_{benchmark}", shown, command=made_by)


def _corpora(suite: Path) -> list[Part]:
    title = "Distance between the objectives' corpora"
    parts = []
    for file in sorted((suite / "01_data").glob("*/corpora.png")):
        benchmark = file.parent.name
        shown = f"{title}, {BENCHMARK_NAMES.get(benchmark, benchmark)}"
        parts.append(report_parts.image(suite, file, name=f"corpora-{benchmark}", title=shown, command=""))
    return parts or [Part("corpora", title, command(suite, "01_data_standardization"))]


def _model(suite: Path) -> list[Part]:
    file, title = suite / "00_meet_the_model" / "rows.png", "The embedded model and how it obeys"
    made = report_parts.image(suite, file, name="model", title=title, command=command(suite, "00_meet_the_model"))
    return [made] if file.exists() else []


def _findings(sections: Sequence[Section]) -> list[dict[str, str]]:
    """What the leading tables and figures say, in their own computed words."""
    leading = (("claims", "image"), ("table1", "html"), ("table3", "html"), ("table2", "html"), ("figure2", "image"))
    found = []
    for name, kind in leading:
        for section in sections:
            found += [
                {"anchor": section.anchor, "title": part.title, "text": part.alt}
                for part in section.parts
                if part.name == name and getattr(part, kind) and part.alt
            ]
    return found
