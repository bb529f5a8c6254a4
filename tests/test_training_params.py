"""Bad input of a training run is refused by name, before torch is imported or a kernel starts."""

import subprocess
import sys

import pytest

from mule_lib import method_catalogue, param_types, settings
from mule_lib.closure import ROOT
from mule_lib.method_catalogue import catalogue, options_of, teacher_name
from mule_lib.methods import METHODS
from mule_lib.models import EMBEDDED
from mule_lib.params import ParameterError, validate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "mul"}, "method = 'mul': did you mean 'mule'?"),
        ({"learningrate": 1}, "unknown parameter 'learningrate'; did you mean 'learning_rate'?"),
        ({"options": {"topk": 3}}, "options = {'topk': 3}: mule has no option 'topk'; did you mean 'top_k'?"),
        ({"steps": "many"}, "steps = 'many': Input should be a valid integer"),
        ({"steps": -1}, "steps = -1: Input should be greater than or equal to 0"),
        ({"learning_rate": -0.1}, "learning_rate = -0.1: Input should be greater"),
        ({"benchmark": "bok"}, "benchmark = 'bok': did you mean 'books'?"),
        ({"benchmark": "muse_books"}, "data_dir = '': muse_books has to be prepared first: mule standardize"),
        ({"model": "bse"}, "model = 'bse': did you mean 'base'?"),
        ({"model": "models/llama/3b"}, "no such model folder"),
        ({"model": "./llama"}, "no such model folder"),
        ({"model": "tests"}, "the folder has no config.json"),
        ({"data_dir": "nowhere"}, "data_dir = 'nowhere': no such folder"),
        ({"data_dir": "tests", "data_format": "raw"}, "tests has no raw.jsonl"),
        ({"data_format": "rwa"}, "data_format = 'rwa': did you mean 'raw'?"),
        ({"teacher_file": "nothing.jsonl"}, "no such file; `mule teacher` writes it"),
        ({"precision": "fp16"}, "precision = 'fp16': did you mean 'bf16'?"),
        ({"choice_style": "leters"}, "choice_style = 'leters': choose from letters, texts"),
        ({"row": "My Row"}, "row = 'My Row': String should match"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_by_name(values, message):
    """One line with the key, and the nearest valid name or what would be right."""
    with pytest.raises(ParameterError) as error:
        validate("03_training", values)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_teacher_file_has_to_be_the_one_that_the_options_ask_for(tmp_path):
    """The file's name says steering and thought; a method without a teacher takes none."""
    for stem in ("oracle-cot", "ensemble-cot"):
        (tmp_path / f"{stem}.jsonl").write_text("")
    right = {"teacher_file": str(tmp_path / "oracle-cot.jsonl")}
    assert validate("03_training", right).teacher_file
    wrong = {"teacher_file": str(tmp_path / "ensemble-cot.jsonl")}
    with pytest.raises(ParameterError, match=r"the options of this run ask for oracle-cot.jsonl"):
        validate("03_training", wrong)
    assert validate("03_training", {**wrong, "method": "duet"})
    with pytest.raises(ParameterError, match="sft with these options takes no teacher's answers"):
        validate("03_training", {**right, "method": "sft"})


def test_refusing_takes_no_torch():
    """The check of a params file stays light once the table of methods is stored."""
    code = (
        "import sys; from mule_lib.params import validate; validate('03_training', {}); print('torch' in sys.modules)"
    )
    run = [sys.executable, "-c", code]
    subprocess.run(run, cwd=ROOT, check=True)  # stores the table where it is not stored yet
    assert subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip() == "False"


def test_names_agree_with_the_modules_that_own_them():
    """What is repeated here to spare an import is the same there."""
    assert param_types.PRECISIONS == settings.PRECISIONS
    assert param_types.EMBEDDED == EMBEDDED


def test_stored_table_is_the_table(tmp_path, monkeypatch):
    """The stored catalogue holds every method with its options, and is read back the same."""
    method_catalogue._stored.cache_clear()
    written = method_catalogue._stored(tmp_path)
    method_catalogue._stored.cache_clear()
    monkeypatch.setattr(method_catalogue, "_described", lambda rows: pytest.fail("imported again"))
    assert method_catalogue._stored(tmp_path) == written
    monkeypatch.undo()
    method_catalogue._stored.cache_clear()
    assert {name: row["options"] for name, row in written.items()} == {n: dict(m.options) for n, m in METHODS.items()}
    assert {name for name, row in written.items() if not row["trains"]} == {"base", "upper_bound", "ensemble_teacher"}
    assert catalogue()["mule"]["label"] == METHODS["mule"].label


@pytest.mark.parametrize(
    ("method", "options", "stem"),
    [
        ("mule", {}, "oracle-cot"),
        ("mule", {"cot": False}, "oracle"),
        ("mule", {"teacher": "ensemble"}, "ensemble-cot"),
        ("mule", {"answers": "given"}, None),
        ("duet", {}, "ensemble-cot"),
        ("sft", {}, None),
        ("upper_bound", {}, None),
    ],
)
def test_teacher_names(method, options, stem):
    """Steering and thought name the file; rows that generate nothing have none."""
    assert teacher_name(options_of(method, options)) == stem
