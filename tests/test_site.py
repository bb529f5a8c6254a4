"""The site's own theme: links that work from disk, every kind of output; links of lessons that are kept elsewhere."""

import json
import re
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent


def node(kind, *children, **more):
    return {"type": kind, "children": [{"type": "text", "value": text} for text in children], **more}


def output(kind, **data):
    found = {"output_type": "display_data", "metadata": {"image/png": {"alt": "A <finding>."}}, "data": {kind: data}}
    return {"type": "output", "jupyter_data": found}


TREE = [
    node("heading", "Eq. <3>", depth=2, html_id="eq-3"),
    node("link", "next", url="/notebooks/training"),
    node("crossReference", "back", url="/", html_id="eq-3"),
    node("link", "report", url="/r-1.html", static=True, urlSource="../outputs/reference/report.html"),
    output("image/png", path="/plot.png"),
    output("text/markdown", content="**bold**"),
    output("text/html", path="/long.html"),
]


def test_pages_link_to_each_other_from_disk_and_show_every_output(tmp_path, monkeypatch):
    """As MyST hands a site on; a kind of node without a rule is named."""
    listed = [{"slug": slug, "title": slug, "level": 2} for slug in ("docs.data", "notebooks.training")]
    held = {
        "site/config.json": json.dumps({"title": "A site", "nav": [], "projects": [{"pages": listed}]}),
        "site/public/plot.png": "",
        "site/public/long.html": "<b>long</b>",
    }
    monkeypatch.setenv("BUILD_DIRECTORY", str(tmp_path / "html"))

    def build(tree):
        page = {"frontmatter": {}, "location": "/docs/data.md", "mdast": {"type": "root", "children": tree}}
        pages = {f"site/content/{name}.json": json.dumps(page) for name in ("index", "docs.data", "notebooks.training")}
        for name, text in (held | pages).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        runpy.run_path(ROOT / "site" / "theme" / "render.py")

    build(TREE)
    page = (tmp_path / "html" / "docs" / "data.html").read_text().split("<main>")[1]
    assert '<h2 id="eq-3">Eq. &lt;3&gt;</h2>' in page and "<strong>bold</strong>" in page and "<b>long</b>" in page
    assert '<img src="../build/plot.png" alt="A &lt;finding&gt;.">' in page
    links = ["notebooks/training.html", "index.html#eq-3", "files/outputs/reference/report.html"]
    assert re.findall(r'href="([^"]+)', page)[:3] == [f"../{link}" for link in links]
    with pytest.raises(KeyError, match=r"index\.html: no rule for 'iframe'"):
        build([{"type": "iframe"}])


def test_kept_lessons_link_from_where_they_lie():
    """To each other, and back into the repository."""
    build = runpy.run_path(ROOT / "site" / "build.py", run_name="build")
    cell = nbformat.v4.new_markdown_cell("[a](04_training.ipynb) [b](../docs/data.md#x) [c](https://x.y) [d](#e)")
    kept = build["relinked"](nbformat.v4.new_notebook(cells=[cell]), build["LESSONS"], build["KEPT"], ".html")
    assert kept.cells[0].source == "[a](04_training.html) [b](../../../docs/data.md#x) [c](https://x.y) [d](#e)"
    assert build["relinked"](kept, build["KEPT"], build["LESSONS"]).cells[0].source == cell.source
