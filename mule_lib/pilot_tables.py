"""From gradient cosines of batches to the pilot study's tables, with intervals over batches; it trains nothing."""

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import pandas as pd

from mule_lib.evaluate.intervals import counts, percentiles
from mule_lib.prompts import OBJECTIVES
from mule_lib.report.names import BENCHMARKS

COSINES = "benchmark step format objective_a objective_b cosine low high batches seeds".split()
GAINS = "benchmark step objective_a objective_b gain low high batches seeds".split()
# {benchmark: {format: {steps: [S, O, B, O, B]}}}, as `pilot.cosines_over_training` gives them.
Measured = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]
RESAMPLES = 2000


def tidy(measured: Measured, *, seed: int = 0) -> pd.DataFrame:
    """Mean cosine between each two objectives with its 95 % interval, columns `COSINES`.

    Only pairs of different batches count, so an objective against itself is the same-objective ceiling and no batch
    shares its facts with another. Intervals are percentiles of a bootstrap over batches and training seeds, crossed.
    """
    lines = []
    for benchmark, form, step, cosines in _each(measured):
        for a, b in product(range(len(OBJECTIVES)), repeat=2):
            draws = _means(cosines[:, a, :, b, :], seed=seed)
            named = (benchmark, step, form, OBJECTIVES[a], OBJECTIVES[b])
            lines.append((*named, *_summary(draws), cosines.shape[2], len(cosines)))
    return pd.DataFrame(lines, columns=COSINES)


def gains(measured: Measured, *, seed: int = 0) -> pd.DataFrame:
    """Standardized minus raw for each pair of objectives, columns `GAINS`; empty where there is no raw format.

    Paired: both formats hold the same facts batch by batch, and the same batches and training seeds are drawn for both.
    """
    lines = []
    for benchmark, forms in measured.items():
        for step, after in forms["standardized"].items() if "raw" in forms else ():
            for a, b in product(range(len(OBJECTIVES)), repeat=2):
                both = [_means(cosines[:, a, :, b, :], seed=seed) for cosines in (after, forms["raw"][step])]
                named = (benchmark, step, OBJECTIVES[a], OBJECTIVES[b])
                lines.append((*named, *_summary(both[0] - both[1]), after.shape[2], len(after)))
    return pd.DataFrame(lines, columns=GAINS)


def by_batch(measured: Measured) -> pd.DataFrame:
    """Every cosine between two batches, once: what the tables are made of."""
    lines = []
    for benchmark, form, step, cosines in _each(measured):
        places = list(product(range(cosines.shape[1]), range(cosines.shape[2])))
        for number, (i, (a, s)) in product(range(len(cosines)), enumerate(places)):
            for b, t in places[i + 1 :]:
                value = round(float(cosines[number, a, s, b, t]), 6)
                lines.append((benchmark, step, form, number, OBJECTIVES[a], s, OBJECTIVES[b], t, value))
    names = "benchmark step format training objective_a batch_a objective_b batch_b cosine".split()
    return pd.DataFrame(lines, columns=names)


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of two different objectives, each pair once."""
    return table[table["objective_a"] < table["objective_b"]].reset_index(drop=True)


def ceilings(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of one objective against itself."""
    return table[table["objective_a"] == table["objective_b"]].reset_index(drop=True)


def of_ceiling(table: pd.DataFrame) -> pd.DataFrame:
    """`pairs` with `share`: the cosine over the geometric mean of its two objectives' ceilings (1: only noise differs).

    This is the correlation corrected for attenuation; NaN where a ceiling is not above 0.
    """
    keys = ["benchmark", "step", "format"]
    own = ceilings(table).set_index([*keys, "objective_a"])["cosine"].clip(lower=0)
    found = pairs(table)
    sides = [
        own.loc[list(found[[*keys, side]].itertuples(index=False, name=None))].to_numpy()
        for side in ("objective_a", "objective_b")
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = found["cosine"] / np.sqrt(sides[0] * sides[1])
    return found.assign(share=share.where(np.isfinite(share)))


def finding(table: pd.DataFrame, change: pd.DataFrame) -> str:
    """What the cosines of the first measured step say, in words made from the numbers; the alt text of Figure 2."""
    step = table["step"].min()
    told = []
    for benchmark, part in pairs(table[table["step"] == step]).groupby("benchmark", sort=False):
        ranges = {form: (p["cosine"].min(), p["cosine"].max()) for form, p in part.groupby("format", sort=False)}
        text = "; ".join(f"{form} {low:.2f} to {high:.2f}" for form, (low, high) in ranges.items())
        own = ceilings(table[(table["step"] == step) & (table["benchmark"] == benchmark)])["cosine"]
        told.append(
            f"{BENCHMARKS.get(benchmark, benchmark)}: {text} (same objective {own.min():.2f} to {own.max():.2f})"
        )
    now = pairs(change[change["step"] == step])
    risen = int((now["low"] > 0).sum())
    rise = f" Standardization raises {risen} of {len(now)} cosines with the whole interval above 0." if len(now) else ""
    return f"Cosines between the gradients of different objectives {_when(step)}. {'. '.join(told)}.{rise}"


def verdicts(table: pd.DataFrame, change: pd.DataFrame, *, near_zero: float = 0.1, strong: float = 0.5) -> str:
    """The paper's three statements beside the numbers, step by step, as a Markdown list; both bounds are ours.

    A cosine is counted where its whole interval is on the stated side.
    """
    lines = []
    for step in sorted(table["step"].unique()):
        cosines, rises = (pairs(each[each["step"] == step]) for each in (table, change))
        raw, unified = (cosines[cosines["format"] == form] for form in ("raw", "standardized"))
        told = []
        if len(raw):
            number = int(((raw["low"] > -near_zero) & (raw["high"] < near_zero)).sum())
            told.append(f"raw formats: {_span(raw['cosine'])}, {number} of {len(raw)} near zero (±{near_zero:g})")
        number = int((unified["low"] > strong).sum())
        told.append(f"standardized: {_span(unified['cosine'])}, {number} of {len(unified)} above {strong:g}")
        if len(rises):
            up, down = int((rises["low"] > 0).sum()), int((rises["high"] < 0).sum())
            told.append(f"standardization raises {up} of {len(rises)} and lowers {down}, by {_span(rises['gain'])}")
        lines.append(f"- **{_when(step)}** — {'; '.join(told)}.")
    return "\n".join(lines)


def change_finding(table: pd.DataFrame, change: pd.DataFrame) -> str:
    """`verdicts` as plain sentences: the alt text of the figure of changes."""
    lines = (line.removeprefix("- **").replace("** — ", ": ") for line in verdicts(table, change).splitlines())
    return " ".join(line[0].upper() + line[1:] for line in lines)


def _when(step: int) -> str:
    return "before training" if step == 0 else f"after {step} steps"


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
    weights, by_seed = (np.vstack([np.ones(size), counts(rng, RESAMPLES, size)]) for size in (number, seeds))
    off = np.where(np.eye(number, dtype=bool), 0.0, cosines)
    total = weights.sum(1) ** 2 - np.square(weights).sum(1)
    sums = np.einsum("rs,kst,rt,rk->r", weights, off, weights, by_seed, optimize=True) / seeds
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)


def _summary(draws: np.ndarray) -> tuple[float, float, float]:
    return float(draws[0]), *percentiles(draws[1:])
