"""Access to the Hub: what is gated, missing or out of reach is named before a download; a local Hub on loopback."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import ClassVar

import pyarrow as pa
import pytest
from huggingface_hub import constants
from pyarrow import parquet

from mule_lib.benchmarks import hub, muse_books, raw, wikipedia
from mule_lib.benchmarks.hub import DataAccessError, HubData
from mule_lib.benchmarks.schema import Column

CARD = """---
configs:
- config_name: knowmem
  data_files:
  - split: forget_qa
    path: knowmem/forget_qa-*
  - split: retain2_qa
    path: knowmem/retain2_qa-*
- config_name: 20231101.en
  data_files:
  - split: train
    path: wiki/train-*
---
"""


class Answers(BaseHTTPRequestHandler):
    """Says of each dataset what its name asks for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        status, code = next(
            (
                answer
                for name, answer in {"gated": (403, "GatedRepo"), "gone": (404, "RepoNotFound")}.items()
                if name in self.path
            ),
            (200, ""),
        )
        self.send_response(status)
        if code:
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
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        (
            "org/gated",
            r"^org/gated: gated; accept its terms at https://huggingface\.co/datasets/org/gated, then run `hf auth",
        ),
        ("org/gone", r"^org/gone: not on the Hub, or private; look at https://huggingface\.co/datasets/org/gone"),
    ],
)
def test_gated_and_missing_datasets_are_named(endpoint, repo, message):
    """Only permission is asked for; the refusal has the page and the command, in one line."""
    with pytest.raises(DataAccessError, match=message) as caught:
        hub.check_access(HubData(repo, "0" * 40), endpoint=endpoint)
    assert "\n" not in str(caught.value)
    assert Answers.asked == [f"/api/datasets/{repo}/auth-check"]


def test_access_is_granted_and_a_dead_hub_is_no_refusal(endpoint):
    """An open dataset passes; a Hub that cannot be reached is told apart, since the cache may have the data."""
    assert hub.check_access(HubData("org/open", "0" * 40), endpoint=endpoint)
    assert not hub.check_access(HubData("org/open", "0" * 40), endpoint="http://127.0.0.1:9")


def test_nothing_is_downloaded_where_access_is_refused(monkeypatch):
    """`rows` asks for permission before it touches the data."""
    import datasets

    def refuse(data, **_):
        raise DataAccessError("gated")

    monkeypatch.setattr(hub, "check_access", refuse)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: pytest.fail("a download was started"))
    with pytest.raises(DataAccessError, match="gated"):
        muse_books.knowmem()


def test_offline_without_a_cache(monkeypatch, tmp_path):
    """Offline and not cached: the page at the pinned commit and the command that gets the folder."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    data = HubData("mule-tests/never-published", "a" * 40)
    with pytest.raises(DataAccessError) as caught:
        hub.rows(data, "knowmem", ["forget_qa"])
    assert f"see https://huggingface.co/datasets/{data.repo}/tree/{data.revision}" in str(caught.value)
    assert f"hf download {data.repo} --repo-type dataset --revision {data.revision} --local-dir" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A dataset in the Hub's own layout, card included, which `datasets` reads as it reads the Hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "README.md").write_text(CARD, "utf-8")
    rows = {
        "forget": [{"answer": f"a{n}", "question": f"f{n}?"} for n in range(3)],
        "retain2": [{"answer": "b", "question": "r?"}],
    }
    (tmp_path / "knowmem").mkdir()
    for name, table in rows.items():
        parquet.write_table(pa.Table.from_pylist(table), tmp_path / "knowmem" / f"{name}_qa-00000-of-00001.parquet")
    (tmp_path / "wiki").mkdir()
    articles = [
        {"id": str(n), "url": "u", "title": f"Owl {n}", "text": "An owl flies at night. " * 30} for n in range(60)
    ]
    for n in range(3):
        parquet.write_table(
            pa.Table.from_pylist(articles[n * 20 : n * 20 + 20]), tmp_path / "wiki" / f"train-0000{n}-of-00003.parquet"
        )
    return HubData(str(tmp_path), "main")


def test_rows_by_config_and_either_split_name(published):
    """The first split name that exists is read through `datasets`; one that does not exist is listed."""
    columns = (Column("question"), Column("answer"))
    found = raw.table("", published, columns, config="knowmem", splits=("retain_qa", "retain2_qa"))
    assert [values for _, values in found] == [{"question": "r?", "answer": "b"}]
    assert found[0][0].where.endswith("/knowmem/retain2_qa")
    with pytest.raises(DataAccessError, match=r"no such split; it has .*forget_qa"):
        raw.table("", published, columns, config="knowmem", splits=("verbmem",))
    with pytest.raises(DataAccessError, match=r"\(privleak\)"):
        raw.table("", published, columns, config="privleak", splits=("forget",))


def test_wikipedia_is_streamed_in_a_seeded_order(published, monkeypatch):
    """The same seed gives the same articles, another seed others, and none twice."""
    import datasets

    # It waits five seconds for its threads whenever a stream is left before its end.
    monkeypatch.setattr(datasets.iterable_dataset, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(wikipedia, "HUB", published)
    draw = [text.title for text in wikipedia.articles(count=8, seed=3, buffer=20)]
    assert draw == [text.title for text in wikipedia.articles(count=8, seed=3, buffer=20)]
    assert draw != [text.title for text in wikipedia.articles(count=8, seed=4, buffer=20)]
    assert len(set(draw)) == 8


def test_revisions_are_pinned():
    """Every dataset but RWKU, whose commit we do not know, hangs on a whole commit hash."""
    from mule_lib.benchmarks import mmlu, rwku, tofu, wmdp_cyber

    for data in (muse_books.HUB, wmdp_cyber.HUB, wmdp_cyber.CORPORA, mmlu.HUB, wikipedia.HUB, tofu.HUB):
        assert len(data.revision) == 40 and int(data.revision, 16)
    assert rwku.HUB.revision == "main"
