"""Builds the site from the repository: lessons with their outputs, documents, tables, the report (`make site`).

    python site/build.py [--keep NAME]

With `--keep`, the executed notebooks of the suite outputs/NAME are first kept in outputs/reference/notebooks, small, as
.ipynb and .html; one that the suite does not run is run here. The pages are then in build/site/_build/html; they need
no server and no network.
"""

import argparse
import base64
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LESSONS, KEPT, STAGE = ROOT / "notebooks", ROOT / "outputs" / "reference" / "notebooks", ROOT / "build" / "site"
SOURCES = ("README.md", "LICENSE", "docs", "params", "notebooks", "outputs/reference")


def relinked(notebook, old: Path, new: Path, suffix: str = ".ipynb"):
    """A copy of a notebook whose links, written for folder `old`, work in `new`; other lessons lie beside it."""

    def link(found):
        place, mark, anchor = found[2].partition("#")
        beside = place.endswith((".ipynb", ".html")) and "/" not in place
        moved = Path(place).stem + suffix if beside else os.path.relpath(old / place, new)
        return found[1] + moved + mark + anchor

    made = nbformat.from_dict(notebook)
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(\]\()(?![a-z]+:|#)([^)\s]+)", link, cell.source)
    return made


def small_image(png: str) -> str:
    """A picture in base64 with at most 128 colours, which is enough for plots."""
    image, held = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(held, "png", optimize=True)
    return min(base64.b64encode(held.getvalue()).decode(), png, key=len)


def executed(stem: str, suite: Path) -> Path:
    """The copy of a lesson that the suite executed: on books, of MULE; else one that is executed now."""
    folder = suite / "executed"
    for pattern in (f"{stem}.ipynb", f"{stem}-books.ipynb", f"{stem}-books-mule-0*.ipynb"):
        if found := sorted(folder.glob(pattern)):
            return found[0]
    file = folder / f"{stem}.ipynb"
    command = [sys.executable, "-m", "mule_lib.suite.cli", "run", LESSONS / f"{stem}.ipynb", "-o", file]
    place = suite / stem if stem < "05" else suite  # those from 05 read the suite
    subprocess.run([*command, "-p", f"out_dir={place.relative_to(ROOT)}"], cwd=ROOT, check=True)
    return file


def keep(suite: Path) -> None:
    """Write the executed lessons to `KEPT`, without machine paths, with small pictures."""
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    for lesson in sorted(LESSONS.glob("*.ipynb")):
        text = executed(lesson.stem, suite).read_text("utf-8").replace(f"{ROOT}/", "")
        notebook = nbformat.reads(text, as_version=4)
        notebook.metadata.pop("papermill", None)
        for number, cell in enumerate(notebook.cells):
            cell.id = f"{lesson.stem}-{number}"  # one in all lessons
            cell.metadata.pop("papermill", None)
            for output in cell.get("outputs", []):
                if "image/png" in (data := output.get("data", {})):
                    data["image/png"] = small_image(data["image/png"])
        nbformat.write(relinked(notebook, LESSONS, KEPT), KEPT / lesson.name)
        page, _ = HTMLExporter().from_notebook_node(relinked(notebook, LESSONS, KEPT, ".html"))
        (KEPT / lesson.with_suffix(".html").name).write_text(page, "utf-8")
    total = sum(file.stat().st_size for file in KEPT.iterdir()) / 2**20
    print(f"{KEPT.relative_to(ROOT)}: {total:.1f} MiB")


def build() -> None:
    """Bring all sources to `STAGE`, where lessons that were kept take the place of those without outputs, and build."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for name in SOURCES:
        if (source := ROOT / name).is_dir():
            shutil.copytree(source, STAGE / name, ignore=shutil.ignore_patterns(".*"))
        else:
            (STAGE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, STAGE / name)
    for lesson in sorted(LESSONS.glob("*.ipynb")):
        notebook = nbformat.read(file if (file := KEPT / lesson.name).is_file() else lesson, as_version=4)
        for number, cell in enumerate(notebook.cells):
            cell.id = f"{lesson.stem}-{number}"
        back = relinked(notebook, KEPT, LESSONS) if file.is_file() else notebook
        nbformat.write(back, STAGE / "notebooks" / lesson.name)
    shutil.copy(ROOT / "site" / "myst.yml", STAGE)
    shutil.copytree(ROOT / "site" / "theme", STAGE / "theme")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # for its node and python
    command = ["jupyter-book", "build", "--html", "--strict", "--ci"]
    subprocess.run(command, cwd=STAGE, check=True, env=os.environ | {"PATH": path})
    made = STAGE / "_build" / "html"
    for suite in sorted((ROOT / "outputs").glob("reference*")):  # the report with what it links to
        shutil.copytree(suite, made / "files" / "outputs" / suite.name, ignore=shutil.ignore_patterns("notebooks"))
    print(f"open {made / 'index.html'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", metavar="NAME", help="the suite whose executed notebooks are kept")
    if name := parser.parse_args().keep:
        keep(ROOT / "outputs" / name)
    build()
