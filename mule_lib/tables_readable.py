"""Tables set for readers: Markdown, LaTeX (booktabs) and HTML from the same lines, so that they cannot differ."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from mule_lib import latex as latex_text
from mule_lib.data.files import write_text
from mule_lib.paper import BENCHMARKS
from mule_lib.results import BASE, GOLD
from mule_lib.row_names import BENCHMARK_NAMES, METRIC_NAMES, arrow, heading
from mule_lib.tables import DIGITS, Table

NOT_RUN, MINUS, NONE = "not run", "−", "–"
# Zero whatever is measured: a row against itself.
BY_DEFINITION = {(BASE, "overall"), (GOLD, "gold_distance")}


@dataclass(frozen=True)
class Cell:
    """A number as shown, its interval ("" for none) and whether it is the best of its kind."""

    value: str = ""
    interval: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table; `kind` is heading, measured, difference, reported or items, `label` stands once per row."""

    kind: str
    label: str
    source: str
    cells: Sequence[Cell] = ()
    seeds: str = ""
    spans: int = 1


def lines(table: Table) -> Iterator[Line]:
    """All lines of a table: per row what was measured, its difference, and what is reported, as far as there is any."""
    marked = {"measured": table.best("measured"), "reported": table.best("reported")}
    for title, rows in table.groups:
        if title:
            yield Line("heading", title, "")
        for row in rows:
            made = list(_of_row(table, row, marked))
            for i, line in enumerate(made):
                yield Line(
                    line.kind, table.labels[row] if i == 0 else "", line.source, line.cells, line.seeds, len(made)
                )
    counts = [int(table.data.loc[table.data["metric"] == metric, "n"].max()) for metric in table.metrics]
    if any(counts):
        yield Line("items", "Items", _measured(table), [Cell(f"{n:,}" if n else "") for n in counts])


def markdown(table: Table) -> str:
    """The caption and a pipe table."""
    head = ["Row", "Numbers", *(heading(metric) for metric in table.metrics), "Seeds"]
    rows = [head, ["---", "---", *("---:" for _ in table.metrics), "---:"]]
    for line in lines(table):
        if line.kind == "heading":
            rows.append([f"*{line.label}*", *("" for _ in head[1:])])
            continue
        cells = [_markdown_cell(cell) for cell in line.cells]
        source = f"*{line.source}*" if line.kind != "measured" else line.source
        if line.kind == "reported":
            cells = [f"*{cell}*" if cell else "" for cell in cells]
        rows.append([line.label, source, *cells, line.seeds])
    body = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)
    return f"{table.caption}\n\n{body}\n"


def html(table: Table) -> str:
    """A table element with its caption; each line has its kind as a class, for the style sheet."""
    head = "".join(f'<th scope="col">{METRIC_NAMES[metric]}&nbsp;{arrow(metric)}</th>' for metric in table.metrics)
    parts = [
        f'<table class="results" id="{table.name}">',
        f"<caption>{_emphasis(escape(table.caption))}</caption>",
        f'<thead><tr><th scope="col">Row</th><th scope="col">Numbers</th>{head}<th scope="col">Seeds</th></tr></thead>',
        "<tbody>",
    ]
    width = len(table.metrics) + 3
    for line in lines(table):
        if line.kind == "heading":
            parts.append(f'<tr class="heading"><th colspan="{width}">{escape(line.label)}</th></tr>')
            continue
        label = f'<th scope="row" rowspan="{line.spans}">{escape(line.label)}</th>' if line.label else ""
        cells = "".join(f"<td>{_html_cell(cell)}</td>" for cell in line.cells)
        kind = f"{line.kind} first" if line.label else line.kind
        parts.append(
            f'<tr class="{kind}">{label}<td class="source">{line.source}</td>{cells}<td>{line.seeds}</td></tr>'
        )
    return "\n".join([*parts, "</tbody>", "</table>", ""])


def latex(table: Table) -> str:
    """A `table*` with booktabs rules, intervals below their numbers, reported lines in italics.

    As wide as its content or as the text, whichever is less: it is shrunk where the text is narrower.
    """
    width = len(table.metrics) + 3
    head = ["Row", "Numbers", *(latex_text.escape(METRIC_NAMES[m]) for m in table.metrics), "Seeds"]
    arrows = ["", "", *(latex_text.escape(arrow(m)) for m in table.metrics), ""]
    body = []
    for i, line in enumerate(lines(table)):
        name = latex_text.escape(line.label)
        if line.kind == "heading":
            body += [*([r"\midrule"] if i else []), rf"\multicolumn{{{width}}}{{l}}{{\textit{{{name}}}}} \\"]
            continue
        apart = r"\midrule" if line.kind == "items" else r"\addlinespace[2pt]" if line.label and i else ""
        body += [apart] if apart else []
        # Whose benchmark it is stands in the caption.
        source = latex_text.escape(line.source.split(",")[0])
        source = source if line.kind in ("measured", "items") else rf"\textit{{{source}}}"
        cells = [_tex_cell(cell, italic=line.kind == "reported") for cell in line.cells]
        body.append(_tex_row([name, source, *cells, line.seeds], width))
        if any(cell.interval for cell in line.cells):
            ends = [rf"{{\tiny {latex_text.escape(cell.interval)}}}" if cell.interval else "" for cell in line.cells]
            body[-1] += "[-2pt]"
            body.append(_tex_row(["", "", *ends], width))
    # LaTeX numbers tables itself.
    number = table.name.replace("table", "Table ")
    said = table.caption.replace(f"{number}. ", f"{table.title}, beside {number} of the paper. ", 1)
    return "\n".join(
        [
            latex_text.needs("booktabs", "graphicx", note="full size from 16 cm of text width, else shrunk to it"),
            r"\begin{table*}",
            rf"\caption{{{latex_text.emphasis(said)}}}\label{{{_anchor(table)}}}",
            r"\centering\scriptsize\setlength{\tabcolsep}{2.5pt}",
            r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{"
            rf"\begin{{tabular}}{{ll{'r' * len(table.metrics)}r}}",
            r"\toprule",
            _tex_row(head, width) + "[-2pt]",
            _tex_row(arrows, width),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table*}",
            "",
        ]
    )


def write(table: Table, folder: Path, *, finding: str = "") -> list[Path]:
    """Write a table as CSV, Markdown, LaTeX and HTML into `folder`, and what it says as text; returns the files."""
    made = {"csv": table.csv(), "md": markdown(table), "tex": latex(table), "html": html(table)}
    made |= {"txt": f"{finding}\n"} if finding else {}
    for suffix, text in made.items():
        write_text(folder / f"{table.name}.{suffix}", text)
    return [folder / f"{table.name}.{suffix}" for suffix in made]


def _of_row(table: Table, row: str, marked) -> Iterator[Line]:
    found = {metric: table.cell(row, metric) for metric in table.metrics}
    if table.measured:
        seeds = int(max(line["seeds"] for line in found.values()))
        if seeds:
            cells = [_interval_cell(line, (row, m) in marked["measured"]) for m, line in found.items()]
            yield Line("measured", "", _measured(table), cells, str(seeds))
        else:
            yield Line("measured", "", _measured(table), [Cell(NOT_RUN), *(Cell(NONE) for _ in list(found)[1:])], "0")
    if table.compared and row != table.compared:
        cells = [_interval_cell(line, False, of="difference") for line in found.values()]
        if any(cell.value for cell in cells):
            yield Line("difference", "", "minus MULE", cells)
    reported = [Cell(as_printed(line["reported"]), "", (row, m) in marked["reported"]) for m, line in found.items()]
    if any(cell.value for cell in reported):
        yield Line("reported", "", f"reported, {BENCHMARK_NAMES[BENCHMARKS[table.name]]}", reported)


def _measured(table: Table) -> str:
    return f"measured, {BENCHMARK_NAMES.get(table.benchmark, table.benchmark)}"


def number(value: float, *, sign: bool = False) -> str:
    """A measured number in points with one digit and a real minus sign; "" for none."""
    if pd.isna(value):
        return ""
    digits = DIGITS["measured"]
    value = round(value, digits) or 0.0  # no negative zero
    return f"{value:{'+' if sign and value else ''}.{digits}f}".replace("-", MINUS)


def as_printed(value: float) -> str:
    """A number of the paper with the digits that it prints, at least one; "" for none."""
    if pd.isna(value):
        return ""
    shown = f"{value:.{DIGITS['reported']}f}"
    return shown.removesuffix("0").replace("-", MINUS)


def _interval_cell(line: pd.Series, bold: bool, *, of: str = "measured") -> Cell:
    low, high = ("low", "high") if of == "measured" else ("difference_low", "difference_high")
    if pd.isna(line[of]):
        return Cell()
    known = (line["row"], line["metric"]) in BY_DEFINITION
    ends = "" if known else f"[{number(line[low])}, {number(line[high])}]"
    return Cell(number(line[of], sign=of != "measured"), ends, bold)


def _markdown_cell(cell: Cell) -> str:
    value = f"**{cell.value}**" if cell.bold and cell.value else cell.value
    return f"{value} {cell.interval}".strip()


def _html_cell(cell: Cell) -> str:
    value = f"<strong>{cell.value}</strong>" if cell.bold and cell.value else cell.value
    return f'{value} <span class="interval">{cell.interval}</span>' if cell.interval else value


def _tex_cell(cell: Cell, *, italic: bool) -> str:
    value = latex_text.escape(cell.value)
    value = rf"\textbf{{{value}}}" if cell.bold and value else value
    return rf"\textit{{{value}}}" if italic and value else value


def _tex_row(cells: Sequence[str], width: int) -> str:
    """A line of `width` cells, those that lack empty."""
    return " & ".join([*cells, *[""] * (width - len(cells))]) + r" \\"


def _anchor(table: Table) -> str:
    return f"tab:{table.name}-{table.benchmark.replace('_', '-')}"


def _emphasis(text: str) -> str:
    """Markdown's bold and italics as HTML."""
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", text)
