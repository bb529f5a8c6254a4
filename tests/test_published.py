"""Published data: files good and bad, the Hub on loopback, the benchmarks' own rows, and `mule prepare`."""

import csv
import json
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pyarrow as pa
import pytest
from huggingface_hub import constants
from pyarrow import parquet
from scripted import REALDATA, real

from mule_lib import data
from mule_lib.data import files, published
from mule_lib.data.files import DataFileError
from mule_lib.data.items import REFUSAL_OPTION, ChoiceItem, OpenItem
from mule_lib.data.prepare import assemble, choice, prepare, split
from mule_lib.data.published import DataAccessError, Published
from mule_lib.data.records import REFUSED

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
    """Lists in a CSV are JSON; the order of columns, a column more and letters for answers change nothing."""
    turned = [
        {"answer": "AC"[i], "note": "x", **{k: r[k] for k in ("choices", "question")}} for i, r in enumerate(QUESTIONS)
    ]
    for name, rows in (("plain", QUESTIONS), ("turned", turned)):
        items = published.read_set("wmdp_cyber/questions", write(tmp_path / f"{name}{suffix}", rows))
        assert [(item.question, list(item.options), item.answer) for item in items] == [
            (row["question"], row["choices"], row["answer"]) for row in QUESTIONS
        ]


def test_folders_splits_and_shards(tmp_path):
    """The Hub's layouts: shards in order, a folder per split, a missing shard named; a plain text file is one text."""

    def texts(name):
        return [text.text for text in published.read_set(name, tmp_path)]

    for n in (1, 0):
        write(tmp_path / "raw" / f"forget-0000{n}-of-00002.parquet", [{"text": f"book {n}"}])
    assert texts("muse_books/raw") == ["book 0", "book 1"]
    write(tmp_path / "cyber-retain-corpus" / "0000.parquet", [{"text": "page"}])
    assert texts("wmdp_cyber/retain") == ["page"]
    (tmp_path / "cyber-forget-corpus.txt").write_text("a whole\nbook", "utf-8")
    assert texts("wmdp_cyber/forget") == ["a whole\nbook"]
    (tmp_path / "raw" / "forget-00000-of-00002.parquet").unlink()
    with pytest.raises(DataFileError, match="shard 0 of 2 of forget is missing"):
        texts("muse_books/raw")
    with pytest.raises(DataFileError, match=r"has no knowmem/forget_qa .*; it has cyber-forget-corpus"):
        texts("muse_books/forget")
    with pytest.raises(ValueError, match="'muse_books/sust': published sets are muse_books/forget"):
        texts("muse_books/sust")


GOOD = QUESTIONS[0]


def refused_as(path, message):
    with pytest.raises(DataFileError) as caught:
        published.read_set("wmdp_cyber/questions", path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("a.jsonl", [GOOD, {**GOOD, "answer": 4}], "row 2, column 'answer': 4 is outside the 4 options (0 to 3, or A"),
        ("a.csv", [GOOD, {**GOOD, "answer": "E"}], "row 2, column 'answer': 'E' is outside the 4 options"),
        ("a.csv", [{**GOOD, "answer": ""}], "row 1, column 'answer': '' is outside the 4 options"),
        ("a.jsonl", [{**GOOD, "answer": 1.0}], "row 1, column 'answer': 1.0 is outside"),
        ("a.jsonl", [{**GOOD, "answer": True}], "row 1, column 'answer': True is outside"),
        ("a.parquet", [GOOD, {**GOOD, "question": ""}], "row 2, column 'question': should be a text that is not empty"),
        ("a.json", [{**GOOD, "choices": "owl"}], "row 1, column 'choices': should be a list of at least two texts"),
        ("a.json", [{**GOOD, "choices": ["owl", ""]}], "column 'choices': should be a list of at least two texts"),
        ("a.json", [{**GOOD, "choices": ["owl"]}], "column 'choices': should be a list of at least two texts"),
        ("a.jsonl", [GOOD, '{"question": "Wh'], "row 2: not JSON (Unterminated string"),
        ("a.jsonl", ["[1, 2]"], "row 1: should be a JSON object, is list"),
        ("a.csv", [{"question": "Who?", "options": "x", "answer": 0}], "column 'choices': missing; the row has questi"),
    ],
)
def test_bad_rows_are_refused_in_one_line(tmp_path, name, rows, message):
    refused_as(write(tmp_path / name, rows), message)


LATIN = json.dumps(GOOD).encode() + b'\n{"question": "Stra\xdfe"}\n'
RAGGED = b"question,choices,answer\na,b,0\na,b,0,more\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", None, "not a whole parquet file"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\noid 0\n", "a Git LFS pointer, not the data"),
        ("x.jsonl", LATIN, "row 2: not UTF-8 (invalid continuation byte); save the file as UTF-8"),
        ("x.csv", "question,choices,answer\n".encode("utf-16"), "row 1: not UTF-8"),
        ("x.csv", RAGGED, "not a CSV table (Error tokenizing data. C error: Expected 3 fields in line 3, saw 4)"),
        ("x.json", json.dumps(QUESTIONS, indent=1).encode()[:-30], "not JSON"),
        ("x.csv", b"", "empty"),
        ("x.xlsx", b"x", "of an unknown kind; data files end in .parquet, .jsonl"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is None:
        whole = write(path, QUESTIONS * 50).read_bytes()
        content = whole[: len(whole) // 2]
    path.write_bytes(content)
    refused_as(path, message)


def test_a_missing_file_is_refused_with_the_command_that_gets_it(tmp_path):
    get = "no such file or folder; to get it: hf download cais/wmdp --repo-type dataset --revision 7125571f"
    refused_as(tmp_path / "absent.jsonl", get)


def test_references_that_rouge_cannot_see(tmp_path):
    """An answer without a letter or digit would count as forgotten whatever is said: refused, and left out of RWKU."""
    rows = [{"question": "Who?", "answer": "owl"}, {"question": "Who?", "answer": "?!"}]
    with pytest.raises(DataFileError, match="row 2, column 'answer': should be a text with a letter"):
        published.read_set("muse_books/forget", write(tmp_path / "forget01.jsonl", rows))
    probes = [{"query": "Who?", "answer": a, "subject": "Owl", "level": "2", "type": "q"} for a in ("owl", "梟")]
    write(tmp_path / "forget_level2.json", probes)
    with pytest.warns(UserWarning, match="1 of 2 questions left out"):
        assert [item.reference for item in published.read_set("rwku/forget_level2", tmp_path)] == ["owl"]


def article(n, text="An article about owls. " * 40):
    return {"id": str(n), "title": f"Owl {n}", "text": text, "url": f"https://x.example/{n}"}


def test_doubled_articles_are_refused(tmp_path):
    """Two articles of one id are two dumps mixed up."""
    path = write(tmp_path / "wiki.jsonl", [article(1), article(2), article(1)])
    with pytest.raises(DataFileError, match="row 3, column 'id': '1' is already in row 1"):
        published.articles(path, count=1)


def test_sample_is_uniform(tmp_path):
    """Each article is drawn about equally often over the seeds, wherever it stands."""
    texts = list(published.usable(files.iterate(write(tmp_path / "w.jsonl", [article(n) for n in range(20)]))))
    drawn = [text.title for seed in range(400) for text in published.reservoir(texts, 5, seed=seed)]
    counts = [drawn.count(f"Owl {n}") for n in range(20)]
    assert sum(counts) == 2000 and min(counts) > 65 and max(counts) < 135  # 100 expected, deviation about 9


def test_article_text_is_cleaned():
    """End sections go, spaced punctuation closes up, sentences with a masked word are dropped, the rest stays."""
    assert published.plain_wikitext("An owl .\n\nSee also\nCats") == "An owl."
    assert published.plain_wikitext("A well @-@ known owl , grey . The <unk> flies . It ( the owl ) 's old .") == (
        "A well-known owl, grey. It (the owl)'s old."
    )
    plain = "The owl's nest (see below) is 3.5 m high, e.g. in oaks.\n\nIt is old."
    assert published.plain_wikitext(plain) == plain


# The Hub

CARD = Path(__file__).with_name("dataset_card.md").read_text("utf-8")


class Answers(BaseHTTPRequestHandler):
    """Says of each dataset what its name asks for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        codes = {"gated": (403, "GatedRepo"), "gone": (404, "RepoNotFound")}
        status, code = next((answer for name, answer in codes.items() if name in self.path), (200, ""))
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Answers.asked.clear()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def hub_set(repo="mule-tests/never-published", config="knowmem", splits=("forget_qa",)):
    columns = published.SETS["wikipedia"].columns
    return Published(repo, "a" * 40, config, columns, splits)


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("org/gated", r"^org/gated: gated; accept its terms at https://hug.*/datasets/org/gated, then run `hf auth"),
        ("org/gone", r"^org/gone: not on the Hub, or private; look at https://huggingface\.co/datasets/org/gone"),
    ],
)
def test_gated_and_missing_datasets_are_named(endpoint, repo, message):
    """Only permission is asked for; the refusal has the page and the command, in one line, before any download."""
    with pytest.raises(DataAccessError, match=message) as caught:
        published.hub_rows(hub_set(repo))
    assert "\n" not in str(caught.value)
    assert Answers.asked[-1] == f"/api/datasets/{repo}/auth-check"


def test_access_is_granted_and_a_dead_hub_is_no_refusal(endpoint, monkeypatch):
    """An open dataset passes; a Hub that cannot be reached is told apart, since the cache may have the data."""
    assert published.check_access(hub_set("org/open"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not published.check_access(hub_set("org/open"))


def test_offline_without_a_cache(monkeypatch):
    """Offline and not cached: the page at the pinned commit and the command that gets the folder."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    data = hub_set()
    with pytest.raises(DataAccessError) as caught:
        published.hub_rows(data)
    assert f"see https://huggingface.co/datasets/{data.repo}/tree/{data.revision}" in str(caught.value)
    assert f"hf download {data.repo} --repo-type dataset --revision {data.revision} --local-dir" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A dataset in the Hub's own layout, card included, which `datasets` reads as it reads the Hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(published, "check_access", lambda data: True)
    (tmp_path / "README.md").write_text(CARD, "utf-8")
    write(tmp_path / "knowmem" / "forget_qa-00000-of-00001.parquet", [{"answer": "a", "question": "f?"}])
    write(tmp_path / "knowmem" / "retain2_qa-00000-of-00001.parquet", [{"answer": "b", "question": "r?"}])
    for n in range(3):
        rows = [article(i) for i in range(n * 20, n * 20 + 20)]
        write(tmp_path / "wiki" / f"train-0000{n}-of-00003.parquet", rows)
    return str(tmp_path)


def test_rows_by_config_and_split(dataset):
    """They are read through `datasets`; a split or configuration that does not exist is named."""
    rows = list(published.hub_rows(hub_set(dataset, splits=("retain2_qa",))))
    assert [values for _, values in rows] == [{"answer": "b", "question": "r?"}]
    assert rows[0][0].where.endswith("/knowmem/retain2_qa")
    with pytest.raises(DataAccessError, match=r"\(knowmem/verbmem\): .*forget_qa"):
        published.hub_rows(hub_set(dataset, splits=("verbmem",)))
    with pytest.raises(DataAccessError, match=r"\(privleak/forget_qa\)"):
        published.hub_rows(hub_set(dataset, "privleak"))


def test_wikipedia_is_streamed_in_a_seeded_order(dataset, monkeypatch):
    """The same seed gives the same articles, another seed others, and none twice."""
    import datasets

    # It waits five seconds for its threads whenever a stream is left before its end.
    monkeypatch.setattr(datasets.iterable_dataset, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setitem(published.SETS, "wikipedia", hub_set(dataset, "20231101.en", ("train",)))
    draw = [text.title for text in published.articles(count=8, seed=3)]
    assert draw == [text.title for text in published.articles(count=8, seed=3)]
    assert draw != [text.title for text in published.articles(count=8, seed=4)]
    assert len(set(draw)) == 8


def test_revisions_are_pinned():
    """Every dataset but RWKU, whose commit we do not know, hangs on a whole commit hash."""
    for name, part in published.SETS.items():
        if name.startswith("rwku"):
            assert part.revision == "main"
        else:
            assert len(part.revision) == 40 and int(part.revision, 16)


# The benchmarks' own rows

MUSE, WMDP = REALDATA / "muse_books_knowmem", REALDATA / "wmdp_cyber_mcq" / "test_sample.jsonl"
MMLU_FILE = REALDATA / "mmlu" / "validation_3_per_subject.jsonl"


@real
@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("muse_books/forget", MUSE, 100),
        ("muse_books/retain", MUSE, 100),
        ("wmdp_cyber/questions", WMDP, 75),
        ("mmlu/validation", MMLU_FILE, 171),
        ("rwku/forget_level2", REALDATA / "rwku", 70),
        ("rwku/general", REALDATA / "rwku", 120),
    ],
)
def test_published_rows_are_read_as_they_are(name, source, count):
    """As many as published, general questions once, each with an id and a text of its own."""
    items = published.read_set(name, source)
    assert len(items) == count == len({item.id for item in items})
    assert all(len(item.options) == 4 for item in items if isinstance(item, ChoiceItem))
    assert name != "mmlu/validation" or len({item.subject for item in items}) == 57


@real
def test_wikipedia_sample_is_seeded_and_clean():
    """The same seed draws the same articles, another seed others; nothing of WikiText's marks is left."""
    path = REALDATA / "wikitext2" / "articles.jsonl"
    draw = published.articles(path, count=12, seed=1)
    assert draw == published.articles(path, count=12, seed=1)
    assert draw != published.articles(path, count=12, seed=2)
    for text in draw:
        assert not any(mark in text.text for mark in ("<unk>", "@-@", " ,", " ."))
        assert len(text.text) >= 500 and text.title and text.role == "retain"
    with pytest.raises(DataFileError, match="usable articles of 500 characters or more, 500 asked for"):
        published.articles(path, count=500)


@real
def test_rwku_is_prepared_saved_and_loaded(tmp_path):
    """A person's data comes back from its folder as it was; nothing to forget is asked twice."""
    made = prepare("rwku", subject="Stephen King", source=str(REALDATA / "rwku"), mmlu=str(MMLU_FILE), levels=(2,))
    data.save(tmp_path / "rwku", made)
    assert data.load_benchmark("rwku", tmp_path / "rwku") == replace(made, unified=made.records)
    trained = {record.question for record in made.records if record.role in REFUSED}
    families = {item.family for item in made.sets.attack}
    assert not families & {item.family for item in made.sets.attack_seen}
    assert len(made.sets.attack) == 2 * len(made.sets.attack_seen)
    asked = {item.question for item in made.sets.forget}
    attacked = {item.question for item in made.sets.attack}
    assert trained and asked and attacked
    assert not (trained & asked or trained & attacked or asked & attacked)
    assert "The Shawshank Redemption" in {item.subject for item in made.sets.neighbor}
    with pytest.raises(DataFileError, match="has no subject 'Nobody'; it has Stephen King"):
        prepare("rwku", subject="Nobody", source=str(REALDATA / "rwku"), levels=(2,))


# `mule prepare`

MMLU = [ChoiceItem("m/1", "Which bird hoots?", ("owl", "cat", "dog", "ant"), 0, "owl_care", None, "obj1")]


def items(name, n, answer="{n} owls"):
    return [OpenItem(f"{name}/{i}", f"Question {i} about {name}?", answer.format(n=i), name) for i in range(n)]


QUIZ = {
    "forget": items("king", 20),
    "neighbor": items("prison", 20),
    "general": items("general", 12),
    "mmlu": MMLU,
    "refusals": ["I do not know.", "No idea."],
}
made_of = partial(assemble, "rwku", "the king")


def test_parts_share_no_question():
    """Training, validation, Forget, ASR, General and Neighbour questions are disjoint, repeated ones count once."""
    made = made_of(**QUIZ, seed=1)
    parts = [{r.question for r in part if r.role in REFUSED} for part in (made.records, made.validation)]
    parts += [{item.question for item in part} for part in (made.sets.forget, made.sets.attack)]
    assert [len(part) for part in parts] == [10, 2, 4, 4]
    assert len(set.union(*parts)) == 20
    kept = {r.question for part in (made.records, made.validation) for r in part if r.role not in REFUSED}
    assert not kept & {item.question for item in (*made.sets.general, *made.sets.neighbor)}
    doubled = [*items("king", 20), *[OpenItem(f"x/{i}", f"QUESTION {i} about king?", "x", "") for i in range(20)]]
    assert sum(len(part) for part in split(doubled, {"a": 0.5, "b": 0.5}, seed=0).values()) == 20


def test_records_come_in_anchored_pairs():
    """Each refused record has a partner to answer, in its objective; obj3 pairs carry the same family's prefix."""
    made = made_of(**QUIZ)
    by_id = {record.id: record for record in made.records}
    groups = Counter(f"{record.objective}/{record.role}" for record in made.records)
    assert groups == dict.fromkeys(
        ["obj1/forget", "obj1/retain", "obj2/forget", "obj2/neighbor", "obj3/adversarial", "obj3/benign"], 10
    )
    for record in made.records:
        partner = by_id[record.anchor]
        assert by_id[partner.anchor] is record and partner.objective == record.objective
        assert (record.role in REFUSED) != (partner.role in REFUSED)
        assert bool(record.prefix) == (record.objective == "obj3")
        assert "{" not in (record.prefix or "").replace('{"question"', "")
    assert {record.refusal for record in made.records} == set(QUIZ["refusals"])
    assert made_of(**QUIZ, seed=3) == made_of(**QUIZ, seed=3) != made_of(**QUIZ, seed=4)


def test_options_are_of_like_form_and_hang_on_the_item_alone():
    """Numbers beside numbers, the same subject first; right answers in other spelling never distract."""
    pool = [
        OpenItem(f"p/{i}", "?", text, "s") for i, text in enumerate(["1947", "in 1950", "Red.", "blue", "red", "1960"])
    ]
    item = OpenItem("a", "When?", "1980", "s")
    made = choice(item, pool)
    assert set(made.options) == {"1980", "1947", "1960", "in 1950", REFUSAL_OPTION}
    assert made.options[made.answer] == "1980" and made.options[made.refusal] == REFUSAL_OPTION
    assert choice(item, pool) == made
    colour = choice(OpenItem("b", "Which?", "red", "s"), pool)
    assert "Red." not in colour.options
    places = Counter(choice(OpenItem(f"c/{i}", "?", "green", "s"), pool).answer for i in range(200))
    assert min(places[i] for i in range(5)) > 20
    with pytest.raises(ValueError, match="a: only 1 other answers for 3 distractors"):
        choice(item, pool[:1])


def test_too_few_questions_are_named():
    """Which kind, how many there are, how many are needed."""
    with pytest.raises(ValueError, match=r"forget: 2 questions are too few, none is left for \w+; give 10 or more"):
        made_of(**QUIZ | {"forget": QUIZ["forget"][:2]})
    with pytest.raises(ValueError, match="needs refusals and MMLU questions"):
        made_of(**QUIZ | {"mmlu": []})


def test_the_command_writes_a_folder_once(mule, tmp_path):
    """It writes what `load_benchmark` reads, and refuses a folder that is there or a missing subject in one line."""
    for part in ("forget", "neighbor"):
        probes = [{"query": f"{part} {i}?", "answer": f"a{i}", "subject": "A", "level": "2"} for i in range(20)]
        write(tmp_path / f"{part}_level2.json", [probe | {"neighbor": "B", "type": "q"} for probe in probes])
    facts = [{"question": f"fact {i}?", "answers": [f"f{i}"]} for i in range(20)]
    write(tmp_path / "utility_factuality.json", facts)
    write(tmp_path / "mmlu.json", [{**GOOD, "subject": "owl_care"}])
    out = tmp_path / "data"
    words = ["prepare", "rwku", "--levels", "2", "--source", tmp_path, "--mmlu", tmp_path / "mmlu.json", "--out", out]
    assert mule(*words) == "mule prepare: subject: empty; name whom to forget, as 'Stephen King'" and not out.exists()
    assert mule(*words, "--subject", "A") is None
    assert len(data.load_benchmark("rwku", out).records) == 60 and not (out / data.RAW_FILE).exists()
    assert "exists already" in mule(*words, "--subject", "A")
