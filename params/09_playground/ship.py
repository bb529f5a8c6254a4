"""Trains the models that notebook 09 ships (seed 0 of three rows) and keeps them as bfloat16, 7.5 MB each.

From the repository: .venv/bin/python params/09_playground/ship.py (about three minutes on one core)
"""

import subprocess
import sys
from pathlib import Path

import torch

from mule_lib import models

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "mule_lib.suite.cli", "run", "notebooks/04_training.ipynb"]

for row in sys.argv[1:] or ("mule", "sft", "duet"):
    trained = f"outputs/scratch/playground/books/{row}"
    given = [f"row={row}", "benchmark=books", "save_model=true", f"out_dir={trained}"]
    words = [word for pair in given for word in ("-p", pair)]
    subprocess.run([*RUN, "-f", "params/04_training/fable.yaml", *words], cwd=ROOT, check=True)
    model, tokenizer = models.load(f"{trained}/seed-0/model", dtype=torch.bfloat16)
    for part in (model, tokenizer):
        part.save_pretrained(ROOT / "outputs" / "reference" / "models" / row)
