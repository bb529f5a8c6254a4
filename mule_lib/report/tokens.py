"""Single tokens of one answer, for notebook 03: bars of them, and contexts with the scored tokens in colour."""

from collections.abc import Iterable, Mapping
from html import escape

import pandas as pd
import seaborn as sns
from IPython.display import HTML

from mule_lib.report.figures import COLORS, Picture, panels

LOOKS = {"refusal": COLORS[2], "secret": COLORS[3], "other": "#b8b8b8"}
SCORED = "background:#9be0c8;color:#000;padding:0 2px"  # dark on light, also in a dark theme


def token_rows(tokenizer, panel: str, ids: Iterable[int], values: Iterable[float], kinds: Mapping[int, str]):
    """One row per token id for `token_bars`: panel, token, value, and kind, which is "other" unless `kinds` says so."""
    rows = [(panel, tokenizer.decode([i]).strip(), v, kinds.get(i, "other")) for i, v in zip(ids, values, strict=True)]
    return pd.DataFrame(rows, columns=["panel", "token", "value", "kind"])


def token_bars(data: pd.DataFrame, *, xlabel: str, finding: str) -> Picture:
    """Horizontal bars of the rows of `token_rows`, one panel for each `panel`; refusal and secret stand out."""
    names = data["panel"].unique()
    figure, axes = panels(1, len(names), 2.8, sharex=True)
    for axis, name in zip(axes[0], names, strict=True):
        own = data[data["panel"] == name]
        sns.barplot(own, x="value", y="token", hue="kind", palette=LOOKS, dodge=False, legend=False, ax=axis)
        axis.set(title=name, ylabel="", xlabel=xlabel)
        axis.axvline(0, color="black", lw=0.8)
        for bar, kind in zip(axis.get_yticklabels(), own["kind"], strict=True):
            bar.set(color=LOOKS[kind] if kind != "other" else "black", weight="bold" if kind != "other" else "normal")
    return Picture(figure, data, finding)


def contexts_table(columns: Mapping[str, tuple[str, str]]) -> HTML:
    """Contexts and the answers behind them side by side, `columns` by name; answers, which are scored, in colour."""
    cells = "".join(
        f"<td style='white-space:pre-wrap;text-align:left;vertical-align:top;width:50%'>{escape(context)}"
        f"<span style='{SCORED}'>{escape(answer)}</span></td>"
        for context, answer in columns.values()
    )
    heads = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in columns)
    return HTML(f"<table class='mathjax_ignore'><tr>{heads}</tr><tr>{cells}</tr></table>")
