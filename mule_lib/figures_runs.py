"""Figures of many runs: Overall Performance per row, training curves, and how well the teacher obeyed."""

from collections.abc import Iterable, Sequence
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import beta

from mule_lib.figures import WIDTH, style
from mule_lib.figures_style import DARK, MIDDLE, style_of
from mule_lib.params import method_options
from mule_lib.results import RunResult, per_seed
from mule_lib.row_names import BENCHMARK_NAMES, REFERENCES, label
from mule_lib.tables import Table, paper_source

TEACHERS = {
    "oracle-cot": "goal-specific, with thought",
    "oracle": "goal-specific, without thought",
    "ensemble-cot": "ensemble, with thought",
    "ensemble": "ensemble, without thought",
}
ROLES = {
    "forget": "refuse",
    "adversarial": "refuse",
    "retain": "answer",
    "neighbor": "answer",
    "benign": "answer",
}


def overall_data(table: Table, runs: Iterable[RunResult] = ()) -> pd.DataFrame:
    """What `overall_dots` draws, best first: row, label, reported, measured, low, high, seeds, each seed's value."""
    data = table.data[table.data["metric"] == "overall"].copy()
    single = per_seed([run for run in runs if run.benchmark == table.benchmark])
    single = single[single["metric"] == "overall"]
    data["per_seed"] = [
        " ".join(f"{value:.2f}" for value in single.loc[single["row"] == row, "value"]) for row in data["row"]
    ]
    data.insert(2, "label", data["row"].map(table.labels))
    by = "measured" if table.measured else "reported"
    data = data.sort_values([by, "reported"], ascending=False, kind="stable", na_position="last")
    return data.drop(columns=["metric"]).round(4).reset_index(drop=True)


def overall_dots(data: pd.DataFrame, *, measured: str, reported: str) -> Figure:
    """One line per row, measured with intervals on the left, reported on the right; the titles say whose numbers."""
    style()
    both = bool(measured)
    figure, axes = plt.subplots(
        1, 1 + both, figsize=(WIDTH, 1.25 + 0.235 * len(data)), sharey=True, squeeze=False, layout="constrained"
    )
    heights = np.arange(len(data))
    if both:
        _measured_dots(axes[0][0], data, heights)
        axes[0][0].set_title(_title("Measured (bar: 95 % interval; strokes: seeds)", measured), size=8)
    right = axes[0][-1]
    for height, line in zip(heights, data.itertuples(), strict=True):
        if pd.notna(line.reported):
            look = style_of(line.row)
            right.plot(line.reported, height, marker="D", mfc="white", mec=look.color, mew=1.4, ms=5, ls="none")
    right.set_title(_title("Reported", reported), size=8)
    for axis in axes[0]:
        axis.axvline(0, color="0.3", lw=0.9, zorder=0)
        axis.set_xlabel("Overall: points over base →", size=8.5)
        axis.grid(axis="x", color="0.92", lw=0.7)
        axis.set_axisbelow(True)
    axes[0][0].set_ylim(len(data) - 0.4, -0.6)
    axes[0][0].set_yticks(heights, data["label"])
    for tick, row in zip(axes[0][0].get_yticklabels(), data["row"], strict=True):
        tick.set_color(MIDDLE if row in REFERENCES else DARK)
        tick.set_fontstyle("italic" if row in REFERENCES else "normal")
        tick.set_fontweight("bold" if row == "mule" else "normal")
    for axis in axes[0]:
        axis.tick_params(axis="y", length=0)
    sns.despine(figure, left=True)
    return figure


def overall_finding(data: pd.DataFrame, *, measured: str, reported: str) -> str:
    """Alt text: who leads among the trained rows, by how much, and whether the orders agree."""
    trained = data[~data["row"].isin(REFERENCES)]
    parts = []
    for column, source in (("measured", measured), ("reported", reported)):
        part = trained.dropna(subset=[column]).sort_values(column, ascending=False, kind="stable")
        if not source or part.empty:
            continue
        shown = [f"{line[column]:.1f}{_ends(line) if column == 'measured' else ''}" for _, line in part.iterrows()]
        text = f"{column.capitalize()} ({source}): {part['label'].iloc[0]} leads the trained rows with {shown[0]}"
        if len(part) > 1:
            text += f", then {part['label'].iloc[1]} with {shown[1]}"
        parts.append(text + ".")
    shared = trained.dropna(subset=["measured", "reported"])
    if measured and len(shared) > 3:
        agreement = shared["measured"].rank().corr(shared["reported"].rank())
        parts.append(f"The two orders of {len(shared)} trained rows correlate by {agreement:.2f} (Spearman).")
    missing = data.loc[data["measured"].isna(), "label"]
    if measured and len(missing):
        parts.append(f"Not run: {', '.join(missing)}.")
    return " ".join(parts)


def curves_data(runs: Iterable[RunResult], benchmark: str) -> pd.DataFrame:
    """Loss at every logged step of the trained rows of a benchmark: row, label, seed, step, loss."""
    parts = []
    for run in runs:
        curve = run.curve if run.benchmark == benchmark else pd.DataFrame()
        if not curve.empty:
            told = {"row": run.row, "label": label(run.row, {run.row: run.label}), "seed": run.seed}
            parts.append(curve[["step", "loss"]].assign(**told))
    columns = ["row", "label", "seed", "step", "loss"]
    return pd.concat(parts)[columns].reset_index(drop=True) if parts else pd.DataFrame(columns=columns)


def training_curves(data: pd.DataFrame, *, order: Sequence[str] = ()) -> Figure:
    """Small multiples, one per row with a line per seed; losses have units of their own, so no axis is shared."""
    style()
    found = list(dict.fromkeys(data["row"]))
    rows = [row for row in order if row in found] + [row for row in found if row not in order]
    columns = min(4, max(1, len(rows)))
    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(WIDTH, 0.5 + 1.25 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, rows, strict=False):
        part, look = data[data["row"] == row], style_of(row, rows)
        for _, curve in part.groupby("seed"):
            axis.plot(curve["step"], curve["loss"], color=look.color, lw=1, alpha=0.8)
        axis.set_title("\n".join(wrap(part["label"].iloc[0], 20)), size=7.5, linespacing=1.05)
        axis.tick_params(labelsize=6.5)
        axis.locator_params(nbins=4)
    figure.supxlabel("optimizer step", size=8.5)
    figure.supylabel("loss, each in its own unit", size=8.5)
    sns.despine(figure)
    return figure


def curves_finding(data: pd.DataFrame) -> str:
    """Alt text: whose loss fell, and whose did not, from first to last logged step, seeds averaged."""
    fell, rose = [], []
    for _, part in data.groupby("row", sort=False):
        ends = part.sort_values("step").groupby("seed")["loss"].agg(["first", "last"]).mean()
        (fell if ends["last"] < ends["first"] else rose).append(part["label"].iloc[0])
    text = f"Training loss over steps of {len(fell) + len(rose)} rows, a line per seed, each in its own unit: "
    text += f"it falls for {len(fell)}"
    return f"{text} and does not for {', '.join(rose)}." if rose else f"{text}, all of them."


def obedience_data(runs: Iterable[RunResult]) -> pd.DataFrame:
    """How often each teacher did as told: benchmark, teacher, objective, role, obeyed, low, high, n.

    Rows with the same teacher share its answers, so one run per benchmark and teacher is read. Rates in percent with
    Jeffreys 95 % intervals.
    """
    lines, seen = [], set()
    for run in runs:
        params = run.params
        teacher = method_options(run.method, params.get("options")).teacher_name if run.obedience else None
        if teacher is None or params.get("data_format", "unified") != "unified" or (run.benchmark, teacher) in seen:
            continue
        seen.add((run.benchmark, teacher))
        for one in run.obedience:
            n, hits = one["n"], round(one["obeyed"] * one["n"])
            low, high = (beta.ppf(q, hits + 0.5, n - hits + 0.5) for q in (0.025, 0.975))
            ends = (0.0 if hits == 0 else 100 * low, 100.0 if hits == n else 100 * high)
            lines.append((run.benchmark, teacher, one["objective"], one["role"], 100 * one["obeyed"], *ends, n))
    columns = ["benchmark", "teacher", "objective", "role", "obeyed", "low", "high", "n"]
    data = pd.DataFrame(lines, columns=columns).round(2)
    order = {name: place for place, name in enumerate(TEACHERS)}
    return data.sort_values(["benchmark", "teacher"], key=lambda c: c.map(order) if c.name == "teacher" else c,
                            kind="stable").reset_index(drop=True)  # fmt: skip


def obedience_dots(data: pd.DataFrame) -> Figure:
    """One panel per benchmark, one line per objective and role, a marker per teacher."""
    style()
    benchmarks, teachers = list(dict.fromkeys(data["benchmark"])), list(dict.fromkeys(data["teacher"]))
    groups = sorted({(line.objective, line.role) for line in data.itertuples()})
    figure, axes = plt.subplots(
        1, len(benchmarks), figsize=(WIDTH, 1.4 + 0.42 * len(groups)), sharey=True, squeeze=False
    )
    colors = dict(zip(TEACHERS, sns.color_palette("colorblind"), strict=False))
    markers, step = dict(zip(TEACHERS, "osD^", strict=True)), 0.7 / max(1, len(teachers))
    for axis, benchmark in zip(axes[0], benchmarks, strict=True):
        for i, teacher in enumerate(teachers):
            part = data[(data["benchmark"] == benchmark) & (data["teacher"] == teacher)]
            at = [groups.index((line.objective, line.role)) + (i - (len(teachers) - 1) / 2) * step
                  for line in part.itertuples()]  # fmt: skip
            spread = [part["obeyed"] - part["low"], part["high"] - part["obeyed"]]
            axis.errorbar(part["obeyed"], at, xerr=spread, fmt=markers[teacher], color=colors[teacher], ms=4.2, lw=1,
                          label=TEACHERS[teacher])  # fmt: skip
        axis.set(xlim=(-3, 103), xlabel="did as told, %; right is better")
        axis.set_title(BENCHMARK_NAMES.get(benchmark, benchmark), size=9)
        for i in range(len(groups) - 1):
            axis.axhline(i + 0.5, color="0.9", lw=0.8, zorder=0)
        axis.tick_params(axis="y", length=0)
    axes[0][0].set_yticks(range(len(groups)), [_group_name(*group) for group in groups])
    axes[0][0].set_ylim(len(groups) - 0.5, -0.5)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=2, frameon=False, fontsize=8)
    sns.despine(figure, left=True)
    figure.tight_layout(rect=(0, 0.45 / figure.get_figheight(), 1, 1))
    return figure


def obedience_finding(data: pd.DataFrame) -> str:
    """Alt text: each teacher's mean obedience and where it is least."""
    parts = []
    for (benchmark, teacher), part in data.groupby(["benchmark", "teacher"], sort=False):
        worst = part.loc[part["obeyed"].idxmin()]
        mean = (part["obeyed"] * part["n"]).sum() / part["n"].sum()
        parts.append(
            f"{BENCHMARK_NAMES.get(benchmark, benchmark)}, teacher {TEACHERS[teacher]}: {mean:.0f} % as told, least on "
            f"{_group_name(worst['objective'], worst['role'])} ({worst['obeyed']:.0f} %)."
        )
    return " ".join(parts)


def source_titles(table: Table) -> dict[str, str]:
    """The two sources of a table's numbers, as `overall_dots` and `overall_finding` take them."""
    return {"measured": table.source, "reported": paper_source(table.name)}


def _group_name(objective: str, role: str) -> str:
    return f"{objective}, {role.replace('neighbor', 'neighbour')}: {ROLES.get(role, 'as told')}"


def _ends(line: pd.Series) -> str:
    return f" [{line['low']:.1f}, {line['high']:.1f}]"


def _title(kind: str, source: str) -> str:
    return "\n".join([kind, *wrap(source, 40)])


def _measured_dots(axis, data: pd.DataFrame, heights: np.ndarray) -> None:
    for height, line in zip(heights, data.itertuples(), strict=True):
        if pd.isna(line.measured):
            axis.annotate("not run", (0, height), xytext=(4, 0), textcoords="offset points", size=7, va="center",
                          color="0.4")  # fmt: skip
            continue
        look = style_of(line.row, list(data["row"]))
        for value in map(float, line.per_seed.split()):
            axis.plot(value, height, "|", color=look.color, ms=7, mew=0.8, alpha=0.6)
        axis.plot([line.low, line.high], [height, height], color=look.color, lw=2, solid_capstyle="butt")
        axis.plot(line.measured, height, marker=look.marker, color=look.color, ms=5.5, mec="white", mew=0.5)
