"""Every table of the suite: tidy data for machines, the same numbers as texts for readers, and what they say.

What was measured here stands beside what the paper reports and is never mixed up with it. Nothing is computed but
differences and intervals, by `results`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from mule_lib.data.files import write_text
from mule_lib.evaluate.intervals import bootstrap_difference, bootstrap_interval
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import BENCHMARKS, METRICS, REPORTED
from mule_lib.report import results
from mule_lib.report.names import (
    BASE,
    EMBEDDED,
    GOLD,
    LABELS,
    METRIC_NAMES,
    PAPER_MODEL,
    REFERENCES,
    benchmark_name,
    better,
    groups,
    heading,
    label,
    listed,
    number,
    spread,
    table_number,
)

INTERVAL = re.compile(r" (\[[^\]]*\])")
# What LaTeX reads as commands, and signs that its default fonts lack or have in other places.
SIGNS = str.maketrans(
    {
        **{sign: "\\" + sign for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
        **{"<": "$<$", ">": "$>$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$"},
        **{"≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "↓": r"$\downarrow$", "↑": r"$\uparrow$"},
        **{"→": r"$\rightarrow$", "←": r"$\leftarrow$", "–": "--", "—": "---", "…": r"\ldots{}", "\u00a0": "~"},
        **{"“": "``", "”": "''", "‘": "`", "’": "'", "§": r"\S{}"},
        **{"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$"},
    }
)


class Printed:
    """What every table can do. `shown` holds texts; `css` and `classes`, where there are any, dress its cells."""

    name: str
    data: pd.DataFrame
    shown: pd.DataFrame
    caption: str
    finding: str
    notes: Sequence[str]
    css: pd.DataFrame | None
    classes: pd.DataFrame | None
    widths: Sequence[float]

    def csv(self) -> str:
        """The tidy data."""
        return self.data.round(4).to_csv(index=False)

    def markdown(self) -> str:
        """The caption, a pipe table and the notes."""
        css = self.shown.map(lambda _: "") if self.css is None else self.css
        marks = css.map(lambda text: "*" * (("italic" in text) + 2 * ("bold" in text)))
        cells = self.shown.map(lambda text: text.replace("|", r"\|"))
        dressed = cells.where(cells == "", marks + cells + marks)
        body = dressed.to_markdown(index=False, disable_numparse=True)
        return (
            "\n\n".join([self.caption, body, *(["\n".join(f"- {note}" for note in self.notes)] if self.notes else [])])
            + "\n"
        )

    def html(self) -> str:
        """A table element with its caption; each cell has its kind as a class, for the style sheet of the page."""
        styler = self._styled(lambda text: INTERVAL.sub(r' <span class="interval">\1</span>', escape(text)))
        styler.set_caption(escape(self.caption)).set_table_attributes('class="results"')
        if self.classes is not None:
            styler.set_td_classes(self.classes)
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return styler.to_html() + (f'<ul class="notes">{notes}</ul>\n' if notes else "")

    def latex(self) -> str:
        """A `table*`, shrunk where the text is narrower; with `widths`, shares of the text width, a `longtable`."""
        below = r"\\\\{\\normalfont\\tiny \1}"
        styler = self._styled(lambda text: text.translate(SIGNS) if self.widths else INTERVAL.sub(below, _cell(text)))
        caption, anchor = self.caption.translate(SIGNS), f"tab:{self.name}"
        if self.widths:
            columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{share:g}\textwidth}}" for share in self.widths)
            body = styler.to_latex(
                environment="longtable", hrules=True, convert_css=True, caption=caption, label=anchor,
                column_format=f"@{{}}{columns}@{{}}",
            )  # fmt: skip
            opening = r"\begingroup\scriptsize\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\textwidth}"
            return f"% needs \\usepackage{{array,booktabs,longtable}}\n{opening}\n{body}\\endgroup\n"
        body = styler.to_latex(hrules=True, convert_css=True, column_format="l" + "r" * (self.shown.shape[1] - 1))
        # Room above every line with a label, and a rule above every heading but the first.
        body = re.sub(r"\\\\\n(?! &|\\)", r"\\\\[2pt]\n", body)
        body = re.sub(r"\\\\\n(\\rlap)", r"\\\\\n\\midrule\n\1", body)
        notes = "".join(f"\n\\par\\smallskip\\raggedright {note.translate(SIGNS)}" for note in self.notes)
        return (
            "% needs \\usepackage{booktabs,graphicx}; full size from 16 cm of text width, else shrunk to it\n"
            f"\\begin{{table*}}\n\\caption{{{caption}}}\\label{{{anchor}}}\n"
            "\\centering\\scriptsize\\setlength{\\tabcolsep}{2.5pt}\n"
            "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%\n"
            f"{body.strip()}}}{notes}\n\\end{{table*}}\n"
        )

    def write(self, folder: Path, name: str = "") -> None:
        """Write CSV, Markdown, LaTeX and HTML into `folder`, and what the table says as text."""
        made = {"csv": self.csv(), "md": self.markdown(), "tex": self.latex(), "html": self.html()}
        made |= {"txt": f"{self.finding}\n"} if self.finding else {}
        for suffix, text in made.items():
            write_text(folder / f"{name or self.name}.{suffix}", text)

    def _repr_html_(self) -> str:
        return self.html()

    def _styled(self, text: Callable[[str], str]) -> Styler:
        styler = Styler(self.shown, uuid=self.name, cell_ids=False).hide(axis="index").format(text)
        styler.format_index(text, axis=1)
        return styler if self.css is None else styler.apply(lambda _: self.css, axis=None)


@dataclass(frozen=True)
class Table(Printed):
    """A table whose texts are given, one column per head."""

    name: str
    data: pd.DataFrame
    shown: pd.DataFrame
    caption: str = ""
    finding: str = ""
    notes: Sequence[str] = ()
    css: pd.DataFrame | None = None
    classes: pd.DataFrame | None = None
    widths: Sequence[float] = ()


# Tables 1 to 3 --------------------------------------------------------------------------------------------------------

COLUMNS = ("benchmark", "row", "metric", "reported", "measured", "low", "high", "n", "seeds")
TITLES = {"table1": "Main results", "table2": "Ablation", "table3": "Results on the second benchmark"}
# Points are ranked as they are shown: measured ones with one digit, the paper's as it prints them.
DIGITS = {"measured": 1, "reported": 2}
# Zero whatever is measured: a row against itself.
BY_DEFINITION = {(BASE, "overall"), (GOLD, "gold_distance")}
STYLES = {"heading": "font-style: italic;", "reported": "font-style: italic;"}


@dataclass(frozen=True)
class ResultTable(Printed):
    """Table 1, 2 or 3: `data` has COLUMNS and more, a line per row and metric; `groups` are headings with their rows.

    `source` says what was measured on, "" where only the paper's numbers are; `broken` names rows whose Forget comes
    from broken text.
    """

    name: str
    benchmark: str
    data: pd.DataFrame
    groups: Sequence[tuple[str, Sequence[str]]]
    metrics: Sequence[str]
    labels: Mapping[str, str]
    caption: str
    notes: Sequence[str] = ()
    source: str = ""
    broken: str = ""
    widths: Sequence[float] = ()

    def cell(self, row: str, metric: str) -> pd.Series:
        """The line of a row and a metric."""
        return self.data[(self.data["row"] == row) & (self.data["metric"] == metric)].iloc[0]

    def rows(self) -> list[str]:
        """All rows in order."""
        return [row for _, rows in self.groups for row in rows]

    def not_run(self) -> list[str]:
        """Rows without a run, in order."""
        ran = set(self.data.loc[self.data["seeds"] > 0, "row"])
        return [row for row in self.rows() if row not in ran] if self.source else []

    def trained(self, metric: str, column: str) -> dict[str, float]:
        """The values of the trained rows that have one, as they are shown."""
        lines = self.data[(self.data["metric"] == metric) & ~self.data["row"].isin(REFERENCES)].dropna(subset=[column])
        return dict(zip(lines["row"], lines[column].round(DIGITS[column]), strict=True))

    def best(self, column: str) -> set[tuple[str, str]]:
        """(row, metric) of the best trained row per metric in `column`; all of them at a tie, none without a rival."""
        winners = set()
        for metric in self.metrics:
            values = self.trained(metric, column)
            for row, value in values.items() if len(values) > 1 else ():
                if not any(better(metric, other, value) for other in values.values()):
                    winners.add((row, metric))
        return winners

    @property
    def finding(self) -> str:
        """What the table says, in sentences made from its numbers."""
        return (ablation_finding if "difference" in self.data else results_finding)(self)

    @cached_property
    def lines(self) -> pd.DataFrame:
        """A line per row and kind of numbers, with its `kind` and its `bold` cells in the last two columns."""
        lines = []
        best = {column: self.best(column) for column in DIGITS}
        for title, rows in self.groups:
            if title:
                lines.append([title, "", *("" for _ in self.metrics), "", "heading", set()])
            for row in rows:
                cells = {metric: self.cell(row, metric) for metric in self.metrics}
                for i, (kind, source, texts, seeds) in enumerate(self._of_row(row, cells)):
                    bold = {heading(m) for r, m in best.get(kind, ()) if r == row}
                    lines.append([self.labels[row] if i == 0 else "", source, *texts, seeds, kind, bold])
        counts = self.data.groupby("metric")["n"].max()
        if counts.any():
            lines.append(["Items", "", *(f"{counts[metric]:,}" for metric in self.metrics), "", "items", set()])
        return pd.DataFrame(lines, columns=["Row", "Numbers", *map(heading, self.metrics), "Seeds", "kind", "bold"])

    @property
    def shown(self) -> pd.DataFrame:
        return self.lines.iloc[:, :-2]

    @property
    def css(self) -> pd.DataFrame:
        kinds = self.lines["kind"].map(lambda kind: STYLES.get(kind, ""))
        css = {}
        for column in self.shown:
            css[column] = kinds + ["font-weight: bold;" if column in bold else "" for bold in self.lines["bold"]]
        # A heading spans the line: in LaTeX it is as wide as nothing.
        css["Row"] = kinds.where(self.lines["kind"] != "heading", "rlap: --rwrap--latex;" + kinds)
        return pd.DataFrame(css)

    @property
    def classes(self) -> pd.DataFrame:
        kinds = self.lines["kind"] + self.lines["Row"].map(lambda text: " first" if text else "")
        return pd.DataFrame(dict.fromkeys(self.shown, kinds))

    def _of_row(self, row: str, cells: Mapping[str, pd.Series]) -> Iterable[tuple[str, str, list[str], str]]:
        """Kind, source, texts and seeds of what was measured, its difference and what is reported, as far as any is."""
        seeds = max(int(cell["seeds"]) for cell in cells.values())
        if self.source:
            texts = [
                number(cell["measured"])
                if (row, metric) in BY_DEFINITION
                else spread(cell["measured"], cell["low"], cell["high"])
                for metric, cell in cells.items()
            ]
            yield "measured", "measured", texts if seeds else ["not run", *("–" for _ in texts[1:])], str(seeds)
        if "difference" in self.data and cells["overall"].notna()["difference"]:
            names = ("difference", "difference_low", "difference_high")
            yield "difference", "minus MULE", [spread(*cell[[*names]], sign=True) for cell in cells.values()], ""
        if row in REPORTED[self.name]:
            yield "reported", "reported", [as_printed(cell["reported"]) for cell in cells.values()], ""


def measured_table(name: str, benchmark: str, runs: Iterable[RunResult], *, seed: int = 0) -> ResultTable:
    """table1, table2 or table3 for one benchmark from its runs, beside the paper's numbers.

    A row without a run stays in the table, with `seeds` 0. Table 2 also has the paired difference of each row to mule.
    """
    mine = [run for run in runs if run.benchmark == benchmark]
    parts = groups(name, {run.row for run in mine})
    rows = [row for _, group in parts for row in group]
    mine = [run for run in mine if run.row in {*rows, BASE, GOLD}]
    tidy = results.tidy(mine, seed=seed)
    metrics = [*METRICS, "overall", *(["gold_distance"] if any(run.row == GOLD for run in mine) else [])]
    data = _joined(name, benchmark, rows, metrics, tidy)
    if name == "table2":
        paired = results.differences(mine, "mule", seed=seed)
        paired = paired.rename(columns={"low": "difference_low", "high": "difference_high"})
        names = ["row", "metric", "difference", "difference_low", "difference_high"]
        data = data.merge(paired[names], on=["row", "metric"], how="left")
    source = measured_source(benchmark, mine)
    caption = (
        f"{table_number(name)}. Measured: this suite's runs on {source}, points with 95 % bootstrap intervals over "
        f"items and seeds. Reported: the paper's printed numbers on {paper_source(name)}."
    )
    labels = {row: label(row, {run.row: run.label for run in mine}) for row in rows}
    return ResultTable(
        name, benchmark, data, parts, metrics, labels, caption, _notes(name, benchmark, mine), source, broken_text(mine)
    )


def reported_table(name: str) -> ResultTable:
    """table1, table2 or table3 with the paper's printed numbers alone."""
    rows, metrics = list(REPORTED[name]), [*METRICS, "overall"]
    data = _joined(name, BENCHMARKS[name], rows, metrics, pd.DataFrame(columns=list(results.TIDY)))
    caption = (
        f"{table_number(name)} as the paper (arXiv 2604.15482) reports it: {paper_source(name)}. Nothing here was "
        "measured by this suite."
    )
    return ResultTable(name, BENCHMARKS[name], data, [("", rows)], metrics, {row: label(row) for row in rows}, caption)


def as_printed(value: float) -> str:
    """A number of the paper with the digits that it prints, at least one; "" for none."""
    return number(value, DIGITS["reported"]).removesuffix("0")


def paper_source(name: str) -> str:
    """Benchmark and model behind a table of the paper."""
    return f"{benchmark_name(BENCHMARKS[name])}, {PAPER_MODEL}"


def measured_source(benchmark: str, runs: Iterable[RunResult]) -> str:
    """Benchmark and model behind runs."""
    models = dict.fromkeys(results.params(run).get("model", "") for run in runs if run.row != GOLD)
    named = ", ".join(EMBEDDED.get(model, model) for model in models if model)
    return f"{benchmark_name(benchmark)}, {named or 'no runs'}"


def broken_text(runs: Iterable[RunResult], *, share: float = 0.5) -> str:
    """Which trained rows answer at least `share` of the questions to forget with empty or garbled text; "" for none.

    Neither Forget nor Overall sees it: no word of the reference is in a refusal, and none in broken text.
    """
    shares: dict[str, list[float]] = {}
    for run in runs:
        details = run.details.get("forget", {})
        if run.row not in REFERENCES:
            shares.setdefault(run.row, []).append(details.get("empty_rate", 0) + details.get("garbled_rate", 0))
    means = {row: sum(found) / len(found) for row, found in shares.items()}
    named = [f"{label(row)} ({100 * mean:.0f} %)" for row, mean in means.items() if mean >= share]
    return f"Forgotten by empty or garbled answers instead of refusals: {', '.join(named)}." if named else ""


def _notes(name: str, benchmark: str, runs: Sequence[RunResult]) -> list[str]:
    """What has to be known to read a table, as far as it applies to these runs."""
    single = {run.row for run in runs if run.timing.get("steps")} - {run.row for run in runs if run.seed > 0}
    alike = any(len({*values}) == 1 for run in runs for values in run.values.values())
    notes = {
        "Another model and another benchmark: measured and reported lines are not comparable in level, only in what "
        "they say about the order of the rows.": benchmark != BENCHMARKS[name],
        "Minus MULE: paired differences over the same items and seeds.": name == "table2",
        "Arrows say which way is better; the best trained row of each kind is bold.": True,
        broken_text(runs): broken_text(runs),
        "Where all items of a row came out alike, the bootstrap interval has no width; the truth's has.": alike,
        f"{METRIC_NAMES['gold_distance']}: the mean distance, in points, of the five metrics to the model that was "
        "retrained without what is to be forgotten.": any(run.row == GOLD for run in runs),
        f"With one seed ({', '.join(map(label, sorted(single)))}) an interval lacks the spread between seeds.": single,
    }
    return [note for note, applies in notes.items() if applies]


def _joined(name: str, benchmark: str, rows: Sequence[str], metrics: Sequence[str], tidy: pd.DataFrame) -> pd.DataFrame:
    """One line per row and metric of the table, whether measured, reported, both or neither."""
    lines = [(benchmark, row, metric, REPORTED[name].get(row, {}).get(metric)) for row in rows for metric in metrics]
    data = pd.DataFrame(lines, columns=list(COLUMNS[:4]))
    data = data.merge(tidy.drop(columns="benchmark"), on=["row", "metric"], how="left")
    data = data.astype(dict.fromkeys(("reported", "measured", "low", "high", "n", "seeds"), float))
    data[["n", "seeds"]] = data[["n", "seeds"]].fillna(0).astype(int)
    return data[list(COLUMNS)].assign(reported_for=paper_source(name))


# What tables say ------------------------------------------------------------------------------------------------------


def results_finding(table: ResultTable) -> str:
    """Table 1 or 3: what MULE moves and where it stands, here and in the paper."""
    parts = []
    for column, source in (("measured", table.source), ("reported", paper_source(table.name))):
        values = table.trained("overall", column)
        if "mule" not in values or BASE not in table.rows():
            continue
        moves = [
            f"{METRIC_NAMES[metric]} from {number(table.cell(BASE, metric)[column])} to "
            + number(table.cell("mule", metric)[column])
            for metric in METRICS
        ]
        rank = 1 + sum(value > values["mule"] for value in values.values())
        parts.append(
            f"{column.capitalize()} on {source}: MULE moves {listed(moves)}; its Overall of {number(values['mule'])} "
            f"is number {rank} of {len(values)} trained rows, Upper Bound has "
            f"{number(table.cell('upper_bound', 'overall')[column]) or 'none'}."
        )
    return " ".join([*parts, *_further(table)])


def ablation_finding(table: ResultTable) -> str:
    """Table 2: which variants differ from MULE in Overall beyond their paired interval, and which do not."""
    worse, gains, level = [], [], []
    for row in table.rows():
        cell = table.cell(row, "overall")
        low, high = cell["difference_low"], cell["difference_high"]
        if pd.notna(low):
            text = f"{table.labels[row]} ({spread(cell['difference'], low, high, sign=True)})"
            (worse if high < 0 else gains if low > 0 else level).append(text)
    printed = {
        row: values["overall"] - REPORTED["table2"]["mule"]["overall"] for row, values in REPORTED["table2"].items()
    }
    reported = [f"{number(gain, sign=True)} for {label(row)}" for row, gain in printed.items() if row != "mule"]
    text = (
        f"Overall against MULE on {benchmark_name(table.benchmark)}, paired over items and seeds: beyond their 95 % "
        f"interval {listed(worse)} lose points and {listed(gains)} gain; not told apart: {listed(level)}. The paper "
        f"reports {listed(reported)}."
    )
    return " ".join([text, *_further(table)])


def _further(table: ResultTable) -> Iterable[str]:
    missing = [table.labels[row] for row in table.not_run()]
    return filter(None, (table.broken, f"Not run: {', '.join(missing)}." if missing else ""))


def runs_summary(runs: Sequence[RunResult]) -> str:
    """How many runs were read, of which benchmarks, rows and seeds, and how long they took."""
    seconds = sum(run.timing.get("train_seconds", 0) + run.timing.get("evaluate_seconds", 0) for run in runs)
    benchmarks = [benchmark_name(name) for name in dict.fromkeys(run.benchmark for run in runs)]
    return (
        f"{len(runs)} runs of {len({run.row for run in runs})} rows on {listed(benchmarks)}, up to "
        f"{len({run.seed for run in runs})} seeds; {seconds / 60:.0f} minutes of training and evaluation."
    )


# Behind and beyond the metrics ----------------------------------------------------------------------------------------

# The rates behind the metrics: name, set, keys of the set's details, which add up.
RATES = (
    ("Refused, to forget ↑", "forget", ("refusal_rate",)),
    ("Refused, general ↓", "general", ("refusal_rate",)),
    ("Refusal chosen, neighbours ↓", "neighbor", ("refusal",)),
    ("Wrong option, neighbours ↓", "neighbor", ("distractor",)),
    ("Benign controls answered ↑", "controls", ("disclosed",)),
    ("Empty or garbled, to forget ↓", "forget", ("empty_rate", "garbled_rate")),
)
# What a later attack is compared with: the run's own metric without it.
PLAIN = "as trained"
CONDITIONS = {
    "int8": "8-bit weights",
    "int4": "4-bit weights",
    "disjoint": "other facts in the prompt",
    "same": "the same facts in the prompt",
    "held_out_prefixes": "unseen prefix families",
}


def rates_table(runs: Iterable[RunResult], benchmark: str, *, order: Iterable[str], name: str = "rates") -> Table:
    """How rows come to their metrics: percent per row and rate, means over seeds."""
    mine = [run for run in runs if run.benchmark == benchmark]
    lines = [
        (benchmark, run.row, rate, 100 * sum(run.details[where].get(key, 0) for key in keys))
        for run in mine
        for rate, where, keys in RATES
        if keys[0] in run.details.get(where, {})
    ]
    data = pd.DataFrame(lines, columns=["benchmark", "row", "rate", "value"])
    data = data.groupby(["benchmark", "row", "rate"], sort=False)["value"].agg(value="mean", seeds="size").reset_index()
    wide = data.pivot(index="row", columns="rate", values="value").reindex(columns=[rate for rate, *_ in RATES])
    wide = wide.loc[[row for row in order if row in wide.index]].map(number)
    wide.insert(0, "Row", [label(row, {run.row: run.label for run in mine}) for row in wide.index])
    caption = f"Rates behind the metrics, {measured_source(benchmark, mine)}: percent, means over seeds."
    return Table(name, data.round(2), wide.reset_index(drop=True), caption)


def beyond_data(runs: Iterable[RunResult], *, seed: int = 0) -> pd.DataFrame:
    """One line per attacked run, attack, condition and metric: points with a bootstrap 95 % interval over items.

    Columns: benchmark, row, seed, attack, condition, metric, measured, low, high, n. A run's own metrics come first,
    with the attack "none"; runs that were not attacked are left out.
    """
    order, lines = list(LABELS), []
    attacked = [run for run in runs if run.beyond]
    for run in sorted(attacked, key=lambda run: (run.benchmark, order.index(run.row) if run.row in order else 99)):
        for attack, condition, one in [("none", PLAIN, {"values": run.values}), *measurements(run.beyond)]:
            for metric, values in one["values"].items():
                interval = bootstrap_interval(values, seed=seed)
                points = (round(100 * value, 2) for value in interval[:3])
                lines.append((run.benchmark, run.row, run.seed, attack, condition, metric, *points, interval.n))
    columns = ["benchmark", "row", "seed", "attack", "condition", "metric", "measured", "low", "high", "n"]
    return pd.DataFrame(lines, columns=columns)


def measurements(beyond: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Every measurement with item values in a run's `beyond`: attack, condition in words, measurement."""
    for attack, found in beyond.items():
        if not isinstance(found, Mapping):
            continue
        points = {f"relearning, step {point['step']}": point for point in found.get("curve", [])}
        for condition, one in {attack: found, **points, **found}.items():
            if isinstance(one, Mapping) and "values" in one:
                yield attack, CONDITIONS.get(condition, condition), one


def beyond_means(data: pd.DataFrame) -> pd.DataFrame:
    """Forget and ASR under each condition, means over seeds: line, row, measured, low, high, in the order of `data`."""
    data = data[data["metric"].isin(["forget", "asr"])]
    data = data.assign(line=[f"{heading(m)} {c}" for m, c in zip(data["metric"], data["condition"], strict=True)])
    data = data.sort_values("metric", key=lambda metric: metric == "asr", kind="stable")
    return data.groupby(["line", "row"], sort=False)[["measured", "low", "high"]].mean().reset_index()


def beyond_table(runs: Iterable[RunResult], benchmark: str, *, seed: int = 0) -> Table:
    """What is left under later attacks: a line per condition, a column per attacked row."""
    mine = [run for run in runs if run.benchmark == benchmark and run.beyond]
    data = beyond_data(mine, seed=seed)
    means = beyond_means(data)
    means = means.assign(text=[spread(*line) for line in means[["measured", "low", "high"]].to_numpy()])
    rows, lines = dict.fromkeys(means["row"]), dict.fromkeys(means["line"])
    shown = means.pivot(index="line", columns="row", values="text").reindex(index=lines, columns=rows)
    shown = shown.fillna("not measured").rename(columns=label).rename_axis(columns=None).reset_index(names="Attack")
    seeds = len({run.seed for run in mine})
    caption = f"Later attacks, {measured_source(benchmark, mine)}: points, 95 % intervals over items; seeds: {seeds}."
    return Table("beyond", data, shown, caption, beyond_finding(means, benchmark))


def beyond_finding(means: pd.DataFrame, benchmark: str) -> str:
    """Where later attacks bring most back, row by row."""
    worst = means.loc[means.groupby("row", sort=False)["measured"].idxmax()] if len(means) else means
    parts = [f"{label(line.row)} {number(line.measured, 0)} ({line.line})" for line in worst.itertuples()]
    return f"Highest Forget or ASR under later attacks on {benchmark_name(benchmark)}: {listed(parts)}."


# Does each row move the way its own paper says it does? ---------------------------------------------------------------

# Points that a row which claims to keep a metric may lose: what its papers call "comparable" is never zero.
KEPT_WITHIN = 5.0
FALLS, KEPT = "falls", f"loses at most {KEPT_WITHIN:g}"
_KEEPS, _KEEPS_NEAR = ("general", "mmlu"), ("general", "neighbor", "mmlu")
# row: (metrics that must fall, metrics that must be kept). Rows trained on prefilled records claim to resist attacks;
# GA and FLAT see no data to keep, and only FLAT's authors claim that none is needed.
EXPECTED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ga": (("forget",), ()),
    **dict.fromkeys(("graddiff", "npo", "simnpo", "idk_dpo", "flat"), (("forget",), _KEEPS)),
    "sft": (("forget", "asr"), ()),
    **dict.fromkeys(("ngdiff", "mollm"), (("forget", "asr"), _KEEPS_NEAR)),
    "duet": (("forget",), _KEEPS),
    **dict.fromkeys(("mule", "mule_duet_loss", "mule_bild_loss"), (("forget", "asr"), _KEEPS_NEAR)),
}


def directions(values: Mapping[str, Mapping], base: Mapping[str, Sequence], *, seed: int = 0) -> pd.DataFrame:
    """The verdict on every claimed direction: row, metric, claimed, change, low, high (points), verdict.

    `values[row][metric]` is [items] or [seeds, items] in 0 to 1, `base[metric]` is [items], the same items. A fall is
    *as claimed* when the whole interval lies below zero, a kept metric when it lies above minus `KEPT_WITHIN` points;
    *not as claimed* when the whole interval lies on the other side, *undecided* between.
    """
    lines = []
    for row, (falling, kept) in EXPECTED.items():
        for metric in (*falling, *kept) if row in values else ():
            change = bootstrap_difference(values[row][metric], base[metric], seed=seed)
            middle, low, high = (100 * value for value in change[:3])
            ends = (-high, -low) if metric in falling else (low + KEPT_WITHIN, high + KEPT_WITHIN)
            verdict = {2: "as claimed", 1: "undecided", 0: "not as claimed"}[sum(end > 0 for end in ends)]
            lines.append((row, metric, FALLS if metric in falling else KEPT, middle, low, high, verdict))
    return pd.DataFrame(lines, columns=["row", "metric", "claimed", "change", "low", "high", "verdict"])


def directions_table(runs: Iterable[RunResult], benchmark: str, *, seed: int = 0, name: str = "directions") -> Table:
    """The directions of all rows of a benchmark that were run; empty without its base row."""
    groups = {row: group for (where, row), group in results.by_row(runs).items() if where == benchmark}
    values = {row: {m: [run.values[m] for run in group] for m in METRICS} for row, group in groups.items()}
    data = directions(values if BASE in groups else {}, groups[BASE][0].values if BASE in groups else {}, seed=seed)
    heads = [f"{METRIC_NAMES[metric]} {FALLS if metric in ('forget', 'asr') else KEPT}" for metric in METRICS]
    shown: dict[str, dict[str, str]] = {}
    for line in data.itertuples():
        mark = "" if line.verdict == "as claimed" else f" ({line.verdict})"
        text = spread(line.change, line.low, line.high, sign=True) + mark
        shown.setdefault(line.row, {"Row": label(line.row)})[f"{METRIC_NAMES[line.metric]} {line.claimed}"] = text
    broken = [
        f"{label(line.row)} {METRIC_NAMES[line.metric]} ({number(line.change, sign=True)})"
        for line in data[data["verdict"] == "not as claimed"].itertuples()
    ]
    mine = [run for group in groups.values() for run in group]
    return Table(
        name,
        data,
        pd.DataFrame(list(shown.values()), columns=["Row", *heads]).fillna(""),
        f"Change against the base model, {measured_source(benchmark, mine)}: points, 95 % intervals. Empty: nothing is "
        "claimed.",
        f"{(data['verdict'] == 'as claimed').sum()} of {len(data)} directions are as the methods' own papers claim, "
        f"{(data['verdict'] == 'undecided').sum()} are undecided. Not as claimed: {listed(broken)}.",
    )


def _cell(text: str) -> str:
    """A cell for LaTeX; an interval will stand below its number."""
    escaped = text.translate(SIGNS)
    return rf"\shortstack[r]{{{escaped}}}" if INTERVAL.search(escaped) else escaped
