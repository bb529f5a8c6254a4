"""What one run measured, as one type: it writes and reads `metrics.json` and `values.json` of a run folder."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mule_lib.data.files import write_json
from mule_lib.paper import METRICS

METRICS_FILE, VALUES_FILE = "metrics.json", "values.json"
# What the five metrics of Section 5.1 cannot see (docs/conditions.md); sets that a benchmark lacks have none.
MORE_METRICS = (
    "neighbor_open", "neighbor_refused", "controls", "readable", "forget_unseen", "asr_unseen", "asr_seen",
    "asr_searched", "forget_cloze", "drift",
)  # fmt: skip
# The metrics that *Overall, readable* takes in place of three of the five.
READABLE_METRICS = {"forget": "forget_readable", "neighbor": "neighbor_open", "asr": "asr_readable"}
# A metric is the mean of its items; anything beyond rounding means that the files are of different runs.
TOLERANCE = 1e-6


class ResultError(ValueError):
    """A run folder cannot be read, or runs do not belong together; the message says which file and what is right."""


class RunResult(BaseModel):
    """One row on one benchmark with one seed: `metrics` in points, `values` [items] of each metric in 0 to 1.

    `kinds` holds a letter of `data.text.LETTER` per item of each set that was answered in writing.
    `identity` is the hash of all that the numbers depend on; `n` counts items by set, `details` holds rates by set;
    `log` has one entry per logged step, `obedience` one per objective and role of the teacher.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    row: str
    method: str
    label: str
    seed: int
    identity: str
    metrics: dict[str, float]
    n: dict[str, int]
    details: dict[str, dict[str, Any]]
    timing: dict[str, int | float]
    beyond: dict[str, Any] | None = None
    obedience: list[dict[str, Any]] = []
    log: list[dict[str, Any]] = []
    values: dict[str, list[float]]
    kinds: dict[str, str] = {}
    folder: Path | None = Field(default=None, exclude=True)

    def write(self, folder: Path) -> None:
        """Write both files; the metrics come last, because a folder without them is a run that did not end."""
        write_json(folder / VALUES_FILE, self.values)
        write_json(folder / METRICS_FILE, self.model_dump(exclude={"values"}))

    @classmethod
    def read(cls, folder: Path) -> "RunResult":
        """Read a run folder back.

        Raises ResultError for a file that cannot be read or lacks a key, values outside 0 to 1, and metrics that are
        not the means of their items.
        """
        held, values = _json(folder / METRICS_FILE), _json(folder / VALUES_FILE)
        try:
            result = cls.model_validate(
                {**held, "values": values, "folder": folder} if isinstance(held, dict) else held
            )
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, each['loc']))} ({each['msg']})" for each in error.errors()]
            raise ResultError(
                f"{folder / METRICS_FILE}: {', '.join(wrong)}; it should be a metrics.json of 04_training; run it again"
            ) from None
        for metric in METRICS:
            values, points = result.values.get(metric), result.metrics.get(metric)
            if points is None or not values:
                missing = f"no {metric} in {METRICS_FILE} or no items of it in {VALUES_FILE}"
                raise ResultError(f"{folder}: {missing}; run that row again")
            if not all(0 <= value <= 1 for value in values):
                raise ResultError(f"{folder}/{VALUES_FILE}: {metric} should hold values from 0 to 1")
            if abs(100 * fmean(values) - points) > TOLERANCE:
                raise ResultError(
                    f"{folder}: {metric} is {points:.4f} in {METRICS_FILE}, and the mean of its items in {VALUES_FILE} "
                    f"is {100 * fmean(values):.4f}; the files are of different runs"
                )
        return result


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{file}: cannot be read as JSON ({error}); run that row again") from None
