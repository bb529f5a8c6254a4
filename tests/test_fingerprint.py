"""Fingerprints: everything that numbers hang on changes them, nothing else does."""

import json

import pytest

from mule_lib import fingerprint
from mule_lib.fingerprint import differences, file_hash, folder_hashes, identity, model_hash
from mule_lib.params import ROOT, Training

NOTEBOOK = ROOT / "notebooks" / "04_training.ipynb"


def _print(**changed):
    return fingerprint.fingerprint(identity(NOTEBOOK, Training(**changed)))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"steps": 41},
        {"learning_rate": 0.002},
        {"options": {"top_k": 11}},
        {"benchmark": "cyber"},
        {"model": "gold"},
        {"row": "mule_again"},
        {"beyond": True},
    ],
    ids=str,
)
def test_every_setting_changes_the_fingerprint(changed):
    """One changed setting, another fingerprint."""
    assert _print(**changed) != _print()


def test_place_and_permission_do_not():
    """Where a result goes, and whether it may replace another, are no part of it."""
    assert _print(out_dir="elsewhere", overwrite=True) == _print()


def test_data_counts_by_content(tmp_path):
    """The same records in another folder are the same run; a changed record is not; tables beside them do not count."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "evaluation").mkdir(parents=True)
        (folder / "train.jsonl").write_text("{}\n")
        (folder / "evaluation" / "forget.jsonl").write_text("{}\n")
    (other / "table.csv").write_text("numbers about the data\n")
    assert _print(data_dir=str(one)) == _print(data_dir=str(other)) != _print()
    (other / "evaluation" / "forget.jsonl").write_text("{} \n")
    assert _print(data_dir=str(one)) != _print(data_dir=str(other))


def test_code_and_packages_count(monkeypatch):
    """Another version of a package, or other code of a file, is another run."""
    before = identity(NOTEBOOK, Training())
    monkeypatch.setattr(fingerprint, "version", lambda name: "0.0")
    after = identity(NOTEBOOK, Training())
    assert {name.split(".")[0] for name, *_ in differences(before, after)} == {"packages"}
    assert "mule_lib/trainer.py" in before["code"] and "notebooks/04_training.ipynb" in before["code"]
    assert before["prompts"] and json.dumps(before)


def test_models_count_by_their_files(tmp_path):
    """The embedded models differ; a folder's hash follows its weights and not its name; hub models go by revision."""
    assert model_hash("base") != model_hash("gold")
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
    assert model_hash(str(tmp_path / "one")) == model_hash(str(tmp_path / "other"))
    (tmp_path / "other" / "model.safetensors").write_bytes(b"Weights")
    assert model_hash(str(tmp_path / "one")) != model_hash(str(tmp_path / "other"))
    assert model_hash("no-one/nothing", "abc") == "no-one/nothing@abc"


def test_files_are_hashed_again_when_they_change(tmp_path):
    """The cache of hashes goes by size and time; hidden files do not count; a missing path is named."""
    file = tmp_path / "a"
    file.write_text("one")
    (tmp_path / ".hidden").write_text("x")
    first = file_hash(file)
    file.write_text("other")
    assert file_hash(file) != first
    assert folder_hashes(str(tmp_path)) == {"a": file_hash(file)}
    with pytest.raises(FileNotFoundError, match="nowhere: no such"):
        folder_hashes(str(tmp_path / "nowhere"))


def test_differences_name_what_is_missing():
    """Nested keys are joined; a key on one side only has None on the other."""
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "d": 3}) == [("a.c", 2, None), ("d", None, 3)]
