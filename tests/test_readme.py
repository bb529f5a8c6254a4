"""The README's numbers are those of the committed reference, and its files and commands exist."""

import re
from pathlib import Path

import pandas as pd
import pytest

from mule_lib import methods

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
TABLES = ROOT / "outputs" / "reference_conditions" / "tables"
COLUMNS = "forget general neighbor asr mmlu overall neighbor_open readable overall_readable".split()


def test_the_results_are_those_of_the_reference():
    block = re.search(r"<!-- results.*?-->\n(.*?)<!-- end of results -->", README, re.DOTALL)[1]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()[2:]]
    assert len(lines) >= 15
    table = pd.read_csv(TABLES / "table1.csv")
    for row, condition, *cells in lines:
        found = table[(table["row"] == row.strip("*`")) & (table["condition"] == condition)].set_index("metric")
        for metric, cell in zip(COLUMNS, cells, strict=True):
            assert float(cell.strip("*").replace("−", "-")) == pytest.approx(found.loc[metric, "measured"], abs=0.051)


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) >= 10
    assert not [link for link in links if not (ROOT / link).exists()]


def test_named_notebooks_and_params_exist():
    named = set(re.findall(r"\b((?:notebooks|params|docs|tests|benchmarks)/[\w./-]+\.(?:ipynb|yaml|md|py))", README))
    assert len(named) >= 5
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_example_of_a_new_method_runs_as_printed(monkeypatch, capsys):
    """With two steps instead of 100."""
    text = (ROOT / "docs" / "your_method.md").read_text("utf-8")
    code = re.search(r"## Adding a method in a notebook\n.*?```python\n(.*?)```", text, re.DOTALL)[1]
    assert "steps=100" in code
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    names = {}
    exec(code.replace("steps=100", "steps=2"), names)
    assert names["trained"].steps == 2 and names["trained"].method.label == "Soft forget"
