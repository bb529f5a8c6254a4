"""Every table of the suite: tidy data for machines, the same numbers as texts for readers, and what they say.

What was measured here stands beside what the paper reports and is never mixed up with it. Nothing is computed but
differences and intervals, by `results`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mule_lib.data.files import write_text
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import BENCHMARKS, METRICS, REPORTED
from mule_lib.params import FABLE
from mule_lib.report import names, results
from mule_lib.report.findings import FINDINGS, paper_source
from mule_lib.report.names import BASE, GOLD, PAPER, REFERENCES, heading, label, method_of, number, spread

# What the words of a cell's class mean outside of the page's style sheet.
CSS = {
    **{"spanning": "rlap: --rwrap--latex;", "heading": "font-style: italic;", "reported": "font-style: italic;"},
    **{"best": "font-weight: bold;", "second": "text-decoration: underline; underline: --rwrap--latex;"},
    **{"block": "font-weight: bold;", **{word: f"color: {look.color};" for word, look in names.VERDICTS.items()}},
}
INTERVAL = re.compile(r" (\[[^\]]*\])")
# What LaTeX reads as commands, and signs that its default fonts lack or have in other places.
SIGNS = str.maketrans(
    {
        **{sign: "\\" + sign for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
        **{"<": "$<$", ">": "$>$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$"},
        **{"≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "↓": r"$\downarrow$", "↑": r"$\uparrow$"},
        **{"→": r"$\rightarrow$", "←": r"$\leftarrow$", "–": "--", "—": "---", "…": r"\ldots{}", "\u00a0": "~"},
        **{"“": "``", "”": "''", "‘": "`", "’": "'", "§": r"\S{}", "†": r"$\dagger$"},
        **{"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$"},
    }
)


class Printed:
    """What every table can do with the fields of `Table`."""

    widths: Sequence[float] = ()

    def csv(self) -> str:
        """The tidy data."""
        return self.data.round(4).replace(names.FORMULA, regex=True).to_csv(index=False)

    @property
    def css(self) -> pd.DataFrame:
        """How each cell of `shown` looks, by the words of its class."""
        classes = self.shown.map(lambda _: "") if self.classes is None else self.classes
        return classes.map(lambda words: "".join(CSS.get(word, "") for word in words.split()))

    def markdown(self) -> str:
        """The caption, a pipe table and the notes."""
        marks = self.css.map(lambda text: "*" * (("italic" in text) + 2 * ("bold" in text)))
        cells = self.shown.map(names.plain)
        lined = self.css.map(lambda text: "underline" in text)
        cells = cells.mask(cells != "", marks + cells.mask(lined, "<ins>" + cells + "</ins>") + marks)
        body = cells.rename(columns=names.plain).to_markdown(index=False, disable_numparse=True)
        return "\n\n".join([names.plain(self.caption), body, *(f"- {names.plain(note)}" for note in self.notes)]) + "\n"

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
        styler = self._styled(self._cell)
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

    _repr_html_ = html

    def _cell(self, text: str) -> str:
        """A cell for LaTeX; where no width is given, an interval stands below its number."""
        stacked, found = INTERVAL.subn(r"\\\\{\\normalfont\\tiny \1}", text.translate(SIGNS))
        return rf"\shortstack[r]{{{stacked}}}" if found and not self.widths else text.translate(SIGNS)

    def _styled(self, text: Callable[[str], str]) -> Styler:
        styler = Styler(self.shown, uuid=self.name, cell_ids=False).hide(axis="index").format(text)
        styler.format_index(text, axis=1)
        return styler if self.classes is None else styler.apply(lambda _: self.css, axis=None)


@dataclass(frozen=True)
class Table(Printed):
    """A table: `data` is tidy, `shown` holds its texts, one column per head.

    `classes` has the words of `CSS` and of the page's style sheet; `widths` are shares of LaTeX's text width.
    """

    name: str
    data: pd.DataFrame
    shown: pd.DataFrame
    caption: str = ""
    finding: str = ""
    notes: Sequence[str] = ()
    classes: pd.DataFrame | None = None
    widths: Sequence[float] = ()


# Tables 1 to 3 --------------------------------------------------------------------------------------------------------

COLUMNS = ("benchmark", "row", "condition", "metric", "reported", "measured", "low", "high", "n", "seeds")
# What stands beside the paper's columns, in a table of its own: the kinds of answers, and harder questions.
ANSWERS = (
    "neighbor_open", "neighbor_refused", "controls", "readable", "forget_unseen", "asr_unseen", "asr_seen",
    "asr_searched", "forget_cloze", "drift", "overall_readable", "gold_distance",
)  # fmt: skip
# Points are ranked as they are shown: measured ones with one digit, the paper's as it prints them.
DIGITS = {"measured": 1, "reported": 2}
# Zero whatever is measured: a row against itself.
BY_DEFINITION = {(BASE, "overall"), (BASE, "overall_readable"), (GOLD, "gold_distance")}
NEW_COLUMNS = (
    "Retain, open: neighbour questions without options, answered right, and refused. Controls: benign questions behind "
    "the attackers' prefixes, answered. Readable: answers to Forget and attacks that refuse, or name a wrong value of "
    "the right kind. Unseen: entities that no training record names. Searched: the worst prefix that a search finds. "
    "Cloze: a sentence to complete. Drift: total variation from the base's next-token distributions at General's "
    "answers. Overall, readable: Overall with open Retain, and broken or wrong-kind answers counted as failures. "
    "Reference distance: how far the kinds of answers are from the retrained reference's."
)


def as_printed(value: float) -> str:
    """A number of the paper with the digits that it prints, at least one; "" for none."""
    return number(value, DIGITS["reported"]).removesuffix("0")


DIFFERENCE = ["difference", "difference_low", "difference_high"]
# The blocks of a table: its title, the columns behind a cell, and its text.
KINDS: dict[str, tuple[str, list[str], Callable[..., str]]] = {
    "measured": ("Measured: {0}", ["measured", "low", "high"], spread),
    "difference": ("Minus MULE, paired", DIFFERENCE, partial(spread, sign=True)),
    "reported": ("Reported by the paper: {1}", ["reported"], as_printed),
}
OBJECTIVE = {"forget": "Obj1 ", "general": "Obj1 ", "neighbor": "Obj2 ", "asr": "Obj3 "}  # as the paper heads them


@dataclass(frozen=True)
class ResultTable(Printed):
    """Table 1, 2 or 3: `data` has COLUMNS and more, a line per row and metric; `groups` are headings with their rows.

    `metrics` are those shown; `source` says what was measured on; `broken` has the rows that no reader could use, with
    their share of broken answers.
    """

    name: str
    benchmark: str
    data: pd.DataFrame
    metrics: Sequence[str]
    groups: Mapping[str, Sequence[str]]
    labels: Mapping[str, str]
    caption: str
    notes: Sequence[str]
    source: str
    broken: Mapping[str, float]

    def csv(self) -> str:
        """The tidy data; a row is named as the paper names it, and `condition` says which data it was given."""
        data = self.data.assign(row=self.data["row"].map(method_of)).round(4)
        return data.replace(names.FORMULA, regex=True).to_csv(index=False)

    @property
    def answers(self) -> "ResultTable":
        """The same rows by what the paper's columns do not see."""
        shown = [metric for metric in ANSWERS if metric in {*self.data["metric"]}]
        data = self.data[self.data["metric"].isin(shown)]
        said = f"Beside {self.caption.split('. ')[0]}. None of these columns is the paper's."
        return replace(self, name=f"{self.name}_answers", metrics=shown, data=data, caption=said, notes=[NEW_COLUMNS])

    def cell(self, row: str, metric: str) -> pd.Series:
        """The line of a row and a metric."""
        return self.data[(self.data["row"] == row) & (self.data["metric"] == metric)].iloc[0]

    def rows(self) -> list[str]:
        """All rows in order."""
        return list(dict.fromkeys(self.data["row"]))

    def not_run(self) -> list[str]:
        """Rows without a run, in order."""
        seeds = self.data.groupby("row", sort=False)["seeds"].max()
        return [*seeds.index[seeds == 0]]

    def trained(self, metric: str, column: str) -> dict[str, float]:
        """The values of the trained rows of the paper's condition that have one, as they are shown."""
        wanted = (self.data["metric"] == metric) & (self.data["condition"] == PAPER)
        lines = self.data[wanted & ~self.data["row"].isin(REFERENCES)].dropna(subset=[column])
        return dict(zip(lines["row"], lines[column].round(DIGITS[column]), strict=True))

    def ranks(self, column: str) -> dict[str, int]:
        """The place in Overall of each trained row: of those as the paper ran them, or, with MULE, on its records."""
        lines = self.data[(self.data["metric"] == "overall") & ~self.data["row"].isin(REFERENCES)]
        values, found = lines.set_index("row")[column].dropna().round(DIGITS[column]), {}
        for one in (names.ON_MULES_RECORDS, PAPER):
            mine = values[[row for row in values.index if names.condition(row) == one or row == "mule"]]
            found |= mine.rank(ascending=False, method="min").astype(int).to_dict()
        return found

    def best(self, column: str, place: int = 1) -> set[tuple[str, str]]:
        """(row, metric) of the best or second trained rows by metric in `column`; all at a tie, none without rival."""
        lines = self.data[~self.data["row"].isin(REFERENCES)].dropna(subset=[column])
        values = lines[column].round(DIGITS[column]) * np.where(lines["metric"].isin(names.DOWN), 1, -1)
        rivals = values.groupby(lines["metric"])
        lines = lines[(rivals.rank(method="dense") == place) & (rivals.transform("size") > 1)]
        return set(zip(lines["row"], lines["metric"], strict=True))

    @property
    def finding(self) -> str:
        """What the table says, in sentences made from its numbers."""
        kind = "answers" if "overall" not in self.metrics else "ablation" if "difference" in self.data else "results"
        said = FINDINGS[kind](self)
        missing = ", ".join(self.labels[row] for row in self.not_run())
        return " ".join(filter(None, (said, broken_text(self.broken), missing and f"Not run: {missing}.")))

    @cached_property
    def lines(self) -> pd.DataFrame:
        """Measured, then differences, then reported lines; the last columns are their `kind` and marked cells."""
        metrics, lines = list(self.metrics), []
        heads = {m: OBJECTIVE.get(m, "") + heading(m, self.benchmark) for m in metrics}
        places = (("second", 2), ("best", 1))
        marked = {kind: {key: word for word, place in places for key in self.best(kind, place)} for kind in DIGITS}
        here, printed = (self.ranks(column) if "overall" in metrics else {} for column in DIGITS)
        of = {row: part.set_index("metric").loc[metrics] for row, part in self.data.groupby("row")}
        for kind, (title, columns, text) in KINDS.items():
            cells = {row: part.reindex(columns=columns) for row, part in of.items()}
            there = {row for row, part in cells.items() if part[columns[0]].notna().any()}
            titles = [(title.format(self.source, paper_source(self.name.split("_")[0])), there, "block heading")]
            for words, rows in self.groups.items():
                kept = [row for row in rows if there and (kind == "measured" or row in there)]
                titles += [(words, kept and kind != "reported", "heading")] if words else []
                lines += [[name, *[""] * (len(metrics) + 3), word, {}] for name, shown, word in titles if shown]
                titles = []
                for row in kept:
                    ends, marks = zip(metrics, cells[row].to_numpy(), strict=True), marked.get(kind, {})
                    texts = [text(*v[: 1 if (row, m) in BY_DEFINITION else 3]) for m, v in ends]
                    marks = {m: marks[row, m] for m in metrics if (row, m) in marks}
                    counted = [here.get(row, ""), printed.get(row, ""), int(of[row]["seeds"].max())]
                    if kind == "measured":
                        level = [of[row]["level"][m] and marks.get(m) != "best" for m in metrics]
                        marked_texts = zip(texts, level, strict=True)
                        texts = [INTERVAL.sub(r"† \1", one) if also else one for one, also in marked_texts]
                        texts = texts if row in there else ["not run", *("–" for _ in texts[1:])]
                    else:
                        counted = ["", counted[1] if kind == "reported" else "", ""]
                    marks = {heads[m]: word for m, word in marks.items()}
                    lines.append([self.labels[row], *texts, *map(str, counted), kind, marks])
            if kind == "measured" and there:
                counts = self.data.groupby("metric")["n"].max()[metrics]
                lines.append(["Items", *(f"{n:,}" for n in counts), "", "", "", "items", {}])
        columns = ["Row", *heads.values(), "Rank here", "Rank in paper", "Seeds", "kind", "marks"]
        made = pd.DataFrame(lines, columns=columns)
        return made if "overall" in metrics else made.drop(columns=["Rank here", "Rank in paper"])

    @property
    def shown(self) -> pd.DataFrame:
        return self.lines.iloc[:, :-2]

    @property
    def classes(self) -> pd.DataFrame:
        words = {name: [marks.get(name, "") for marks in self.lines["marks"]] for name in self.shown}
        classes = pd.DataFrame(words).apply(lambda column: self.lines["kind"] + " first " + column)
        # A heading spans the line: in LaTeX it is as wide as nothing.
        classes["Row"] = np.where(self.lines["kind"].str.contains("heading"), "spanning ", "") + classes["Row"]
        return classes


def measured_table(name: str, benchmark: str, runs: Iterable[RunResult], *, seed: int = 0) -> ResultTable:
    """table1, table2 or table3 for one benchmark from its runs, beside the paper's numbers.

    A row without a run stays in the table, with `seeds` 0. Table 2 also has the paired difference of each row to mule.
    """
    mine = [run for run in runs if run.benchmark == benchmark]
    parts = names.groups(name, {run.row: run.method for run in mine})
    rows = [row for group in parts.values() for row in group]
    mine = [run for run in mine if run.row in {*rows, BASE, GOLD}]
    tidy = results.tidy(mine, seed=seed)
    metrics = [*METRICS, "overall"]
    data = _joined(name, benchmark, rows, [*metrics, *(m for m in ANSWERS if m in {*tidy["metric"]})], tidy)
    if name == "table2":
        paired = results.differences(mine, "mule", seed=seed)
        paired = paired.rename(columns={"low": "difference_low", "high": "difference_high"})
        data = data.merge(paired[["row", "metric", *DIFFERENCE]], on=["row", "metric"], how="left")
    data["level"] = _level_with_best(data, mine, seed)
    source = measured_source(benchmark, mine)
    caption = (
        f"{name.replace('table', 'Table ')}: this suite's runs on {source}, points with 95 % intervals over items and "
        f"seeds. Below them what the paper reports on {paper_source(name)}."
    )
    labels, broken = {row: label(row, {run.row: run.label for run in mine}) for row in rows}, broken_rows(mine)
    notes = _notes(name, benchmark, mine, broken)
    return ResultTable(name, benchmark, data, metrics, parts, labels, caption, notes, source, broken)


def measured_source(benchmark: str, runs: Iterable[RunResult]) -> str:
    """Benchmark and model behind runs."""
    models = dict.fromkeys(results.run_file(run, "params.json").get("model", "") for run in runs if run.row != GOLD)
    named = ", ".join(names.EMBEDDED.get(model, model) for model in models if model)
    return f"{names.benchmark_name(benchmark)}, {named or 'no runs'}"


def _level_with_best(data: pd.DataFrame, runs: Sequence[RunResult], seed: int) -> pd.Series:
    """Whether the paired 95 % interval to the metric's best trained row holds zero; False for that row itself."""
    trained = data[~data["row"].isin(REFERENCES)].dropna(subset=["measured"])
    cost = trained["measured"] * np.where(trained["metric"].isin(names.DOWN), 1, -1)
    best, level = trained.loc[cost.groupby(trained["metric"]).idxmin()], set()
    rivals = [run for run in runs if run.row not in REFERENCES]
    for row, metrics in best.groupby("row")["metric"]:
        found = results.differences(rivals, row, metrics={*metrics}, seed=seed)
        found = found[(found["low"] <= 0) & (found["high"] >= 0)]
        level |= set(zip(found["row"], found["metric"], strict=True))
    return pd.Series([key in level for key in zip(data["row"], data["metric"], strict=True)], dtype=bool)


def broken_rows(runs: Iterable[RunResult]) -> dict[str, float]:
    """Trained rows that answer at least half of the questions to forget by broken or wrong-kind text, with the share.

    Neither Forget nor Overall sees it: no word of the reference is in a refusal, and none in such text.
    """
    lines = [(run.row, run.details.get("forget", {}).get("kinds", {})) for run in runs if run.row not in REFERENCES]
    shares = pd.Series([kinds.get("broken", 0) + kinds.get("wrong_kind", 0) for _, kinds in lines], dtype=float)
    means = shares.groupby([row for row, _ in lines], sort=False).mean()
    return means[means >= 0.5].to_dict()


def broken_text(rows: Mapping[str, float]) -> str:
    """What `broken_rows` found, in a sentence; "" for none."""
    named = [f"{label(row)} ({100 * mean:.0f} %)" for row, mean in rows.items()]
    said = "Forgotten by broken text or words of the wrong kind instead of refusals"
    return f"{said}: {', '.join(named)}." if named else ""


def _notes(name: str, benchmark: str, runs: Sequence[RunResult], broken: Mapping[str, float]) -> list[str]:
    """What has to be known to read a table, as far as it applies to these runs."""
    single = {run.row for run in runs if run.timing.get("steps")} - {run.row for run in runs if run.seed > 0}
    alike = any(len({*values}) == 1 for run in runs for values in run.values.values())
    notes = {
        "Another model and another benchmark: measured and reported lines are not comparable in level, only in what "
        "they say about the order of the rows.": benchmark != BENCHMARKS[name],
        "Far recall: four choices on farther facts; the reported lines have MMLU there.": benchmark in FABLE,
        "Arrows say which way is better. Of the trained rows the best is bold, the second underlined; †: not told "
        "apart from the best (paired 95 % interval).": True,
        "Ranks are places in Overall among trained rows of one condition, MULE in both.": True,
        broken_text(broken): broken,
        "MOLLM's direction is a reconstruction (docs/conditions.md).": "mollm" in {run.method for run in runs},
        "Where all items of a row came out alike, the bootstrap interval has no width; the truth's has.": alike,
        f"With one seed ({', '.join(map(label, sorted(single)))}) an interval lacks the spread between seeds.": single,
    }
    return [note for note, applies in notes.items() if applies]


def _joined(name: str, benchmark: str, rows: Sequence[str], metrics: Sequence[str], tidy: pd.DataFrame) -> pd.DataFrame:
    """One line per row and metric of the table, whether measured, reported, both or neither."""
    lines = [(benchmark, row, metric, REPORTED[name].get(row, {}).get(metric)) for row in rows for metric in metrics]
    data = pd.DataFrame(lines, columns=["benchmark", "row", "metric", "reported"])
    data.insert(2, "condition", data["row"].map(names.condition))
    data = data.merge(tidy.drop(columns="benchmark"), on=["row", "metric"], how="left")
    data = data.astype(dict.fromkeys(("reported", "measured", "low", "high", "n", "seeds"), float))
    data[["n", "seeds"]] = data[["n", "seeds"]].fillna(0).astype(int)
    return data[list(COLUMNS)].assign(reported_for=paper_source(name))
