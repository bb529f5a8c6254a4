"""What lies beyond the paper's five metrics, from run folders: later attacks, and the rates behind the metrics."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from mule_lib.evaluate.intervals import bootstrap_interval
from mule_lib.results import RunResult
from mule_lib.row_names import BENCHMARK_NAMES, LABELS, label

# What an attack is compared with: the run's own metric without it.
PLAIN = "as trained"
NAMES = {
    "relearning": "relearning",
    "reteaching": "being told again in the prompt",
    "quantization": "quantizing the weights",
    "held_out_prefixes": "attacks of unseen families",
}
CONDITIONS = {"same": "the same facts", "disjoint": "other facts", "int8": "8 bit", "int4": "4 bit"}
# The rates behind the metrics: name, set, key of the set's details.
RATES = (
    ("Refused, to forget ↑", "forget", "refusal_rate"),
    ("Refused, general ↓", "general", "refusal_rate"),
    ("Refusal chosen, neighbours ↓", "neighbor", "refusal"),
    ("Wrong option, neighbours ↓", "neighbor", "distractor"),
    ("Benign controls answered ↑", "controls", "disclosed"),
    ("Empty or garbled, to forget ↓", "forget", ("empty_rate", "garbled_rate")),
)


def beyond_data(runs: Iterable[RunResult], *, seed: int = 0) -> pd.DataFrame:
    """One line per run, attack, condition and metric: points with a bootstrap 95 % interval over items.

    Columns: benchmark, row, seed, attack, condition, metric, measured, low, high, n. A run's own metrics come first,
    with the attack "none"; runs that were not attacked are left out.
    """
    lines = []
    order = {row: place for place, row in enumerate(LABELS)}
    for run in sorted(runs, key=lambda run: (run.benchmark, order.get(run.row, len(order)), run.seed)):
        if not run.beyond:
            continue
        found = [("none", PLAIN, {"values": run.values}), *measurements(run.beyond)]
        for attack, condition, one in found:
            for metric, values in one["values"].items():
                interval = bootstrap_interval(values, seed=seed)
                points = (round(100 * value, 2) for value in interval[:3])
                lines.append((run.benchmark, run.row, run.seed, attack, condition, metric, *points, interval.n))
    columns = ["benchmark", "row", "seed", "attack", "condition", "metric", "measured", "low", "high", "n"]
    return pd.DataFrame(lines, columns=columns)


def measurements(beyond: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every measurement with item values in a run's `beyond`: attack, condition, measurement."""
    for attack, found in beyond.items():
        if not isinstance(found, Mapping):
            continue
        if "values" in found:
            yield attack, NAMES.get(attack, attack), found
        for point in found.get("curve", []):
            yield attack, f"step {point['step']}", point
        for condition, one in found.items():
            if isinstance(one, Mapping) and "values" in one:
                yield attack, condition, one


def beyond_table(data: pd.DataFrame) -> pd.DataFrame:
    """For reading: a line per row, a column per attack and metric that says most, as `estimate [low, high]`."""
    steps = [c for c in data["condition"].unique() if c.startswith("step ")]
    last = max(steps, key=lambda name: int(name.split()[1]), default="")
    shown = {
        ("Forget ↓", PLAIN): (PLAIN, "forget"),
        ("Forget ↓", f"relearnt, {last}"): (last, "forget"),
        ("Forget ↓", "told again, same facts"): ("same", "forget"),
        ("Forget ↓", "told other facts"): ("disjoint", "forget"),
        ("Forget ↓", "8 bit"): ("int8", "forget"),
        ("Forget ↓", "4 bit"): ("int4", "forget"),
        ("ASR ↓", PLAIN): (PLAIN, "asr"),
        ("ASR ↓", "unseen families"): (NAMES["held_out_prefixes"], "asr"),
    }
    lines = []
    for (benchmark, row), part in data.groupby(["benchmark", "row"], sort=False):
        line = {"Benchmark": BENCHMARK_NAMES.get(benchmark, benchmark), "Row": label(row)}
        for (metric, name), (condition, key) in shown.items():
            found = part[(part["condition"] == condition) & (part["metric"] == key)]
            line[f"{metric} {name}"] = (
                f"{found['measured'].mean():.1f} [{found['low'].mean():.1f}, {found['high'].mean():.1f}]"
                if len(found)
                else "not measured"
            )
        lines.append(line)
    return pd.DataFrame(lines)


def rates_data(runs: Iterable[RunResult]) -> pd.DataFrame:
    """How rows come to their metrics: benchmark, row, rate, value in percent (mean over seeds), seeds."""
    lines: list[tuple] = []
    for run in runs:
        for name, where, keys in RATES:
            details = run.details.get(where, {})
            found = [details[key] for key in ((keys,) if isinstance(keys, str) else keys) if key in details]
            if found:
                lines.append((run.benchmark, run.row, name, 100 * sum(found)))
    data = pd.DataFrame(lines, columns=["benchmark", "row", "rate", "value"])
    grouped = data.groupby(["benchmark", "row", "rate"], sort=False)["value"].agg(["mean", "size"]).reset_index()
    return grouped.rename(columns={"mean": "value", "size": "seeds"}).round(2)


def rates_table(data: pd.DataFrame, benchmark: str, *, order: Iterable[str]) -> pd.DataFrame:
    """For reading: one line per row of a benchmark, a column per rate in percent."""
    part = data[data["benchmark"] == benchmark]
    wide = part.pivot(index="row", columns="rate", values="value")
    rows = [row for row in order if row in wide.index]
    wide = wide.loc[rows, [name for name, *_ in RATES if name in wide.columns]]
    return wide.round(1).rename(index=label).rename_axis(index="Row", columns=None).reset_index()


def beyond_finding(data: pd.DataFrame) -> str:
    """Alt text: each attacked row's Forget as trained and at its highest under each attack, and ASR by new prefixes."""
    if data.empty:
        return "No row was attacked beyond the paper's metrics."
    parts = []
    for (benchmark, row), part in data.groupby(["benchmark", "row"], sort=False):
        means = part.groupby(["metric", "attack", "condition"], sort=False)["measured"].mean().reset_index()
        told = []
        for attack, found in means[means["metric"] == "forget"].groupby("attack", sort=False):
            highest = found.loc[found["measured"].idxmax()]
            what = f"{NAMES.get(attack, attack)} ({CONDITIONS.get(highest['condition'], highest['condition'])})"
            told.append(f"up to {highest['measured']:.0f} after {what}")
            if attack == "none":
                told = [f"Forget {highest['measured']:.0f} {PLAIN}"]
        unseen = means[(means["metric"] == "asr") & (means["attack"] == "held_out_prefixes")]["measured"]
        told += [f"ASR {value:.0f} under {NAMES['held_out_prefixes']}" for value in unseen]
        parts.append(f"{BENCHMARK_NAMES.get(benchmark, benchmark)}, {label(row)}: {', '.join(told)}.")
    return " ".join(parts)
