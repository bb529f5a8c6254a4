"""Between the objectives (Figure 2): cosines with intervals over batches and trainings, what they say, heat maps."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations, product

import numpy as np
import pandas as pd
import seaborn as sns

from mule_lib.data.records import Objective
from mule_lib.evaluate import intervals
from mule_lib.report.figures import WIDTH, Picture, panels
from mule_lib.report.names import BLUE, benchmark_name, number

OBJECTIVES = [*map(str, Objective)]
TICKS = [name.capitalize() for name in OBJECTIVES]
PAIR = ["objective_a", "objective_b"]
COSINES = ["benchmark", "step", "format", *PAIR, "cosine", "low", "high", "batches", "seeds"]
GAINS = ["benchmark", "step", *PAIR, "gain", "low", "high", "batches", "seeds"]
BATCHES = "benchmark step format training objective_a batch_a objective_b batch_b cosine".split()
# {benchmark: {format: {steps: [S, O, B, O, B]}}}, as `training.alignment.cosines` gives each benchmark's.
Measured = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]
RESAMPLES = 2000
SAID = {"raw": "Baseline", "raw_prompts": "milder raw mix"}
NEAR_ZERO, STRONG = 0.1, 0.5  # what "near zero" and "strongly positive" mean here; the paper gives no bounds


def cosine_table(measured: Measured, *, seed: int = 0) -> pd.DataFrame:
    """Mean cosine between each two objectives with its 95 % interval, columns `COSINES`.

    Only pairs of different batches count, so an objective against itself, on batches without a common fact, is the
    same-objective ceiling. Batches of two objectives may share facts: all three forget the same ones. Intervals are
    percentiles of a bootstrap over batches and training seeds, crossed.
    """
    lines = [
        (benchmark, step, form, *named, *_ends(draws), cosines.shape[2], len(cosines))
        for benchmark, form, step, cosines in _each(measured)
        for named, draws in _draws(cosines, seed)
    ]
    return pd.DataFrame(lines, columns=COSINES)


def gain_table(measured: Measured, *, seed: int = 0) -> pd.DataFrame:
    """Standardized minus raw, the Baseline, for each two objectives, columns `GAINS`; empty without a raw format.

    Paired: both formats hold the same facts batch by batch, and the same batches and training seeds are drawn for both.
    """
    lines = [
        (benchmark, step, *named, *_ends(draws - before), after.shape[2], len(after))
        for benchmark, form, step, after in _each(measured)
        if form == "standardized" and "raw" in measured[benchmark]
        for (named, draws), (_, before) in zip(
            _draws(after, seed), _draws(measured[benchmark]["raw"][step], seed), strict=True
        )
    ]
    return pd.DataFrame(lines, columns=GAINS)


def batch_table(measured: Measured) -> pd.DataFrame:
    """Every cosine between two batches, once: what the tables are made of; columns `BATCHES`."""
    lines = [
        (benchmark, step, form, training, OBJECTIVES[a], s, OBJECTIVES[b], t, round(float(one[a, s, b, t]), 6))
        for benchmark, form, step, cosines in _each(measured)
        for training, one in enumerate(cosines)
        for (a, s), (b, t) in combinations(product(range(one.shape[0]), range(one.shape[1])), 2)
    ]
    return pd.DataFrame(lines, columns=BATCHES)


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of two different objectives, each pair once."""
    return table[table["objective_a"] < table["objective_b"]].reset_index(drop=True)


def findings(table: pd.DataFrame, change: pd.DataFrame) -> list[str]:
    """The paper's statements beside the numbers, one sentence per step and benchmark: alt text of Figure 2.

    A cosine or gain is counted where its whole interval is on the stated side.
    """
    sentences = []
    for (step, benchmark), part in table.groupby(["step", "benchmark"], sort=False):
        spans = []
        for form, values in pairs(part).groupby("format", sort=False):
            near = ((values["low"] > -NEAR_ZERO) & (values["high"] < NEAR_ZERO)).sum()
            counted = f"{near} of {len(values)} near zero (±{NEAR_ZERO:g}), {(values['low'] > STRONG).sum()} above"
            spans.append(f"{SAID.get(form, form)} {_span(values['cosine'])} ({counted} {STRONG:g})")
        rises = pairs(change[(change["step"] == step) & (change["benchmark"] == benchmark)])
        if len(rises):
            up, down = (rises["low"] > 0).sum(), (rises["high"] < 0).sum()
            spans.append(f"standardization raises {up} and lowers {down}, by {_span(rises['gain'])}")
        own = _span(part.loc[part["objective_a"] == part["objective_b"], "cosine"])
        sentences.append(f"{benchmark_name(benchmark)} {_steps(step)}: {'; '.join(spans)}; the same objective {own}.")
    return sentences


def _span(values: pd.Series) -> str:
    return f"{values.min():.2f} to {values.max():.2f}".replace("-", "−")


def _each(measured: Measured) -> Iterator[tuple[str, str, int, np.ndarray]]:
    for benchmark, forms in measured.items():
        for form, steps in forms.items():
            for step, cosines in steps.items():
                yield benchmark, form, step, cosines


def _draws(cosines: np.ndarray, seed: int) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Each two objectives with the mean over seeds and pairs of different batches, [1 + RESAMPLES], estimate first.

    Batches are drawn with replacement for both sides at once; a batch drawn twice is never compared with itself.
    Training seeds are drawn independently of them; a single one leaves the variance between trainings out.
    Raises ValueError for fewer than 3 batches, which leave no interval.
    """
    seeds, _, number = cosines.shape[:3]
    if number < 3:
        raise ValueError(f"batches: {number} give no interval; measure at least 3")
    rng = np.random.default_rng(seed)
    of_batch, of_seed = (np.vstack([np.ones(n), intervals.counts(rng, RESAMPLES, n)]) for n in (number, seeds))
    compared = of_batch.sum(1) ** 2 - np.square(of_batch).sum(1)
    for (i, a), (j, b) in product(enumerate(OBJECTIVES), repeat=2):
        different = np.where(np.eye(number, dtype=bool), 0.0, cosines[:, i, :, j, :])
        sums = np.einsum("rs,kst,rt,rk->r", of_batch, different, of_batch, of_seed, optimize=True) / seeds
        yield (a, b), np.divide(sums, compared, out=np.full(len(sums), np.nan), where=compared > 0)


def _ends(draws: np.ndarray) -> tuple[float, float, float]:
    return draws[0], *intervals.percentiles(draws[1:])


# Figures --------------------------------------------------------------------------------------------------------------

FORMATS = {"raw": "Baseline (raw formats)", "raw_prompts": "Milder raw mix", "standardized": "Ours (standardized)"}
# What a number means, what its diagonal is, and the ends of its scale; the lower end falls with the data.
HEATMAPS = {
    "cosine": ("cosine between gradients, higher is more aligned", "ceiling", 0, 1),
    "distance": ("proxy A-distance, lower is closer", "floor", 0, 2),  # 0: not told apart, 2: always told apart
}
# Section 3.2 with Figure 2; the paper's text has no other cosine.
PRINTED = "The paper reports near zero for its Baseline and +92.29 % between Obj1 and Obj2 for Ours."


def heatmaps(data: pd.DataFrame, value: str, *, finding: str) -> Picture:
    """Figure 2: one triangle per benchmark and number of steps (rows) and format (columns), values over intervals.

    `value` is a key of `HEATMAPS`; `data` has the columns format, objective_a, objective_b, `value`, low, high, and
    benchmark and step where there are several. The diagonal is an objective against itself: the ceiling or floor.
    """
    label, own, low, high = HEATMAPS[value]
    two = partial(number, digits=2)
    filled = data.assign(**{name: data.get(name, fill) for name, fill in (("benchmark", ""), ("step", 0))})
    filled = filled[filled["objective_a"] >= filled["objective_b"]]
    filled["ends"] = filled["low"].map(two) + ", " + filled["high"].map(two)
    filled.loc[filled["objective_a"] == filled["objective_b"], "ends"] += f"\n{own}"
    rows = list(product(dict.fromkeys(filled["benchmark"]), dict.fromkeys(filled["step"])))
    columns = list(dict.fromkeys(filled["format"]))
    width = min(WIDTH, 1.5 + 2 * len(columns))
    size = (width, 0.78 + (width - 1.5) / len(columns) * len(rows))  # square cells, and room for what is around
    figure, axes = panels(len(rows), len(columns), 0, figsize=size, sharex=True, sharey=True)
    for (i, (benchmark, step)), (j, form) in product(enumerate(rows), enumerate(columns)):
        axis, part = axes[i, j], filled.query("benchmark == @benchmark and step == @step and format == @form")
        grid, ends = (
            part.pivot(index=PAIR[0], columns=PAIR[1], values=of).reindex(index=OBJECTIVES, columns=OBJECTIVES)
            for of in (value, "ends")
        )
        sns.heatmap(grid, annot=grid.map(two), fmt="", cmap=sns.light_palette(BLUE, as_cmap=True), square=True,
                    vmin=min(low, np.floor(10 * filled[value].min()) / 10), vmax=high, cbar=False, ax=axis,
                    xticklabels=TICKS, yticklabels=TICKS, annot_kws={"size": 10})  # fmt: skip
        for cell, text in zip([*axis.texts], ends.stack().dropna(), strict=True):
            x, y = cell.get_position()
            axis.text(x, y + 0.13, text, ha="center", va="top", color=cell.get_color(), fontsize=6.5, linespacing=1.1)
        beside = "\n".join(filter(None, (benchmark_name(benchmark), _steps(step) if "step" in data else "")))
        axis.set(xlabel="", ylabel="" if j else beside)
        axis.set_title(FORMATS.get(form, form) if i == 0 else "", fontsize=9)
        axis.tick_params(length=0)
    bar = figure.colorbar(axes[0, 0].collections[0], ax=axes, shrink=0.7, aspect=30, pad=0.01)
    bar.set_label(label, fontsize=8)
    figure.supxlabel(f"{own}: disjoint batches or halves of one objective; small: 95 % intervals", fontsize=7.5)
    return Picture(figure, data, finding)


def _steps(step: int) -> str:
    return "before training" if step == 0 else f"after {step} steps"
