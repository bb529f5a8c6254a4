"""Small tables beside Tables 1 to 3 as files: CSV for machines, Markdown and HTML for readers."""

from html import escape
from pathlib import Path

import pandas as pd

from mule_lib.data.files import write_text


def write(data: pd.DataFrame, readable: pd.DataFrame, folder: Path, name: str, *, caption: str) -> None:
    """Write `data` as `name`.csv, and `readable` with its caption as `name`.md and `name`.html."""
    write_text(folder / f"{name}.csv", data.to_csv(index=False))
    write_text(folder / f"{name}.md", f"{caption}\n\n{readable.to_markdown(index=False)}\n")
    body = readable.to_html(index=False, border=0, na_rep="", classes="further")
    opening, rest = body.split("\n", 1)
    write_text(folder / f"{name}.html", f"{opening}\n  <caption>{escape(caption)}</caption>\n{rest}\n")
