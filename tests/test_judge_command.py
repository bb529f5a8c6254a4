"""`mule judge-errors`: rates from files, missed texts below them, and every refusal in one line."""

import json
import sys

import pytest

from mule_lib import cli


def ask(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["mule", "judge-errors", *words])
    cli.main()


def test_errors_are_printed_from_files(tmp_path, capsys, monkeypatch):
    """Text and CSV refusals, JSON answers; a missed refusal stands below its line."""
    (tmp_path / "plain.txt").write_text("I cannot say.\n\nThe owl knows.\n", "utf-8")
    (tmp_path / "table.csv").write_text("Refusal Response\nSorry, I cannot say.\n", "utf-8")
    (tmp_path / "gold.json").write_text(json.dumps([{"answer": "the owl"}, {"answer": "a red cat"}]), "utf-8")
    files = [str(tmp_path / name) for name in ("plain.txt", "table.csv", "gold.json")]
    ask(monkeypatch, ["--refusals", *files[:2], "--answers", files[2]])
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert printed[:3] == [
        "refusal missed plain.txt 1 of 2 50.0%",
        "The owl knows.",
        "refusal missed table.csv 0 of 1 0.0%",
    ]
    assert "disclosure missed gold.json 0 of 2 0.0%" in printed


def test_bad_files_of_texts_are_refused_in_one_line(tmp_path, monkeypatch):
    """The file, the row and the column."""
    empty, answers = tmp_path / "empty.txt", tmp_path / "gold.json"
    empty.write_text("\n", "utf-8")
    answers.write_text(json.dumps([{"answer": "x"}, {"reply": "y"}]), "utf-8")
    for words, message in (
        ([], "give files by --refusals or --answers"),
        (["--refusals", str(tmp_path / "none.txt")], "none.txt: no such file"),
        (["--refusals", str(empty)], "empty.txt: holds no refusals"),
        (["--answers", str(answers)], "row 2, column 'answer': should be a text"),
    ):
        with pytest.raises(SystemExit) as caught:
            ask(monkeypatch, words)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
