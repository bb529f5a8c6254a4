"""The one figure that a training notebook draws itself: its loss."""

import io
from collections.abc import Sequence

import numpy as np
from IPython.display import Image
from matplotlib.figure import Figure

# Colours of seaborn's colour-blind palette, which importing seaborn here would cost seconds.
COLORS = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#ca9161", "#949494")
STYLES = ("-", "--", ":", "-.")


def training_curve(log: Sequence[dict], *, title: str) -> Figure:
    """Loss over steps, the whole in black and each term in a colour and line style of its own.

    `log` holds entries with `step`, `loss` and `loss_<term>`. One term alone is the sum.
    """
    figure = Figure(figsize=(6.9, 2.6), layout="constrained")
    axis = figure.subplots()
    steps = [entry["step"] for entry in log]
    names = [name for name in log[0] if name.startswith("loss_")]
    axis.plot(steps, [entry["loss"] for entry in log], color="black", lw=1.8, label="sum of all terms")
    for i, name in enumerate(names if len(names) > 1 else []):
        values = [entry.get(name, np.nan) for entry in log]
        color, style = COLORS[i % len(COLORS)], STYLES[i % len(STYLES)]
        axis.plot(steps, values, color=color, ls=style, lw=1.4, label=name.removeprefix("loss_"))
    axis.set(xlabel="optimizer step", ylabel="loss", title=title)
    axis.title.set_horizontalalignment("left")
    axis.title.set_x(0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def as_image(figure: Figure, *, alt: str) -> Image:
    """The figure as a picture that a notebook shows; pyplot, which would do that by itself, is not loaded here."""
    with io.BytesIO() as png:
        figure.savefig(png, format="png", dpi=200)
        return Image(png.getvalue(), width=690, alt=alt)


def curve_finding(log: Sequence[dict]) -> str:
    """Alt text of the curve: where the loss began, where it ended, and whether every term followed."""
    first, last = log[0], log[-1]
    names = [name for name in first if name.startswith("loss_") and name in last]
    fell = [name.removeprefix("loss_") for name in names if last[name] < first[name]]
    way = "fell" if last["loss"] < first["loss"] else "rose"
    terms = f"; {len(fell)} of its {len(names)} terms fell ({', '.join(fell) or 'none'})" if len(names) > 1 else ""
    return (
        f"From step {first['step']} to step {last['step']} the loss {way} from {first['loss']:.3g} to "
        f"{last['loss']:.3g}{terms}."
    )
