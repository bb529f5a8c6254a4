"""Figure 3: five metrics as a radar, the paper's numbers beside ours; outside is better on every axis."""

from collections.abc import Sequence
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from mule_lib.figures import WIDTH, style
from mule_lib.figures_style import style_of
from mule_lib.paper import LOWER_IS_BETTER, METRICS
from mule_lib.row_names import METRIC_NAMES, label
from mule_lib.tables import Table, paper_source

# The rows of the paper's Figure 3, references first so that methods lie on top.
RADAR_ROWS = ("base", "upper_bound", "ensemble_teacher", "sft", "ngdiff", "mollm", "duet", "mule")
# Where the axes' names stand (angle, radius): clear of the rim and no wider than it.
PLACES = [(np.deg2rad(degrees), away) for degrees, away in ((0, 113), (55, 132), (143, 131), (217, 131), (305, 132))]
HALO = [patheffects.withStroke(linewidth=2, foreground="white")]
ANGLES = np.linspace(0, 2 * np.pi, len(METRICS), endpoint=False)


def outside(metric: str, value: float) -> float:
    """Where a value in points lies on its axis, 0 in the middle and 100 at the rim: Forget and ASR are turned over."""
    return 100 - value if metric in LOWER_IS_BETTER else value


def radar_data(table: Table, *, rows: Sequence[str] = RADAR_ROWS) -> pd.DataFrame:
    """What `radar` draws: panel, source, row, metric, value (points), outside, low, high; incomplete rows drop out.

    The reported panel comes first; the measured one is absent from a table of reported numbers alone.
    """
    lines = []
    for panel, source in (("reported", paper_source(table.name)), ("measured", _measured_source(table))):
        for row in rows if panel == "reported" or table.measured else ():
            if row not in table.rows():
                continue
            cells = {metric: table.cell(row, metric) for metric in METRICS}
            if any(pd.isna(cell[panel]) for cell in cells.values()):
                continue
            for metric, cell in cells.items():
                ends = (cell["low"], cell["high"]) if panel == "measured" else (None, None)
                lines.append((panel, source, row, metric, cell[panel], outside(metric, cell[panel]), *ends))
    columns = ["panel", "source", "row", "metric", "value", "outside", "low", "high"]
    return pd.DataFrame(lines, columns=columns).round(4)


def radar(data: pd.DataFrame) -> Figure:
    """One panel per kind of numbers, side by side, on the same axes."""
    style()
    panels = list(dict.fromkeys(data["panel"]))
    figure = plt.figure(figsize=(WIDTH if len(panels) > 1 else WIDTH / 2, 4.2 if len(panels) > 1 else 4.6))
    for i, panel in enumerate(panels):
        part = data[data["panel"] == panel]
        axis = figure.add_subplot(1, len(panels), i + 1, projection="polar")
        _axes(axis)
        for row in dict.fromkeys(part["row"]):
            _draw(axis, part[part["row"] == row], row)
        source = "\n".join(wrap(part["source"].iloc[0], 34))
        axis.text(0.5, 1.24, panel.capitalize(), transform=axis.transAxes, ha="center", size=9.5, weight="bold")
        axis.text(0.5, 1.225, source, transform=axis.transAxes, ha="center", va="top", size=8, linespacing=1.1)
    handles = {}
    for axis in figure.axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    order = [label(row) for row in RADAR_ROWS if label(row) in handles]
    order += [name for name in handles if name not in order]
    columns = 4 if len(panels) > 1 else 2
    drawn = [handles[name] for name in order]
    figure.legend(drawn, order, loc="lower center", ncols=columns, frameon=False, handlelength=3.2, fontsize=8)
    bottom = 0.17 if len(panels) > 1 else 0.27
    figure.subplots_adjust(left=0.09, right=0.91, top=0.8, bottom=bottom, wspace=0.38)
    return figure


def _axes(axis: PolarAxes) -> None:
    axis.set_theta_offset(np.pi / 2)
    axis.set_theta_direction(-1)
    axis.set_ylim(0, 100)
    axis.set_yticks([25, 50, 75, 100], [])
    axis.grid(color="0.85", lw=0.7)
    axis.spines["polar"].set_color("0.6")
    names = [f"{METRIC_NAMES[m]}{' ↓' if m in LOWER_IS_BETTER else ' ↑'}" for m in METRICS]
    axis.set_xticks(ANGLES, [])
    for (turn, away), metric, name in zip(PLACES, METRICS, names, strict=True):
        best = 0 if metric in LOWER_IS_BETTER else 100
        axis.text(turn, away, f"{name}\nrim = {best}", ha="center", va="center", size=7.5, linespacing=1.1)
    # The scale, in each axis' own numbers, along the first axis and a rising one.
    for angle, metric in ((ANGLES[0], METRICS[0]), (ANGLES[1], METRICS[1])):
        for at in (25, 50, 75):
            # Beside the axis, where the lines' corners are, and above them.
            axis.text(angle + np.deg2rad(400 / at), at, f"{outside(metric, at):g}", size=6.5, color="0.25",
                      ha="center", va="center", path_effects=HALO, zorder=5)  # fmt: skip


def _draw(axis: PolarAxes, part: pd.DataFrame, row: str) -> None:
    values = part.set_index("metric")["outside"].loc[list(METRICS)].to_numpy()
    look = style_of(row)
    closed = np.append(values, values[0]), np.append(ANGLES, ANGLES[0])
    how = {"color": look.color, "ls": look.line, "lw": look.width, "marker": look.marker, "ms": 3.6}
    axis.plot(closed[1], closed[0], **how, label=label(row), clip_on=False, zorder=4 if row == "mule" else 3)
    if row == "mule":
        axis.fill(closed[1], closed[0], color=look.color, alpha=0.12, zorder=2)


def radar_finding(data: pd.DataFrame) -> str:
    """Alt text: where each kind of numbers puts MULE against the upper bound and its best rival, metric by metric."""
    parts = ["Radar of five metrics; outside is better on every axis, Forget and ASR are turned over."]
    for panel in dict.fromkeys(data["panel"]):
        part = data[data["panel"] == panel]
        table = part.pivot(index="row", columns="metric", values="outside")
        source = part["source"].iloc[0]
        if "mule" not in table.index:
            parts.append(f"{panel.capitalize()} ({source}): MULE was not run.")
            continue
        rivals = table.drop(index=[r for r in ("mule", "base", "upper_bound", "ensemble_teacher") if r in table.index])
        ahead = [METRIC_NAMES[m] for m in METRICS if len(rivals) and table.loc["mule", m] >= rivals[m].max()]
        text = f"{panel.capitalize()} ({source}): MULE lies outermost of the trained rows on {_list(ahead)}"
        worst = table.loc["mule"].idxmin()
        value = part[(part["row"] == "mule") & (part["metric"] == worst)]["value"].iloc[0]
        text += f"; its innermost axis is {METRIC_NAMES[worst]} with {value:.1f} points"
        if "upper_bound" in table.index:
            gap = (table.loc["upper_bound"] - table.loc["mule"])[list(METRICS)]
            text += f"; the upper bound is farthest ahead on {METRIC_NAMES[gap.idxmax()]} (by {gap.max():.1f})"
        parts.append(text + ".")
    return " ".join(parts)


def _measured_source(table: Table) -> str:
    return table.source if table.measured else ""


def _list(names: Sequence[str]) -> str:
    if not names:
        return "none of the axes"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
