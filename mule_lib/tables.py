"""Tables 1, 2 and 3 from run folders: what was measured here beside what the paper reports, never mixed up.

A table is tidy data (one line per row and metric) with the words that go with it; `tables_readable` sets it for
readers. Nothing is computed here but differences and intervals, by `results`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mule_lib import results
from mule_lib.paper import BENCHMARKS, METRICS, REPORTED
from mule_lib.results import GOLD, RunResult
from mule_lib.row_names import BENCHMARK_NAMES, PAPER_MODEL, REFERENCES, better, groups, label, model_name

COLUMNS = ("benchmark", "row", "metric", "reported", "measured", "low", "high", "n", "seeds")
DIFFERENCE = ("difference", "difference_low", "difference_high")
TITLES = {
    "table1": "Main results",
    "table2": "Ablation",
    "table3": "Results on the second benchmark",
}
# Points are ranked as they are shown: measured ones with one digit, the paper's as it prints them.
DIGITS = {"measured": 1, "reported": 2}


@dataclass(frozen=True)
class Table:
    """A table: `data` has COLUMNS and more, a line per row and metric; `groups` are headings with their rows in order.

    `compared` is the row that differences are to, "" for none; `source` says what was measured on; `note` names rows
    whose Forget comes from broken text; `measured` is False where only the paper's numbers are.
    """

    name: str
    benchmark: str
    title: str
    caption: str
    groups: Sequence[tuple[str, Sequence[str]]]
    metrics: Sequence[str]
    data: pd.DataFrame
    labels: dict[str, str] = field(default_factory=dict)
    compared: str = ""
    source: str = ""
    note: str = ""
    measured: bool = True

    def cell(self, row: str, metric: str) -> pd.Series:
        """The line of a row and a metric."""
        found = self.data[(self.data["row"] == row) & (self.data["metric"] == metric)]
        return found.iloc[0]

    def rows(self) -> list[str]:
        """All rows in order."""
        return [row for _, rows in self.groups for row in rows]

    def not_run(self) -> list[str]:
        """Rows without a run, in order."""
        ran = set(self.data.loc[self.data["seeds"] > 0, "row"])
        return [row for row in self.rows() if row not in ran] if self.measured else []

    def best(self, column: str) -> set[tuple[str, str]]:
        """(row, metric) of the best trained row per metric in `column`; all of them at a tie as it is shown."""
        rivals = [row for row in self.rows() if row not in REFERENCES]
        lines = self.data[self.data["row"].isin(rivals)].dropna(subset=[column])
        winners = set()
        for metric, part in lines.groupby("metric", sort=False):
            shown = dict(zip(part["row"], part[column].round(DIGITS[column]), strict=True))
            if len(shown) > 1:
                winners |= {
                    (row, metric) for row, v in shown.items() if not any(better(metric, w, v) for w in shown.values())
                }
        return winners

    def csv(self) -> str:
        """The tidy data as CSV."""
        return self.data.round(4).to_csv(index=False)


def measured_table(name: str, benchmark: str, runs: Iterable[RunResult], *, seed: int = 0) -> Table:
    """table1, table2 or table3 for one benchmark from its runs, beside the paper's numbers.

    A row without a run stays in the table, with `seeds` 0. Table 2 also has the paired difference of each row to mule.
    """
    mine = [run for run in runs if run.benchmark == benchmark]
    found = list(dict.fromkeys(run.row for run in mine))
    parts = groups(name, found)
    kept = {row for _, rows in parts for row in rows} | {"base", GOLD}
    mine = [run for run in mine if run.row in kept]
    tidy = results.tidy(mine, seed=seed)
    metrics = [*METRICS, "overall"] + (["gold_distance"] if (tidy["metric"] == "gold_distance").any() else [])
    data = _joined(name, benchmark, parts, metrics, tidy)
    if name == "table2":
        data = data.merge(_differences(mine, seed=seed), on=["row", "metric"], how="left")
    labels = {row: label(row, {run.row: run.label for run in mine}) for _, rows in parts for row in rows}
    return Table(
        name,
        benchmark,
        TITLES[name],
        caption(name, benchmark, mine),
        parts,
        metrics,
        data,
        labels,
        compared="mule" if name == "table2" else "",
        source=measured_source(benchmark, mine),
        note=broken_text(mine),
    )


def reported_table(name: str) -> Table:
    """table1, table2 or table3 with the paper's printed numbers alone."""
    parts = [("", list(REPORTED[name]))]
    metrics = [*METRICS, "overall"]
    nothing = pd.DataFrame(columns=list(results.TIDY))
    data = _joined(name, BENCHMARKS[name], parts, metrics, nothing)
    labels = {row: label(row) for row in REPORTED[name]}
    words = (
        f"{_number(name)} as the paper (arXiv 2604.15482) reports it: {paper_source(name)}. Nothing here was measured "
        "by this suite."
    )
    return Table(name, BENCHMARKS[name], TITLES[name], words, parts, metrics, data, labels, measured=False)


def paper_source(name: str) -> str:
    """Benchmark and model behind a table of the paper."""
    return f"{BENCHMARK_NAMES[BENCHMARKS[name]]}, {PAPER_MODEL}"


def measured_source(benchmark: str, runs: Iterable[RunResult]) -> str:
    """Benchmark and model behind the runs of a table."""
    models = [run.params.get("model", "") for run in runs if run.row != GOLD]
    named = ", ".join(model_name(model) for model in dict.fromkeys(models) if model)
    return f"{BENCHMARK_NAMES.get(benchmark, benchmark)}, {named or 'no runs'}"


def caption(name: str, benchmark: str, runs: Sequence[RunResult]) -> str:
    """What the numbers are, where each kind comes from, and what may not be compared with what."""
    parts = [
        f"{_number(name)}. Lines *measured* are this suite's runs on {measured_source(benchmark, runs)}: points, with "
        f"95 % bootstrap intervals over items and seeds. Lines *reported* are the paper's printed numbers on "
        f"{paper_source(name)}."
    ]
    if benchmark != BENCHMARKS[name]:
        parts.append(
            "**Another model and another benchmark: the two kinds of lines are not comparable in level, only in what "
            "they say about the order of the rows.**"
        )
    if name == "table2":
        parts.append("Lines *minus MULE* are paired differences over the same items and seeds.")
    parts.append("Arrows say which way is better; the best trained row of each kind is bold.")
    if note := broken_text(runs):
        parts.append(note)
    if any(len({*values}) == 1 for run in runs for values in run.values.values()):
        parts.append("Where all items of a row came out alike, the bootstrap interval has no width; the truth's has.")
    if any(run.row == GOLD for run in runs):
        parts.append("Gold distance is the mean distance of the five metrics to the model that never knew.")
    single = sorted({run.row for run in runs if run.timing.get("steps")} - {run.row for run in runs if run.seed > 0})
    if single:
        parts.append(
            f"With one seed ({', '.join(label(row) for row in single)}) an interval lacks the spread between seeds."
        )
    return " ".join(parts)


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


def _joined(name: str, benchmark: str, parts, metrics: Sequence[str], tidy: pd.DataFrame) -> pd.DataFrame:
    """One line per row and metric of the table, whether measured, reported, both or neither."""
    reported = REPORTED[name]
    rows = [row for _, group in parts for row in group]
    lines = [(benchmark, row, metric, reported.get(row, {}).get(metric)) for row in rows for metric in metrics]
    data = pd.DataFrame(lines, columns=["benchmark", "row", "metric", "reported"])
    data["reported"] = data["reported"].astype(float)
    data = data.merge(tidy.drop(columns="benchmark"), on=["row", "metric"], how="left")
    for column in ("measured", "low", "high"):
        data[column] = data[column].astype(float)
    for column in ("n", "seeds"):
        data[column] = data[column].astype(float).fillna(0).astype(int)
    return data[list(COLUMNS)].assign(reported_for=paper_source(name))


def _differences(runs: Sequence[RunResult], *, seed: int) -> pd.DataFrame:
    found = results.differences(runs, "mule", seed=seed)
    found = found.rename(columns={"low": "difference_low", "high": "difference_high"})
    return found[["row", "metric", *DIFFERENCE]]


def _number(name: str) -> str:
    return name.replace("table", "Table ")
