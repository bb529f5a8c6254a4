"""The report needs no other file, and says what is missing and whose numbers it shows; the collecting notebooks run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from run_folders import write_run, write_runs

matplotlib.use("Agg")

from mule_lib.evaluate.result import ResultError
from mule_lib.params import read_parameters
from mule_lib.report import charts, figures, page, results, tables
from mule_lib.suite.notebook import run_notebook

ROOT = Path(__file__).resolve().parent.parent
ALT = 'Alt "text" & finding.'


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite with Table 1 and Figure 3 made, everything else missing."""
    suite = write_runs(tmp_path_factory.mktemp("suites") / "made", rows=("base", "mule", "sft"), seeds=2)
    runs = results.load_runs(suite)
    tables.measured_table("table1", "books", runs).write(suite / "tables")
    (suite / "tables" / "table1.txt").write_text("Table 1 says <so>.")
    radar = charts.radar(tables.measured_table("table3", "cyber", runs))
    figures.Picture(radar.figure, radar.data, ALT).write(suite / "figures", "figure3")
    (suite / "executed").mkdir()
    (suite / "executed" / "05_main_results.ipynb").write_text("{}")
    return suite


class Page(HTMLParser):
    """Links, sources, tags and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.images, self.ids, self.tags, self.text = [], [], set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids.add(attributes.get("id"))
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        assert "src" not in attributes or attributes["src"].startswith("data:image/png;base64,")

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def built(suite):
    return Page(page.report_html(suite))


def test_the_page_needs_no_other_file(built, suite):
    """No script, no style sheet, no picture from elsewhere; links are inside the page or to files that exist."""
    assert not built.tags & {"script", "link", "iframe", "object"}
    assert "url(" not in page.report_html(suite) and "@import" not in page.report_html(suite)
    assert len(built.links) > 20
    for link in built.links:
        assert link[1:] in built.ids if link.startswith("#") else (suite / link).is_file(), link


def test_a_copy_without_its_runs_has_no_dead_links(suite, tmp_path):
    text = page.live_links(page.report_html(suite), tmp_path)
    assert not re.search(r'href="(?!#|http)', text) and Page(text).text.count("runs/books/mule/seed-0") == 1


def test_pictures_state_their_finding(built):
    """Alt text is the text file beside the figure, escaped, and shown below it as well."""
    assert [image["alt"] for image in built.images] == [ALT]
    assert built.text.count(ALT) == 1 and "Table 1 says <so>." in built.text


def test_whose_numbers_are_shown(built, suite):
    """The banner names both sources and forbids comparing levels on Fable; with the paper's benchmark it does not."""
    assert "Fable-Books and Fable-Cyber with this project's embedded model" in built.text
    assert "MUSE-Books and WMDP-Cyber with Llama-3.2-3B-Instruct" in built.text
    assert "no measured number here is the paper's" in built.text
    real = results.load_runs(suite)[0].model_copy(update={"benchmark": "muse_books"})
    assert page.banner([real])["warning"] == "" and page.banner([])["measured"] == "no runs yet"


def test_missing_parts_name_their_command(built):
    """Every table and figure that is not there is listed with what makes it; those that are there are not."""
    missing = built.text.split("What is missing")[1].split("Does what the paper claims")[0]
    for notebook in ("02_gradient_cosine", "06_ablation", "08_claims"):
        assert f"mule run notebooks/{notebook}.ipynb -f params/{notebook}/fable.yaml -p out_dir=outputs/made" in missing
    assert "Table 2 · Ablation" in missing and "Table 1 · Main" not in missing and "Figure 3 · " not in missing
    for line in missing.splitlines():
        if "mule run" in line:
            words = line.split("mule run ")[1].split()
            assert (ROOT / words[2]).is_file(), line
            read_parameters(Path(words[0]).stem, ROOT / words[2])


def test_provenance_lists_runs_and_models(built, suite):
    """Every run with its folder and identity; commit, packages, models and the executed notebooks."""
    for run in results.load_runs(suite):
        assert run.identity in built.text and run.folder.relative_to(suite).as_posix() in built.text
    assert "000000000000" in built.text and "torch 2.13.0" in built.text and "embedded/base@" in built.text
    assert "executed/05_main_results.ipynb" in built.links


def test_nothing_to_report_is_refused_and_the_same_files_give_the_same_page(suite, tmp_path):
    """A missing or empty folder in one line; a broken run folder by its name; else the same bytes."""
    first = page.write_report(suite).read_bytes()
    assert page.write_report(suite).read_bytes() == first
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(ResultError, match="no runs, tables or figures there"):
            page.write_report(folder)
    folder = write_run(tmp_path, "books", "mule", 0)
    (folder / "values.json").write_text("{")
    with pytest.raises(ResultError, match=r"values\.json: cannot be read"):
        page.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_command(mule, suite, capsys):
    """`mule report` writes the page and says where; a suite that is not there is refused in one line."""
    assert mule("report", suite) is None and capsys.readouterr().out.strip() == str(suite / "report.html")
    assert re.fullmatch("mule report: .+", mule("report", "no_such_suite"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "artifacts"),
    [
        ("05_main_results", ("tables/table1.csv", "tables/kinds.html", "figures/overall_books.png")),
        ("06_ablation", ("tables/table2.tex", "figures/ablation.pdf")),
        ("07_wmdp_radar", ("tables/table3.md", "figures/figure3.csv", "figures/figure3.txt")),
    ],
)
def test_collecting_notebooks_run(stem, artifacts, no_kernel, suite, tmp_path):
    """Under papermill, on a suite in which most rows were not run: artifacts and a record of the runs behind them."""
    (tmp_path / "runs").symlink_to(suite / "runs")
    notebook, executed = ROOT / "notebooks" / f"{stem}.ipynb", tmp_path / "executed.ipynb"
    run_notebook(notebook, executed, overrides={"out_dir": str(tmp_path)})
    for name in artifacts:
        assert (tmp_path / name).stat().st_size > 0, name
    record = json.loads((tmp_path / stem / "provenance.json").read_text())
    assert set(record["runs"]) == {run.identity for run in results.load_runs(suite)}
    outputs = executed.read_text()
    assert "not run" in outputs and "What we saw." in outputs and '"output_type": "error"' not in outputs
