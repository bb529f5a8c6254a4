"""Whether forgotten knowledge comes back: relearning, re-teaching in the prompt, quantization, new attacks."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mule_lib.figures import WIDTH, style
from mule_lib.figures_style import style_of
from mule_lib.robustness import NAMES, PLAIN
from mule_lib.row_names import label

CONDITIONS = (
    (PLAIN, "as trained"),
    ("int8", "8-bit weights"),
    ("int4", "4-bit weights"),
    ("disjoint", "told other facts"),
    ("same", "told the same facts"),
)
FAMILIES = ((PLAIN, "families of\nthe metric"), (NAMES["held_out_prefixes"], "unseen\nfamilies"))


def robustness(data: pd.DataFrame) -> Figure:
    """Forget over relearning steps, Forget by condition, and ASR of known and unseen families; one benchmark's data."""
    style()
    rows = list(dict.fromkeys(data["row"]))
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.4), gridspec_kw={"width_ratios": [1.15, 1, 0.75]})
    _relearning(axes[0], data, rows)
    _conditions(axes[1], data, rows, "forget", CONDITIONS)
    axes[1].set_title("Forget ↓ otherwise", size=8.5)
    _conditions(
        axes[2],
        data,
        rows,
        "asr",
        ((PLAIN, "families of\nthe metric"), (NAMES["held_out_prefixes"], "unseen\nfamilies")),
    )
    axes[2].set_title("ASR ↓ by prefix family", size=8.5)
    handles, names = axes[1].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=min(5, len(names)), frameon=False, fontsize=8)
    sns.despine(figure)
    figure.tight_layout(rect=(0, 0.09, 1, 1), w_pad=1.2)
    return figure


def _relearning(axis, data: pd.DataFrame, rows: list[str]) -> None:
    part = data[(data["attack"] == "relearning") & (data["metric"] == "forget")]
    part = part.assign(step=part["condition"].str.removeprefix("step ").astype(int)) if len(part) else part
    for row in rows:
        curve, look = part[part["row"] == row], style_of(row, rows)
        if len(curve):
            curve = curve.groupby("step")[["measured", "low", "high"]].mean()
            axis.fill_between(curve.index, curve["low"], curve["high"], color=look.color, alpha=0.13, lw=0)
            axis.plot(
                curve.index, curve["measured"], color=look.color, ls=look.line, marker=look.marker, ms=4, lw=look.width
            )
    if len(part):
        steps = sorted(part["step"].unique())
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks(steps, [str(step) for step in steps])
        axis.minorticks_off()
    else:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", size=8)
    axis.set(ylim=(-3, 103), xlabel="relearning steps", ylabel="points; lower is better")
    axis.set_title("Forget ↓ while relearning", size=8.5)


def _conditions(axis, data: pd.DataFrame, rows: list[str], metric: str, conditions) -> None:
    step = 0.75 / max(1, len(rows))
    for i, row in enumerate(rows):
        look, first = style_of(row, rows), True
        for j, (condition, _) in enumerate(conditions):
            found = data[(data["row"] == row) & (data["condition"] == condition) & (data["metric"] == metric)]
            if found.empty:
                continue
            value, low, high = found[["measured", "low", "high"]].mean()
            at = j + (i - (len(rows) - 1) / 2) * step
            axis.errorbar(
                at, value, yerr=[[value - low], [high - value]], fmt=look.marker, color=look.color, ms=4, lw=1,
                label=label(row) if first else None,
            )  # fmt: skip
            first = False
    for j in range(len(conditions) - 1):
        axis.axvline(j + 0.5, color="0.9", lw=0.8, zorder=0)
    axis.set(xlim=(-0.5, len(conditions) - 0.5), ylim=(-3, 103))
    turned = len(conditions) > 2
    axis.set_xticks(range(len(conditions)), [name for _, name in conditions], rotation=40 if turned else 0,
                    ha="right" if turned else "center", rotation_mode="anchor" if turned else None, size=7)  # fmt: skip
    axis.tick_params(axis="x", length=0)
