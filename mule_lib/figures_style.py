"""One colour, line style and marker per row for the whole suite: colour-blind safe, and told apart without colour."""

from collections.abc import Sequence
from dataclasses import dataclass

# seaborn's colour-blind palette by name, written out so that a row keeps its colour whatever else is drawn.
BLUE, ORANGE, GREEN, RED, PINK = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"
BROWN, ROSE, GREY, SKY = "#ca9161", "#d09fb8", "#8a8a8a", "#56b4e9"
DARK, MIDDLE = "#222222", "#6e6e6e"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = "osD^vPX*<>hp"


@dataclass(frozen=True)
class RowStyle:
    """How a row is drawn everywhere."""

    color: str
    line: str | tuple
    marker: str
    width: float = 1.3


STYLES: dict[str, RowStyle] = {
    # References in greys: nothing is trained in them.
    "base": RowStyle(MIDDLE, ":", "o", 1.5),
    "upper_bound": RowStyle(DARK, "--", "^", 1.5),
    "ensemble_teacher": RowStyle(MIDDLE, "-.", "v"),
    "gold": RowStyle(DARK, (0, (1, 1)), "*"),
    "mule": RowStyle(BLUE, "-", "o", 2.4),
    "duet": RowStyle(ORANGE, "--", "s"),
    "sft": RowStyle(GREEN, "-.", "D"),
    "ngdiff": RowStyle(RED, (0, (5, 1)), "X"),
    "mollm": RowStyle(PINK, (0, (3, 1, 1, 1, 1, 1)), "P"),
    "flat": RowStyle(SKY, "--", "<"),
    "simnpo": RowStyle(BROWN, "-.", ">"),
    "ga": RowStyle(ROSE, ":", "h"),
    "graddiff": RowStyle(GREEN, ":", "p"),
    "npo": RowStyle(ORANGE, "-", "h"),
    "idk_dpo": RowStyle(RED, ":", "d"),
    "mule_duet_loss": RowStyle(ORANGE, (0, (8, 2)), "s"),
    "mule_bild_loss": RowStyle(RED, (0, (2, 1)), "D"),
    "mule_no_standardization": RowStyle(BROWN, "--", "s"),
    "mule_no_anchors": RowStyle(GREEN, "--", "^"),
    "mule_no_cot": RowStyle(PINK, "--", "v"),
    "mule_ensemble": RowStyle(SKY, "-.", "D"),
    "mule_first_position": RowStyle(GREY, "--", "X"),
    "mule_k1": RowStyle(BLUE, ":", "<"),
    "mule_k50": RowStyle(BLUE, "--", ">"),
}


def style_of(row: str, others: Sequence[str] = ()) -> RowStyle:
    """A row's style; one that the suite does not know takes the next combination by its place among `others`."""
    if row in STYLES:
        return STYLES[row]
    unknown = sorted({row, *(other for other in others if other not in STYLES)})
    place = unknown.index(row)
    colors = (BROWN, SKY, RED, GREEN, PINK, ORANGE)
    return RowStyle(colors[place % len(colors)], DASHES[(place + 4) % len(DASHES)], MARKERS[place % len(MARKERS)])
