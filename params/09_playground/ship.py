"""Keeps the unlearned models that notebook 09 asks: three rows of a finished suite, seed 0 on books, as bfloat16.

From the repository: .venv/bin/python params/09_playground/ship.py [NAME [ROW ...]]   (fable; mule, sft and duet)

A suite keeps no models, so each row is trained once more with the parameters of its run, into
outputs/scratch/playground (about a minute a row). A model whose numbers are not those of the run is refused. They go to
outputs/reference/models, 7.5 MB each.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

from mule_lib import data, models
from mule_lib.evaluate.result import RunResult

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "mule_lib.suite.cli", "run", "notebooks/04_training.ipynb", "-f"]
MOST = 8_000_000  # bytes of a shipped model


def trained(run: Path) -> Path:
    """The model of a run: its own where it kept one, else of the same training again."""
    if not (run / "params.json").is_file():
        sys.exit(f"{run}: no finished run; `make reproduce` makes it")
    if (run / "model").is_dir():
        return run / "model"
    again = ROOT / "outputs" / "scratch" / "playground" / run.parent.name
    again.mkdir(parents=True, exist_ok=True)
    values = json.loads((run / "params.json").read_text("utf-8"))
    changed = {"save_model": True, "overwrite": True, "beyond": False, "out_dir": str(again)}
    file = again.with_suffix(".yaml")
    file.write_text(json.dumps(values | changed), "utf-8")  # JSON is YAML
    subprocess.run([*RUN, str(file)], cwd=ROOT, check=True)
    before, now = (RunResult.read(folder).metrics for folder in (run, again / run.name))
    if differ := [name for name, value in before.items() if abs(value - now[name]) > 0.05]:
        sys.exit(f"{run}: trained again, {differ[0]} is {now[differ[0]]:.1f}, in the run {before[differ[0]]:.1f}")
    return again / run.name / "model"


def ship(run: Path, to: Path) -> None:
    """Write the run's model as bfloat16, and say how many answers to Forget stay word for word as the run's."""
    place = str(trained(run))
    model, tokenizer = models.load(place, dtype=torch.bfloat16)
    for part in (model, tokenizer):
        part.save_pretrained(to)
    size = sum(file.stat().st_size for file in to.iterdir())
    if size > MOST:
        sys.exit(f"{to}: {size:,} bytes, should be at most {MOST:,}")
    model, tokenizer = models.load(str(to))
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text("utf-8").splitlines()]
    answered = {sample["id"]: sample["output"] for sample in samples if sample["set"] == "forget"}
    asked = data.load_benchmark("books").sets.forget
    same = sum(models.ask(model, tokenizer, item.question).answer == answered[item.id] for item in asked)
    print(f"{to.relative_to(ROOT)}: {size / 1e6:.1f} MB, {same} of {len(asked)} answers to Forget as in the run")


name, *rows = sys.argv[1:] or ["fable"]
for row in rows or ("mule", "sft", "duet"):
    ship(ROOT / "outputs" / name / "runs" / "books" / row / "seed-0", ROOT / "outputs" / "reference" / "models" / row)
