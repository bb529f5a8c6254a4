"""Figures from tables: one style, one colour and marker per row, each saved as PNG, PDF and CSV with alt text."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mule_lib.data.files import write_text
from mule_lib.row_names import BENCHMARK_NAMES

WIDTH = 6.9  # inches: a full text column of the paper
METRIC_LABELS = {
    "forget": "Forget ↓",
    "general": "General ↑",
    "neighbor": "Neighbour ↑",
    "asr": "ASR ↓",
    "mmlu": "MMLU ↑",
}


def style() -> None:
    """Set the look of every figure; call it once before drawing."""
    sns.set_theme(
        context="paper", style="ticks", palette="colorblind", rc={"pdf.fonttype": 42, "axes.titlelocation": "left"}
    )


def metric_dots(data: pd.DataFrame, labels: dict[str, str]) -> Figure:
    """Five metrics as dots with 95 % intervals, one panel per benchmark, one row of dots per metric.

    `data` has the columns benchmark, row, metric, measured, low, high (points); `labels` names the rows in their order.
    """
    style()
    benchmarks = list(dict.fromkeys(data["benchmark"]))
    colors = dict(zip(labels, sns.color_palette("colorblind", len(labels)), strict=True))
    markers = dict(zip(labels, "osD^vPX*", strict=False))
    figure, axes = plt.subplots(1, len(benchmarks), figsize=(WIDTH, 3.9), sharey=True, squeeze=False)
    step = 0.8 / len(labels)
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for i, row in enumerate(labels):
            part = (
                data[(data["benchmark"] == benchmark) & (data["row"] == row)]
                .set_index("metric")
                .loc[list(METRIC_LABELS)]
            )
            heights = [j + (i - (len(labels) - 1) / 2) * step for j in range(len(part))]
            spread = [part["measured"] - part["low"], part["high"] - part["measured"]]
            axis.errorbar(
                part["measured"],
                heights,
                xerr=spread,
                fmt=markers[row],
                color=colors[row],
                ms=4,
                lw=1,
                label=labels[row],
            )
        for j in range(len(METRIC_LABELS) - 1):
            axis.axhline(j + 0.5, color="0.9", lw=0.8, zorder=0)
        axis.set(xlim=(-3, 103), xlabel="points (0 to 100)", title=BENCHMARK_NAMES.get(benchmark, benchmark))
        axis.set_ylim(len(METRIC_LABELS) - 0.5, -0.5)
        axis.set_yticks(range(len(METRIC_LABELS)), METRIC_LABELS.values())
        axis.tick_params(axis="y", length=0)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=3, frameon=False)
    sns.despine(figure, left=True)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    return figure


def save(figure: Figure, folder: Path, name: str, *, data: pd.DataFrame, alt: str) -> None:
    """Write `name`.png, .pdf, .csv (the data) and .txt (the alt text, which states the finding) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=200)
    # Without a creation date the same data gives the same file.
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    write_text(folder / f"{name}.csv", data.to_csv(index=False))
    write_text(folder / f"{name}.txt", alt + "\n")
    # Else Jupyter shows an open figure once more at the end of the cell that displays it.
    plt.close(figure)
