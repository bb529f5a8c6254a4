"""What the tables say, in sentences made from their numbers; nothing is typed by hand."""

from collections.abc import Sequence

import pandas as pd

from mule_lib.paper import BENCHMARKS, METRICS
from mule_lib.row_names import BENCHMARK_NAMES, METRIC_NAMES, REFERENCES
from mule_lib.tables import Table
from mule_lib.tables_readable import as_printed, number


def results_summary(table: Table) -> str:
    """Table 1 or 3 in a few sentences: what MULE moves, where it stands, and what the paper says of the same."""
    here = BENCHMARK_NAMES.get(table.benchmark, table.benchmark)
    there = BENCHMARK_NAMES[BENCHMARKS[table.name]]
    parts = []
    if {"base", "mule"} & set(table.not_run()):
        parts.append(f"The base model or MULE was not run on {here}; there is nothing to say about them.")
    else:
        moves = [_move(table, metric, "measured") for metric in METRICS]
        parts.append(f"On {here} MULE moves {_list(moves)}.")
        parts.append(_standing(table, "measured", here))
    moves = [_move(table, metric, "reported") for metric in METRICS]
    parts.append(f"The paper reports for {there}: {_list(moves)}. {_standing(table, 'reported', there)}")
    if "gold_distance" in table.metrics:
        parts.append(_nearest_gold(table))
    if table.note:
        parts.append(table.note)
    if table.not_run():
        parts.append(f"Not run: {', '.join(table.labels[row] for row in table.not_run())}.")
    return " ".join(parts)


def ablation_summary(table: Table) -> str:
    """Table 2: which variants differ from MULE in Overall beyond their paired interval, and which do not."""
    if "mule" in table.not_run():
        return "MULE was not run; nothing can be compared with it."
    worse, better, open_ = [], [], []
    for row in table.rows():
        cell = table.cell(row, "overall")
        if row == "mule" or pd.isna(cell["difference"]):
            continue
        low, high = cell["difference_low"], cell["difference_high"]
        shown = f"{table.labels[row]} ({number(cell['difference'], sign=True)} [{number(low)}, {number(high)}])"
        (worse if high < 0 else better if low > 0 else open_).append(shown)
    here = BENCHMARK_NAMES.get(table.benchmark, table.benchmark)
    parts = [
        f"Against MULE in Overall on {here}, paired over items and seeds, these lose points beyond their 95 % "
        f"interval: {_list(worse)}. These gain beyond it: {_list(better)}."
    ]
    if not (worse or better or open_):
        parts = [f"No variant of MULE was run on {here}."]
    if open_:
        parts.append(f"Not told apart from MULE: {_list(open_)}.")
    losses = [_reported_loss(table, row) for row in ("mule_duet_loss", "mule_bild_loss")]
    parts.append(f"The paper reports {' and '.join(losses)}.")
    if table.note:
        parts.append(table.note)
    if table.not_run():
        parts.append(f"Not run: {', '.join(table.labels[row] for row in table.not_run())}.")
    return " ".join(parts)


def runs_summary(runs: Sequence) -> str:
    """How many runs were read, of which benchmarks, rows and seeds, and how long they took."""
    if not runs:
        return "No runs yet: every measured line will say *not run*."
    seconds = sum(run.timing.get("train_seconds", 0) + run.timing.get("evaluate_seconds", 0) for run in runs)
    benchmarks = dict.fromkeys(BENCHMARK_NAMES.get(run.benchmark, run.benchmark) for run in runs)
    most = max(run.seed for run in runs) + 1
    return (
        f"{len(runs)} runs of {len({run.row for run in runs})} rows on {_list(list(benchmarks))}, up to {most} seeds; "
        f"{seconds / 60:.0f} minutes of training and evaluation."
    )


def _move(table: Table, metric: str, column: str) -> str:
    before, after = (table.cell(row, metric) for row in ("base", "mule"))
    show = as_printed if column == "reported" else number
    ends = f" [{number(after['low'])}, {number(after['high'])}]" if column == "measured" else ""
    return f"{METRIC_NAMES[metric]} from {show(before[column])} to {show(after[column])}{ends}"


def _standing(table: Table, column: str, where: str) -> str:
    """Rank of MULE in Overall among the trained rows, and its distance to the upper bound."""
    values = {
        row: value
        for row in table.rows()
        if row not in REFERENCES and pd.notna(value := table.cell(row, "overall")[column])
    }
    if "mule" not in values:
        return f"MULE has no Overall on {where}."
    rank = 1 + sum(value > values["mule"] for value in values.values())
    text = f"Its Overall of {number(values['mule'])} is number {rank} of {len(values)} trained rows"
    bound = table.cell("upper_bound", "overall")[column] if "upper_bound" in table.rows() else float("nan")
    if pd.notna(bound):
        text += f", the upper bound's is {number(bound)}"
    return text + "."


def _nearest_gold(table: Table) -> str:
    values = {
        row: value
        for row in table.rows()
        if row not in REFERENCES and pd.notna(value := table.cell(row, "gold_distance")["measured"])
    }
    if not values:
        return "No trained row has a distance to the gold model."
    nearest = min(values, key=values.__getitem__)
    text = f"Of the trained rows {table.labels[nearest]} lies nearest to the gold model, at {number(values[nearest])}"
    return f"{text}; MULE at {number(values['mule'])}." if "mule" in values and nearest != "mule" else f"{text}."


def _reported_loss(table: Table, row: str) -> str:
    difference = table.cell(row, "overall")["reported"] - table.cell("mule", "overall")["reported"]
    return f"{number(difference, sign=True)} for {table.labels[row]}"


def _list(parts: Sequence[str]) -> str:
    if not parts:
        return "none"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
