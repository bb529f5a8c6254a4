"""What finished runs say: run folders to results, tables, figures, claims and one page. Nothing here makes a number.

`results` reads run folders back; `names` has what methods and metrics are called and how they look; `tables` and
`figures` give a `Table` or a `Picture`, which `show` puts into a notebook and on disk; `page` writes report.html.
"""

from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from mule_lib.report.figures import Picture
from mule_lib.report.names import plain
from mule_lib.report.tables import Printed

# Dollars in a question or an answer are no formula for Jupyter.
pd.set_option("display.html.use_mathjax", False, "styler.html.mathjax", False)


def show(made: Printed | Picture, folder: Path | str = "", name: str = "") -> None:
    """Show a table or a figure with what it says, and write it into `folder`; one without data only says so.

    A figure is written as PNG, PDF and CSV with its alt text, a table as CSV, Markdown, LaTeX and HTML.
    """
    if not made.data.empty:
        if folder:
            made.write(Path(folder), name)
        display(made)
    if made.finding:
        display(Markdown(plain(made.finding)))
