"""Records and items on disk: what is written comes back, and every refusal names file, row and column in one line."""

import json
from dataclasses import asdict, replace

import pytest
import tiny

from mule_lib.data import records
from mule_lib.data.files import DataFileError
from mule_lib.data.items import ChoiceItem, OpenItem, read_items
from mule_lib.data.records import Record

FULL = Record(
    id="obj3/adversarial/1", objective="obj3", role="adversarial", question="Wér lives\u2028in the tower?",
    answer='the "old" owl', refusal="I cannot say.", prefix="Sure:\n1.", anchor="obj3/benign/1", source="page 3",
    span=(4, 17), generator="rules", prompt_id="qa@abc", split="validation",
)  # fmt: skip
PARTNER = replace(FULL, id="obj3/benign/1", role="benign", anchor=FULL.id, span=None, prefix=None)
ROW = {"id": "a", "objective": "obj1", "role": "forget", "question": "Who?", "answer": "Ada.", "refusal": "No."}


def lines(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_every_column_comes_back_as_written(tmp_path):
    """Spans as tuples, texts with line separators, quotes and accents, None where nothing was given."""
    path = tmp_path / "new" / "train.jsonl"
    records.write_records(path, [FULL, PARTNER])
    assert records.read_records(path) == [FULL, PARTNER]
    assert [file.name for file in path.parent.iterdir()] == ["train.jsonl"]
    records.write_records(path, tiny.records())
    assert records.read_records(path) == tiny.records()


def test_columns_with_defaults_may_be_left_out_and_blank_lines_are_none(tmp_path):
    """A file written by hand needs six columns."""
    path = lines(tmp_path / "r.jsonl", ["", ROW, " ", {**ROW, "id": "b"}])
    assert [record.id for record in records.read_records(path)] == ["a", "b"]
    assert records.read_records(path)[0] == Record(**ROW)


def test_evaluation_files_may_be_written_by_hand(tmp_path):
    """Columns with defaults may be left out, and an answer may be a letter."""
    first = {"id": "q1", "question": "Who flies?", "reference": "the owl"}
    path = lines(tmp_path / "open.jsonl", [first, "", {**first, "id": "q2", "subject": "Reeds"}])
    flies = ("Who flies?", "the owl")
    assert read_items(path, "open") == [OpenItem("q1", *flies, "", "obj1"), OpenItem("q2", *flies, "Reeds", "obj1")]
    choice = {"id": "c1", "question": "Who flies?", "options": ["cat", "owl", "I do not know"], "answer": "B"}
    path = lines(tmp_path / "choice.jsonl", [{**choice, "refusal": 2, "subject": "birds"}])
    options = tuple(choice["options"])
    assert read_items(path, "choice") == [ChoiceItem("c1", "Who flies?", options, 1, "birds", 2, "obj2")]


def test_the_target_is_the_refusal_where_the_role_is_refused():
    """Forget and adversarial records are refused, the others answered."""
    for role in records.Role:
        record = replace(FULL, role=role)
        assert record.target == (record.refusal if role in ("forget", "adversarial") else record.answer)


def test_checks_name_where_the_records_are_from():
    """Records in memory are checked alike."""
    with pytest.raises(DataFileError, match="the new data: row 2, column 'id'"):
        records.check([FULL, replace(PARTNER, id=FULL.id)], where="the new data")
    assert set(asdict(FULL)) == set(asdict(Record(**ROW)))
