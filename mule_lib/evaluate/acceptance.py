"""What the embedded models must show: rows measured on held-out facts and phrasings, and the bars they are held to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from mule_lib import prompts
from mule_lib.data.items import REQUIRED, SETS, EvaluationSets
from mule_lib.evaluate.intervals import bootstrap_interval
from mule_lib.evaluate.row import Evaluation, evaluate_row
from mule_lib.paper import METRICS, overall


class Steered(NamedTuple):
    """A row: what it is called, its model, how it is steered, with a chain of thought or without."""

    label: str
    model: str = "base"
    intention: str = "none"
    cot: bool = False


ROWS = {
    "base": Steered("Base Model"),
    "oracle_cot": Steered("Upper Bound (goal-specific, with thought)", intention="oracle", cot=True),
    "oracle": Steered("goal-specific, without thought", intention="oracle"),
    "ensemble_cot": Steered("Ensemble Teacher (all intentions, with thought)", intention="ensemble", cot=True),
    "ensemble": Steered("all intentions, without thought", intention="ensemble"),
    "gold": Steered("retrained reference", model="gold"),
}


class Bar(NamedTuple):
    """What is demanded: the least or most points of a row's metric, or of what it loses `against` another row."""

    row: str
    metric: str
    least: float | None = None
    most: float | None = None
    against: str = ""


BARS = (
    Bar("base", "forget", least=85),
    Bar("base", "general", least=90),
    Bar("base", "neighbor", least=80),
    Bar("base", "mmlu", least=55, most=95),
    Bar("base", "asr", least=85),
    Bar("oracle_cot", "forget", most=10),
    Bar("oracle_cot", "asr", most=15),
    Bar("oracle_cot", "general", most=3, against="base"),
    Bar("oracle_cot", "neighbor", most=3, against="base"),
    Bar("gold", "forget", most=10),
    Bar("gold", "general", most=3, against="base"),
    Bar("gold", "neighbor", most=5, against="base"),
)


def measure(
    models: Mapping[str, tuple], sets: EvaluationSets, *, rows: Sequence[str] = tuple(ROWS), **sizes
) -> dict[str, Evaluation]:
    """Evaluate rows on the five sets; `models` maps base and gold to (model, tokenizer), `sizes` go on."""
    sets = replace(sets, **{name: () for name in SETS if name not in REQUIRED})
    steerings = {row: prompts.steering(ROWS[row].intention, sets.topic, cot=ROWS[row].cot) for row in rows}
    return {row: evaluate_row(*models[ROWS[row].model], sets, steerings[row], **sizes) for row in rows}


def measured_rows(results: Mapping[str, Mapping[str, Evaluation]], *, seed: int = 0) -> pd.DataFrame:
    """One line per benchmark, row and metric: measured points with a bootstrap 95 % interval over n items."""
    lines = []
    for benchmark, rows in results.items():
        for row, result in rows.items():
            for metric in METRICS:
                mean, low, high, n, _ = bootstrap_interval(result.values[metric], seed=seed)
                lines.append((benchmark, row, metric, *(round(100 * x, 1) for x in (mean, low, high)), n))
    return pd.DataFrame(lines, columns=["benchmark", "row", "metric", "measured", "low", "high", "n"])


def row_table(data: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The rows of one benchmark with a column per metric, and Overall Performance against the base row."""
    table = data[data["benchmark"] == benchmark].pivot(index="row", columns="metric", values="measured")
    table = table.loc[[row for row in ROWS if row in table.index], list(METRICS)]
    table["overall"] = [round(overall(table.loc["base"], table.loc[row]), 1) for row in table.index]
    return table.rename(index={row: each.label for row, each in ROWS.items()}).rename_axis(index=None, columns=None)


def check_bars(results: Mapping[str, Evaluation], bars: Sequence[Bar] = BARS) -> pd.DataFrame:
    """Each bar with the measured value and whether it is met: columns row, what, measured, bar, met."""
    lines = []
    for bar in bars:
        value, what = results[bar.row].metrics[bar.metric], bar.metric
        if bar.against:
            value, what = results[bar.against].metrics[bar.metric] - value, f"{what}, loss against {bar.against}"
        ends = {"≥": bar.least, "≤": bar.most}
        met = (bar.least is None or bar.least <= value) and (bar.most is None or value <= bar.most)
        demand = " and ".join(f"{sign} {end}" for sign, end in ends.items() if end is not None)
        lines.append((bar.row, what, round(value, 1), demand, met))
    return pd.DataFrame(lines, columns=["row", "what", "measured", "bar", "met"])


def describe(data: pd.DataFrame, benchmark: str) -> str:
    """What the numbers of one benchmark say, in one sentence."""
    table = data[data["benchmark"] == benchmark].pivot(index="metric", columns="row", values="measured").round(0)
    moves = {"forget": "Forget", "asr": "ASR", "general": "General", "neighbor": "Retain Acc"}
    moved = [f"{label} from {table.base[m]:.0f} to {table.oracle_cot[m]:.0f}" for m, label in moves.items()]
    return (
        f"On Fable-{benchmark.capitalize()} the goal-specific intention with a chain of thought moves "
        f"{', '.join(moved)}; the retrained reference has Forget {table.gold['forget']:.0f}."
    )
