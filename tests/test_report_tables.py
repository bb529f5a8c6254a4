"""Tables: what was run, what was not, what is reported; the same numbers in every format; LaTeX compiles."""

import re
import shutil
import subprocess
from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from run_folders import ITEMS, POINTS, made_beyond, write_run, write_runs

from mule_lib.paper import BENCHMARKS, METRICS, REPORTED
from mule_lib.report import beyond, results, tables
from mule_lib.report.names import STYLES, number, styles_of

ROWS = "base gold mule sft sft_standardized ga duet mule_duet_loss mule_no_cot mule_k1 graddiff".split()
needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no pdflatex on the PATH: apt-get install texlive-latex-base texlive-latex-recommended",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    suite = tmp_path_factory.mktemp("suite")
    write_runs(suite, rows=ROWS, benchmarks=("books",), seeds=2)
    write_run(suite, "books", "mule_k5", 0, points=POINTS["mule_k1"])
    write_run(suite, "books", "my_method", 0, points=(10, 80, 80, 20, 70), label="My method")
    for seed, row in enumerate(("base", "mule", "gold")):
        made = made_beyond({"base": 90, "mule": 6, "gold": 2}[row], seed=seed)
        write_run(suite, "cyber", row, 0, beyond=made)
    return results.load_runs(suite)


@pytest.fixture(scope="module")
def table1(runs):
    return tables.measured_table("table1", "books", runs)


@pytest.fixture(scope="module")
def table2(runs):
    return tables.measured_table("table2", "books", runs)


@pytest.fixture(scope="module")
def reported():
    """Tables 1 to 3 of the paper's benchmarks without a run."""
    return {name: tables.measured_table(name, BENCHMARKS[name], []) for name in REPORTED}


def test_every_row_has_a_look_of_its_own():
    """No two rows share colour, line and marker, nor line and marker within one table; unknown rows get one too."""
    looks = [(look.color, look.line, look.marker) for look in STYLES.values()]
    assert len(set(looks)) == len(looks)
    for table in REPORTED.values():
        without_color = [(look.line, look.marker) for look in styles_of(table).values()]
        assert len(set(without_color)) == len(without_color)
    assert len({*styles_of(["a_method", "b_method", "mule"]).values()}) == 3


def test_numbers_are_shown_without_negative_zero():
    """Signs, real minus, no −0.0; the paper's digits as printed."""
    assert [number(value) for value in (-0.04, 3.14, -3.16, float("nan"))] == ["0.0", "3.1", "−3.2", ""]
    assert [number(value, sign=True) for value in (0.0, 2.0)] == ["0.0", "+2.0"]
    assert [tables.as_printed(v) for v in (57.28, 0.3, -29.33, 106.5)] == ["57.28", "0.3", "−29.33", "106.5"]


def test_columns_and_lines(table1):
    """One line per row and metric with the columns that others read; every row of the paper is there."""
    data = pd.read_csv(StringIO(table1.csv()))
    assert tuple(data.columns[: len(tables.COLUMNS)]) == tables.COLUMNS
    assert not data.duplicated(["benchmark", "row", "condition", "metric"]).any()
    assert set(REPORTED["table1"]) <= set(data["row"]) and set(data["benchmark"]) == {"books"}
    assert set(data["metric"]) == {*METRICS, "overall", *tables.ANSWERS}
    assert set(data.loc[data["row"] == "sft", "condition"]) == {"paper", "standardized"}
    assert set(data["reported_for"]) == {"MUSE-Books, Llama-3.2-3B-Instruct"}
    forget = table1.cell("mule", "forget")
    assert (forget["reported"], forget["n"], forget["seeds"]) == (2.7, ITEMS["forget"], 2)


def test_rows_that_were_not_run_say_so(table1):
    """No number is invented: measured is empty, seeds are 0, the readable line says "not run", the paper's stays."""
    assert table1.not_run() == ["simnpo", "flat", "ngdiff", "mollm", "ensemble_teacher", "upper_bound"]
    lines = table1.data[table1.data["row"] == "flat"]
    assert lines[["measured", "low", "high"]].isna().all().all() and (lines[["n", "seeds"]] == 0).all().all()
    shown = table1.shown.set_index("Row").loc["FLAT"]
    shown = shown[shown["Seeds"] == "0"].iloc[0]
    assert list(shown) == ["not run", *["–"] * 5, "", "4", "0"]
    assert table1.markdown().count("not run") == len(table1.not_run())
    assert table1.finding.endswith("Ensemble Teacher (ET), Upper Bound.")


def test_further_rows_stand_under_a_heading_of_their_own(table1, runs):
    """The reference, other methods and an author's own row follow the paper's; variants of MULE belong to Table 2."""
    assert [*table1.groups.values()][1:] == [["sft_standardized"], ["gold", "graddiff", "my_method"]]
    assert table1.labels["my_method"] == "My method"
    assert not any(row.startswith("mule_") for row in table1.rows())
    third = tables.measured_table("table3", "muse_books", runs)
    assert third.not_run() == list(REPORTED["table3"]) and len(third.groups) == 1


def test_best_row_is_the_best_trained_row(table1, runs):
    """References never win, and the winner of each metric has no better rival; a lone trained row wins nothing."""
    best = table1.best("measured")
    lines = table1.data[~table1.data["row"].isin(["base", "gold", "upper_bound", "ensemble_teacher"])]
    for metric in (*METRICS, "overall", "gold_distance"):
        values = lines[lines["metric"] == metric].set_index("row")["measured"].dropna().round(1)
        limit = values.min() if metric in ("forget", "asr", "gold_distance") else values.max()
        assert {row for row, m in best if m == metric} == set(values.index[values == limit])
    assert {row for row, metric in table1.best("reported") if metric == "mmlu"} == {"ngdiff", "mollm"}
    assert {row for row, metric in table1.best("reported") if metric == "overall"} == {"mule"}
    assert {row for row, metric in table1.best("reported", 2) if metric == "overall"} == {"ngdiff"}
    alone = tables.measured_table("table1", "books", [run for run in runs if run.row in ("base", "mule")])
    assert alone.best("measured") == set()


def test_table2_has_paired_differences(table2, runs):
    """Losses, then switches, then other variants; differences are those of `results`, none for MULE itself."""
    assert [*table2.groups.values()][2][-3:] == ["mule_k1", "mule_k50", "mule_k5"]
    assert table2.labels["mule_k5"] == "mule_k5" and table2.labels["mule_k50"] == "MULE, K = 50"
    expected = results.differences([run for run in runs if run.row in (*table2.rows(), "base")], "mule")
    for line in expected.query("row == 'mule_no_cot' and benchmark == 'books'").itertuples():
        cell = table2.cell("mule_no_cot", line.metric)
        assert (cell["difference"], cell["difference_low"]) == (line.difference, line.low)
    kinds = table2.lines.groupby("Row")["kind"].agg(list)
    assert kinds["MULE"] == ["measured", "reported"] and kinds["MULE, K = 1"] == ["measured", "difference"]
    assert kinds["MULE with DUET's loss"] == ["measured", "difference", "reported"]
    assert table2.cell("mule", "mmlu")["reported"] == 58.2  # Table 2 prints another number than Table 1


@pytest.mark.parametrize("which", ["table1", "table2", "reported"])
def test_formats_show_the_same_numbers(which, table1, table2, reported, tmp_path):
    """Markdown, HTML and LaTeX hold the same numbers in the same order; all are written, twice the same."""
    table = {"table1": table1, "table2": table2, "reported": reported["table3"]}[which]
    found = re.compile(r"[−\d]+\.\d+")
    rows = found.findall(" ".join(table.shown.to_numpy().ravel()))
    body = table.html().split("<tbody>")[1].split("</tbody>")[0]
    latex = table.latex().split(r"\midrule", 1)[1].split(r"\bottomrule")[0].replace("$-$", "−").replace("[2pt]", "")
    assert found.findall(table.markdown().split("|", 1)[1].rsplit("|", 1)[0]) == rows and len(rows) > 20
    assert found.findall(re.sub("<[^>]*>", " ", body)) == rows == found.findall(latex)
    for folder in ("a", "b"):
        table.write(tmp_path / folder)
    for suffix in ("csv", "md", "tex", "html", "txt"):
        first, second = (tmp_path / folder / f"{table.name}.{suffix}" for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes() and first.stat().st_size > 100


def test_captions_tell_whose_numbers_they_are(table1):
    assert "this suite's runs on Fable-Books, this project's embedded model" in table1.caption
    assert "what the paper reports on MUSE-Books, Llama-3.2-3B-Instruct" in table1.caption
    assert "not comparable in level" in table1.notes[0]


def test_without_runs_a_table_holds_the_papers_numbers_alone(reported):
    """Every printed number, as printed, and nothing measured."""
    for name, rows in REPORTED.items():
        table = reported[name]
        for row, values in rows.items():
            for metric, value in values.items():
                assert table.cell(row, metric)["reported"] == value
        assert table.data["measured"].isna().all() and table.not_run() == table.rows()
        assert "no runs" in table.caption and not any("not comparable" in note for note in table.notes)
    assert "*57.28*" in reported["table1"].markdown()


def test_forgetting_by_broken_text_is_named(runs):
    """A row whose answers are mostly broken or of the wrong kind says so; references and others do not."""

    def told(share: float, *rows: str) -> list:
        kinds = {"refused": 1 - share, "wrong_kind": share / 3, "broken": share * 2 / 3}
        return [
            run.model_copy(update={"details": {"forget": {"kinds": kinds if run.row in rows else {}}}}) for run in runs
        ]

    table = tables.measured_table("table1", "books", told(0.9, "duet", "gold"))
    said = "Forgotten by broken text or words of the wrong kind instead of refusals: DUET (w/ ET) (90 %)."
    assert tables.broken_text(table.broken) == said and said in table.notes and said in table.finding
    fine = told(0.4, "duet")
    assert tables.measured_table("table1", "books", fine).broken == {} and tables.broken_text({}) == ""


def test_findings_say_what_the_tables_hold(table1, table2, runs):
    """Numbers in the sentences are those of the cells; ranks follow when a rival is lifted."""
    assert f"Forget from {number(table1.cell('base', 'forget')['measured'])} to " in table1.finding
    assert "Forget from 32.1 to 2.7" in table1.finding and "number 1 of 8 trained rows" in table1.finding
    lifted = table1.data.copy()
    lifted.loc[(lifted["row"] == "sft") & (lifted["metric"] == "overall"), "measured"] = 999.0
    other = replace(table1, data=lifted)
    assert "is number 2 of 5 trained rows" in other.finding
    assert "MULE without thought (−" in table2.finding.split("Switches: ")[1].split(" lose")[0]
    assert "The loss: " in table2.finding and "The form" not in table2.finding  # none of its rows was run
    assert "−5.5 for MULE with DUET's loss" in table2.finding
    none = tables.measured_table("table2", "muse_books", runs)
    assert "Not run: MULE, " in none.finding and "lose" not in none.finding


def test_kinds_of_answers_are_means_over_seeds(runs):
    """Percent of every kind, adding up to 100, in the order asked for, the commonest first; who answers how is said."""
    table = beyond.kinds_table(runs, "books", order=["sft", "sft_standardized", "ga", "duet", "mule", "flat"])
    mine = [run.kinds["forget"] for run in runs if (run.benchmark, run.row) == ("books", "mule")]
    lines = table.data.query("row == 'mule' and set == 'forget'").set_index("kind")
    share = 100 * np.mean([kinds.count("f") / len(kinds) for kinds in mine])
    assert lines.loc["refused", "value"] == pytest.approx(share, abs=0.01) and lines.loc["refused", "seeds"] == 2
    assert np.allclose(table.data.groupby(["row", "condition", "set"])["value"].sum(), 100, atol=0.05)
    assert list(table.shown["Row"]) == ["SFT", "SFT on MULE's data", "GA", "DUET (w/ ET)", "MULE"]
    shown = table.shown.set_index("Row")
    assert shown.loc["MULE", "Forget"].startswith(f"refused {share:.0f}, ")
    assert shown.loc["DUET (w/ ET)", "Forget"].startswith("broken")
    for said in (
        "refused for SFT, SFT on MULE's data and MULE;",
        "broken for DUET (w/ ET).",
        "General by GA (wrong kind",
    ):
        assert said in table.finding


def test_what_the_papers_columns_do_not_see_stands_beside(table1, reported, runs):
    """The same rows by the other metrics, in files of their own; the finding has MULE's numbers and the best rows."""
    answers = table1.answers
    assert answers.rows() == table1.rows() and list(answers.metrics) == list(tables.ANSWERS)
    cell = table1.cell("mule", "neighbor_open")["measured"]
    assert f"Retain, open ↑ {number(cell)} (best: " in answers.finding and answers.finding.startswith(
        "MULE on Fable-Books"
    )
    assert answers.name == "table1_answers" and "reported" not in answers.markdown().split("|", 1)[1]
    # On Fable the four choices are no questions of MMLU; the paper's numbers keep its name.
    assert "Far recall ↑" in table1.shown and "MMLU ↑" not in table1.shown and "MMLU ↑" in reported["table1"].shown
    measured, printed = table1.finding.split("Reported on")
    assert "Far recall from" in measured and "MMLU from 60.8" in printed
    # The parts add up to the lead, for baselines that ran in both conditions.
    table = beyond.lead_table(runs)
    assert np.allclose(table.data["data"] + table.data["loss"], table.data["lead"])
    assert "MULE is ahead of 1 of 1 baselines in Overall, behind 0." in table.finding


def test_attacks_are_compared_with_the_run_itself(runs):
    """The run's own metrics come first; skipped attacks are "not measured" where others were."""
    table = beyond.attacks_table(runs, "cyber")
    mule = table.data.query("row == 'mule' and metric == 'forget'")
    assert list(mule["condition"])[:3] == ["as trained", "relearning, step 0", "relearning, step 1"]
    run = next(run for run in runs if (run.benchmark, run.row) == ("cyber", "mule"))
    assert mule["measured"].iloc[0] == pytest.approx(run.metrics["forget"], abs=0.01)
    shown = table.shown.set_index("Attack")
    lines = {"Forget ↓ 8-bit weights", "Forget ↓ the same facts in the prompt"}
    assert lines <= {*shown.index}
    assert shown.loc["Forget ↓ as trained", "MULE"].startswith(f"{run.metrics['forget']:.1f} [")
    assert "Retrained reference" in table.finding and not (shown == "not measured").any(axis=None)
    skipped = run.model_copy(update={"beyond": {**made_beyond(5), "relearning": {"skipped": "off"}}})
    kept = [skipped if run.row == "mule" else run for run in runs]
    assert (beyond.attacks_table(kept, "cyber").shown.set_index("Attack")["MULE"] == "not measured").sum() == 6
    assert beyond.attacks_table(runs, "books").data.empty


@pytest.mark.parametrize(
    ("planted", "csv", "md", "tex", "html"),
    [
        ('=HYPERLINK("x")', "'=HYPERLINK", "=HYPERLINK", "=HYPERLINK", "=HYPERLINK(&quot;x"),
        ("-1+cmd|' /C'!A0", "'-1+cmd|", r"-1+cmd\|", r"-1+cmd\textbar{}", "-1+cmd|"),
        ("@SUM(1)", "'@SUM(1)", "@SUM(1)", "@SUM(1)", "@SUM(1)"),
        ("</script><b>", "</script>", "&lt;/script&gt;", "$<$/script$>$", "&lt;/script&gt;"),
        (r"\input{x}", r"\input{x}", "<span>&#92;</span>input{x}", r"\textbackslash{}input\{x\}", r"\input{x}"),
        ("{{ x }}<|system|>", "{{ x }}<|system|>", r"{{ x }}&lt;\|system", r"\{\{ x \}\}$<$\textbar{}", "{{ x }}&lt;|"),
    ],
)
def test_planted_text_is_data_in_every_format(planted, csv, md, tex, html):
    cells = pd.DataFrame({"Row": [planted], "points": [-1.5]})
    table = tables.Table("planted", cells, cells.map(str), "A caption.")
    for made, expected in ((table.csv(), csv), (table.markdown(), md), (table.latex(), tex), (table.html(), html)):
        assert expected in made and "-1.5" in made
    assert not [made for made in (table.markdown(), table.html()) if "</script>" in made]


def test_text_is_printed_as_it_stands():
    assert r"5 % of $x_1$ & #2 {a} \ ~ ^ | <y>".translate(tables.SIGNS) == (
        r"5 \% of \$x\_1\$ \& \#2 \{a\} \textbackslash{} \textasciitilde{} \textasciicircum{} \textbar{} $<$y$>$"
    )
    assert "−2 ± 3 × 4 ≤ 5, 1–2, a ↓".translate(tables.SIGNS) == (
        r"$-$2 $\pm$ 3 $\times$ 4 $\leq$ 5, 1--2, a $\downarrow$"
    )


@needs_tex
def test_tables_compile_and_fit_the_page(runs, table1, table2, reported, tmp_path):
    """In a plain article: no error, no lost sign, nothing beyond the margins, plain ASCII; a long table too."""
    texts = table2.shown[["Row", "Obj1 Forget ↓"]].rename(columns={"Obj1 Forget ↓": "Test ≤ 5 %"})
    long = tables.Table("long", texts, pd.concat([texts] * 5, ignore_index=True), "A & more.", widths=(0.3, 0.6))
    made = [table1, table2, reported["table3"], beyond.attacks_table(runs, "cyber"), long]
    for table in made:
        table.write(tmp_path)
        assert (tmp_path / f"{table.name}.tex").read_text().isascii()
    names = "".join(rf"\input{{{table.name}.tex}}\clearpage" for table in made)
    packages = r"\usepackage{array,booktabs,graphicx,longtable}"
    (tmp_path / "page.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{names}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    for _ in range(3):  # a longtable's widths settle in the second and third run
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "page.log").read_text(errors="replace").replace("\n", "")
    assert "Missing character" not in log and "multiply defined" not in log and "too large" not in log
    assert not [wide for wide in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", log) if float(wide) > 1]
