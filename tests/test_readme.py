"""The README's numbers are those of the committed reference, its files and commands exist; no page has a dead link."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from mule_lib import methods

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
TABLES = ROOT / "outputs" / "reference" / "tables"
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


def pages():
    """Text of every committed page; of a notebook its Markdown."""
    yield ROOT / "README.md", README
    for place in ("docs", "notebooks", "outputs/reference*", "mule_lib/embedded/weights"):
        for file in (file for folder in ROOT.glob(place) for file in sorted(folder.rglob("*.*"))):
            if file.suffix in (".md", ".html"):
                yield file, file.read_text("utf-8")
            elif file.suffix == ".ipynb" and ".ipynb_checkpoints" not in file.parts:
                cells = json.loads(file.read_text("utf-8"))["cells"]
                yield file, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_no_link_of_a_committed_page_is_dead():
    """Files that are there, and anchors that are there: ids, or headings as GitHub names them."""
    links, anchors = [], {}
    for file, text in pages():
        plain = re.sub(r"base64,[\w+/=]+|<style.*?</style>", "", text, flags=re.DOTALL)
        found = re.findall(r'<(?:a|img)\s[^<>]*\b(?:href|src)="([^"]+)', plain)
        if file.suffix != ".html":
            found += re.findall(r"\]\(<?([^)\s>]+)", plain)
        links += [(file, unquote(link)) for link in found if not re.match(r"[a-z]+:", link)]
        headings = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
        anchors[file] = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        anchors[file] |= set(re.findall(r'\bid="([^"]+)', unquote(plain)))
    dead = []
    for file, link in links:
        place, _, anchor = link.partition("#")
        target = (file.parent / place).resolve() if place else file
        if not target.exists() or (anchor and anchor not in anchors.get(target, [anchor])):
            dead.append(f"{file.relative_to(ROOT)}: {link}")
    assert len(links) >= 100 and not dead, "\n".join(dead)


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
