"""Import closures: which files are behind a notebook's numbers, and which changes of them count."""

import json
from pathlib import Path

import pytest

from mule_lib.closure import ROOT, WITHOUT_RESULTS, behind_results, code_hashes, import_closure


@pytest.fixture
def package(tmp_path):
    """A package with imports at the top, inside a function, relative ones, and a module that nobody imports."""
    files = {
        "mule_lib/__init__.py": "",
        "mule_lib/a.py": "import os\nfrom mule_lib.sub import inner\nimport numpy\n",
        "mule_lib/b.py": "def late():\n    from mule_lib import c\n    return c\n",
        "mule_lib/c.py": "VALUE = 1\n",
        "mule_lib/alone.py": "import mule_lib.c\n",
        "mule_lib/sub/__init__.py": "",
        "mule_lib/sub/inner.py": "from . import other\nfrom ..b import late\n",
        "mule_lib/sub/other.py": "x = 1\n",
        "mule_lib/params.py": "from mule_lib import c\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def _names(files):
    return [file.as_posix() for file in files]


def test_closure_follows_every_kind_of_import(package):
    """Absolute, relative and late imports, with the packages' own files; not what nobody imports."""
    found = _names(import_closure(package / "mule_lib" / "a.py", root=package))
    assert found == [
        f"mule_lib/{name}.py" for name in ("__init__", "a", "b", "c", "sub/__init__", "sub/inner", "sub/other")
    ]


def test_closure_of_a_notebook_reads_code_cells_only(package):
    """Imports of code cells count, magics are passed over, text is not read."""
    cells = [
        {"cell_type": "markdown", "source": ["import mule_lib.alone"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "from mule_lib import params\n", "import mule_lib.b"]},
    ]
    notebook = package / "one.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    assert "mule_lib/params.py" in _names(import_closure(notebook, root=package))
    assert _names(behind_results(notebook, root=package)) == [
        "mule_lib/__init__.py",
        "mule_lib/b.py",
        "mule_lib/c.py",
        "one.ipynb",
    ]


def test_hash_changes_with_code_and_not_with_words(package):
    """Comments, docstrings and layout leave the hash; a changed value, name or file does not."""
    start, changed = package / "mule_lib" / "a.py", package / "mule_lib" / "c.py"
    before = code_hashes(start, root=package)
    changed.write_text('"""What it holds."""\n\n# why\nVALUE   =   1  # here\n')
    assert code_hashes(start, root=package) == before
    changed.write_text("VALUE = 2\n")
    after = code_hashes(start, root=package)
    assert [name for name in after if after[name] != before[name]] == ["mule_lib/c.py"]


def test_a_changed_import_changes_the_closure(package):
    """The closure is read anew when a file changes within one process."""
    start = package / "mule_lib" / "c.py"
    assert _names(import_closure(start, root=package)) == ["mule_lib/__init__.py", "mule_lib/c.py"]
    start.write_text("from mule_lib import alone\nVALUE = 1\n")
    assert "mule_lib/alone.py" in _names(import_closure(start, root=package))


def test_training_does_not_hang_on_what_only_collects():
    """A change of tables, figures or the report reruns no training; one of the trainer, losses or judges does."""
    found = set(_names(behind_results(ROOT / "notebooks" / "04_training.ipynb")))
    inside = ("trainer", "losses", "data/text", "prompts", "data/fable/worlds")
    assert {f"mule_lib/{name}.py" for name in inside} <= found
    outside = ("figures", "tables", "results", "report", "claims", "cli", "run", "suite", "reproduce")
    assert not {f"mule_lib/{name}.py" for name in outside} & found


def test_left_out_files_exist():
    """A renamed file must not stay in the list under its old name."""
    assert all((ROOT / name).is_file() for name in WITHOUT_RESULTS)
    assert all(isinstance(name, str) and Path(name).suffix == ".py" for name in WITHOUT_RESULTS)
