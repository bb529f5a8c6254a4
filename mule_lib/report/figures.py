"""Every figure of the suite, drawn from tables and run folders: one look, with the data and the finding beside it."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mule_lib.data.files import write_text
from mule_lib.evaluate.result import RunResult
from mule_lib.paper import METRICS
from mule_lib.params import method_options
from mule_lib.report import beyond, tables
from mule_lib.report.names import DASHES, REFERENCES, Style, benchmark_name, heading, label, listed, number, styles_of
from mule_lib.report.results import run_file
from mule_lib.report.tables import Table

WIDTH = 6.9  # inches: a full text column of the paper
COLORS = sns.color_palette("colorblind").as_hex()


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
        write_text(folder / f"{name}.csv", self.data.replace(tables.names.FORMULA, regex=True).to_csv(index=False))
        write_text(folder / f"{name}.txt", f"{self.finding}\n")

    def _repr_png_(self) -> tuple[bytes, dict[str, object]]:
        return self._png, {"alt": self.finding, "width": int(100 * self.figure.get_figwidth())}

    @cached_property
    def _png(self) -> bytes:
        with io.BytesIO() as png:  # drawn once, for its file and for the notebook: a second each
            self.figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
            return png.getvalue()


def panels(rows: int, columns: int, height: float, **more) -> tuple[Figure, np.ndarray]:
    """A figure in the suite's look with `rows` x `columns` axes, `height` inches high."""
    rc = {"pdf.fonttype": 42, "axes.titlelocation": "left", "text.parse_math": False}  # "$" in a label is a dollar
    sns.set_theme(context="paper", style="ticks", rc=rc)
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

    `data` has the texts panel, line and series, and value, low, high; marks with `hollow` are empty, those with an
    `offset` stand below their line. A line without any value is "not run". Where lines have several series, `looks` is
    the legend.
    """
    names, lines = list(dict.fromkeys(data["panel"])), list(dict.fromkeys(data["line"]))
    several = data.groupby("line")["series"].nunique().max() > 1
    step, columns = 0.75 / len(looks) * several, columns or len(names)
    rows = -(-len(names) // columns)
    data = data.assign(**{name: data.get(name, value) for name, value in (("hollow", False), ("offset", 0))})
    room = max(0.235 + 0.1 * data["offset"].any(), 0.105 * len(looks) * several)
    height = rows * (0.6 + len(lines) * room) + 0.4 + 0.25 * several
    figure, axes = panels(rows, columns, height, sharey=True, sharex=share)
    for axis, name in zip(axes.flat, names, strict=False):
        part = data[(data["panel"] == name) & data["value"].notna()]
        for i, (series, look) in enumerate(looks.items()):
            for mark in part[part["series"] == series].itertuples():
                at = lines.index(mark.line) + (i - (len(looks) - 1) / 2) * step + mark.offset
                axis.plot([mark.low, mark.high], [at, at], color=look.color, lw=1.6, solid_capstyle="butt")
                axis.plot(mark.value, at, look.marker, color="white" if mark.hollow else look.color, mec=look.color,
                          ms=4.5, ls="none", label=series)  # fmt: skip
        for at in range(len(lines) - 1) if several else ():
            axis.axhline(at + 0.5, color="0.9", lw=0.8, zorder=0)
        axis.grid(axis="x", color="0.92", lw=0.7)
        axis.set_title(name, size=8.5)
        axis.set(axisbelow=True, **({"xlim": limits} if limits else {}))
        axis.tick_params(axis="y", length=0)
    ran = {*data.loc[(data["panel"] == names[0]) & data["value"].notna(), "line"]}
    for line in [line for line in lines if line not in ran]:
        axes[0, 0].annotate("not run", (0, lines.index(line)), xytext=(4, 0), textcoords="offset points", size=7,
                            va="center", color="0.4")  # fmt: skip
    axes[0, 0].set(ylim=(len(lines) - 0.6 + data["offset"].max(), -0.6), yticks=range(len(lines)), yticklabels=lines)
    for tick in axes[0, 0].get_yticklabels():  # what trains nothing in grey
        tick.set_color("0.43" if tick.get_text() in map(label, REFERENCES) else "0.13")
        tick.set_fontweight("bold" if tick.get_text() == label("mule") else "normal")
    figure.supxlabel(xlabel, size=8.5)
    if several:
        legend(figure, axes.flat, looks)
    return figure, axes


def metric_dots(data: pd.DataFrame, labels: Mapping[str, str], *, finding: str) -> Picture:
    """Five metrics as dots, one panel per benchmark; `labels` names the rows in their order.

    `data` has the columns benchmark, row, metric, measured, low, high (points).
    """
    data = data.sort_values("metric", key=lambda metric: metric.map(METRICS.index), kind="stable")
    drawn = drawn_of(data, panel="benchmark", line="metric", series="row", value="measured")
    named = partial(heading, benchmark=data["benchmark"].iloc[0])
    drawn = drawn.assign(line=drawn["line"].map(named), series=drawn["series"].map(labels))
    looks = {name: Style(*look) for name, *look in zip(labels.values(), COLORS, "-" * 8, "osD^vPX*", strict=False)}
    return Picture(dots(drawn, looks, xlabel="points (0 to 100)", limits=(-3, 103))[0], data, finding)


def drawn_of(data: pd.DataFrame, **columns: str) -> pd.DataFrame:
    """What `dots` takes: some columns under its names, benchmarks as readers know them."""
    drawn = pd.DataFrame({new: data[old] for new, old in columns.items()} | {end: data[end] for end in ("low", "high")})
    return drawn.assign(panel=drawn["panel"].map(benchmark_name))


def legend(figure: Figure, axes: Iterable[Axes], order: Iterable[str], columns: int = 4, **more) -> None:
    handles: dict[str, object] = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    names = [name for name in order if name in handles]
    figure.legend([handles[name] for name in names], names, loc="outside upper center", ncols=min(columns, len(names)),
                  frameon=False, fontsize=8, **more)  # fmt: skip


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
    went = f"From step {first['step']:g} to step {last['step']:g} the loss went from {first['loss']:.3g} to"
    fallen = f"{len(fell)} of its {len(terms)} terms fell ({listed(fell)})"
    return Picture(figure, data, f"{went} {last['loss']:.3g}; {fallen}.")


TEACHERS = {
    "oracle-cot": "goal-specific, with thought", "oracle": "goal-specific, without thought",
    "ensemble-cot": "ensemble, with thought", "ensemble": "ensemble, without thought",
}  # fmt: skip
REFUSES = ("forget", "adversarial")


def teacher_obedience(runs: Iterable[RunResult]) -> Picture:
    """How often each teacher did as its intention says, by objective and role, in percent.

    Rows with the same teacher share its answers, so one run per benchmark and teacher is read.
    """
    lines = []
    for run in runs:
        p = run_file(run, "params.json") if run.obedience else {}
        teacher = method_options(run.method, p.get("options")).teacher_name if p else None
        if teacher and p.get("data_format") != "raw":
            lines += [(run.benchmark, TEACHERS[teacher], g["objective"], g["role"], 100 * g["obeyed"], g["n"])
                      for g in run.obedience]  # fmt: skip
    data = pd.DataFrame(lines, columns=["benchmark", "teacher", "objective", "role", "obeyed", "n"]).round(2)
    data = data.drop_duplicates(["benchmark", "teacher", "objective", "role"]).sort_values("benchmark", kind="stable")
    if data.empty:
        return Picture(None, data, "No row with a teacher was run.")
    asked = np.where(data["role"].isin(REFUSES), "refuse", "answer")
    drawn = data.assign(line=data["objective"].str.capitalize() + ", " + data["role"] + ": " + asked)
    figure, axes = panels(1, drawn["benchmark"].nunique(), 3.4, sharey=True)
    for axis, (benchmark, part) in zip(axes.flat, drawn.groupby("benchmark"), strict=True):
        grid = part.pivot(index="line", columns="teacher", values="obeyed").reindex(columns=TEACHERS.values())
        grid = grid.dropna(axis="columns", how="all").rename(columns=lambda name: name.replace(", ", ",\n"))
        sns.heatmap(grid, annot=True, fmt=".0f", vmin=0, vmax=100, cmap="Blues", linewidths=1, cbar=False, ax=axis)
        axis.set(title=f"{benchmark_name(benchmark)}: % as asked", xlabel="", ylabel="")
        axis.tick_params(length=0, labelsize=8, axis="both", labelrotation=0)
    worst = drawn.loc[drawn.groupby(["benchmark", "teacher"])["obeyed"].idxmin()].itertuples()
    parts = [f"{benchmark_name(w.benchmark)}, {w.teacher}: {number(w.obeyed, 0)} % at {w.line}" for w in worst]
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
