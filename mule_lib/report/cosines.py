"""Between the objectives (Figure 2): cosines with intervals over batches and trainings, what they say, heat maps."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Rectangle

from mule_lib.data.records import Objective
from mule_lib.evaluate import intervals
from mule_lib.report.figures import WIDTH, Picture, panels
from mule_lib.report.names import benchmark_name, number

OBJECTIVES = [*map(str, Objective)]
PAIR = ["objective_a", "objective_b"]
COSINES = ["benchmark", "step", "format", *PAIR, "cosine", "low", "high", "batches", "seeds"]
GAINS = ["benchmark", "step", *PAIR, "gain", "low", "high", "batches", "seeds"]
BATCHES = "benchmark step format training objective_a batch_a objective_b batch_b cosine".split()
# {benchmark: {format: {steps: [S, O, B, O, B]}}}, as `training.alignment.cosines` gives each benchmark's.
Measured = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]
RESAMPLES = 2000
NEAR_ZERO, STRONG = 0.1, 0.5  # what "near zero" and "strongly positive" mean here; the paper gives no bounds


def cosine_table(measured: Measured, *, seed: int = 0) -> pd.DataFrame:
    """Mean cosine between each two objectives with its 95 % interval, columns `COSINES`.

    Only pairs of different batches count, so an objective against itself is the same-objective ceiling and no batch
    shares its facts with another. Intervals are percentiles of a bootstrap over batches and training seeds, crossed.
    """
    lines = []
    for benchmark, form, step, cosines in _each(measured):
        for a, b in product(range(len(OBJECTIVES)), repeat=2):
            draws = _means(cosines[:, a, :, b, :], seed=seed)
            named = (benchmark, step, form, OBJECTIVES[a], OBJECTIVES[b])
            lines.append((*named, draws[0], *intervals.percentiles(draws[1:]), cosines.shape[2], len(cosines)))
    return pd.DataFrame(lines, columns=COSINES)


def gain_table(measured: Measured, *, seed: int = 0) -> pd.DataFrame:
    """Standardized minus raw for each two objectives, columns `GAINS`; empty where there is no raw format.

    Paired: both formats hold the same facts batch by batch, and the same batches and training seeds are drawn for both.
    """
    lines = []
    for benchmark, form, step, after in _each(measured):
        for a, b in product(range(len(OBJECTIVES)), repeat=2) if form == "standardized" else ():
            if "raw" in measured[benchmark]:
                before = measured[benchmark]["raw"][step]
                draws = _means(after[:, a, :, b, :], seed=seed) - _means(before[:, a, :, b, :], seed=seed)
                named = (benchmark, step, OBJECTIVES[a], OBJECTIVES[b])
                lines.append((*named, draws[0], *intervals.percentiles(draws[1:]), after.shape[2], len(after)))
    return pd.DataFrame(lines, columns=GAINS)


def batch_table(measured: Measured) -> pd.DataFrame:
    """Every cosine between two batches, once: what the tables are made of; columns `BATCHES`."""
    lines = []
    for benchmark, form, step, cosines in _each(measured):
        places = list(product(range(cosines.shape[1]), range(cosines.shape[2])))
        for training, (i, (a, s)) in product(range(len(cosines)), enumerate(places)):
            for b, t in places[i + 1 :]:
                value = round(float(cosines[training, a, s, b, t]), 6)
                lines.append((benchmark, step, form, training, OBJECTIVES[a], s, OBJECTIVES[b], t, value))
    return pd.DataFrame(lines, columns=BATCHES)


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of two different objectives, each pair once."""
    return table[table["objective_a"] < table["objective_b"]].reset_index(drop=True)


def ceilings(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of one objective against itself."""
    return table[table["objective_a"] == table["objective_b"]].reset_index(drop=True)


def share_of_ceiling(table: pd.DataFrame) -> pd.DataFrame:
    """`pairs` with `share`: the cosine over the geometric mean of its two objectives' ceilings (1: only noise differs).

    This is the correlation corrected for attenuation; NaN where a ceiling is not above 0.
    """
    keys = ["benchmark", "step", "format"]
    own = ceilings(table).set_index([*keys, "objective_a"])["cosine"].clip(lower=0)
    found = pairs(table)
    a, b = (own.loc[list(found[[*keys, side]].itertuples(index=False, name=None))].to_numpy() for side in PAIR)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = found["cosine"] / np.sqrt(a * b)
    return found.assign(share=share.where(np.isfinite(share)))


def findings(table: pd.DataFrame, change: pd.DataFrame) -> list[str]:
    """The paper's statements beside the numbers, one sentence per step and benchmark: alt text of both figures.

    A cosine or gain is counted where its whole interval is on the stated side.
    """
    sentences = []
    for (step, benchmark), part in table.groupby(["step", "benchmark"], sort=False):
        cosines, own = pairs(part).groupby("format", sort=False), ceilings(part)["cosine"]
        told = []
        for form, values in cosines:
            near = int(((values["low"] > -NEAR_ZERO) & (values["high"] < NEAR_ZERO)).sum())
            high = int((values["low"] > STRONG).sum())
            counted = f"{near} of {len(values)} near zero (±{NEAR_ZERO:g}), {high} above {STRONG:g}"
            told.append(f"{form} {_span(values['cosine'])} ({counted})")
        rises = pairs(change[(change["step"] == step) & (change["benchmark"] == benchmark)])
        if len(rises):
            up, down = int((rises["low"] > 0).sum()), int((rises["high"] < 0).sum())
            told.append(f"standardization raises {up} and lowers {down}, by {_span(rises['gain'])}")
        where = f"{benchmark_name(benchmark)} {_steps(step)}"
        sentences.append(f"{where}: {'; '.join(told)}; the same objective {_span(own)}.")
    return sentences


def _span(values: pd.Series) -> str:
    return f"{values.min():.2f} to {values.max():.2f}".replace("-", "−")


def _each(measured: Measured) -> Iterator[tuple[str, str, int, np.ndarray]]:
    for benchmark, forms in measured.items():
        for form, steps in forms.items():
            for step, cosines in steps.items():
                yield benchmark, form, step, cosines


def _means(cosines: np.ndarray, *, seed: int) -> np.ndarray:
    """Mean over seeds and pairs of different batches, [1 + RESAMPLES] with the estimate first; cosines [S, B, B].

    Batches are drawn with replacement for both sides at once; a batch drawn twice is never compared with itself.
    Training seeds are drawn independently of them; a single one leaves the variance between trainings out.
    Raises ValueError for fewer than 3 batches, which leave no interval.
    """
    seeds, number = cosines.shape[:2]
    if number < 3:
        raise ValueError(f"batches: {number} give no interval; measure at least 3")
    rng = np.random.default_rng(seed)
    of_batch, of_seed = (np.vstack([np.ones(n), intervals.counts(rng, RESAMPLES, n)]) for n in (number, seeds))
    different = np.where(np.eye(number, dtype=bool), 0.0, cosines)
    sums = np.einsum("rs,kst,rt,rk->r", of_batch, different, of_batch, of_seed, optimize=True) / seeds
    compared = of_batch.sum(1) ** 2 - np.square(of_batch).sum(1)
    return np.divide(sums, compared, out=np.full(len(sums), np.nan), where=compared > 0)


# Figures --------------------------------------------------------------------------------------------------------------

FORMATS = {"raw": "Baseline (raw formats)", "standardized": "Ours (standardized)"}
# What a number means, what its diagonal is, its range and colours; pale at both ends, so that cells can be read.
HEATMAPS = {
    "cosine": (
        "cosine between gradients, higher is more aligned",
        "disjoint batches of the same objective (the ceiling)",
        *(-1, 1, sns.diverging_palette(250, 15, s=80, l=64, as_cmap=True)),
    ),
    "distance": (  # 0: not told apart, 2: always told apart
        "proxy A-distance, lower is closer",
        "halves of the same objective (the floor)",
        *(0, 2, sns.color_palette("rocket_r", as_cmap=True)),
    ),
}


def heatmaps(data: pd.DataFrame, value: str, *, finding: str) -> Picture:
    """Figure 2: one matrix per benchmark (rows), number of steps and format (columns), each value over its interval.

    `value` is a key of `HEATMAPS`; `data` has the columns format, objective_a, objective_b, `value`, low, high, and
    benchmark and step where there are several. The diagonal, an objective against itself, is framed.
    """
    label, words, low, high, colors = HEATMAPS[value]
    steps = "step" in data
    filled = data.assign(**{name: data.get(name, fill) for name, fill in (("benchmark", ""), ("step", 0))})
    benchmarks = list(dict.fromkeys(filled["benchmark"]))
    columns = list(product(dict.fromkeys(filled["step"]), dict.fromkeys(filled["format"])))
    width = min(WIDTH, 1.1 + 1.9 * len(columns))
    # Square cells: rows as high as columns are wide, and room for titles, labels and the line below.
    size = (width, 0.78 + (width - 1.3) / len(columns) * len(benchmarks))
    figure, axes = panels(len(benchmarks), len(columns), 0, figsize=size)
    names = [name.capitalize() for name in OBJECTIVES]
    for (i, benchmark), (j, (step, form)) in product(enumerate(benchmarks), enumerate(columns)):
        axis, part = axes[i, j], filled.set_index(["benchmark", "step", "format"]).loc[(benchmark, step, form)]
        part = part.set_index(["objective_a", "objective_b"])
        grid = part[value].unstack().reindex(index=OBJECTIVES, columns=OBJECTIVES).to_numpy()
        image = axis.imshow(grid, cmap=colors, vmin=low, vmax=high)
        for (y, a), (x, b) in product(enumerate(OBJECTIVES), repeat=2):
            if (a, b) in part.index:
                line, ink = part.loc[(a, b)], _ink(colors((grid[y, x] - low) / (high - low)))
                ends = f"{number(line['low'], 2)}{'–' if line['low'] >= 0 else ' to '}{number(line['high'], 2)}"
                axis.text(x, y - 0.1, number(line[value], 2), ha="center", va="center", color=ink, fontsize=9)
                axis.text(x, y + 0.24, ends, ha="center", va="center", color=ink, fontsize=5)
            if a == b:
                axis.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, ec="0.15", ls=(0, (3, 2))))
        axis.set_xticks(range(len(names)), names if i == len(benchmarks) - 1 else [])
        axis.set_yticks(range(len(names)), names if j == 0 else [])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        if i == 0:
            axis.set_title(FORMATS.get(form, form) + f",\n{_steps(step)}" * steps, fontsize=8)
    for axis, benchmark in zip(axes[:, 0], benchmarks, strict=True):
        axis.set_ylabel(benchmark_name(benchmark))
    figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.01).set_label(label, fontsize=8)
    figure.supxlabel(f"framed: {words}; small: 95 % intervals", fontsize=7)
    return Picture(figure, data, finding)


def _ink(color: Sequence[float]) -> str:
    """White where its contrast (WCAG) on a colour is above black's."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "0.05"


def _steps(step: int) -> str:
    return "before training" if step == 0 else f"after {step} steps"
