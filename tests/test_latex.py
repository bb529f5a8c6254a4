"""LaTeX tables: what TeX needs of a text, and, where TeX is installed, that every table compiles and fits its page."""

import re
import shutil
import subprocess

import pytest
from claims_world import FakePilot, World

from mule_lib import claims, claims_tables, latex
from mule_lib.claims_evidence import Measured

TABLES = ("claims", "inconsistencies")
needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no pdflatex on the PATH: apt-get install texlive-latex-base texlive-latex-recommended",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The ledger and the inconsistencies as LaTeX."""
    out = tmp_path_factory.mktemp("tables")
    world = World(items=40, seeds=2).runs()
    claims_tables.write(claims.judge(Measured(world, pilot=FakePilot(), resamples=2000)), out)
    assert sorted(file.stem for file in out.glob("*.tex")) == sorted(TABLES)
    return out


def test_text_is_printed_as_it_stands():
    assert latex.escape(r"5 % of $x_1$ & #2 {a} \ ~ ^ | <y>") == (
        r"5 \% of \$x\_1\$ \& \#2 \{a\} \textbackslash{} \textasciitilde{} \textasciicircum{} \textbar{} $<$y$>$"
    )
    assert latex.escape("−2 ± 3 × 4 ≤ 5, 1–2, a ↓") == (
        r"$-$2 $\pm$ 3 $\times$ 4 $\leq$ 5, 1--2, a $\downarrow$"
    )  # fmt: skip


def test_a_hyphen_before_a_number_is_a_minus_and_no_other():
    assert latex.escape("-2.3 [-13.4, 6.9]") == "$-$2.3 [$-$13.4, 6.9]"
    assert latex.escape("Llama-3.2-3B, 95-97, Fable-Books") == "Llama-3.2-3B, 95-97, Fable-Books"


def test_emphasis_survives_escaping():
    assert latex.emphasis("**both 5 %** and *one_two*") == r"\textbf{both 5 \%} and \textit{one\_two}"


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_plain_latex(folder, name):
    """Only ASCII, balanced braces and dollars, nothing special unescaped, and as many cells in each line as columns."""
    first, text = (folder / f"{name}.tex").read_text("utf-8").split("\n", 1)
    assert re.match(r"% needs \\usepackage\{[a-z,]+\}", first)
    assert text.isascii()
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)
    assert not re.search(r"[%#_^~]", bare.replace("~", "" if name == "claims" else "~"))
    assert bare.count("$") % 2 == 0
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    columns = _columns(text)
    for line in text.splitlines():
        if re.search(r"\\\\(\[-2pt\])?$", line) and not line.startswith((r"\caption", r"\multicolumn")):
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
        if span := re.match(r"\\multicolumn\{(\d+)\}", line):
            assert int(span[1]) == columns


def _columns(text):
    plain = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    return len(plain[1]) if plain else text.split("\\caption", 1)[0].count("p{")


@needs_tex
@pytest.mark.parametrize("name", TABLES)
def test_tables_compile_and_fit_the_page(folder, name, tmp_path):
    """In a plain article with the packages that the file names: no error, no lost sign, nothing beyond the margins."""
    file = folder / f"{name}.tex"
    packages = re.search(r"usepackage\{([a-z,]+)\}", file.read_text("utf-8"))[1]
    body = rf"\usepackage{{{packages}}}" + "\n" + rf"\begin{{document}}\input{{{file}}}\end{{document}}"
    (tmp_path / "page.tex").write_text("\\documentclass{article}\n" + body, "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    for _ in range(3):  # a longtable's widths settle in the second and third run
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "page.log").read_text(errors="replace").replace("\n", "")
    assert "Missing character" not in log and "multiply defined" not in log and "too large" not in log
    assert not [wide for wide in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", log) if float(wide) > 1]
