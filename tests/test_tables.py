"""Tables 1 to 3: what was run, what was not, what is reported; the same numbers in every format."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import pandas as pd
import pytest
from run_folders import ITEMS, POINTS, write_run, write_runs

from mule_lib import findings, results, tables, tables_readable
from mule_lib.paper import METRICS, REPORTED

ROWS = ("base", "gold", "mule", "sft", "ga", "duet", "mule_duet_loss", "mule_no_cot", "mule_k1", "graddiff")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    suite = tmp_path_factory.mktemp("suite")
    write_runs(suite, rows=ROWS, benchmarks=("books",), seeds=2)
    write_run(suite, "books", "mule_k5", 0, points=POINTS["mule_k1"])
    write_run(suite, "books", "my_method", 0, points=(10, 80, 80, 20, 70), label="My method")
    return results.load_runs(suite)


@pytest.fixture(scope="module")
def table1(runs):
    return tables.measured_table("table1", "books", runs)


@pytest.fixture(scope="module")
def table2(runs):
    return tables.measured_table("table2", "books", runs)


def test_columns_and_lines(table1):
    """One line per row and metric with the columns that others read; every row of the paper is there."""
    data = pd.read_csv(StringIO(table1.csv()))
    assert tuple(data.columns[:9]) == tables.COLUMNS
    assert not data.duplicated(["benchmark", "row", "metric"]).any()
    assert set(REPORTED["table1"]) <= set(data["row"]) and set(data["benchmark"]) == {"books"}
    assert set(data["metric"]) == {*METRICS, "overall", "gold_distance"}
    assert set(data["reported_for"]) == {"MUSE-Books, Llama-3.2-3B-Instruct"}
    forget = table1.cell("mule", "forget")
    assert (forget["reported"], forget["n"], forget["seeds"]) == (2.7, ITEMS["forget"], 2)


def test_rows_that_were_not_run_say_so(table1):
    """No number is invented: measured is empty, seeds are 0, the readable line says "not run", the paper's stays."""
    assert table1.not_run() == ["simnpo", "flat", "ngdiff", "mollm", "ensemble_teacher", "upper_bound"]
    lines = table1.data[table1.data["row"] == "flat"]
    assert lines[["measured", "low", "high"]].isna().all().all() and (lines[["n", "seeds"]] == 0).all().all()
    made = [line for line in tables_readable.lines(table1) if line.kind == "measured" and line.label == "FLAT"]
    assert [cell.value for cell in made[0].cells] == ["not run"] + ["–"] * 6
    text = tables_readable.markdown(table1)
    assert "| FLAT | measured, Fable-Books | not run |" in text
    assert text.count("not run") == len(table1.not_run())


def test_further_rows_stand_under_a_heading_of_their_own(table1, runs):
    """Gold, other methods and an author's own row follow the paper's; variants of MULE belong to Table 2."""
    assert [rows for _, rows in table1.groups][1] == ["gold", "graddiff", "my_method"]
    assert table1.labels["my_method"] == "My method"
    assert not any(row.startswith("mule_") for row in table1.rows())
    third = tables.measured_table("table3", "cyber", runs)
    assert third.not_run() == list(REPORTED["table3"]) and len(third.groups) == 1


def test_best_row_is_the_best_trained_row(table1, runs):
    """References never win, and the winner of each metric has no better rival; a lone trained row wins nothing."""
    best = table1.best("measured")
    measured = {
        (line.row, line.metric): round(line.measured, 1)
        for line in table1.data.dropna(subset=["measured"]).itertuples()
    }
    trained = [row for row in table1.rows() if row not in ("base", "gold", "upper_bound", "ensemble_teacher")]
    for metric in (*METRICS, "overall", "gold_distance"):
        values = [measured[row, metric] for row in trained if (row, metric) in measured]
        limit = min(values) if metric in ("forget", "asr", "gold_distance") else max(values)
        assert {row for row, m in best if m == metric} == {r for r in trained if measured.get((r, metric)) == limit}
    assert {row for row, metric in table1.best("reported") if metric == "mmlu"} == {"ngdiff", "mollm"}
    assert {row for row, metric in table1.best("reported") if metric == "overall"} == {"mule"}
    alone = tables.measured_table("table1", "books", [run for run in runs if run.row in ("base", "mule")])
    assert alone.best("measured") == set()


def test_table2_has_paired_differences(table2, runs):
    """Losses, then switches, then other variants; differences are those of `results`, none for MULE itself."""
    switches = [rows for _, rows in table2.groups][1]
    assert switches[-3:] == ["mule_k1", "mule_k50", "mule_k5"]
    assert table2.labels["mule_k5"] == "MULE, K = 5"
    expected = results.differences([run for run in runs if run.row in (*table2.rows(), "base")], "mule")
    for line in expected.query("row == 'mule_no_cot'").itertuples():
        cell = table2.cell("mule_no_cot", line.metric)
        assert (cell["difference"], cell["difference_low"]) == (line.difference, line.low)
    kinds = {line.label: line.spans for line in tables_readable.lines(table2) if line.label}
    assert kinds["MULE"] == 2 and kinds["MULE with DUET's loss"] == 3 and kinds["MULE, K = 1"] == 2
    assert table2.cell("mule", "mmlu")["reported"] == 58.2  # Table 2 prints another number than Table 1


class Cells(HTMLParser):
    """Text of every cell, row by row, with a cell of several rows repeated."""

    def __init__(self):
        super().__init__()
        self.rows, self.open = [], False

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.open = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def _cells(latex):
    """The cells of a LaTeX table line by line, an interval behind the number that it stands below."""
    found = []
    for line in latex.replace("$-$", "−").splitlines():
        if " & " not in line:
            continue
        cells = [cell.strip() for cell in line.removesuffix("[-2pt]").removesuffix(r" \\").split("&")]
        if not cells[0] and not cells[1]:
            found[-1] = [f"{above} {below}" for above, below in zip(found[-1], cells, strict=True)]
        else:
            found.append(cells)
    return found


@pytest.mark.parametrize("which", ["table1", "table2", "reported"])
def test_formats_show_the_same_numbers(which, table1, table2):
    """Markdown, HTML and LaTeX hold the same numbers in the same order, and LaTeX is balanced."""
    table = {"table1": table1, "table2": table2, "reported": tables.reported_table("table3")}[which]
    found = re.compile(r"[−\d]+\.\d+")
    body = tables_readable.markdown(table).split("\n\n", 1)[1]
    reader = Cells()
    reader.feed(tables_readable.html(table))
    latex = tables_readable.latex(table)
    rows = " ".join(" ".join(cells) for cells in _cells(latex.split("\\midrule", 1)[1]))
    assert found.findall(body) == found.findall(" ".join(" ".join(row) for row in reader.rows))
    assert found.findall(body) == found.findall(rows) and len(found.findall(body)) > 20
    assert latex.count("{") == latex.count("}") and not re.search(r"(?<!\\)[%#_]", latex.split("\n", 1)[1])
    columns = len(re.search(r"begin\{tabular\}\{(l+r+)\}", latex)[1])
    for line in latex.splitlines():
        if " & " in line:
            assert line.count("&") == columns - 1, line


def test_captions_tell_whose_numbers_they_are(table1, runs):
    """On Fable the caption forbids comparing levels; with the paper's benchmark it has no reason to."""
    assert "measured* are this suite's runs on Fable-Books, this project's embedded model" in table1.caption
    assert "reported* are the paper's printed numbers on MUSE-Books, Llama-3.2-3B-Instruct" in table1.caption
    assert "not comparable in level" in table1.caption
    real = tables.measured_table("table1", "muse_books", [])
    assert "not comparable in level" not in real.caption and "no runs" in real.caption
    for line in tables_readable.lines(table1):
        if line.kind in ("measured", "reported"):
            assert line.source.endswith("Fable-Books" if line.kind == "measured" else "MUSE-Books")


def test_reported_tables_hold_the_papers_numbers_alone():
    """Every printed number, as printed, and nothing measured."""
    for name, rows in REPORTED.items():
        table = tables.reported_table(name)
        for row, values in rows.items():
            for metric, value in values.items():
                assert table.cell(row, metric)["reported"] == value
        assert table.data["measured"].isna().all() and not table.not_run()
        assert {line.kind for line in tables_readable.lines(table)} == {"reported"}
        assert "Nothing here was measured" in tables_readable.html(table)
    assert "*57.28*" in tables_readable.markdown(tables.reported_table("table1"))


def test_tables_are_written_in_four_formats_and_twice_the_same(table1, tmp_path):
    """CSV, Markdown, LaTeX and HTML; the same runs give the same bytes."""
    files = tables_readable.write(table1, tmp_path / "a")
    assert [file.name for file in files] == ["table1.csv", "table1.md", "table1.tex", "table1.html"]
    for file, again in zip(files, tables_readable.write(table1, tmp_path / "b"), strict=True):
        assert file.read_bytes() == again.read_bytes() and file.stat().st_size > 500


def test_numbers_are_shown_without_negative_zero():
    """Signs, real minus, no −0.0; the paper's digits as printed."""
    assert [tables_readable.number(v) for v in (-0.04, 3.14, -3.16)] == ["0.0", "3.1", "−3.2"]
    assert [tables_readable.number(v, sign=True) for v in (0.0, 2.0)] == ["0.0", "+2.0"]
    assert [tables_readable.as_printed(v) for v in (57.28, 0.3, -29.33, 106.5)] == ["57.28", "0.3", "−29.33", "106.5"]


def test_forgetting_by_broken_text_is_named(runs):
    """A row whose answers are mostly garbled says so in its caption and summary; references and others do not."""
    told = [replace(run, details={"forget": {"garbled_rate": 0.9 * (run.row in ("duet", "gold"))}}) for run in runs]
    table = tables.measured_table("table1", "books", told)
    assert table.note == "Forgotten by empty or garbled answers instead of refusals: DUET (w/ ET) (90 %)."
    assert table.note in table.caption and table.note in findings.results_summary(table)
    fine = [replace(run, details={"forget": {"garbled_rate": 0.4}}) for run in runs]
    assert tables.measured_table("table1", "books", fine).note == tables.broken_text([]) == ""
