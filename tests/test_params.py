"""Bad input of a training run is refused by name, before torch is imported or a kernel starts."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from mule_lib.params import LIBRARY, ROOT, ParameterError, read_parameters, validate


def test_a_teacher_file_has_to_be_the_one_that_the_options_ask_for(tmp_path):
    """The file's name says steering and thought; a method without a teacher takes none."""
    for stem in ("oracle-cot", "ensemble-cot"):
        for name in (f"{stem}.jsonl", f"{stem}.jsonl.json"):
            (tmp_path / name).write_text("")
    right = {"teacher_file": str(tmp_path / "oracle-cot.jsonl")}
    assert validate("04_training", right).teacher_file
    wrong = {"teacher_file": str(tmp_path / "ensemble-cot.jsonl")}
    with pytest.raises(ParameterError, match=r"the options of this run ask for oracle-cot.jsonl"):
        validate("04_training", wrong)
    assert validate("04_training", {**wrong, "method": "duet"})
    with pytest.raises(ParameterError, match="ask for no teacher's answers"):
        validate("04_training", {**right, "method": "sft"})
    with pytest.raises(ParameterError, match="ask for no teacher's answers"):
        validate("04_training", {**right, "options": {"answers": "given"}})


def test_refusing_the_command_s_help_and_reading_results_take_no_torch():
    code = "import sys, mule_lib.report.page, mule_lib.suite.cli; print('torch' in sys.modules)"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_a_library_without_its_repository_writes_into_the_working_directory(tmp_path):
    """As after a plain `pip install`."""
    shutil.copytree(LIBRARY, tmp_path / "packages" / "mule_lib", ignore=lambda *_: {"embedded", "__pycache__"})
    code = "from mule_lib import params; print(params.LIBRARY, params.repository_path('outputs/mine'))"
    shown = subprocess.check_output(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "packages"}, text=True
    )
    assert shown.split() == [str(tmp_path / place) for place in ("packages/mule_lib", "outputs/mine")]
    assert LIBRARY.parent == ROOT
    kept = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]["mule_lib"]
    assert {f"**/*{file.suffix}" for file in LIBRARY.rglob("*.*") if "py" not in file.suffix} <= set(kept)


def test_a_file_of_rows_gives_the_row_asked_for(tmp_path):
    """Defaults, then what the row changes, then the overrides; an unknown row is answered with the nearest."""
    file = tmp_path / "scale.yaml"
    file.write_text("defaults: {steps: 3}\nrows:\n  ga: {steps: 4}\n  mule_k1: {method: mule, options: {top_k: 1}}\n")
    p = read_parameters("04_training", file, {"row": "mule_k1", "seeds": [2]})
    assert (p.row, p.method, p.options, p.steps, p.seeds) == ("mule_k1", "mule", {"top_k": 1}, 3, [2])
    assert read_parameters("04_training", file, {"row": "ga"}).steps == 4
    with pytest.raises(ParameterError, match="row 'mule_k2': did you mean 'mule_k1'"):
        read_parameters("04_training", file, {"row": "mule_k2"})
