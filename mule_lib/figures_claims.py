"""All verdicts at one look: one line per claim, how far beyond its threshold, and whether the paper's numbers agree."""

from collections.abc import Sequence
from textwrap import shorten

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mule_lib.claims import Judged, title
from mule_lib.report.figures import WIDTH, style

BLUE, VERMILION = (sns.color_palette("colorblind")[i] for i in (0, 3))
# Colour-blind safe, and told apart by shape as well.
MARKS = {"holds": ("o", BLUE), "undecided": ("s", "0.4"), "fails": ("X", VERMILION)}
# Margins in hundredths: points and percent as they are, a cosine or a ratio of 1 as 100, an A-distance of 2 as 100.
SCALE = {"points": 1.0, "% of base": 1.0, "cosine": 100.0, "distance": 50.0, "times": 100.0}
LIMIT = 100.0
AGREES = {"yes": "yes", "no": "no", "not printed": "–"}


def verdicts_data(judged: Sequence[Judged]) -> pd.DataFrame:
    """What `claim_verdicts` draws, grouped by verdict: id, verdict, margin, low, high (hundredths), reported_meets."""
    rows = []
    for one in judged:
        scale = SCALE[one.decisive.comparison.threshold.unit] if one.decisive else float("nan")
        margin, low, high = (scale * end for end in one.margin) if one.margin else (float("nan"),) * 3
        rows.append(
            {
                "id": one.claim.id,
                "verdict": one.verdict,
                "margin": margin,
                "low": low,
                "high": high,
                "reported_meets": one.reported_meets,
                "missing": _missing(one),
            }
        )
    order = {verdict: place for place, verdict in enumerate(MARKS)}
    return pd.DataFrame(rows).sort_values("verdict", key=lambda column: column.map(order), kind="stable")


def claim_verdicts(data: pd.DataFrame) -> Figure:
    """Claims grouped by verdict, with the margin of the decisive comparison beyond its threshold and its interval."""
    style()
    found = [verdict for verdict in MARKS if verdict in set(data["verdict"])]
    figure, axis = plt.subplots(figsize=(WIDTH, 1.15 + 0.225 * (len(data) + 1.4 * len(found))))
    # Beside the axis: names and columns keep their places whatever the margins are.
    beside = {"transform": axis.get_yaxis_transform(), "va": "center"}
    axis.text(1.07, -1.2, "paper's own\nnumbers\nmeet it", ha="center", size=7.5, linespacing=1.1, **beside)
    height, ticks, names = 0.0, [], []
    for verdict in found:
        group = data[data["verdict"] == verdict]
        mark, color = MARKS[verdict]
        axis.text(-0.02, height, f"{verdict} ({len(group)})", ha="right", weight="bold", color=color, **beside)
        for line in group.itertuples():
            height += 1
            ticks.append(height)
            names.append(title(line.id))
            axis.axhline(height, color="0.94", lw=0.7, zorder=0)
            weight = "bold" if line.reported_meets == "no" else "normal"
            axis.text(1.07, height, AGREES[line.reported_meets], ha="center", size=8, weight=weight, **beside)
            if line.missing:
                words = shorten(line.missing, 76, placeholder=" …")
                axis.text(0.5, height, words, ha="center", size=6.5, color="0.3", **beside,
                          bbox={"fc": "white", "ec": "none", "pad": 5.5})  # fmt: skip
            else:
                low, middle, high = (max(-LIMIT, min(LIMIT, end)) for end in (line.low, line.margin, line.high))
                axis.plot([low, high], [height, height], color=color, lw=1.6, solid_capstyle="butt")
                axis.plot(middle, height, mark, color=color, ms=6, mec="white", mew=0.5)
        height += 1.4
    axis.axvline(0, color="0.25", lw=0.9, zorder=0.5)
    axis.set_xscale("symlog", linthresh=10, linscale=0.7)
    axis.set(xlim=(-LIMIT * 1.08, LIMIT * 1.08), ylim=(height - 0.9, -0.6))
    axis.set_xticks(
        [-100, -30, -10, -3, 0, 3, 10, 30, 100], ["≤−100", "−30", "−10", "−3", "0", "3", "10", "30", "≥100"]
    )
    axis.minorticks_off()
    axis.set_yticks(ticks, names, size=8)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("margin beyond the threshold, in points (cosines, ratios × 100; distances × 50)", size=8.5)
    axis.text(0.01, -1.0, "← against the claim", size=8, **beside)
    axis.text(0.99, -1.0, "for the claim →", size=8, ha="right", **beside)
    sns.despine(figure, left=True)
    figure.tight_layout()
    return figure


def _missing(one: Judged) -> str:
    if one.decisive:
        return ""
    first, *others = one.ours.missing() if one.ours else [one.explanation.removeprefix("undecided: ").rstrip(".")]
    return f"{first} (and {len(others)} more)" if others else first
