"""Behind and beyond Tables 1 to 3: what the answers are, and later attacks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mule_lib.evaluate.intervals import bootstrap_interval
from mule_lib.evaluate.result import RunResult
from mule_lib.report import names, results
from mule_lib.report.names import REFERENCES, benchmark_name, heading, label, listed, number, spread
from mule_lib.report.tables import Table, measured_source

# The sets whose answers are judged, and the kinds of answers in the order of reading.
ANSWERED = ("forget", "attack", "general", "neighbor_open", "controls")
KINDS_OF_ANSWERS = ("refused", "right", "plausible", "wrong_kind", "broken")
# What a later attack is compared with: the run's own metric without it.
PLAIN = "as trained"
CONDITIONS = {
    "int8": "8-bit weights", "int4": "4-bit weights", "disjoint": "other facts in the prompt",
    "same": "the same facts in the prompt",
}  # fmt: skip


def lead_table(runs: Sequence[RunResult], *, seed: int = 0) -> Table:
    """MULE's lead over each baseline, split into what its data gives the baseline and what its loss adds."""
    data = results.lead(runs, seed=seed)
    kinds = {"lead": "MULE minus baseline", "data": "from the data", "loss": "from the loss"}
    shown = pd.DataFrame({
        **{"Benchmark": data["benchmark"].map(benchmark_name), "Baseline": data["row"].map(label)},
        "Points of": data["metric"].map(names.METRIC_NAMES),
        **{head: [spread(*ends, sign=True) for ends in data[[part, f"{part}_low", f"{part}_high"]].to_numpy()]
           for part, head in kinds.items()},
    })  # fmt: skip
    behind, ahead = (len(data.query(f"metric == 'overall' and {test}")) for test in ("loss_low > 0", "loss_high < 0"))
    finding = f"On the same records MULE is ahead of {behind} of {len(data) // 2} baselines in Overall, behind {ahead}."
    finding = f"{finding} The others are not told apart." if len(data) else "No baseline ran in both conditions."
    caption = (
        "MULE's lead over each baseline as the paper ran it, split: from the data is the baseline on MULE's records "
        "minus itself on its own, from the loss is MULE minus the baseline on the same records. Paired 95 % intervals; "
        "the paper prints no such split."
    )
    return Table("lead", data, shown, caption, finding)


def kinds_table(runs: Iterable[RunResult], benchmark: str, *, order: Iterable[str], name: str = "kinds") -> Table:
    """What the answers of every row are, set by set: percent of each kind, means over seeds.

    `data` has a line per row, set and kind; a cell of `shown` names the kinds down to half a percent, commonest first.
    """
    mine = [run for run in runs if run.benchmark == benchmark]
    lines = [
        (benchmark, run.row, names.method_of(run.row), names.condition(run.row), of, kind, 100 * shares.get(kind, 0))
        for run in mine
        for of in ANSWERED
        for shares in [run.details.get(of, {}).get("kinds")]
        for kind in (KINDS_OF_ANSWERS if shares else ())
    ]
    keys = ["benchmark", "line", "row", "condition", "set", "kind"]
    data = pd.DataFrame(lines, columns=[*keys, "value"]).groupby(keys, sort=False)["value"]
    data = data.agg(value="mean", seeds="size").reset_index()
    wide = data.pivot(index="line", columns=["set", "kind"], values="value")
    labels = {run.row: label(run.row, {run.row: run.label}) for run in mine}
    rows, sets = [row for row in order if row in wide.index], [of for of in ANSWERED if of in wide]
    heads = {of: names.METRIC_NAMES.get(of, "Attacks") for of in sets}
    shown = [{"Row": labels[row]} | {heads[of]: _kinds(wide.loc[row, of]) for of in sets} for row in rows]
    caption = (
        f"What the answers are, {measured_source(benchmark, mine)}: percent, means over seeds. Right: the reference "
        "comes out. Plausible: another value of the right kind. Broken: empty, looping or undecodable."
    )
    trained = wide.loc[[row for row in rows if row not in REFERENCES]].rename(index=labels)
    finding = _kinds_finding(trained, heads) if len(trained) else ""
    return Table(name, data.drop(columns="line").round(2), pd.DataFrame(shown), caption, finding)


def _kinds(shares: pd.Series) -> str:
    found = shares[shares >= 0.5].sort_values(ascending=False, kind="stable")
    return ", ".join(f"{kind.replace('_', ' ')} {number(share, 0)}" for kind, share in found.items())


def _kinds_finding(wide: pd.DataFrame, heads: Mapping[str, str]) -> str:
    """The commonest kind of answer to Forget, and which row is right least often where it should be."""
    most = wide["forget"].idxmax(axis=1)
    of = most.groupby(most).groups
    common = [f"{kind} for {listed([*of[kind]])}".replace("_", " ") for kind in KINDS_OF_ANSWERS if kind in of]
    least = {of: wide[of]["right"].idxmin() for of in heads if of not in ("forget", "attack")}
    worst = [f"{heads[of]} by {row} ({_kinds(wide.loc[row, of])})" for of, row in least.items()]
    return f"Commonest answers to Forget, %: {'; '.join(common)}. Least right: {'; '.join(worst)}."


def measurements(beyond: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """Every measurement with item values in a run's `beyond`: attack, condition in words, measurement."""
    for attack, found in beyond.items():
        if not isinstance(found, Mapping):
            continue
        points = {f"relearning, step {point['step']}": point for point in found.get("curve", [])}
        for part, one in {attack: found, **points, **found}.items():
            if isinstance(one, Mapping) and "values" in one:
                yield attack, CONDITIONS.get(part, part), one


def attacks_table(runs: Iterable[RunResult], benchmark: str, *, seed: int = 0) -> Table:
    """What is left under later attacks: a line per condition, a column per attacked row.

    `data` has a line per run, attack, condition and metric: points with a bootstrap 95 % interval over n items. A run's
    own metrics come first, with the attack "none"; runs that were not attacked are left out.
    """
    order, lines = list(names.LABELS), []
    mine = [run for run in runs if run.benchmark == benchmark and run.beyond]
    for run in sorted(mine, key=lambda run: order.index(run.row) if run.row in order else len(order)):
        for attack, part, one in [("none", PLAIN, {"values": run.values}), *measurements(run.beyond)]:
            for metric, values in one["values"].items():
                interval = bootstrap_interval(values, seed=seed)
                points = (round(100 * value, 2) for value in interval[:3])
                lines.append((benchmark, run.row, run.seed, attack, part, metric, *points, interval.n))
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
