"""The report needs no other file, and says what is missing and whose numbers it shows; the paper's own tables."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from run_folders import write_run, write_runs

matplotlib.use("Agg")

from mule_lib import figures, figures_radar, paper_tables, report, results, tables, tables_readable
from mule_lib.params import load
from mule_lib.run import run_notebook

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite with Table 1 and Figure 3 made, everything else missing."""
    suite = write_runs(tmp_path_factory.mktemp("suites") / "made", rows=("base", "mule", "sft"), seeds=2)
    runs = results.load_runs(suite)
    tables_readable.write(
        tables.measured_table("table1", "books", runs), suite / "tables", finding="Table 1 says <so>."
    )
    data = figures_radar.radar_data(tables.measured_table("table3", "cyber", runs))
    figures.save(figures_radar.radar(data), suite / "figures", "figure3", data=data, alt='Alt "text" & finding.')
    (suite / "executed").mkdir()
    for name in ("05_main_results", "04_training-books-mule-0"):
        (suite / "executed" / f"{name}.ipynb").write_text("{}")
    (suite / "05_main_results").mkdir()
    (suite / "05_main_results" / "provenance.json").write_text(json.dumps({"seconds": 12.3}))
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
def page(suite):
    return Page(report.build(suite))


def test_the_page_needs_no_other_file(page, suite):
    """No script, no style sheet, no picture from elsewhere; links are inside the page or to files that exist."""
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "url(" not in report.build(suite) and "@import" not in report.build(suite)
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (suite / link).is_file(), link


def test_pictures_state_their_finding(page):
    """Alt text is the text file beside the figure, escaped, and shown below it as well."""
    assert [image["alt"] for image in page.images] == ['Alt "text" & finding.']
    assert page.text.count('Alt "text" & finding.') == 1 and "Table 1 says <so>." in page.text


def test_whose_numbers_are_shown(page, suite):
    """The banner names both sources and forbids comparing levels on Fable; with the paper's benchmark it does not."""
    assert "Fable-Books and Fable-Cyber with this project's embedded model" in page.text
    assert "MUSE-Books and WMDP-Cyber with Llama-3.2-3B-Instruct" in page.text
    assert "no measured number here is the paper's" in page.text
    run = results.load_runs(suite)[0]
    real = results.RunResult(**{**run.__dict__, "benchmark": "muse_books"})
    assert report.banner([real])["warning"] == "" and report.banner([])["measured"] == "no runs yet"


def test_missing_parts_name_their_command(page):
    """Every table and figure that is not there is listed with what makes it; those that are there are not."""
    missing = page.text.split("What is missing")[1].split("Does what the paper claims")[0]
    for notebook in ("02_gradient_cosine", "06_ablation", "08_claims"):
        assert f"mule run notebooks/{notebook}.ipynb -f params/{notebook}/fable.yaml -p out_dir=outputs/made" in missing
    assert "Table 2 · Ablation" in missing and "Table 1 · Main" not in missing and "Figure 3" not in missing
    for line in missing.splitlines():
        if "mule run" in line:
            words = line.split("mule run ")[1].split()
            assert (ROOT / words[2]).is_file(), line
            load(Path(words[0]).stem, ROOT / words[2])


def test_provenance_lists_runs_models_and_time(page, suite):
    """Every run with its folder, fingerprint and notebook; commit, packages and models; the notebooks' times."""
    for run in results.load_runs(suite):
        assert run.fingerprint in page.text and run.folder.relative_to(suite).as_posix() in page.text
    assert "000000000000" in page.text and "torch 2.13.0" in page.text and "embedded/base@" in page.text
    assert "executed/04_training-books-mule-0.ipynb" in page.links and "05_main_results, 12 s" in page.text


def test_the_same_files_give_the_same_page(suite):
    """Byte by byte, and writing it changes nothing that it reads."""
    first = report.write(suite).read_bytes()
    assert report.write(suite).read_bytes() == first


def test_nothing_to_report_is_refused(tmp_path):
    """A missing or empty folder in one line; a broken run folder by its name."""
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(report.ReportError, match="no runs, tables or figures there"):
            report.write(folder)
    folder = write_run(tmp_path, "books", "mule", 0)
    (folder / "values.json").write_text("{")
    with pytest.raises(results.ResultError, match=r"values\.json: cannot be read"):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_reported_tables_alone(tmp_path):
    """All three tables and both radars from the paper's numbers; a suite's folder is refused."""
    files = paper_tables.write(tmp_path)
    assert all(file.stat().st_size > 100 for file in files)
    assert {file.name for file in files} >= {
        "table1.tex",
        "table2.html",
        "table3.csv",
        "figure3.pdf",
        "radar_table1.png",
    }
    assert "Nothing here was measured" in (tmp_path / "tables" / "table1.md").read_text()
    assert (tmp_path / "figures" / "figure3.txt").read_text().count("Measured") == 0
    (tmp_path / "runs").mkdir()
    with pytest.raises(paper_tables.PaperTablesError, match="holds a suite's runs"):
        paper_tables.write(tmp_path)


def test_commands(suite):
    """`mule report` writes the page and says where; a suite that is not there is refused in one line."""
    mule = [sys.executable, "-m", "mule_lib.cli"]
    done = subprocess.run([*mule, "report", str(suite)], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == str(suite / "report.html") and done.returncode == 0
    done = subprocess.run([*mule, "report", "no_such_suite"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stderr.startswith("mule report: ") and done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "artifacts"),
    [
        ("05_main_results", ("tables/table1.csv", "tables/rates.html", "figures/overall_books.png")),
        ("06_ablation", ("tables/table2.tex", "figures/ablation.pdf")),
        ("07_wmdp_radar", ("tables/table3.md", "figures/figure3.csv", "figures/figure3.txt")),
    ],
)
def test_collecting_notebooks_run(stem, artifacts, suite, tmp_path):
    """Under papermill, on a suite in which most rows were not run: artifacts and a record of the runs behind them."""
    (tmp_path / "runs").symlink_to(suite / "runs")
    notebook, executed = ROOT / "notebooks" / f"{stem}.ipynb", tmp_path / "executed.ipynb"
    run_notebook(notebook, executed, overrides={"out_dir": str(tmp_path)})
    for name in artifacts:
        assert (tmp_path / name).stat().st_size > 0, name
    record = json.loads((tmp_path / stem / "provenance.json").read_text())
    assert set(record["runs"]) == {run.fingerprint for run in results.load_runs(suite)}
    outputs = executed.read_text()
    assert "not run" in outputs and "What we saw." in outputs and '"output_type": "error"' not in outputs
