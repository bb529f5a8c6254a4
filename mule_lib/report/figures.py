"""Every figure of the suite, drawn from tables and run folders: one look, with the data and the finding beside it."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import beta

from mule_lib.data.files import write_text
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import BENCHMARKS, LOWER_IS_BETTER, METRICS
from mule_lib.params import method_options
from mule_lib.report import beyond
from mule_lib.report.findings import paper_source
from mule_lib.report.names import (
    DARK,
    DASHES,
    MIDDLE,
    PAPER,
    REFERENCES,
    Style,
    benchmark_name,
    heading,
    label,
    listed,
    method_of,
    metric_name,
    number,
    styles_of,
)
from mule_lib.report.results import per_seed, run_file
from mule_lib.report.tables import ResultTable, Table

WIDTH = 6.9  # inches: a full text column of the paper
COLORS = sns.color_palette("colorblind").as_hex()
MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Picture:
    """A figure with the data that it draws and its alt text, which states the finding; no figure without data."""

    figure: Figure | None
    data: pd.DataFrame
    finding: str

    def write(self, folder: Path, name: str) -> None:
        """Write PNG, PDF, CSV and the alt text; the same data gives the same files."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(self._repr_png_()[0])
        self.figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
        write_text(folder / f"{name}.csv", self.data.to_csv(index=False))
        write_text(folder / f"{name}.txt", f"{self.finding}\n")

    def _repr_png_(self) -> tuple[bytes, dict[str, object]]:
        with io.BytesIO() as png:
            self.figure.savefig(png, format="png", dpi=200)
            return png.getvalue(), {"alt": self.finding, "width": int(100 * self.figure.get_figwidth())}


def panels(rows: int, columns: int, height: float, **more) -> tuple[Figure, np.ndarray]:
    """A figure in the suite's look with `rows` x `columns` axes, `height` inches high."""
    sns.set_theme(context="paper", style="ticks", rc={"pdf.fonttype": 42, "axes.titlelocation": "left"})
    more = {"squeeze": False, "layout": "constrained", "figsize": (WIDTH, height), **more}
    figure, axes = plt.subplots(rows, columns, **more)
    if "subplot_kw" not in more:  # a polar axis has no sides
        sns.despine(figure, left=True)
    # Else Jupyter shows an open figure once more at the end of its cell.
    plt.close(figure)
    return figure, axes


def dots(
    data: pd.DataFrame, looks: Mapping[str, Style], *, xlabel: str, columns: int = 0, share: bool = True,
    limits: tuple[float, float] | None = None,
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """Values with their intervals as dots: a panel per `panel`, a height per `line`, a mark per `series`.

    `data` has the texts panel, line and series, and value, low, high; marks with `hollow` are empty. A line without any
    value says what is `missing`, or "not run". Where lines have several series, `looks` is the legend.
    """
    names, lines = list(dict.fromkeys(data["panel"])), list(dict.fromkeys(data["line"]))
    several = data.groupby("line")["series"].nunique().max() > 1
    step, columns = 0.75 / len(looks) * several, columns or len(names)
    rows = -(-len(names) // columns)
    height = rows * (0.6 + len(lines) * max(0.235, 0.105 * len(looks) * several)) + 0.4 + 0.25 * several
    figure, axes = panels(rows, columns, height, sharey=True, sharex=share)
    data = data.assign(hollow=data.get("hollow", False))
    for axis, name in zip(axes.flat, names, strict=False):
        part = data[(data["panel"] == name) & data["value"].notna()]
        for i, (series, look) in enumerate(looks.items()):
            for mark in part[part["series"] == series].itertuples():
                at = lines.index(mark.line) + (i - (len(looks) - 1) / 2) * step
                axis.plot([mark.low, mark.high], [at, at], color=look.color, lw=1.6, solid_capstyle="butt")
                axis.plot(mark.value, at, look.marker, color="white" if mark.hollow else look.color, mec=look.color,
                          ms=4.5, ls="none", label=series)  # fmt: skip
        for at in range(len(lines) - 1) if several else ():
            axis.axhline(at + 0.5, color="0.9", lw=0.8, zorder=0)
        axis.grid(axis="x", color="0.92", lw=0.7)
        axis.set_title(name, size=8.5)
        axis.set(axisbelow=True, **({"xlim": limits} if limits else {}))
        axis.tick_params(axis="y", length=0)
    missing = dict(zip(data["line"], data.get("missing", ["not run"] * len(data)), strict=True))
    first = data[(data["panel"] == names[0]) & data["value"].notna()]
    for line in set(lines).difference(first["line"]):
        axes[0, 0].annotate(missing[line], (0, lines.index(line)), xytext=(4, 0), textcoords="offset points", size=7,
                            va="center", color="0.4")  # fmt: skip
    axes[0, 0].set(ylim=(len(lines) - 0.4, -0.6), yticks=range(len(lines)), yticklabels=lines)
    figure.supxlabel(xlabel, size=8.5)
    if several:
        _legend(figure, axes.flat, looks)
    return figure, axes


def metric_dots(data: pd.DataFrame, labels: Mapping[str, str], *, finding: str) -> Picture:
    """Five metrics as dots, one panel per benchmark; `labels` names the rows in their order.

    `data` has the columns benchmark, row, metric, measured, low, high (points).
    """
    data = data.sort_values("metric", key=lambda metric: metric.map(METRICS.index), kind="stable")
    drawn = _drawn(data, panel="benchmark", line="metric", series="row", value="measured")
    named = partial(heading, benchmark=data["benchmark"].iloc[0])
    drawn = drawn.assign(line=drawn["line"].map(named), series=drawn["series"].map(labels))
    looks = palette(labels.values())
    return Picture(dots(drawn, looks, xlabel="points (0 to 100)", limits=(-3, 103))[0], data, finding)


def _drawn(data: pd.DataFrame, **columns: str) -> pd.DataFrame:
    """What `dots` takes: some columns under its names, benchmarks as readers know them."""
    drawn = pd.DataFrame({new: data[old] for new, old in columns.items()} | {end: data[end] for end in ("low", "high")})
    return drawn.assign(panel=drawn["panel"].map(benchmark_name))


def palette(names: Iterable[str]) -> dict[str, Style]:
    return {name: Style(color, "-", marker) for name, color, marker in zip(names, COLORS, MARKERS, strict=False)}


def _legend(figure: Figure, axes: Iterable[Axes], order: Iterable[str], **more) -> None:
    handles: dict[str, object] = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    names = [name for name in order if name in handles]
    figure.legend([handles[name] for name in names], names, loc="outside upper center", ncols=min(4, len(names)),
                  frameon=False, fontsize=8, **more)  # fmt: skip


# Tables 1 to 3 --------------------------------------------------------------------------------------------------------


def overall_intervals(table: ResultTable, runs: Iterable[RunResult] = ()) -> Picture:
    """Overall per method, best first: measured with intervals and single seeds on the left, reported on the right.

    A filled mark is the method as the paper ran it; the empty one below it was given MULE's records.
    """
    data = table.data[table.data["metric"] == "overall"].drop(columns="metric").round(4)
    data.insert(2, "label", data["row"].map(table.labels))
    data = data.sort_values(["measured", "reported"], ascending=False, kind="stable", na_position="last")
    sources = {"measured": table.source, "reported": paper_source(table.name)}
    methods = data["row"].map(method_of)
    twins = (data["condition"] != PAPER) & methods.isin(data.loc[data["condition"] == PAPER, "row"])
    own = data.assign(label=methods.map(table.labels).fillna(data["label"]), hollow=data["condition"] != PAPER)[~twins]
    drawn = pd.concat(
        own.assign(panel="\n".join([column.capitalize(), *wrap(source, 40)]), value=own[column])
        for column, source in sources.items()
    ).rename(columns={"label": "line", "row": "series"})
    drawn.loc[drawn["panel"].str.startswith("Reported"), ["low", "high"]] = np.nan
    looks = styles_of(data["row"])
    words = "Overall: points over base → (bar: 95 % interval; strokes: seeds)"
    words += "\nfilled: as the paper ran it; empty: the same method on MULE's data" * bool(twins.any())
    figure, axes = dots(drawn, {row: looks[row] for row in own["row"]}, xlabel=words, share=False)
    places = dict(zip(own["row"], range(len(own)), strict=True))
    places |= {row: places[method_of(row)] + 0.32 for row in data.loc[twins, "row"]}
    for row, value, low, high in data.loc[twins, ["row", "measured", "low", "high"]].itertuples(index=False):
        look, at = looks[row], places[row]
        axes[0, 0].plot([low, high], [at, at], color=look.color, lw=1.2, solid_capstyle="butt")
        axes[0, 0].plot(value, at, look.marker, color="white", mec=look.color, ms=4, ls="none")
    if twins.any():  # two marks a line take more room
        figure.set_figheight(1.35 * figure.get_figheight())
    single = per_seed(run for run in runs if run.benchmark == table.benchmark)
    single = single.pivot(index="row", columns="seed", values="overall").add_prefix("seed_").round(4)
    data = data.merge(single, left_on="row", right_index=True, how="left")
    for row, *values in data[["row", *single]].itertuples(index=False):
        axes[0, 0].plot(values, [places[row]] * len(values), "|", color=looks[row].color, ms=7, mew=0.8, alpha=0.6)
    for tick, row in zip(axes[0, 0].get_yticklabels(), own["row"], strict=True):
        tick.set(color=MIDDLE if row in REFERENCES else DARK, fontweight="bold" if row == "mule" else "normal")
    for axis in axes.flat:
        axis.axvline(0, color="0.3", lw=0.9, zorder=0)
    parts = []
    for column in sources:
        best = sorted(table.trained("overall", column).items(), key=lambda item: -item[1])[:3]
        if best:
            names = [f"{table.labels[row]} {number(value)}" for row, value in best]
            parts.append(f"{column.capitalize()} ({sources[column]}), the best trained rows are {listed(names)}.")
    return Picture(figure, data, " ".join(parts))


def ablation(table: ResultTable) -> Picture:
    """Table 2: what each change to MULE costs; a panel per metric, better than MULE on the right."""
    order = ("overall", *METRICS)
    lines = table.data[(table.data["row"] != "mule") & table.data["metric"].isin(order)]
    # Differences with the sign of Forget and ASR turned, so that right is better everywhere.
    sign = np.where(lines["metric"].isin(LOWER_IS_BETTER), -1, 1)
    ends = np.sort([sign * lines["difference_low"], sign * lines["difference_high"]], axis=0)
    gain, labels = sign * lines["difference"], lines["row"].map(table.labels)
    data = lines.assign(label=labels, gain=gain, low=ends[0], high=ends[1])
    data = data[["benchmark", "row", "label", "metric", "gain", "low", "high", "n", "seeds"]].round(4)
    drawn = _drawn(data, panel="metric", line="label", series="row", value="gain")
    drawn["hollow"] = (drawn["low"] <= 0) & (drawn["high"] >= 0)
    turned = {m: metric_name(m, table.benchmark) + (" (reversed)" if m in LOWER_IS_BETTER else "") for m in order}
    drawn = drawn.sort_values("panel", key=lambda panel: panel.map(order.index), kind="stable")
    drawn["panel"] = drawn["panel"].map(turned)
    looks = styles_of(data["row"].unique())
    words = "← worse than MULE     points, paired; filled: 95 % interval excludes 0     better →"
    figure, axes = dots(drawn, looks, xlabel=words, columns=3, share=False)
    for axis in axes.flat:
        axis.axvline(0, color="0.25", lw=0.9, zorder=0)
        axis.set_xlim(min(-2.5, axis.get_xlim()[0]), max(2.5, axis.get_xlim()[1]))
    return Picture(figure, data, table.finding)


# The rows of the paper's Figure 3, references first so that methods lie on top.
RADAR_ROWS = ("base", "upper_bound", "ensemble_teacher", "sft", "ngdiff", "mollm", "duet", "mule")
ANGLES = np.linspace(0, 2 * np.pi, len(METRICS), endpoint=False)


def radar(table: ResultTable, rows: Sequence[str] = RADAR_ROWS) -> Picture:
    """Figure 3: five metrics as a radar, the paper's numbers beside ours; outside is better, Forget and ASR are turned.

    Baselines are drawn as the paper ran them, not on MULE's records. Rows that lack a metric drop out of their panel.
    """
    data = table.data[table.data["row"].isin(rows) & table.data["metric"].isin(METRICS)]
    data = data.sort_values("row", key=lambda row: row.map(list(rows).index), kind="stable")
    reported = data.assign(
        panel="reported", source=paper_source(table.name), value=data["reported"], low=None, high=None
    )
    measured = data.assign(panel="measured", source=table.source, value=data["measured"])
    data = pd.concat([reported, measured])
    data = data.groupby(["panel", "row"]).filter(lambda lines: lines["value"].notna().all())
    data["outside"] = data["value"].where(~data["metric"].isin(LOWER_IS_BETTER), 100 - data["value"])
    data = data[["panel", "source", "row", "metric", "value", "outside", "low", "high"]].round(4).reset_index(drop=True)
    kinds, looks = list(dict.fromkeys(data["panel"])), styles_of(rows)
    size = (WIDTH if len(kinds) > 1 else WIDTH / 2, 4.1)
    figure, axes = panels(1, len(kinds), 0, figsize=size, subplot_kw={"projection": "polar"})
    for axis, panel in zip(axes.flat, kinds, strict=True):
        part = data[data["panel"] == panel]
        _radar_axes(axis, BENCHMARKS[table.name] if panel == "reported" else table.benchmark)
        for row, lines in part.groupby("row", sort=False):
            look, values = looks[row], [*lines["outside"], lines["outside"].iloc[0]]
            axis.plot([*ANGLES, 0], values, color=look.color, ls=look.line, lw=look.width, marker=look.marker, ms=3.6,
                      label=label(row), clip_on=False, zorder=4 if row == "mule" else 3)  # fmt: skip
            if row == "mule":
                axis.fill([*ANGLES, 0], values, color=look.color, alpha=0.12, zorder=2)
        title = "\n".join([panel.capitalize(), *wrap(part["source"].iloc[0], 34)])
        axis.set_title(title, size=8.5, loc="center", pad=20)
    _legend(figure, axes.flat, map(label, rows), handlelength=3.2)
    return Picture(figure, data, _radar_finding(data, table.benchmark))


def _radar_axes(axis: Axes, benchmark: str) -> None:
    rims = [f"{heading(metric, benchmark)}\nrim = {0 if metric in LOWER_IS_BETTER else 100}" for metric in METRICS]
    axis.set(theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, 100))
    # Two scales, since Forget runs inwards: the first axis has the numbers of its own.
    axis.set_yticks([25, 50, 75, 100], ["75", "50", "25", ""], size=6.5, color="0.25")
    axis.set_rlabel_position(0)
    axis.set_xticks(ANGLES, rims, size=7.5)
    axis.tick_params(axis="x", pad=9)
    axis.grid(color="0.85", lw=0.7)
    axis.spines["polar"].set_color("0.6")


def _radar_finding(data: pd.DataFrame, benchmark: str) -> str:
    """Where each kind of numbers puts MULE against the Upper Bound and its best rival, metric by metric."""
    parts = ["Outside is better on every axis, Forget and ASR are turned over."]
    for (panel, source), part in data.groupby(["panel", "source"], sort=False):
        outside = part.pivot(index="row", columns="metric", values="outside")[[*METRICS]]
        outside.columns = [metric_name(m, benchmark if panel == "measured" else "") for m in METRICS]
        if {"mule", "upper_bound"} <= set(outside.index):
            rivals = outside[~outside.index.isin({*REFERENCES, "mule"})].max()
            ahead, gap = rivals <= outside.loc["mule"], outside.loc["upper_bound"] - outside.loc["mule"]
            parts.append(
                f"{panel.capitalize()} ({source}): MULE lies outermost of the trained rows on "
                f"{listed([*ahead.index[ahead]])}; Upper Bound is farthest ahead on {gap.idxmax()} (by "
                f"{number(gap.max())})."
            )
    return " ".join(parts)


# Training -------------------------------------------------------------------------------------------------------------


def training_curve(log: Sequence[Mapping[str, float]], *, title: str) -> Picture:
    """The loss of one run: the whole in black, and each of several terms in a colour and line style of its own.

    `log` holds entries with `step`, `loss` and `loss_<term>`.
    """
    data = pd.DataFrame(log)
    terms = [name for name in data if name.startswith("loss_")]
    figure, axes = panels(1, 1, 2.6)
    axes[0, 0].plot(data["step"], data["loss"], color="black", lw=1.8, label="sum of all terms")
    for name, color, dash in zip(terms if len(terms) > 1 else [], COLORS, DASHES * 2, strict=False):
        axes[0, 0].plot(data["step"], data[name], color=color, ls=dash, lw=1.4, label=name.removeprefix("loss_"))
    axes[0, 0].set(xlabel="optimizer step", ylabel="loss", title=title)
    axes[0, 0].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    first, last = data.iloc[0], data.iloc[-1]
    fell = [name.removeprefix("loss_") for name in terms if last[name] < first[name]]
    finding = (
        f"From step {first['step']:g} to step {last['step']:g} the loss went from {first['loss']:.3g} to "
        f"{last['loss']:.3g}; {len(fell)} of its {len(terms)} terms fell ({listed(fell)})."
    )
    return Picture(figure, data, finding)


TEACHERS = {
    "oracle-cot": "goal-specific, with thought",
    "oracle": "goal-specific, without thought",
    "ensemble-cot": "ensemble, with thought",
    "ensemble": "ensemble, without thought",
}
REFUSES = ("forget", "adversarial")


def teacher_obedience(runs: Iterable[RunResult]) -> Picture:
    """How often each teacher did as its intention says, by objective and role: percent with Jeffreys 95 % intervals.

    Rows with the same teacher share its answers, so one run per benchmark and teacher is read.
    """
    shared = {}
    for run in runs:
        p = run_file(run, "params.json") if run.obedience else {}
        teacher = method_options(run.method, p.get("options")).teacher_name if p else None
        if teacher and p.get("data_format") != "raw":
            shared.setdefault((run.benchmark, teacher), run.obedience)
    lines = []
    for (benchmark, teacher), groups in sorted(
        shared.items(), key=lambda item: (item[0][0], [*TEACHERS].index(item[0][1]))
    ):
        for group in groups:
            n, hits = group["n"], round(group["obeyed"] * group["n"])
            low, high = (beta.ppf(q, hits + 0.5, n - hits + 0.5) for q in (0.025, 0.975))
            ends = (0.0 if hits == 0 else 100 * low, 100.0 if hits == n else 100 * high)
            lines.append((benchmark, teacher, group["objective"], group["role"], 100 * group["obeyed"], *ends, n))
    columns = ["benchmark", "teacher", "objective", "role", "obeyed", "low", "high", "n"]
    data = pd.DataFrame(lines, columns=columns).round(2)
    if data.empty:
        return Picture(None, data, "No row with a teacher was run.")
    drawn = _drawn(data, panel="benchmark", line="role", series="teacher", value="obeyed")
    drawn["line"] = [
        f"{line.objective.capitalize()}, {line.role}: {'refuse' if line.role in REFUSES else 'answer'}"
        for line in data.itertuples()
    ]
    worst = drawn.loc[drawn.groupby(["panel", "series"], sort=False)["value"].idxmin()]
    parts = [f"{w.panel}, {TEACHERS[w.series]}: {number(w.value, 0)} % at {w.line}" for w in worst.itertuples()]
    drawn = drawn.assign(series=drawn["series"].map(TEACHERS)).sort_values("line", kind="stable")
    looks = {name: look for name, look in palette(TEACHERS.values()).items() if name in set(drawn["series"])}
    figure, _ = dots(drawn, looks, xlabel="answers as the intention asks, %; right is better", limits=(-3, 103))
    return Picture(figure, data, f"Where each teacher obeys its intention least: {'; '.join(parts)}.")


def robustness(table: Table) -> Picture:
    """Forget and ASR under later attacks, a line per condition and a mark per row of `beyond.attacks_table`."""
    if table.data.empty:
        return Picture(None, table.data, table.finding)
    drawn = beyond.means(table.data).rename(columns={"measured": "value"})
    looks = {label(row): look for row, look in styles_of(drawn["row"].unique()).items()}
    drawn = drawn.assign(panel=benchmark_name(table.data["benchmark"].iloc[0]), series=drawn["row"].map(label))
    figure, _ = dots(drawn, looks, xlabel="points; left is better", limits=(-3, 103))
    return Picture(figure, table.data, table.finding)
