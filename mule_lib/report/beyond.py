"""Behind and beyond Tables 1 to 3: rates behind the metrics, and later attacks."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from mule_lib.evaluate.intervals import bootstrap_interval
from mule_lib.evaluate.result import RunResult
from mule_lib.report.names import LABELS, benchmark_name, heading, label, listed, number, spread
from mule_lib.report.tables import Table, measured_source

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
    wide = wide.loc[[row for row in order if row in wide.index]].map(number).rename_axis(index="Row", columns=None)
    wide = wide.rename(index={run.row: label(run.row, {run.row: run.label}) for run in mine}).reset_index()
    caption = f"Rates behind the metrics, {measured_source(benchmark, mine)}: percent, means over seeds."
    return Table(name, data.round(2), wide, caption)


def measurements(beyond: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Every measurement with item values in a run's `beyond`: attack, condition in words, measurement."""
    for attack, found in beyond.items():
        if not isinstance(found, Mapping):
            continue
        points = {f"relearning, step {point['step']}": point for point in found.get("curve", [])}
        for condition, one in {attack: found, **points, **found}.items():
            if isinstance(one, Mapping) and "values" in one:
                yield attack, CONDITIONS.get(condition, condition), one


def attacks_table(runs: Iterable[RunResult], benchmark: str, *, seed: int = 0) -> Table:
    """What is left under later attacks: a line per condition, a column per attacked row.

    `data` has a line per run, attack, condition and metric: points with a bootstrap 95 % interval over n items. A run's
    own metrics come first, with the attack "none"; runs that were not attacked are left out.
    """
    order, lines = list(LABELS), []
    mine = [run for run in runs if run.benchmark == benchmark and run.beyond]
    for run in sorted(mine, key=lambda run: order.index(run.row) if run.row in order else len(order)):
        for attack, condition, one in [("none", PLAIN, {"values": run.values}), *measurements(run.beyond)]:
            for metric, values in one["values"].items():
                interval = bootstrap_interval(values, seed=seed)
                points = (round(100 * value, 2) for value in interval[:3])
                lines.append((benchmark, run.row, run.seed, attack, condition, metric, *points, interval.n))
    columns = ["benchmark", "row", "seed", "attack", "condition", "metric", "measured", "low", "high", "n"]
    data = pd.DataFrame(lines, columns=columns)
    mean = means(data)
    mean["text"] = [spread(*ends) for ends in mean[["measured", "low", "high"]].to_numpy()]
    shown = mean.pivot(index="line", columns="row", values="text")
    shown = shown.reindex(index=mean["line"].unique(), columns=mean["row"].unique()).fillna("not measured")
    shown = shown.rename(columns=label).rename_axis(columns=None).reset_index(names="Attack")
    seeds = len({run.seed for run in mine})
    caption = f"Later attacks, {measured_source(benchmark, mine)}: points, 95 % intervals over items; seeds: {seeds}."
    worst = mean.sort_values("measured", ascending=False, kind="stable").drop_duplicates("row").sort_index()
    parts = [f"{label(line.row)} {number(line.measured, 0)} ({line.line})" for line in worst.itertuples()]
    finding = f"Highest Forget or ASR under later attacks on {benchmark_name(benchmark)}: {listed(parts)}."
    return Table("beyond", data, shown, caption, finding)


def means(data: pd.DataFrame) -> pd.DataFrame:
    """Forget and ASR under each condition, means over seeds: line, row, measured, low, high, in the order of `data`."""
    data = data[data["metric"].isin(["forget", "asr"])]
    data = data.assign(line=data["metric"].map(heading) + " " + data["condition"])
    data = data.sort_values("metric", key=lambda metric: metric == "asr", kind="stable")
    return data.groupby(["line", "row"], sort=False)[["measured", "low", "high"]].mean().reset_index()
