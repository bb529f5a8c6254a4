"""Files of teacher's targets: written with what they are of, and refused by any run that differs."""

import json

import pytest
import tiny

from mule_lib import targets, teacher_files
from mule_lib.prompts import steering
from mule_lib.teacher_files import TeacherFileError, read, sidecar, told_of, write


@pytest.fixture(scope="module")
def said():
    how = steering("oracle", tiny.TOPIC, cot=False)
    return targets.teacher_targets(tiny.model(), tiny.tokenizer(), tiny.records(), how, max_answer_tokens=4)


def _told(**changed):
    how = {"kind": "oracle", "topic": tiny.TOPIC, "cot": False, "records": tiny.records(), "model": "abc", **changed}
    records, model = how.pop("records"), how.pop("model")
    return told_of(records, steering(how.pop("kind"), how.pop("topic"), cot=how.pop("cot")), model=model, **how)


def test_targets_come_back_as_they_were(said, tmp_path):
    """Ids, thoughts and obedience survive the file; the sidecar counts them."""
    write(tmp_path / "oracle.jsonl", said, _told())
    assert read(tmp_path / "oracle.jsonl", _told()) == said
    beside = json.loads(sidecar(tmp_path / "oracle.jsonl").read_text())
    assert beside["targets"] == len(said) and beside["obedience"] == targets.obedience(said)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"records": tiny.records()[1:]}, "records"),
        ({"model": "abd"}, "model"),
        ({"kind": "ensemble"}, "intentions"),
        ({"topic": "Blue River"}, "intentions"),
        ({"cot": True}, "intentions, cot"),
        ({"max_answer_tokens": 8}, "max_answer_tokens"),
        ({"max_thought_tokens": 8}, "max_thought_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_targets_are_refused_by_what_differs(said, tmp_path, changed, name):
    """Data, model, intention, thought and limits all have to agree."""
    write(tmp_path / "oracle.jsonl", said, _told())
    with pytest.raises(TeacherFileError, match=f"made with other {name};"):
        read(tmp_path / "oracle.jsonl", _told(**changed))


def test_other_code_is_refused(said, tmp_path, monkeypatch):
    """Targets that another version of the teacher wrote are not taken."""
    write(tmp_path / "oracle.jsonl", said, _told())
    monkeypatch.setattr(teacher_files, "code_hashes", lambda start: {"mule_lib/prompts.py": "other"})
    with pytest.raises(TeacherFileError, match="other code"):
        read(tmp_path / "oracle.jsonl", _told())


def test_targets_without_their_sidecar_are_not_taken(said, tmp_path):
    """A kill between the two files leaves targets that nobody can vouch for."""
    write(tmp_path / "oracle.jsonl", said, _told())
    sidecar(tmp_path / "oracle.jsonl").unlink()
    with pytest.raises(TeacherFileError, match="sidecar is missing"):
        read(tmp_path / "oracle.jsonl", _told())
