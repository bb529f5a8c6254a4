"""Behind and beyond Tables 1 to 3: rates behind the metrics, later attacks, and whether methods move as claimed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mule_lib.evaluate.intervals import bootstrap_difference, bootstrap_interval
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.report import results
from mule_lib.report.names import BASE, LABELS, METRIC_NAMES, benchmark_name, heading, label, listed, number, spread
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
