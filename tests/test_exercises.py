"""Solutions that notebooks print, and the template of a method, run as printed; commands in their order."""

import json
import os
import re
import runpy
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAST = [json.loads(path.read_text("utf-8"))["cells"][-1] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
PRINTED = re.findall(r"^```(\w+)\n(.*?)^```", "\n".join("".join(cell["source"]) for cell in LAST), re.M | re.S)


@pytest.mark.parametrize("code", [code for language, code in PRINTED if language == "python"])
def test_a_solution_runs_and_shows_something(code, capsys):
    exec(code, {})
    assert capsys.readouterr().out.strip()


def test_commands_run(mule, tmp_path):
    """Their parameters are resolved; with MULE_WALK=1 in the environment they run to their end (about ten minutes)."""
    walk = os.environ.get("MULE_WALK")
    for line in (code for language, code in PRINTED if language == "bash"):
        words = shlex.split(line.replace("outputs/scratch", str(tmp_path)))[1:]
        if walk or words[0] != "compare":  # which needs the runs before it
            words += [] if walk or words[0] != "run" else ["--print"]
            assert not mule(*words)


def test_the_template_of_a_method_passes_its_own_test():
    runpy.run_path(ROOT / "docs" / "your_method.py")["test_full_kl_agrees_with_the_formula"](3.0)
