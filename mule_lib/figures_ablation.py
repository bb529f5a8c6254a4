"""Table 2 at one look: what each change to MULE costs, metric by metric, as paired differences."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mule_lib.figures import WIDTH, style
from mule_lib.figures_style import style_of
from mule_lib.paper import LOWER_IS_BETTER, METRICS
from mule_lib.row_names import METRIC_NAMES
from mule_lib.tables import Table

PANELS = ("overall", *METRICS)


def ablation_data(table: Table) -> pd.DataFrame:
    """What `ablation_differences` draws: row, label, metric, gain over MULE with interval (points), n, seeds.

    Gains are differences with the sign of Forget and ASR turned, so that right is better everywhere.
    """
    lines = table.data[(table.data["row"] != table.compared) & table.data["metric"].isin(PANELS)].copy()
    sign = np.where(lines["metric"].isin(LOWER_IS_BETTER), -1, 1)
    ends = np.sort(np.stack([sign * lines["difference_low"], sign * lines["difference_high"]]), axis=0)
    lines = lines.assign(gain=sign * lines["difference"], low=ends[0], high=ends[1])
    lines.insert(2, "label", lines["row"].map(table.labels))
    return lines[["benchmark", "row", "label", "metric", "gain", "low", "high", "n", "seeds"]].round(4)


def ablation_differences(data: pd.DataFrame) -> Figure:
    """A panel per metric, a line per variant; right of the line the variant is better than MULE."""
    style()
    rows = list(dict.fromkeys(data["row"]))
    names = dict(zip(data["row"], data["label"], strict=True))
    figure, axes = plt.subplots(
        1, len(PANELS), figsize=(WIDTH, 1.1 + 0.25 * len(rows)), sharey=True, layout="constrained",
        gridspec_kw={"width_ratios": [1.4, *(1 for _ in METRICS)]},
    )  # fmt: skip
    for axis, metric in zip(axes, PANELS, strict=True):
        part = data[data["metric"] == metric].set_index("row")
        for height, row in enumerate(rows):
            line, look = part.loc[row], style_of(row, rows)
            if pd.isna(line["gain"]):
                if metric == "overall":
                    axis.annotate("not run", (0, height), xytext=(4, 0), textcoords="offset points", size=7,
                                  va="center", color="0.4")  # fmt: skip
                continue
            sure = line["low"] > 0 or line["high"] < 0
            axis.plot([line["low"], line["high"]], [height, height], color=look.color, lw=1.8, solid_capstyle="butt")
            axis.plot(line["gain"], height, look.marker, color=look.color if sure else "white", mec=look.color, ms=4.2)
        axis.axvline(0, color="0.25", lw=0.9, zorder=0)
        axis.grid(axis="x", color="0.92", lw=0.7)
        axis.set_axisbelow(True)
        ends = part[["low", "high"]].to_numpy(float)
        low, high = min(-2.5, np.nanmin(ends, initial=0)), max(2.5, np.nanmax(ends, initial=0))
        axis.set_xlim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axis.locator_params(axis="x", nbins=3)
        axis.set_title(f"{METRIC_NAMES[metric]}\n{'(reversed)' if metric in LOWER_IS_BETTER else ''}", size=7.5)
        axis.tick_params(axis="x", labelsize=7)
        axis.tick_params(axis="y", length=0)
    axes[0].set_ylim(len(rows) - 0.4, -0.6)
    axes[0].set_yticks(range(len(rows)), [names[row] for row in rows], size=8)
    figure.supxlabel("← worse than MULE     points, paired; filled: 95 % interval excludes 0     better →", size=8.5)
    sns.despine(figure, left=True)
    return figure
