"""Data files of every kind, good and bad: the same rows from each, and one line with file, row and column otherwise."""

import csv
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from mule_lib.benchmarks import mmlu, muse_books, rwku, tofu, wikipedia, wmdp_cyber
from mule_lib.data import files
from mule_lib.data.files import DataFileError
from mule_lib.prepare_sources import read_refusals

QUESTIONS = [
    {"question": "Which bird hoots?", "choices": ["owl", "cat", "dog", "ant"], "answer": 0},
    {"question": "Which animal\nbarks?", "choices": ["owl", "cat", "dög", "ant"], "answer": 2},
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), "utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".jsonl", ".csv"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    """Parquet, JSON, JSON Lines and CSV (lists as JSON) hold the same questions."""
    items = wmdp_cyber.questions(write(tmp_path / f"cyber{suffix}", QUESTIONS))
    assert [(item.question, list(item.options), item.answer) for item in items] == [
        (row["question"], row["choices"], row["answer"]) for row in QUESTIONS
    ]


def test_column_order_further_columns_and_letters_do_not_matter(tmp_path):
    """A CSV with its header in another order, a column more, and letters for answers is the same data."""
    rows = [
        {"answer": "AC"[i], "note": "x", **{k: r[k] for k in ("choices", "question")}} for i, r in enumerate(QUESTIONS)
    ]
    turned = wmdp_cyber.questions(write(tmp_path / "turned.csv", rows))
    assert turned == wmdp_cyber.questions(write(tmp_path / "plain.csv", QUESTIONS))


def test_json_lines_under_the_name_of_json(tmp_path):
    """TOFU's files are JSON Lines although they are called .json; a byte order mark is no part of the data."""
    path = tmp_path / "forget01.json"
    path.write_text("".join(json.dumps({"question": "Who?", "answer": name}) + "\n" for name in "ab"), "utf-8-sig")
    assert [item.reference for item in tofu.pairs(path)] == ["a", "b"]


def test_original_mmlu_files_without_a_header(tmp_path):
    """hendrycks/test: no header, letters, the subject in the file's name; `val` is the validation split."""
    folder = tmp_path / "val"
    folder.mkdir()
    (folder / "owl_care_val.csv").write_text('"Who, if any, hoots?",owl,cat,dog,ant,A\nNone?,a,None,NA,d,C\n', "utf-8")
    first, second = mmlu.questions(tmp_path, split="validation")
    assert (first.question, first.answer, first.subject) == ("Who, if any, hoots?", 0, "owl_care")
    assert second.options == ("a", "None", "NA", "d")
    (folder / "owl_care_val.csv").write_text("answer,question,D,C,B,A\nB,Who?,d,c,b,a\n", "utf-8")
    assert mmlu.questions(tmp_path, split="validation")[0].options == ("a", "b", "c", "d")


def test_folders_splits_and_shards(tmp_path):
    """The Hub's layouts: shards in order, a folder per split, a missing shard named; a plain text file is one text."""
    for n in (1, 0):
        write(tmp_path / "raw" / f"forget-0000{n}-of-00002.parquet", [{"text": f"book {n}"}])
    assert [text.text for text in muse_books.raw(tmp_path)] == ["book 0", "book 1"]
    assert {text.role for text in muse_books.raw(tmp_path)} == {"forget"}
    write(tmp_path / "raw" / "retain1" / "0000.parquet", [{"text": "page"}])
    assert muse_books.raw(tmp_path, split="retain1")[0].role == "retain"
    (tmp_path / "raw" / "holdout.txt").write_text("a whole\nbook", "utf-8")
    assert muse_books.raw(tmp_path, split="holdout")[0].text == "a whole\nbook"
    (tmp_path / "raw" / "forget-00000-of-00002.parquet").unlink()
    with pytest.raises(DataFileError, match="shard 0 of 2 of forget is missing"):
        muse_books.raw(tmp_path)
    with pytest.raises(DataFileError, match=r"has no raw/retain2 .*; it has forget, holdout"):
        muse_books.raw(tmp_path, split="retain2")
    with pytest.raises(ValueError, match="the raw texts have forget, retain1"):
        muse_books.raw(tmp_path, split="sust")


GOOD = QUESTIONS[0]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        (
            "a.jsonl",
            [GOOD, {**GOOD, "answer": 4}],
            "row 2, column 'answer': 4 is outside the 4 options (0 to 3, or A to D)",
        ),
        ("a.csv", [GOOD, {**GOOD, "answer": "E"}], "row 2, column 'answer': 'E' is outside the 4 options"),
        ("a.csv", [{**GOOD, "answer": ""}], "row 1, column 'answer': '' is outside the 4 options"),
        ("a.jsonl", [{**GOOD, "answer": 1.0}], "row 1, column 'answer': 1.0 is outside"),
        ("a.jsonl", [{**GOOD, "answer": True}], "row 1, column 'answer': True is outside"),
        ("a.parquet", [GOOD, {**GOOD, "question": ""}], "row 2, column 'question': should be a text that is not empty"),
        ("a.json", [{**GOOD, "choices": "owl"}], "row 1, column 'choices': should be a list of texts"),
        ("a.json", [{**GOOD, "choices": ["owl", ""]}], "row 1, column 'choices': should be a list of texts"),
        ("a.json", [{**GOOD, "choices": ["owl"]}], "row 1, column 'choices': should hold at least two"),
        ("a.jsonl", [GOOD, '{"question": "Wh'], "row 2: not JSON (Unterminated string"),
        ("a.jsonl", ["[1, 2]"], "row 1: should be a JSON object, is list"),
        (
            "a.csv",
            [{"question": "Who?", "options": "x", "answer": 0}],
            "column 'choices': missing; the row has question",
        ),
    ],
)
def test_bad_rows_are_refused_in_one_line(tmp_path, name, rows, message):
    path = write(tmp_path / name, rows)
    with pytest.raises(DataFileError) as caught:
        wmdp_cyber.questions(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value) and "\n" not in str(caught.value)


def broken(tmp_path, kind):
    """A file of one kind of damage."""
    path = tmp_path / f"x.{kind.split('-')[0]}"
    if kind == "parquet-truncated":
        whole = write(path, QUESTIONS * 50).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "jsonl-latin":
        path.write_bytes(json.dumps(GOOD).encode() + b'\n{"question": "Stra\xdfe"}\n')
    elif kind == "csv-utf16":
        path.write_text("question,choices,answer\n", "utf-16")
    elif kind == "csv-ragged":
        path.write_text("question,choices,answer\na,b,0\na,b,0,more\n", "utf-8")
    elif kind == "json-cut":
        path.write_text(json.dumps(QUESTIONS, indent=1)[:-30], "utf-8")
    elif kind == "parquet-pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "utf-8")
    elif kind == "csv-empty":
        path.touch()
    elif kind == "xlsx":
        path.write_text("x", "utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("parquet-truncated", "not a whole parquet file"),
        ("parquet-pointer", "a Git LFS pointer, not the data; run `git lfs pull`"),
        ("jsonl-latin", "row 2: not UTF-8 (invalid continuation byte); save the file as UTF-8"),
        ("csv-utf16", "row 1: not UTF-8"),
        ("csv-ragged", "not a CSV table (Error tokenizing data. C error: Expected 3 fields in line 3, saw 4)"),
        ("json-cut", "not JSON"),
        ("csv-empty", "empty"),
        ("xlsx", "of an unknown kind; data files end in .parquet, .jsonl"),
        (
            "jsonl-absent",
            "no such file or folder; to get it: hf download cais/wmdp --repo-type dataset --revision 7125571f",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, kind, message):
    path = broken(tmp_path, kind)
    with pytest.raises(DataFileError) as caught:
        wmdp_cyber.questions(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value) and "\n" not in str(caught.value)


def test_references_that_rouge_cannot_see(tmp_path):
    """An answer without a letter or digit would count as forgotten whatever is said: refused, and left out of RWKU."""
    rows = [{"question": "Who?", "answer": "owl"}, {"question": "Who?", "answer": "?!"}]
    with pytest.raises(DataFileError, match=r"row 2, column 'answer': '\?!' has no letter or digit that ROUGE can see"):
        tofu.pairs(write(tmp_path / "forget01.jsonl", rows))
    probes = [{"query": "Who?", "answer": a, "subject": "Owl", "level": "2", "type": "q"} for a in ("owl", "梟")]
    write(tmp_path / "forget_level2.json", probes)
    with pytest.warns(UserWarning, match="1 of 2 questions left out"):
        assert [item.reference for item in rwku.probes(tmp_path)] == ["owl"]


def article(n, text="An article about owls. " * 40):
    return {"id": str(n), "title": f"Owl {n}", "text": text, "url": f"https://x.example/{n}"}


def test_doubled_articles_are_refused(tmp_path):
    """Two articles of one id are two dumps mixed up."""
    path = write(tmp_path / "wiki.jsonl", [article(1), article(2), article(1)])
    with pytest.raises(DataFileError, match="row 3, column 'id': '1' is already in row 1"):
        wikipedia.articles(path, count=1)


def test_sample_is_uniform(tmp_path):
    """Each article is drawn about equally often over the seeds, wherever it stands."""
    texts = list(wikipedia._usable(files.iterate(write(tmp_path / "w.jsonl", [article(n) for n in range(20)])), 10))
    drawn = [text.title for seed in range(400) for text in wikipedia.reservoir(texts, 5, seed=seed)]
    counts = [drawn.count(f"Owl {n}") for n in range(20)]
    assert sum(counts) == 2000 and min(counts) > 65 and max(counts) < 135  # 100 expected, deviation about 9


def test_article_text_is_cleaned():
    """End sections go, spaced punctuation closes up, sentences with a masked word are dropped, the rest stays."""
    assert wikipedia.clean("An owl .\n\nSee also\nCats") == "An owl."
    assert wikipedia.clean("A well @-@ known owl , grey . The <unk> flies . It ( the owl ) 's old .") == (
        "A well-known owl, grey. It (the owl)'s old."
    )
    plain = "The owl's nest (see below) is 3.5 m high, e.g. in oaks.\n\nIt is old."
    assert wikipedia.clean(plain) == plain


def test_refusal_files(tmp_path):
    """A header and repeated lines go; sentences the judge does not see as refusals are left out with a warning."""
    path = tmp_path / "refusals.csv"
    path.write_text(
        'Refusal Response\n"I do not know, sorry."\n"I do not know, sorry."\nLet us talk of owls.\n', "utf-8"
    )
    with pytest.warns(UserWarning, match="1 of 2 lines left out"):
        assert read_refusals(path) == ["I do not know, sorry."]
    lines = tmp_path / "refusals.txt"
    lines.write_text("I don't have that information.\n", "utf-8")
    assert read_refusals(lines) == ["I don't have that information."]
    lines.write_text("Owls fly.\n", "utf-8")
    with pytest.raises(DataFileError, match="none of its 1 lines is a refusal"):
        read_refusals(lines)
