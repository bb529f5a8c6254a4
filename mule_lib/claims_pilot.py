"""What notebooks 01 and 02 left behind, as the claims read it: cosines between objectives and distances of corpora."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mule_lib.claims_evidence import NotMeasuredError
from mule_lib.domain_distance import MAIN, main_lines

COSINES = ("benchmark", "format", "objective_a", "objective_b", "cosine", "low", "high")
GAINS = ("benchmark", "objective_a", "objective_b", "gain", "low", "high")
DISTANCES = (*("benchmark", "format", "objective_a", "objective_b", "distance", "low", "high"), *MAIN)
NAMES = {
    "cosine": "cosine between objectives",
    "gain": "gain in cosine between objectives",
    "distance": "distance between objectives",
}
Ends = tuple[float, float, float]  # estimate, low and high at 95 %


class PilotError(ValueError):
    """A file of the pilot study cannot be used; the message names it and what it lacks."""


@dataclass(frozen=True)
class Pilot:
    """`cosines` with the columns `COSINES`, `gains` and `distances` with theirs; None where not run.

    Numbers of several steps become their mean with the outermost ends: the paper says "early stages" and names no
    step, so a claim has to stand at each of them.
    """

    cosines: pd.DataFrame | None = None
    gains: pd.DataFrame | None = None
    distances: pd.DataFrame | None = None

    def cosine(self, benchmark: str, form: str, pair: tuple[str, str]) -> Ends:
        """Cosine between two objectives' gradients with data in `form` (raw or standardized)."""
        return _of(self.cosines, "cosine", benchmark, pair, form)

    def gain(self, benchmark: str, pair: tuple[str, str]) -> Ends:
        """Standardized minus raw cosine, paired batch by batch."""
        return _of(self.gains, "gain", benchmark, pair)

    def distance(self, benchmark: str, form: str, pair: tuple[str, str]) -> Ends:
        """Proxy A-distance with data in `form`, in the view that `domain_distance.MAIN` names."""
        return _of(self.distances, "distance", benchmark, pair, form)


def load_pilot(suite: Path) -> Pilot:
    """Read figures/figure2.csv, 02_gradient_cosine/changes.csv and 01_data/*/distances.csv; None for what is not there.

    Raises PilotError for a file without the columns that it should have.
    """
    cosines, gains = suite / "figures" / "figure2.csv", suite / "02_gradient_cosine" / "changes.csv"
    tables = [main_lines(_read(file, DISTANCES)) for file in sorted(suite.glob("01_data/*/distances.csv"))]
    return Pilot(
        _read(cosines, COSINES) if cosines.exists() else None,
        _read(gains, GAINS) if gains.exists() else None,
        pd.concat(tables, ignore_index=True) if tables else None,
    )


def _read(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    table = pd.read_csv(file)
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise PilotError(f"{file}: lacks the columns {', '.join(lacking)}; run its notebook again")
    return table


def _of(table: pd.DataFrame | None, what: str, benchmark: str, pair: tuple[str, str], form: str | None = None) -> Ends:
    if table is None:
        raise NotMeasuredError(f"the pilot study ({NAMES[what]}) was not run")
    ends = table[["objective_a", "objective_b"]].apply(tuple, axis=1)
    found = table[(table["benchmark"] == benchmark) & ends.isin([pair, pair[::-1]])]
    if form:
        found = found[found["format"] == form]
    if found.empty:
        raise NotMeasuredError(f"not measured: {', '.join(filter(None, (NAMES[what], benchmark, form)))}")
    return float(found[what].mean()), float(found["low"].min()), float(found["high"].max())
