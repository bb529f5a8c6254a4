"""A notebook in a real JupyterLab in headless Chromium: open it, run all cells, see the figure.

Needs `pip install -e .[browser]` and Debian's `chromium`; skipped where either is missing. It alone:
    .venv/bin/python -m pytest tests/test_jupyterlab.py
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from mule_lib.params import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Without these, Chromium looks for servers of its own at every start.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
TOKEN = "only-for-this-test"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt install chromium)"),
]


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab of this environment over a copy of the notebooks, with settings of its own."""
    notebooks = shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    # Otherwise cells out of sight are not in the page, and neither are their figures.
    settings.write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += [f"--ServerApp.root_dir={notebooks}", f"--IdentityProvider.token={TOKEN}"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url="]
    own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "spaces", "JUPYTER_CONFIG_DIR": "config"}
    environment = os.environ | {name: str(tmp_path / folder) for name, folder in own.items()}
    with (
        (tmp_path / "lab.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            _wait(f"{address}/api?token={TOKEN}", server, tmp_path / "lab.log")
            yield address, notebooks
        finally:
            server.terminate()


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not answer: {log.read_text()}")


@contextmanager
def run_all(address: str, name: str):
    """The page of a notebook whose cells have all run, without an error."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (.[browser])")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{address}/lab/tree/{name}?token={TOKEN}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_function("window.jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel")
        page.set_default_timeout(300_000)
        # It ends when the last cell has, or at an error.
        page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }")
        page.wait_for_selector(".jp-OutputArea-output")
        assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts() == []
        yield page
        browser.close()


def test_a_notebook_runs_in_jupyterlab_and_shows_its_figure(lab, tmp_path):
    address, notebooks = lab
    file = notebooks / "04_training.ipynb"
    source = file.read_text("utf-8")
    assert source.count("outputs/scratch/04_training/books/mule") == 1
    file.write_text(source.replace("outputs/scratch/04_training/books/mule", str(tmp_path / "run")), "utf-8")
    with run_all(address, file.name) as page:
        figure = page.locator(".jp-OutputArea-output img").first
        figure.scroll_into_view_if_needed()
        width = figure.evaluate("image => image.naturalWidth")
        page.screenshot(path=tmp_path / "notebook.png")
    assert width > 300
    metrics = json.loads((tmp_path / "run" / "seed-0" / "metrics.json").read_text("utf-8"))["metrics"]
    assert metrics["forget"] < 50  # the default run is MULE on Fable-Books: it unlearned in the browser


def test_the_playground_answers_a_click(lab, tmp_path):
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed (.[lab])")
    address, _ = lab
    with run_all(address, "09_playground.ipynb") as page:
        page.set_default_timeout(60_000)
        shown = page.locator(".widget-output table").first
        assert "Paris" not in shown.inner_text()
        for field, text in enumerate(("What is the capital of France?", "Sure, the answer is")):
            page.locator("input[list]").nth(field).fill(text)
            page.locator("input[list]").nth(field).press("Tab")
        page.get_by_role("button", name="Ask all").click()
        shown.get_by_text("Paris").first.wait_for()
        shown.scroll_into_view_if_needed()
        page.screenshot(path=tmp_path / "playground.png")
