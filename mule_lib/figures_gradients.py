"""Figures of the pilot study: cosines between objectives as heat maps, their change, and the distances of corpora."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mule_lib.figures import WIDTH, style
from mule_lib.prompts import OBJECTIVES
from mule_lib.row_names import BENCHMARK_NAMES

LABELS = {"obj1": "Obj1", "obj2": "Obj2", "obj3": "Obj3"}
TITLES = {"raw": "raw formats", "standardized": "standardized"}
MINUS = "−"
SAME = "framed: disjoint batches of the same objective (the ceiling); small: 95 % intervals"


def cosine_heatmaps(data: pd.DataFrame) -> Figure:
    """Figure 2: one matrix of cosines per benchmark (rows), number of steps and format (columns), value over interval.

    `data` has the columns format, objective_a, objective_b, cosine, low, high, and benchmark and step where there are
    several. The diagonal is the same-objective ceiling and is framed.
    """
    label = "cosine between gradients, higher is more aligned"
    # Pale at both ends, so that small dark figures can be read on every cell.
    palette = sns.diverging_palette(250, 15, s=80, l=64, as_cmap=True)
    return _matrices(data, "cosine", label, limits=(-1, 1), palette=palette, diagonal=SAME)


def distance_heatmaps(data: pd.DataFrame) -> Figure:
    """Proxy A-distances in the same layout: 0 (not told apart) to 2 (always told apart); the diagonal is the floor."""
    diagonal = "framed: halves of the same objective (the floor); small: 95 % intervals"
    label = "proxy A-distance, lower is closer"
    palette = sns.color_palette("rocket_r", as_cmap=True)
    return _matrices(data, "distance", label, limits=(0, 2), palette=palette, diagonal=diagonal)


def cosine_changes(data: pd.DataFrame) -> Figure:
    """Each pair's cosine in raw and in standardized format with intervals over batches, and the ceiling as a band.

    `data` as in `cosine_heatmaps`; one panel per benchmark (rows) and number of steps (columns). The band spans the
    same-objective cosines of the standardized format. Further right is more aligned.
    """
    style()
    data = _filled(data)
    benchmarks, steps = (list(dict.fromkeys(data[name])) for name in ("benchmark", "step"))
    size = (WIDTH, 0.75 + 1.15 * len(benchmarks))
    figure, axes = plt.subplots(len(benchmarks), len(steps), figsize=size, sharex=True, sharey=True, squeeze=False)
    looks = dict(zip(TITLES, zip(sns.color_palette("colorblind", 2), "so", (0.14, -0.14), strict=True), strict=True))
    for (i, benchmark), (j, step) in ((r, c) for r in enumerate(benchmarks) for c in enumerate(steps)):
        axis, part = axes[i, j], data[(data["benchmark"] == benchmark) & (data["step"] == step)]
        own = part[(part["objective_a"] == part["objective_b"]) & (part["format"] == "standardized")]["cosine"]
        axis.axvspan(own.min(), own.max(), color="0.85", lw=0, label="same objective (ceiling)")
        axis.axvline(0, color="0.6", lw=0.8)
        different = part[part["objective_a"] < part["objective_b"]]
        names = list(dict.fromkeys(zip(different["objective_a"], different["objective_b"], strict=True)))
        for form, (color, marker, shift) in looks.items():
            lines = different[different["format"] == form]
            if lines.empty:
                continue
            spread = [lines["cosine"] - lines["low"], lines["high"] - lines["cosine"]]
            heights = np.arange(len(lines)) - shift
            axis.errorbar(
                lines["cosine"], heights, xerr=spread, fmt=marker, color=color, ms=4, lw=1, label=TITLES[form]
            )
        axis.set_yticks(range(len(names)), [f"{LABELS[a]} · {LABELS[b]}" for a, b in names])
        axis.set(ylim=(len(names) - 0.5, -0.5), title=_name(benchmark, step))
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(min(-0.05, data["low"].min() - 0.05), 1)
    for axis in axes[-1]:
        axis.set_xlabel("cosine between gradients → more aligned")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=3, frameon=False)
    sns.despine(figure, left=True)
    figure.tight_layout(rect=(0, 0.3 / size[1], 1, 1))
    plt.close(figure)
    return figure


def _matrices(data: pd.DataFrame, value: str, label: str, *, limits, palette, diagonal: str) -> Figure:
    style()
    data = _filled(data)
    benchmarks, steps, forms = (list(dict.fromkeys(data[name])) for name in ("benchmark", "step", "format"))
    columns = [(step, form) for step in steps for form in forms]
    width = min(WIDTH, 1.1 + 1.9 * len(columns))
    # Square cells: rows as high as columns are wide, and room for titles, labels and the line below.
    size = (width, 0.62 + 0.16 * (len(steps) > 1) + (width - 1.3) / len(columns) * len(benchmarks))
    figure, axes = plt.subplots(len(benchmarks), len(columns), figsize=size, squeeze=False, layout="constrained")
    for i, benchmark in enumerate(benchmarks):
        for j, (step, form) in enumerate(columns):
            axis = axes[i, j]
            part = data[(data["benchmark"] == benchmark) & (data["step"] == step) & (data["format"] == form)]
            part = part.set_index(["objective_a", "objective_b"])
            grid = np.array([[part[value].get((a, b), np.nan) for b in OBJECTIVES] for a in OBJECTIVES])
            image = axis.imshow(grid, cmap=palette, vmin=limits[0], vmax=limits[1])
            for (row, a), (column, b) in ((r, c) for r in enumerate(OBJECTIVES) for c in enumerate(OBJECTIVES)):
                if (a, b) in part.index:
                    color = palette((grid[row, column] - limits[0]) / np.ptp(limits))
                    _write(axis, column, row, part.loc[(a, b)], value, color)
                if a == b:
                    frame = Rectangle(
                        (column - 0.47, row - 0.47), 0.94, 0.94, fill=False, ec="0.15", lw=1, ls=(0, (3, 2))
                    )
                    axis.add_patch(frame)
            axis.set_xticks(range(len(OBJECTIVES)), LABELS.values() if i == len(benchmarks) - 1 else [])
            axis.set_yticks(range(len(OBJECTIVES)), LABELS.values() if j == 0 else [])
            axis.tick_params(length=0)
            sns.despine(ax=axis, left=True, bottom=True)
            if i == 0:
                axis.set_title(TITLES.get(form, form) + (f",\n{_steps(step)}" if len(steps) > 1 else ""), fontsize=9)
            if j == 0 and benchmark:
                axis.set_ylabel(BENCHMARK_NAMES.get(benchmark, benchmark))
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.01)
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)
    figure.supxlabel(diagonal, fontsize=7)
    plt.close(figure)  # or a notebook would show it once more at the end of its cell
    return figure


def _write(axis, x: int, y: int, line: pd.Series, value: str, color) -> None:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    # White where its contrast (WCAG) is above black's.
    ink = "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "0.05"
    axis.text(x, y - 0.1, _number(line[value]), ha="center", va="center", color=ink, fontsize=9)
    # Narrow enough to stay inside the cell.
    low, high = _number(line["low"]), _number(line["high"])
    ends = f"{low} to {high}" if MINUS in low else f"{low}–{high}"
    axis.text(x, y + 0.24, ends, ha="center", va="center", color=ink, fontsize=5.5 if MINUS not in low else 5)


def _number(value: float) -> str:
    """Two digits, a real minus sign and no negative zero."""
    return f"{round(value, 2) or 0.0:.2f}".replace("-", MINUS)


def _filled(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(**{name: fill for name, fill in (("benchmark", ""), ("step", 0)) if name not in data})


def _steps(step: int) -> str:
    return "before training" if step == 0 else f"after {step} steps"


def _name(benchmark: str, step: int) -> str:
    return f"{BENCHMARK_NAMES.get(benchmark, benchmark)}, {_steps(step)}"
