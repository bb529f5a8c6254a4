"""Text for LaTeX: special characters and signs that the default fonts lack, emphasis, and what a file needs."""

import re

SIGNS = {
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
    # OT1, the default encoding, has other signs in the places of these two.
    **{"<": "$<$", ">": "$>$"},
    **{"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$"},
    **{"↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "←": r"$\leftarrow$"},
    **{"–": "--", "—": "---", "…": r"\ldots{}", "“": "``", "”": "''", "‘": "`", "’": "'", "\u00a0": "~"},
    **{"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$"},
}


def escape(text: str) -> str:
    """Plain text so that LaTeX prints it as it stands: special characters, `SIGNS`, and a minus written as a hyphen."""
    text = re.sub(r"(?<![\w.)\]])-(?=\d)", "−", text)
    return "".join(SIGNS.get(sign, sign) for sign in text)


def emphasis(text: str) -> str:
    """Markdown's bold and italics as LaTeX, everything else escaped."""
    text = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", escape(text))
    return re.sub(r"\*(.+?)\*", r"\\textit{\1}", text)


def needs(*packages: str, note: str = "") -> str:
    """The first line of a file: the packages to load, and how the table is to be set."""
    return rf"% needs \usepackage{{{','.join(packages)}}}" + (f"; {note}" if note else "")
