"""Notebooks and params files: clean, one parameters cell, defaults equal to the schema, and they run."""

import json
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from mule_lib import params
from mule_lib.data.items import REQUIRED
from mule_lib.evaluate import acceptance
from mule_lib.params import read_parameters
from mule_lib.suite.notebook import run_notebook

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# `paper_*` files are for `mule standardize` (test_standardize.py).
PARAMS = sorted(p for p in (ROOT / "params").glob("[0-9]*/**/*.yaml") if not p.name.startswith("paper_"))


def test_every_notebook_has_a_schema_and_a_params_file():
    stems = {path.stem for path in NOTEBOOKS}
    embedded = {_stem(path) for path in PARAMS if path.stem == "fable"}
    assert stems == set(params.NOTEBOOKS) == embedded


def _stem(path):
    return path.relative_to(ROOT / "params").parts[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    written = [cell.source for cell in cells if "parameters" not in cell.metadata.get("tags", [])]
    assert max(len([line for line in source.splitlines() if line.strip()]) for source in written) <= 25
    assert not re.search(r"sys\.exit|%pip|!pip|sys\.path", "\n".join(cell.source for cell in cells))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_read_in_order(path):
    """Question, imports, parameters, check; then claim, cells, reading; a gotcha before the code that it is of."""
    cells = nbformat.read(path, as_version=4).cells
    order = "".join("P" if "parameters" in cell.metadata.get("tags", []) else cell.cell_type[0] for cell in cells)
    assert re.fullmatch("mcPc(m+c{1,3})+m", order)
    assert all(order[i + 1] == "c" for i, cell in enumerate(cells) if "**Gotcha" in cell.source)
    assert "Exercises" in cells[-1].source and "**References.**" in cells[-1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defaults_equal_the_schema(path):
    schema = params.NOTEBOOKS[path.stem]
    cell = next(c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", []))
    namespace: dict = {}
    exec(cell.source, namespace)
    declared = {name: namespace[name] for name in papermill.inspect_notebook(str(path))}
    assert declared.pop("more", {}) == {}  # it takes what the cell does not spell out
    assert declared == {name: value for name, value in schema().model_dump().items() if name in declared}


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.relative_to(ROOT / "params").as_posix())
def test_params_file_is_valid(path):
    for row in params.read_yaml(path).get("rows", [None]):
        read_parameters(_stem(path), path, {"row": row} if row else {})


@pytest.mark.slow
def test_meet_the_model_runs_and_every_bar_is_met(no_kernel, monkeypatch, tmp_path):
    """Each bar on at least 80 items; rows that no bar speaks of write answers to a few items of each set."""
    whole, barred, out = acceptance.measure, {bar.row for bar in acceptance.BARS}, tmp_path / "out"

    def measure(models, sets, **sizes):
        few = replace(sets, **{name: getattr(sets, name)[:4] for name in REQUIRED})
        taken = {row: sets if row in barred else few for row in acceptance.ROWS}
        return {row: whole(models, some, rows=[row], **sizes)[row] for row, some in taken.items()}

    monkeypatch.setattr(acceptance, "measure", measure)
    notebook, executed = ROOT / "notebooks" / "00_meet_the_model.ipynb", tmp_path / "executed.ipynb"
    run_notebook(notebook, executed, overrides={"out_dir": str(out)})
    for name in ("bars.csv", "samples.jsonl", "rows.png", "rows.pdf", "rows.csv", "rows.txt"):
        assert (out / name).stat().st_size > 0, name
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["params"]["benchmarks"] == ["books", "cyber"]
    assert set(provenance["models"]) == {"base", "gold"}
    bars, rows = pd.read_csv(out / "bars.csv"), pd.read_csv(out / "rows.csv")
    assert bars["met"].all() and len(bars) == 2 * len(acceptance.BARS)
    assert (rows[rows["row"].isin(barred)]["n"] >= 80).all()
