"""Bad input: one line on standard error, before a kernel, a model or a job starts, and nothing on disk changes."""

import json
import re
import shlex
import shutil
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import yaml
from peft import LoraConfig, get_peft_model

from mule_lib import data, models
from mule_lib.data.items import SETS
from mule_lib.params import NOTEBOOKS, ROOT
from mule_lib.suite import check, cli, graph, notebook

TABLE = yaml.safe_load((Path(__file__).parent / "bad_input.yaml").read_text("utf-8"))
RUN = {stem[:2]: f"run notebooks/{stem}.ipynb" for stem in NOTEBOOKS}


def broken(folder: Path, copy: Path, file: str, held: str | dict | int | None) -> None:
    """A copy of a folder with a file gone (None), cut short (bytes), of another text, or with keys set in its JSON."""
    place = shutil.copytree(folder, copy) / file
    place.parent.mkdir(exist_ok=True)
    if isinstance(held, dict):
        before = place.read_text() if place.exists() else "{}"
        first = json.loads(before.split("\n")[0] if file.endswith(".jsonl") else before)
        place.write_text(json.dumps(first | held))
    elif held is None:
        place.unlink()
    else:
        place.write_bytes(held.encode("latin-1") if isinstance(held, str) else place.read_bytes()[:held])


CASES = [(f"{RUN[stem]} -p {words}", named) for stem, table in TABLE["parameters"].items() for words, named in table]
CASES += [(f"{RUN['04']} -f {{w}}/files/{i}/x.yaml", named) for i, (_, named) in enumerate(TABLE["files"])]
CASES += [(f"reproduce --suite {{w}}/suites/{i}/x.yaml", named) for i, (_, named) in enumerate(TABLE["suites"])]
CASES += [(f"{RUN['04']} -p model={{w}}/models/{i}", named) for i, (*_, named) in enumerate(TABLE["models"])]
ADAPTED = f"{RUN['04']} -p model={{w}}/model -p adapter={{w}}/adapters/"
CASES += [(f"{ADAPTED}{i}", named) for i, (*_, named) in enumerate(TABLE["adapters"])]
FOLDER = f"{RUN['04']} -p method=ngdiff -p benchmark=rwku -p data_dir={{w}}/records/"
CASES += [(f"{FOLDER}{i}", named) for i, (*_, named) in enumerate(TABLE["records"])] + TABLE["commands"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A model, an adapter, a prepared folder, and a broken copy of them for each case."""
    here = tmp_path_factory.mktemp("bad")
    for name in ("files", "suites"):
        for i, (text, _) in enumerate(TABLE[name]):
            (here / name / str(i)).mkdir(parents=True)
            (here / name / str(i) / "x.yaml").write_text(text)
    tiny.model().save_pretrained(here / "model")
    tiny.tokenizer().save_pretrained(here / "model")
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(tiny.model(), lora).save_pretrained(here / "adapter")
    for name in ("model", "adapter"):
        [weights] = shutil.copytree(here / name, here / f"pickled_{name}").glob("*.safetensors")
        weights.rename(weights.with_suffix(".bin"))
    (here / "model.gguf").write_bytes(b"GGUX")
    clip = [
        len(key := b"general.architecture").to_bytes(8, "little"),
        key,
        (8).to_bytes(4, "little"),
        (4).to_bytes(8, "little"),
    ]
    (here / "clip.gguf").write_bytes(b"GGUF" + bytes(20) + b"".join(clip) + b"clip")
    books = data.load_benchmark("books")
    sets = replace(books.sets, benchmark="rwku", **{name: getattr(books.sets, name)[:2] for name in SETS})
    data.save(here / "data", replace(books, records=tiny.records(), validation=[], sets=sets))
    for name, source in (("models", "model"), ("adapters", "adapter"), ("records", "data")):
        for i, (file, held, _) in enumerate(TABLE[name]):
            broken(here / source, here / name / str(i), file, held)
    (here / "taken" / "seed-0").mkdir(parents=True)
    (here / "taken" / "seed-0" / "chapter.txt").write_text("years of work")
    written = {"ask.yaml": dict.fromkeys(cli.SOURCES, "x") | {"generator_model": "m", "out_dir": str(here / "asked")}}
    written |= {"other/provenance.json": {"params": {"repeats": 1}}, "listed/provenance.json": [1]}
    written |= {"lost/provenance.json": {}, "ran/runs/books/mule/seed-0/metrics.json": {}, "08_claims.ipynb": {"a": 1}}
    written |= {"said/seed-0/provenance.json": {"identity": 3}, "said/seed-0/metrics.json": {}}
    for name, held in written.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(json.dumps(held))
    return here


def disk(world: Path) -> dict[str, int]:
    """Files and folders that a command could have touched, with their sizes."""
    places = [*world.rglob("*"), *ROOT.glob("*"), *(ROOT / "outputs").glob("*/*"), *world.parent.glob("*")]
    return {str(place): place.stat().st_size if place.is_file() else 0 for place in places}


@pytest.fixture
def refused(world, monkeypatch, capsys):
    """Run a command in this process and return its one line; whatever would start work fails the test."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for place, name in ((notebook, "execute"), (models, "load"), (graph, "subprocess")):
        monkeypatch.setattr(place, name, lambda *a, _name=name, **k: pytest.fail(f"{_name} was called"))

    def line(words: str) -> str:
        before, begun = disk(world), time.process_time()
        given = shlex.split(words.replace("{w}", str(world)))
        while re.match("OPENAI_[A-Z_]+=", given[0]):
            monkeypatch.setenv(*given.pop(0).split("=", 1))
        monkeypatch.setattr(sys, "argv", ["mule", *given])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        found = caught.value.code if isinstance(caught.value.code, str) else ""
        found += capsys.readouterr().err
        assert caught.value.code and len(found.strip().splitlines()) == 1, found
        assert not re.search("Traceback|planted|secret", found)
        assert disk(world) == before and time.process_time() - begun < 5
        return found

    return line


@pytest.mark.parametrize(("words", "named"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_bad_input_is_one_line(words, named, refused, world):
    """Exit status, one line, the named key or file, under 5 s of CPU, and nothing changed on disk."""
    assert len(CASES) >= 120
    assert named.replace("{w}", str(world)) in refused(words)


@pytest.mark.parametrize("words", [
    f"{RUN['04']} -p model=nobody/nothing", "prepare rwku --subject X --out {w}/new",
    "standardize -f {w}/ask.yaml -p mmlu_source= --dry-run",
])  # fmt: skip
@pytest.mark.parametrize("silent", [False, True])
def test_a_hub_out_of_reach_is_one_line(words, silent, refused, monkeypatch):
    """Nobody listens, or somebody listens and says nothing."""
    monkeypatch.setattr(check, "_offline", lambda: False)
    monkeypatch.setattr(check, "HUB_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert f"{address} does not answer within" in refused(words)


@pytest.mark.parametrize(
    ("free", "words"), [(0, ""), (66 * 2**20, "-p save_every=5"), (66 * 2**20, "-p save_model=true")]
)
def test_a_full_disk_is_one_line(free, words, refused, monkeypatch):
    """No space for results, for a checkpoint, for the model."""
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(check.shutil, "disk_usage", lambda place: usage)
    assert "out_dir = " in (found := refused(f"{RUN['04']} {words}")) and "GiB free there" in found


def test_jupyter_shows_the_line_alone():
    """What IPython prints below a cell."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shown = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    shell.run_cell("from mule_lib.params import Training\nTraining(steps=-1)")
    assert [line[:26] for line in shown] == ["ParameterError: steps = -1"]
