"""What Tables 1 to 3 say, in sentences made from their numbers; a table is a `tables.ResultTable`."""

import numpy as np

from mule_lib.paper import BENCHMARKS, METRICS, REPORTED
from mule_lib.report.names import BASE, PAPER_MODEL, benchmark_name, heading, label, listed, metric_name, number, spread


def paper_source(name: str) -> str:
    """Benchmark and model behind a table of the paper."""
    return f"{benchmark_name(BENCHMARKS[name])}, {PAPER_MODEL}"


def results_finding(table) -> str:
    """Table 1 or 3: what MULE moves and where it stands, here and in the paper."""
    parts = []
    sources = (("measured", table.source, table.benchmark), ("reported", paper_source(table.name), ""))
    for column, source, benchmark in sources:
        values = table.trained("overall", column)
        points = table.data.pivot(index="row", columns="metric", values=column)
        if "mule" in values and BASE in points.index:
            start, end = points.loc[BASE], points.loc["mule"]
            moves = [f"{metric_name(m, benchmark)} from {number(start[m])} to {number(end[m])}" for m in METRICS]
            place, bound = table.ranks(column)["mule"], points["overall"].get("upper_bound", np.nan)
            parts.append(
                f"{column.capitalize()} on {source}: MULE moves {listed(moves)}; its Overall of "
                f"{number(values['mule'])} is number {place} of {len(values)} trained rows, "
                f"Upper Bound has {number(bound) or 'none'}."
            )
    return " ".join(parts)


def answers_finding(table) -> str:
    """Beside Table 1, 2 or 3: where MULE stands by each column, and which trained row is the best there."""
    parts = []
    for metric in table.metrics:
        values = table.trained(metric, "measured")
        if len(values) > 1 and "mule" in values:
            best = [table.labels[row] for row, m in sorted(table.best("measured")) if m == metric]
            parts.append(f"{heading(metric, table.benchmark)} {number(values['mule'])} (best: {listed(best)})")
    return f"MULE on {benchmark_name(table.benchmark)}: {'; '.join(parts)}." if parts else ""


def ablation_finding(table) -> str:
    """Table 2: which variants differ from MULE in Overall beyond their paired interval, and which do not."""
    found = table.data[(table.data["metric"] == "overall") & table.data["difference"].notna()].set_index("row")
    parts = []
    for title, rows in table.groups.items():
        sides: dict[float, list[str]] = {-1: [], 0: [], 1: []}
        for row in (row for row in rows if row in found.index):
            ends = found.loc[row, ["difference", "difference_low", "difference_high"]]
            sides[int(ends.iloc[1] > 0) - int(ends.iloc[2] < 0)].append(
                f"{table.labels[row]} ({spread(*ends, sign=True)})"
            )
        lost, level, gained = map(listed, sides.values())
        if any(sides.values()):
            parts.append(
                f"{title.split(' (')[0].split(' that ')[0]}: {lost} lose, {gained} gain, not told apart {level}."
            )
    printed = {row: values["overall"] for row, values in REPORTED["table2"].items()}
    gains = [f"{number(value - printed['mule'], sign=True)} for {label(row)}" for row, value in printed.items()]
    return (
        f"Overall against MULE on {benchmark_name(table.benchmark)}, beyond paired 95 % intervals. {' '.join(parts)} "
        f"The paper says {listed(gains[1:])}."
    )


FINDINGS = {"results": results_finding, "answers": answers_finding, "ablation": ablation_finding}
