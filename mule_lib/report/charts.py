"""Figures of Tables 1 to 3: ranks, trade-offs, benign controls, differences to MULE, and the radars of Figure 3."""

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from mule_lib.paper import LOWER_IS_BETTER, METRICS, REPORTED
from mule_lib.report import names
from mule_lib.report.figures import WIDTH, Picture, dots, drawn_of, legend, panels
from mule_lib.report.findings import paper_source
from mule_lib.report.names import PAPER, REFERENCES, heading, label, method_of, metric_name, number, styles_of
from mule_lib.report.tables import ResultTable, as_printed

BROKEN = "✗: at least half of the answers to Forget are broken or of the wrong kind"
TWIN = "the same on MULE's records"
MARKS = "filled: as the paper ran it; empty: on MULE's records"


def _methods(table: ResultTable, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The data of some metrics, best in the first one first, and what `dots` takes: a line per method.

    A filled mark is the method as the paper ran it; the empty one below it was given MULE's records.
    """
    data = table.data[table.data["metric"].isin(metrics)].dropna(subset=["measured", "reported"], how="all").round(4)
    data = data.assign(label=data["row"].map(table.labels), method=data["row"].map(method_of))
    sign = -1 if metrics[0] in names.DOWN else 1
    first = data[data["metric"] == metrics[0]].assign(place=lambda lines: sign * lines["measured"].fillna(-np.inf))
    own = first.sort_values("condition", kind="stable").drop_duplicates("method")  # as the paper ran it, where it was
    order = own.sort_values("place", ascending=False, kind="stable")["method"]
    data = data.iloc[np.lexsort([data["method"].map([*order].index), data["metric"].map([*metrics].index)])]
    own = data["condition"] == PAPER
    drawn = data.assign(series=data["method"], value=data["measured"], hollow=~own)
    drawn["offset"] = 0.34 * drawn.duplicated(["method", "metric"])
    drawn["line"] = [label(method, table.labels) for method in data["method"]]
    drawn["panel"] = [heading(metric, table.benchmark) for metric in data["metric"]]
    return data.drop(columns="method"), drawn


def overall_ranks(table: ResultTable) -> Picture:
    """Overall per method with intervals, best first, broken text marked; ranks here and in the paper."""
    data, drawn = _methods(table, ["overall"])
    left, right = "\n".join(wrap(f"Here: {table.source}", 46)), "Rank here     Rank in the paper"
    drawn = pd.concat([drawn.assign(panel=left), drawn.assign(panel=right, value=np.nan)])
    words = f"Overall: points over base → (bars: 95 % intervals)\n{MARKS}" + f"\n{BROKEN}" * bool(table.broken)
    figure, ((own, ladder),) = dots(drawn, styles_of(drawn["series"]), xlabel=words, share=False)
    own.axvline(0, color="0.3", lw=0.9, zorder=0)
    lines = list(dict.fromkeys(drawn["line"]))
    at = {one.row: lines.index(one.line) + one.offset for one in drawn.itertuples()}
    looks = styles_of(data["row"])
    for row, high in data.loc[data["row"].isin(table.broken), ["row", "high"]].itertuples(index=False):
        own.annotate("✗", (high, at[row]), xytext=(4, 0), textcoords="offset points", va="center", size=8)
    ranks = {column: table.ranks(column) for column in ("measured", "reported")}
    data = data.assign(**{f"rank_{name}": data["row"].map(found) for name, found in ranks.items()})
    # The paper's k-th best stands at the height of the k-th best here, so that a level line is an equal place.
    both = data.dropna(subset=["measured", "reported"])
    heights = dict(zip(both.sort_values("reported", ascending=False)["row"], both["row"].map(at), strict=True))
    for row in data.loc[data["condition"] == PAPER, "row"]:
        ladder.text(-0.07, at[row], ranks["measured"].get(row, ""), ha="right", va="center", size=8)
    for row, height in heights.items():
        look = looks[row]
        ladder.plot([0, 1], [at[row], height], color=look.color, lw=look.width, marker=look.marker, ms=4.5)
        printed = as_printed(table.cell(row, "overall")["reported"])
        words = f"{ranks['reported'].get(row, '')}  {table.labels[row]} {printed}"
        color = names.MIDDLE if row in REFERENCES else names.DARK
        ladder.text(1.07, height, words.strip(), va="center", size=8, color=color)
    ladder.set(xlim=(-0.25, 2.6), xticks=[])
    ladder.grid(visible=False)
    sns.despine(ax=ladder, left=True, bottom=True)
    return Picture(figure, data, table.finding)


def benign_controls(table: ResultTable) -> Picture:
    """Benign questions behind the attackers' prefixes that are answered, and neighbours answered and refused, in %."""
    metrics = [m for m in ("controls", "neighbor_open", "neighbor_refused") if m in {*table.data["metric"]}]
    if not metrics:
        return Picture(None, table.data.iloc[:0], "Controls were not measured.")
    data, drawn = _methods(table, metrics)
    words = f"answers, % (bars: 95 % intervals); controls: benign questions behind attackers' prefixes\n{MARKS}"
    figure, _ = dots(drawn, styles_of(drawn["series"]), xlabel=words, limits=(-3, 103))
    return Picture(figure, data, table.answers.finding)


def trade_off(table: ResultTable) -> Picture:
    """Forget against Retain Acc, chosen among options and asked openly, and as reported; up and right is better."""
    ends, lines = ["measured", "low", "high"], []
    for metric, column in (("neighbor", "measured"), ("neighbor_open", "measured"), ("neighbor", "reported")):
        pair = [table.data[table.data["metric"] == one].set_index("row") for one in ("forget", metric)]
        for row in pair[0].index.intersection(pair[1].index):
            x, y = (one.loc[row, ends if column == "measured" else ["reported"] * 3].to_numpy(float) for one in pair)
            lines.append((f"{metric_name(metric)}, {column}", row, table.labels[row], *x, *y))
    keys = [f"{name}{end}" for name in ("forget", "retain") for end in ("", "_low", "_high")]
    data = pd.DataFrame(lines, columns=["panel", "row", "label", *keys]).dropna(subset=["forget", "retain"]).round(4)
    looks = styles_of(data["row"].map(method_of))
    figure, axes = panels(1, data["panel"].nunique(), 3.3)
    for axis, (name, part) in zip(axes.flat, data.groupby("panel", sort=False), strict=True):
        for one in part.itertuples():
            look, own = looks[method_of(one.row)], names.condition(one.row) == PAPER
            axis.hlines(one.retain, one.forget_low, one.forget_high, color=look.color, lw=0.8, alpha=0.7)
            axis.vlines(one.forget, one.retain_low, one.retain_high, color=look.color, lw=0.8, alpha=0.7)
            axis.plot(one.forget, one.retain, look.marker, color=look.color if own else "white", mec=look.color,
                      ms=8 if one.row == "mule" else 5.5, ls="none", label=label(method_of(one.row), table.labels),
                      zorder=4 if one.row == "mule" else 3)  # fmt: skip
        # Most of the methods forget nearly all: the last ten points take half of the axis.
        axis.set_xscale("symlog", linthresh=10, linscale=0.9)
        axis.set_xticks([0, 5, 10, 30, 100], ["0", "5", "10", "30", "100"])
        axis.set(xlabel=heading("forget"), xlim=(130, -1.5))
        axis.set_title(name, size=8.5)
        axis.grid(color="0.92", lw=0.7)
    axes[0, 0].set_ylabel(heading("neighbor"))
    figure.supxlabel(f"up and right is better; {MARKS}", size=8)
    legend(figure, axes.flat, dict.fromkeys(label(method_of(row), table.labels) for row in table.rows()), columns=4)
    return Picture(figure, data, table.finding)


def ablation(table: ResultTable) -> Picture:
    """Table 2: what each change to MULE costs; a panel per metric, better than MULE on the right.

    The paper's own differences are open diamonds; what lies far beyond the rest is cut off and has its number.
    """
    order = ("overall", *METRICS)
    lines = table.data[(table.data["row"] != "mule") & table.data["metric"].isin(order)]
    # Differences with the sign of Forget and ASR turned, so that right is better everywhere.
    sign = np.where(lines["metric"].isin(LOWER_IS_BETTER), -1, 1)
    ends = np.sort([sign * lines["difference_low"], sign * lines["difference_high"]], axis=0)
    printed = sign * (lines["reported"] - lines["metric"].map(lambda metric: table.cell("mule", metric)["reported"]))
    data = lines.assign(gain=sign * lines["difference"], low=ends[0], high=ends[1], reported_gain=printed)
    data["label"] = data["row"].map(table.labels)
    data = data[["benchmark", "row", "label", "metric", "gain", "low", "high", "reported_gain", "n", "seeds"]].round(4)
    data = data.sort_values("metric", key=lambda metric: metric.map(order.index), kind="stable")
    turned = {m: metric_name(m, table.benchmark) + (" (reversed)" if m in LOWER_IS_BETTER else "") for m in order}
    drawn = drawn_of(data, panel="metric", line="label", value="gain").assign(series="here")
    drawn["hollow"] = (drawn["low"] <= 0) & (drawn["high"] >= 0)
    drawn["panel"] = drawn["panel"].map(turned)
    words = "← worse than MULE     points, paired; filled: 95 % interval excludes 0; ◇: the paper     better →"
    figure, axes = dots(drawn, {"here": names.Style(names.BLUE, "-", "o")}, xlabel=words, columns=3, share=False)
    heights = {row: height for height, row in enumerate(dict.fromkeys(data["row"]))}
    for axis, metric in zip(axes.flat, order, strict=True):
        axis.axvline(0, color="0.25", lw=0.9, zorder=0)
        part = data[data["metric"] == metric].set_index("row")
        own = [heights[row] for row in part.index]
        axis.plot(part["reported_gain"], own, "D", color="none", mec=names.RED, ms=6, mew=1.3)
        far = part["gain"].abs().sort_values(ascending=False)
        shown = far.iloc[1] if len(far) > 1 and far.iloc[0] > 1.6 * far.iloc[1] > 0 else far.iloc[0]
        ends = part.loc[far <= shown, ["low", "high", "reported_gain"]].stack()
        low, high = 1.1 * min(-3, ends.min()), 1.1 * max(3, ends.max())
        axis.set_xlim(low, high)
        for row, gain in part.loc[far > shown, "gain"].items():
            side = {"ha": "left" if gain < 0 else "right", "va": "center", "size": 7.5, "backgroundcolor": "white"}
            words = f"◂ {number(gain)}" if gain < 0 else f"{number(gain)} ▸"
            axis.text(low if gain < 0 else high, heights[row], words, **side)
        for rows in [*table.groups.values()][1:]:
            if first := [heights[row] for row in rows if row in heights]:
                axis.axhline(min(first) - 0.5, color="0.6", lw=0.7)
    return Picture(figure, data, table.finding)


OUTLINES = ("upper_bound", "mule")
ANGLES = np.linspace(0, 2 * np.pi, len(METRICS), endpoint=False)
RINGS = "Outside is better: the rim is 0 for Forget and ASR, 100 for the others; a ring is 25 points."


def _radar_data(table: ResultTable, rows: Sequence[str]) -> pd.DataFrame:
    data = table.data[table.data["row"].isin(rows) & table.data["metric"].isin(METRICS)]
    data = data.sort_values("row", key=lambda row: row.map(list(rows).index), kind="stable")
    measured = data.assign(panel="measured", source=table.source, value=data["measured"])
    reported = data.assign(panel="reported", source=paper_source(table.name), value=data["reported"])
    data = pd.concat([measured, reported.assign(low=np.nan, high=np.nan)])
    data = data.groupby(["panel", "row"]).filter(lambda lines: lines["value"].notna().all())
    turned = data["metric"].isin(LOWER_IS_BETTER)
    for name, end in {"outside": "value", "outside_low": "low", "outside_high": "high"}.items():
        data[name] = data[end].astype(float).where(~turned, 100 - data[end].astype(float))
    kept = ["panel", "source", "row", "metric", "value", "outside", "low", "high", "outside_low", "outside_high"]
    return data[kept].round(4).reset_index(drop=True)


def _shape(axis: Axes, lines: pd.DataFrame, look: names.Style, **more) -> None:
    values = [*lines["outside"], *lines["outside"][:1]]
    more = {"color": look.color, "ls": look.line, "lw": look.width, "clip_on": False, "zorder": 3, **more}
    axis.plot([*ANGLES, 0], values, **more)


def _radar_axes(axis: Axes, texts: Sequence[str], size: float) -> None:
    axis.set(theta_offset=np.pi / 2, theta_direction=-1, ylim=(0, 100), yticks=[25, 50, 75, 100], xticks=ANGLES)
    axis.set(xticklabels=[], yticklabels=[])
    for angle, text in zip(ANGLES, texts, strict=True):  # on the spoke, and away from it
        across, up = np.sin(angle).round(2), np.cos(angle).round(2)
        axis.text(angle, 108, text, size=size, ha="left" if across > 0.1 else "right" if across < -0.1 else "center",
                  va="bottom" if up > 0.9 else "top" if up < -0.5 else "center", linespacing=1.1)  # fmt: skip
    axis.grid(color="0.87", lw=0.6)
    axis.spines["polar"].set_color("0.6")


def radars(table: ResultTable) -> Picture:
    """Figure 3 as small radars, one per method of the table, with Upper Bound and MULE as outlines; ours, if any.

    Filled is the method as the paper ran it, dotted the same on MULE's records; its numbers stand on their spokes.
    """
    methods = [row for row in REPORTED[table.name] if row not in OUTLINES]
    every = _radar_data(table, [*OUTLINES, *methods, *(names.TWINS[row] for row in methods if row in names.TWINS)])
    panel = every["panel"].iloc[0]
    data = every[every["panel"] == panel]
    shapes = dict(iter(data.groupby("row", sort=False)))
    methods, looks = [row for row in methods if row in shapes], styles_of(methods)
    rows = -(-len(methods) // 3)
    figure, axes = panels(rows, 3, 0, figsize=(WIDTH, 0.8 + 2.15 * rows), subplot_kw={"projection": "polar"})
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    named = [metric_name(metric, table.benchmark if panel == "measured" else "") for metric in METRICS]
    for axis, row in zip(axes.flat, methods, strict=False):
        lines, look = shapes[row], looks[row]
        _radar_axes(axis, [f"{n}\n{number(v)}" for n, v in zip(named, lines["value"], strict=True)], 7)
        for outline in OUTLINES:
            if outline in shapes:
                _shape(axis, shapes[outline], names.STYLES[outline], lw=1.2, label=label(outline))
        _shape(axis, lines, look, ls="-", lw=1.6, zorder=4)
        axis.fill([*ANGLES, 0], [*lines["outside"], lines["outside"].iloc[0]], color=look.color, alpha=0.25, lw=0)
        for angle, one in zip(ANGLES, lines.itertuples(), strict=True):
            axis.plot([angle] * 2, [one.outside_low, one.outside_high], color=look.color, lw=2.6, alpha=0.6)
        if (twin := names.TWINS.get(row)) in shapes:
            _shape(axis, shapes[twin], look, ls=":", lw=1.5, color=names.DARK, label=TWIN)
        axis.set_title(table.labels[row], size=9, loc="center", pad=22)
    legend(figure, axes.flat, [*map(label, OUTLINES), TWIN], handlelength=3.2)
    figure.supxlabel(f"{panel.capitalize()}: {data['source'].iloc[0]}.\n{RINGS}", size=7.5)
    return Picture(figure, data, f"{RINGS} {table.finding}")


def radar(table: ResultTable) -> Picture:
    """Figure 3 as the paper has it: its methods as it ran them in one radar, its numbers beside ours."""
    data, looks = _radar_data(table, [*REPORTED["table3"]]), styles_of(REPORTED["table3"])
    kinds = list(dict.fromkeys(data["panel"]))
    figure, axes = panels(1, len(kinds), 0, figsize=(WIDTH / 2 * len(kinds), 4), subplot_kw={"projection": "polar"})
    for axis, panel in zip(axes.flat, kinds, strict=True):
        part = data[data["panel"] == panel]
        _radar_axes(axis, [heading(m, table.benchmark if panel == "measured" else "") for m in METRICS], 8)
        for row, lines in part.groupby("row", sort=False):
            mark = {"marker": looks[row].marker, "ms": 3.6, "zorder": 3 + (row == "mule")}
            _shape(axis, lines, looks[row], label=label(row), **mark)
        title = "\n".join([panel.capitalize(), *wrap(part["source"].iloc[0], 34)])
        axis.set_title(title, size=8.5, loc="center", pad=24)
    legend(figure, axes.flat, map(label, looks), handlelength=3.2)
    figure.supxlabel(RINGS, size=7.5)
    return Picture(figure, data, f"{RINGS} {table.finding}")
