"""What a report is made of: sections of tables and figures, each read from its files or named as missing."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mule_lib.params import ROOT

# Notebooks with a folder of their own below the suite's; the others write into the suite's.
OWN_FOLDER = {
    "00_meet_the_model": "/00_meet_the_model",
    "01_data_standardization": "/01_data/books",
    "02_gradient_cosine": "/02_gradient_cosine",
}


@dataclass(frozen=True)
class Part:
    """A table or figure of the page: `html` of a table or `image` (base64 PNG), neither where it is missing.

    `alt` states the finding; `links` are the files of it, by suffix, relative to the page; `command` is what makes it.
    """

    name: str
    title: str
    command: str
    html: str = ""
    image: str = ""
    alt: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> bool:
        return not (self.html or self.image)


@dataclass(frozen=True)
class Section:
    """A heading, a line that says what to look for, and parts in order."""

    anchor: str
    title: str
    text: str
    parts: Sequence[Part]


def table(suite: Path, name: str, title: str, *, command: str) -> Part:
    """A table of `tables/`, from the HTML file that its notebook wrote."""
    file = suite / "tables" / f"{name}.html"
    text = file.read_text("utf-8") if file.exists() else ""
    said = file.with_suffix(".txt")
    alt = said.read_text("utf-8").strip() if said.exists() else ""
    return Part(name, title, command, html=text, alt=alt, links=links_of(suite, file, ("csv", "md", "tex")))


def figure(suite: Path, name: str, title: str, *, command: str) -> Part:
    """A figure of `figures/`."""
    return image(suite, suite / "figures" / f"{name}.png", name=name, title=title, command=command)


def image(suite: Path, file: Path, *, name: str, title: str, command: str) -> Part:
    """A PNG with the text beside it as its alt text."""
    if not file.exists():
        return Part(name, title, command)
    alt = file.with_suffix(".txt")
    return Part(
        name,
        title,
        command,
        image=base64.b64encode(file.read_bytes()).decode("ascii"),
        alt=alt.read_text("utf-8").strip() if alt.exists() else title,
        links=links_of(suite, file, ("png", "pdf", "csv")),
    )


def links_of(suite: Path, file: Path, suffixes: Sequence[str]) -> dict[str, str]:
    """The files beside `file` with these suffixes, relative to the page."""
    found = {suffix: file.with_suffix(f".{suffix}") for suffix in suffixes}
    return {suffix: path.relative_to(suite).as_posix() for suffix, path in found.items() if path.exists()}


def command(suite: Path, notebook: str | None) -> str:
    """What makes a missing part: its notebook on this suite."""
    if notebook is None:
        return "make reproduce"
    out = f"outputs/{suite.name}{OWN_FOLDER.get(notebook, '')}"
    own = (ROOT / "params" / notebook / f"{suite.name}.yaml").is_file()
    params = f"params/{notebook}/{suite.name if own else 'fable'}.yaml"
    return f"mule run notebooks/{notebook}.ipynb -f {params} -p out_dir={out}"
