"""The ledger as files: CSV for machines, Markdown, LaTeX and HTML for readers; nothing is judged here."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from mule_lib.claims import Judged, behind, bound, comparisons, counts, finding, ledger, shown
from mule_lib.claims_inconsistencies import recomputed
from mule_lib.data.files import write_text
from mule_lib.latex import escape, needs

CAPTION = (
    "The paper's claims. Reported: the paper's printed numbers. Measured: this suite's, with intervals over items and "
    "seeds that cover at 95 % for all comparisons of a claim together. {finding}"
)
STYLE = (
    ".ledger caption, .ledger th, .ledger td { text-align: left !important; vertical-align: top; } "
    ".ledger .holds, .ledger .fails, .ledger .undecided { font-weight: bold; white-space: nowrap; } "
    ".ledger .holds { color: #0173b2; } .ledger .fails { color: #b04a00; } .ledger .undecided { color: #666; }"
)
MEETS = {
    "yes": "; what is printed meets the test",
    "no": "; what is printed misses the test",
    "not printed": "",
}
# Shares of the text width; what is left lies between the columns.
WIDTHS = {"claims": (0.25, 0.2, 0.15, 0.105, 0.215), "inconsistencies": (0.04, 0.41, 0.36, 0.12)}


def write(judged: Sequence[Judged], folder: Path) -> list[Path]:
    """Write claims, claims_comparisons (csv alone) and inconsistencies into `folder`; returns the files in order."""
    inconsistencies = recomputed()
    files = {
        "claims.csv": ledger(judged).to_csv(index=False),
        "claims_comparisons.csv": comparisons(judged).to_csv(index=False),
        "inconsistencies.csv": inconsistencies.to_csv(index=False),
    }
    caption = CAPTION.format(finding=finding(judged))
    appendix = "Inconsistencies inside the paper, recomputed from its printed tables."
    for name, table, words in (
        ("claims", readable(judged), caption),
        (
            "inconsistencies",
            inconsistencies.set_axis(["No.", "Inconsistency", "Recomputed", "Status"], axis=1),
            appendix,
        ),
    ):
        files[f"{name}.md"] = f"{words}\n\n{markdown(table)}\n"
        files[f"{name}.tex"] = latex(table, caption=words, label=f"tab:{name}", widths=WIDTHS[name])
        files[f"{name}.html"] = html(table, caption=words)
    for name, text in files.items():
        write_text(folder / name, text)
    return [folder / name for name in files]


def readable(judged: Sequence[Judged]) -> pd.DataFrame:
    """The ledger for reading: claim, reported, measured with interval and threshold, verdict, the test behind it."""
    lines = []
    for one in judged:
        lines.append(
            {
                "Claim": f"{one.claim.claim} ({one.claim.where})",
                "Reported (paper)": one.claim.reported + MEETS[one.reported_meets],
                "Measured": _measured(one),
                "Verdict": one.verdict,
                "Test": _test(one),
            }
        )
    return pd.DataFrame(lines)


def counts_line(judged: Sequence[Judged]) -> str:
    """The verdicts counted, in Markdown."""
    return ", ".join(f"**{number}** {verdict}" for verdict, number in counts(judged).items())


def markdown(table: pd.DataFrame) -> str:
    """A pipe table."""
    return _escaped(table, lambda text: text.replace("|", r"\|")).to_markdown(index=False)


def html(table: pd.DataFrame, *, caption: str) -> str:
    """A table with a caption and a class per verdict or status, so that a style sheet can colour it."""
    made = table.to_html(index=False, border=0, na_rep="", classes="ledger")
    for word in ("holds", "fails", "undecided", "confirmed", "not confirmed"):
        made = made.replace(f"<td>{word}</td>", f'<td class="{word.replace(" ", "-")}">{word}</td>')
    made = made.replace(' style="text-align: right;"', "")
    opening, rest = made.split("\n", 1)
    return f"<style>{STYLE}</style>\n{opening}\n  <caption>{caption}</caption>\n{rest}\n"


def latex(table: pd.DataFrame, *, caption: str, label: str, widths: Sequence[float]) -> str:
    """A longtable over pages with booktabs rules; `widths` are the columns' shares of the text width."""
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{share:g}\textwidth}}" for share in widths)
    head, *body = (
        " & ".join(escape(str(cell)) for cell in row) + r" \\"
        for row in [list(table.columns), *table.itertuples(index=False)]
    )
    lines = [
        needs("array", "booktabs", "longtable", note=r"in one column: longtable does not work after \twocolumn"),
        r"\begingroup\scriptsize\setlength{\tabcolsep}{3pt}\setlength{\LTcapwidth}{\textwidth}",
        rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
        rf"\caption{{{escape(caption)}}}\label{{{label}}}\\",
        # The caption stands on the first page alone, the head on every one.
        *["\\toprule", head, "\\midrule", "\\endfirsthead"],
        *["\\toprule", head, "\\midrule", "\\endhead", "\\bottomrule", "\\endfoot"],
        "\n\\addlinespace[2pt]\n".join(body),
        r"\end{longtable}",
        r"\endgroup",
    ]
    return "\n".join(lines) + "\n"


def _test(one: Judged) -> str:
    if one.decisive:
        text = f"{one.decisive.comparison.what} {behind(one.ours, one.benchmarks)}"
    else:
        text = one.explanation.removeprefix("undecided: ")
    return text[0].upper() + text[1:]


def _measured(one: Judged) -> str:
    """The deciding number with its condition; its spaces break no line inside an interval or a condition."""
    if not one.decisive:
        return "–"
    text = f"{shown(one.decisive)}; should be {bound(one.decisive)}"
    return re.sub(r"(?<=[\d<>],) (?=[−\d])|(?<=[<>]) | (?=%)", "\u00a0", text)


def _escaped(table: pd.DataFrame, escape: Callable[[str], str]) -> pd.DataFrame:
    return table.map(lambda cell: escape(cell) if isinstance(cell, str) else cell)
