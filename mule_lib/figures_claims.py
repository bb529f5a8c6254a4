"""All verdicts at one look: one line per claim, how far beyond its threshold, and whether the paper's numbers agree."""

from collections.abc import Sequence
from textwrap import shorten

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from mule_lib.claims import Judged
from mule_lib.figures import WIDTH, style

# Colour-blind safe, and told apart by shape as well.
MARKS = {"holds": ("o", 0), "undecided": ("s", 7), "fails": ("X", 3)}
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
                "missing": "" if one.decisive else one.explanation.removeprefix("undecided: "),
            }
        )
    order = {verdict: place for place, verdict in enumerate(MARKS)}
    return pd.DataFrame(rows).sort_values("verdict", key=lambda column: column.map(order), kind="stable")


def claim_verdicts(data: pd.DataFrame) -> Figure:
    """Claims grouped by verdict, with the margin of the decisive comparison beyond its threshold and its interval."""
    style()
    colors = sns.color_palette("colorblind")
    found = [verdict for verdict in MARKS if verdict in set(data["verdict"])]
    figure, axis = plt.subplots(figsize=(WIDTH, 1.0 + 0.235 * (len(data) + len(found))))
    height, ticks, names = 0, [], []
    for verdict in found:
        group = data[data["verdict"] == verdict]
        mark, color = MARKS[verdict][0], colors[MARKS[verdict][1]]
        axis.text(-0.02, height, f"{verdict} ({len(group)})", transform=axis.get_yaxis_transform(), ha="right",
                  va="center", weight="bold", color=color)  # fmt: skip
        axis.text(1.05, height, "paper's", transform=axis.get_yaxis_transform(), ha="center", va="center", size=7)
        height += 1
        for line in group.itertuples():
            ticks.append(height)
            names.append(line.id.replace("_", " "))
            axis.axhline(height, color="0.94", lw=0.7, zorder=0)
            axis.text(1.05, height, AGREES[line.reported_meets], transform=axis.get_yaxis_transform(), ha="center",
                      va="center", size=8, weight="bold" if line.reported_meets == "no" else "normal")  # fmt: skip
            if line.missing:
                axis.text(3, height, shorten(line.missing, 66, placeholder=" …"), va="center", size=6.5, color="0.35")
            else:
                low, middle, high = (max(-LIMIT, min(LIMIT, end)) for end in (line.low, line.margin, line.high))
                axis.plot([low, high], [height, height], color=color, lw=1.6, solid_capstyle="butt")
                axis.plot(middle, height, mark, color=color, ms=5.5, mec="white", mew=0.5)
            height += 1
    axis.axvline(0, color="0.25", lw=0.9)
    axis.set_xscale("symlog", linthresh=10, linscale=0.7)
    axis.set(xlim=(-LIMIT * 1.06, LIMIT * 1.06), ylim=(height - 0.4, -0.7))
    axis.set_xticks([-100, -30, -10, -3, 0, 3, 10, 30, 100], ["−100", "−30", "−10", "−3", "0", "3", "10", "30", "100"])
    axis.set_yticks(ticks, names, size=8)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("← against the claim     margin beyond the threshold, hundredths     for the claim →")
    sns.despine(figure, left=True)
    figure.tight_layout()
    return figure
