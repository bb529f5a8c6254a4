"""Bad input: one line on standard error, before a kernel, a model or a job starts, and nothing on disk changes."""

import json
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tiny
from peft import LoraConfig, get_peft_model

from mule_lib import data, models
from mule_lib.data.items import SETS
from mule_lib.params import NOTEBOOKS, ROOT
from mule_lib.suite import check, cli, graph, notebook

RUN = {stem[:2]: f"run notebooks/{stem}.ipynb" for stem in NOTEBOOKS}
# Parameters of a notebook, and what the line has to name.
PARAMETERS = {
    "00": [("benchmarks=[rwku]", "benchmarks.0 = 'rwku'"), ("bach_size=3", "'bach_size'; did you mean 'batch_size'?")],
    "01": [
        ("precision=fp16", "precision = 'fp16': did you mean 'bf16'?"),
        ("benchmark=cybr", "benchmark = 'cybr': did you mean 'cyber'?"),
        ("benchmark=muse_books", "data_dir = '': muse_books has to be prepared first: mule standardize"),
        ("data_dir=nowhere", "data_dir = 'nowhere': no such folder"), ("near_duplicate=1.5", "near_duplicate = 1.5"),
        ("out_dir={w}/data", "out_dir: {w}/data holds something else"),
        ("out_dir={w}/other", "differs in repeats 1 (now 3); choose another, or overwrite=true"),
    ],
    "02": [
        ("method=mul", "method = 'mul': did you mean 'mule'?"),
        ("'options={topk: 3}'", "unknown parameter 'topk'; did you mean 'top_k'?"),
        ("steps=[0,0]", "steps = [0, 0]: give different numbers"), ("steps=[]", "steps = []: give different numbers"),
        ("precision=bf16", "give [0], or precision fp32"),
        ("batches=2", "batches = 2: Input should be greater than or equal to 3"),
        ("benchmarks=[boks]", "benchmarks.0 = 'boks': did you mean 'books'?"),
        ("benchmarks=[books,books]", "benchmarks = ['books', 'books']: one of them stands twice"),
        ("benchmarks=[wmdp_cyber]", "data_dir = '': wmdp_cyber has to be prepared first"),
        ("teacher_dir=nowhere", "teacher_dir = 'nowhere': no such folder"),
        ("layer=2", "unknown parameter 'layer'; did you mean 'layers'?"),
        ("layers=9", "layers = 9: base has num_hidden_layers"), ("learning_rate=.nan", "learning_rate = nan"),
        ("data_dir={w}/data", "data_dir = '{w}/data'"),
    ],
    "04": [
        ("method=mul", "method = 'mul': did you mean 'mule'?"),
        ("learningrate=1", "unknown parameter 'learningrate'; did you mean 'learning_rate'?"),
        ("'options={topk: 3}'", "unknown parameter 'topk'; did you mean 'top_k'?"),
        ("'options={top_k: 0}'", "top_k = 0: Input should be greater than or equal to 1"),
        ("'options={top_k: 9999999}'", "options: top_k = 9999999: base has vocab_size"),
        ("'options={top_k: 1.5}'", "top_k = 1.5"), ("'options={answers: foo}'", "answers = 'foo': "),
        ("'options={beta: 0}'", "beta = 0: Input should be greater than 0"), ("'options={beta: .inf}'", "beta = inf"),
        ("'options={beta: -1}'", "beta = -1"),
        ("'options={positions: frist}'", "positions = 'frist': did you mean 'first'?"),
        ("'options={teacher: me}'", "teacher = 'me'"), ("'options={over_k: median}'", "over_k = 'median'"),
        ("'options={max_answer_tokens: 0}'", "max_answer_tokens = 0"), ("'options={1: 2}'", "options.1"),
        ("'options={top_k: 3, top_k: 4}'", "-p options: not valid YAML (the key 'top_k' stands twice"),
        ("options=3", "options = 3"), ("method=flat -p 'options={divergence: neyman}'", "divergence = 'neyman'"),
        ("method=npo -p 'options={beta: 0}'", "beta = 0"),
        ("method=mule_bild_loss -p 'options={top_k: 1}'", "top_k = 1"),
        ("method=base -p 'options={beta: 1}'", "unknown parameter 'beta'"),
        ("steps=many", "steps = 'many': Input should be a valid integer"),
        ("steps=-1", "steps = -1: Input should be greater than or equal to 0"),
        ("steps=1 -p steps=2", "-p steps: stands twice"), ("steps", "-p steps: should be NAME=VALUE"),
        ("'steps=[1'", "-p steps: not valid YAML"),
        ("learning_rate=-0.1", "learning_rate = -0.1: Input should be greater"),
        ("learning_rate=.inf", "learning_rate = inf"), ("learning_rate=.nan", "learning_rate = nan"),
        ("lora_rank=100000000", "lora_rank = 100000000: base has hidden_size"), ("lora_rank=-1", "lora_rank = -1"),
        ("train_batch_size=0", "train_batch_size = 0"), ("seeds=[]", "seeds = []"),
        ("seeds=[0,0]", "seeds = [0, 0]: one of them stands twice"), ("seeds=[4294967296]", "seeds.0 = 4294967296"),
        ("benchmark=bok", "benchmark = 'bok': did you mean 'books'?"),
        ("benchmark=muse_books", "muse_books has to be prepared first: mule standardize"),
        ("benchmark=rwku -p data_dir=tests -p data_format=raw", "tests has no raw.jsonl"),
        ("benchmark=rwku -p data_dir=tests -p data_format=lettered", "rwku is prepared as unified and raw"),
        ("data_format=rwa", "data_format = 'rwa': did you mean 'raw'?"),
        ("data_dir=nowhere", "data_dir = 'nowhere': no such folder"), ("objectives=[obj4]", "objectives.0 = 'obj4'"),
        ("objectives=[obj1,obj1]", "objectives = "),
        ("search_budget=0", "search_budget = 0: 30 questions are to be searched for"),
        ("judge=model", "judge = 'model'"), ("precision=fp16", "precision = 'fp16': did you mean 'bf16'?"),
        ("choice_style=leters", "choice_style = 'leters': did you mean 'letters'?"),
        ("max_new_tokens=9999", "max_new_tokens = 9999"), ("row=../mule", "row = '../mule': String should match"),
        ("teacher_file=nothing.jsonl", "no such file; `mule teacher` writes it"),
        ("model=bse", "model = 'bse': did you mean 'base'?"), ("model=models/llama/3b", "no such model folder"),
        ("model=tests", "the folder has no config.json"),
        ("model={w}/adapter", "the folder holds an adapter; give it as adapter"),
        ("model={w}/model.gguf", "model = '{w}/model.gguf': "),
        ("model=nobody/nothing", "model = 'nobody/nothing': not here, and https://huggingface.co"),
        ("model=no--body/no..thing", "model = 'no--body/no..thing'"), ("revision=3", "revision = 3"),
        ("adapter=nowhere", "adapter = 'nowhere': no such folder"),
        ("adapter={w}/data", "adapter = '{w}/data': adapter_config.json"),
        ("adapter={w}/adapter", "adapter = '{w}/adapter': belongs to another base"),
        ("adapter={w}/prefix", "peft_type 'PREFIX_TUNING'"), ("adapter={w}/pickled", "adapter_model.bin is pickled"),
        ("model=nobody/else -p adapter={w}/adapter", "model = 'nobody/else'"),
        ("out_dir=/etc/passwd/x", "out_dir = '/etc/passwd/x': cannot be written"),
        ("out_dir=/proc/x", "out_dir = '/proc/x': cannot be written"),
        ("out_dir=mule_lib/data", "out_dir = 'mule_lib/data': give a folder below outputs/"),
        ("out_dir=outputs/../x", "out_dir = 'outputs/../x'"), ("out_dir={w}/../x", "without .."),
        ("out_dir=outputs", "out_dir = 'outputs'"), ("'out_dir='", "out_dir = ''"),
        ("out_dir={w}/taken", "{w}/taken/seed-0 exists and is no run"),
    ],
    "08": [
        ("benchmarks=[cyber,books]", "books or muse_books, then cyber or wmdp_cyber"),
        ("benchmarks=[books]", "give two"),
        ("resamples=100", "resamples = 100: Input should be greater than or equal to 5000"),
        ("nam=x", "unknown parameter 'nam'; did you mean 'name'?"),
    ],
}  # fmt: skip
# Texts of a params file of notebook 04, and of a suite.
FILES = [
    ("a: [", "x.yaml: not valid YAML"), ("- 1", "x.yaml: should be a flat mapping"),
    ("1: 2", "x.yaml: should be a flat mapping"),
    ("steps: 3\nsteps: 4\n", "x.yaml: not valid YAML (the key 'steps' stands twice"),  # YAML keeps the last in silence
    ("options: {top_k: 1, top_k: 2}", "the key 'top_k' stands twice"),
    ("steps: !!python/object/apply:os.system [ls]", "x.yaml: not valid YAML"),
    ("rows: {mul: {}}", "x.yaml: 1 rows; choose one by -p row=NAME"), ("rows: 3", "x.yaml: rows: should be a mapping"),
    ("rows: {mule: [1]}\ndefaults: {}", "x.yaml: mule: should be a mapping"),
    ("rows: {}\ndefault: {}", "x.yaml: unknown key 'default'"),
    ("steps: 3\ntopic: x", "x.yaml: unknown parameter 'topic'"),
    ("openai_api_key: x", "x.yaml: unknown parameter 'openai_api_key'"), ("\x00", "x.yaml: not valid YAML"),
    ("&a [*a, *a]", "x.yaml: "),
]  # fmt: skip
GROUP = "name: x\nparams: fable\nruns: [{rows: [mule], benchmarks: [books]}]\n"
SUITES = [
    (GROUP + "seedz: 1", "unknown parameter 'seedz'; did you mean 'seeds'?"),
    (GROUP + "seeds: 0", "seeds = 0: Input should be greater"),
    (GROUP.replace("fable", "fabel"), "fabel.yaml: no such params file; did you mean 'fable.yaml'?"),
    (GROUP.replace("name: x", "name: a/b"), "name = 'a/b': String should match"),
    (GROUP.replace("name: x", "name: .."), "name = '..': String should match"),
    (GROUP.replace("mule", "mul"), "runs: row 'mul': did you mean 'mule'?"),
    (GROUP.replace("books", "boks"), "'boks': did you mean 'books'?"),
    (GROUP.replace("benchmarks", "benchmark"), "did you mean 'benchmarks'?"),
    (GROUP.replace("books", "rwku"), "prepare it by mule prepare rwku"),
    (GROUP.replace("[mule]", "[]"), "rows = []: List should have at least 1 item"),
    (GROUP + "beyond: [{rows: [mule_k1], benchmarks: [cyber]}]", "'mule_k1' on 'cyber' is not among the runs"),
    ("name: x", "runs"),
]  # fmt: skip
COMMANDS = [
    ("reproduce --name ..", "name = '..'"), ("reproduce --suite nothing.yaml", "nothing.yaml: no such params file"),
    ("reproduce --suite params", "params: cannot be read as text"),
    ("reproduce --profile profiles/slrum", "profiles/slrum: no config.yaml there; choose from"),
    ("reproduce --seeds x", "--seeds: invalid int value"), ("reproduce --seeds 0", "seeds = 0"),
    ("run notebooks/05_training.ipynb", "05_training: no such notebook"),
    ("run notebooks/04_training.ipynb -o /etc/passwd/x.ipynb", "executed = '/etc/passwd'"),
    ("run notebooks/04_training.ipynb -f {w}", "{w}: cannot be read as text"),
    ("run", "the following arguments are required: notebook"), ("rnu", "invalid choice: 'rnu'"),
    ("teacher -p model=nobody/nothing --out {w}/oracle-cot.jsonl", "model = 'nobody/nothing'"),
    ("teacher --out /etc/passwd/oracle-cot.jsonl", "out = '/etc/passwd': cannot be written"),
    ("compare {w} {w}", "{w}: no run lies there"), ("report ..", "name = '..'"), ("report nothing", "nothing"),
    ("reference --to ..", "name = '..'"), ("reference --to .", "name = '.'"),
    ("reference --name nothing --to x", "no report.html"),
    ("show-prompt -p row=muel", "row 'muel': did you mean 'mule'?"),
    ("show-prompt -p row=mule --item 999", "--item 999: forget has"),
    ("show-prompt -p row=mule --item=-1", "--item -1: forget has"),
    ("show-prompt -p row=mule -p benchmark=bokks", "benchmark = 'bokks': did you mean 'books'?"),
    ("show-prompt -p row=mule --set foo", "invalid choice: 'foo'"), ("prepare rwku --out {w}/new", "subject: empty"),
    ("prepare rwku --subject X --out {w}/data", "{w}/data: exists already"),
    ("prepare rwku --subject X --source {w}/nothing --out {w}/new", "{w}/nothing: no such file or folder"),
    ("prepare tofu --subject X --out /etc/passwd/x", "out = '/etc/passwd/x'"),
    ("standardize -f {w}/ask.yaml -p benchmark=books", "benchmark = 'books': did you mean 'muse_books'?"),
    ("standardize -f {w}/ask.yaml -p generator_model=", "generator_model = '': name the model"),
    ("standardize -f {w}/ask.yaml -p anchor_share=1", "anchor_share = 1"),
    ("standardize -f {w}/ask.yaml -p out_dir=/etc/passwd/x", "out_dir = '/etc/passwd/x'"),
    ("standardize -f {w}/ask.yaml -p generator=local -p generator_model={w}/adapter", "config.json is missing"),
    ("standardize -f {w}/ask.yaml", "OPENAI_API_KEY is not set"),
]  # fmt: skip
KEY = {"OPENAI_API_KEY": "sk-planted-and-never-shown"}
ENDPOINTS = [
    ({"OPENAI_BASE_URL": "ftp://x"}, "OPENAI_BASE_URL is no URL"),
    ({"OPENAI_BASE_URL": "http://user:secret@x/v1"}, "OPENAI_BASE_URL is no URL"),
    ({"OPENAI_API_KEY": "white space"}, "OPENAI_API_KEY is not set, or holds white space"),
    ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "http://127.0.0.1:9/v1 cannot be reached"),
]  # fmt: skip
ROW = asdict(tiny.records()[0])
# A file of a prepared folder, and what it holds instead (None: it is gone).
RECORDS = [
    ("train.jsonl", None, "train.jsonl: missing"), ("train.jsonl", b"", "train.jsonl: empty"),
    ("train.jsonl", b"\xff\xfe\x00\x01", "train.jsonl: row 1: not UTF-8"),
    ("train.jsonl", b"{", "train.jsonl: row 1: not JSON"),
    ("train.jsonl", b"[1]", "train.jsonl: row 1: should be a JSON object"),
    ("train.jsonl", b"[" * 100_000, "data_dir = "),
    ("train.jsonl", json.dumps({"id": "a"}).encode(), "row 1, column 'objective': missing"),
    ("train.jsonl", json.dumps(ROW | {"role": "foget"}).encode(), "row 1, column 'role'"),
    ("train.jsonl", json.dumps(ROW | {"answer": " "}).encode(), "row 1, column 'answer'"),
    ("train.jsonl", json.dumps(ROW).encode(), "row 1, column 'anchor'"),
    ("train.jsonl", json.dumps(ROW | {"anchor": None}).encode(), "NGDiff needs records of"),
    ("train.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ("evaluation/sets.json", None, "sets.json: missing"),
    ("evaluation/sets.json", b'{"benchmark": "tofu", "topic": "x"}', "sets.json: is of tofu, asked for is rwku"),
    ("evaluation/forget.jsonl", None, "lacks forget.jsonl"),
    ("evaluation/neighbor.jsonl", b'{"id": "1"}', "neighbor.jsonl: row 1, column 'question': missing"),
    ("evaluation/mmlu.jsonl", b"", "mmlu.jsonl: empty"),
]  # fmt: skip


def edited(name: str, **values) -> Callable[[Path], None]:
    """A change of a JSON file: keys set, or taken away by None."""

    def change(folder: Path) -> None:
        file = folder / name
        held = {**(json.loads(file.read_text()) if file.exists() else {}), **values}
        file.write_text(json.dumps({key: value for key, value in held.items() if value is not None}))

    return change


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


WEIGHTS = "model.safetensors"
MODELS = [
    (lambda f: (f / "chat_template.jinja").unlink(), "the tokenizer has no chat template"),
    (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    (lambda f: (f / WEIGHTS).unlink(), "has no *.safetensors"),
    (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "pytorch_model.bin is pickled and could run code"),
    (lambda f: (f / WEIGHTS).write_bytes(b"version https://git-lfs"), "no safetensors file (or a Git LFS pointer)"),
    (lambda f: (f / WEIGHTS).write_bytes(b"\x02" + 7 * b"\x00" + b"[]"), "model.safetensors is no safetensors file"),
    (cut, "model.safetensors is not whole"),
    (edited(f"{WEIGHTS}.index.json", weight_map={"a": "../b.safetensors"}), "../b.safetensors of model"),
    (lambda f: (f / "config.json").write_text("{"), "config.json is missing, or no JSON object"),
    (edited("config.json", auto_map={"AutoConfig": "evil.Config"}), "config.json asks for custom code (auto_map)"),
    (edited("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}), "tokenizer_config.json asks"),
    (edited("config.json", model_type="lama"), "model_type 'lama' is unknown to transformers"),
    (edited("config.json", model_type=None), "model_type '' is unknown"),
    (edited("config.json", architectures=["BertForMaskedLM"]), "architecture BertForMaskedLM is no causal"),
]  # fmt: skip


CASES = [(f"{RUN[stem]} -p {words}", named) for stem, table in PARAMETERS.items() for words, named in table]
CASES += [(f"{RUN['04']} -f {{w}}/files/{i}/x.yaml", named) for i, (_, named) in enumerate(FILES)]
CASES += [(f"reproduce --suite {{w}}/suites/{i}/x.yaml", named) for i, (_, named) in enumerate(SUITES)]
CASES += [(f"{RUN['04']} -p model={{w}}/models/{i}", named) for i, (_, named) in enumerate(MODELS)]
FOLDER = f"{RUN['04']} -p method=ngdiff -p benchmark=rwku -p data_dir={{w}}/records/"
CASES += [(f"{FOLDER}{i}", named) for i, (*_, named) in enumerate(RECORDS)]
CASES += COMMANDS


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A model, an adapter, a prepared folder, and a broken copy of them for each case."""
    here = tmp_path_factory.mktemp("bad")
    for name, table in (("files", FILES), ("suites", SUITES)):
        for i, (text, _) in enumerate(table):
            (here / name / str(i)).mkdir(parents=True)
            (here / name / str(i) / "x.yaml").write_text(text)
    tiny.model().save_pretrained(here / "model")
    tiny.tokenizer().save_pretrained(here / "model")
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(tiny.model(), lora).save_pretrained(here / "adapter")
    for name in ("prefix", "pickled"):
        shutil.copytree(here / "adapter", here / name)
    edited("adapter_config.json", peft_type="PREFIX_TUNING")(here / "prefix")
    (here / "pickled" / "adapter_model.safetensors").rename(here / "pickled" / "adapter_model.bin")
    (here / "model.gguf").write_bytes(b"GGUX")
    books = data.load_benchmark("books")
    sets = replace(books.sets, benchmark="rwku", **{name: getattr(books.sets, name)[:2] for name in SETS})
    data.save(here / "data", replace(books, records=tiny.records(), validation=[], sets=sets))
    for name, table in (("models", MODELS), ("records", RECORDS)):
        for i, (change, *_) in enumerate(table):
            copy = shutil.copytree(here / ("model" if name == "models" else "data"), here / name / str(i))
            if name == "models":
                change(copy)
            elif table[i][1] is None:
                (copy / change).unlink()
            else:
                (copy / change).write_bytes(table[i][1])
    (here / "taken" / "seed-0").mkdir(parents=True)
    (here / "taken" / "seed-0" / "chapter.txt").write_text("years of work")
    (here / "other").mkdir()
    edited("provenance.json", params={"repeats": 1})(here / "other")
    edited("ask.yaml", generator_model="m", out_dir=str(here / "asked"), **dict.fromkeys(cli.SOURCES, "x"))(here)
    return here


def disk(world: Path) -> dict[str, int]:
    """Files and folders that a command could have touched, with their sizes."""
    places = [
        *world.rglob("*"),
        *ROOT.glob("*"),
        *(ROOT / "outputs").glob("*/*"),
        world.parent,
        *world.parent.glob("*"),
    ]
    return {str(place): place.stat().st_size if place.is_file() else 0 for place in places}


@pytest.fixture
def refused(world, monkeypatch, capsys):
    """Run a command in this process and return its one line; whatever would start work fails the test."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for place, name in ((notebook, "execute"), (models, "load"), (graph, "subprocess")):
        monkeypatch.setattr(place, name, lambda *a, _name=name, **k: pytest.fail(f"{_name} was called"))

    def line(words: str) -> str:
        before, begun = disk(world), time.process_time()
        monkeypatch.setattr(sys, "argv", ["mule", *shlex.split(words.replace("{w}", str(world)))])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        found = caught.value.code if isinstance(caught.value.code, str) else ""
        found += capsys.readouterr().err
        assert caught.value.code and len(found.strip().splitlines()) == 1, found
        assert "Traceback" not in found and disk(world) == before and time.process_time() - begun < 5
        return found

    return line


@pytest.mark.parametrize(("words", "named"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_bad_input_is_one_line(words, named, refused, world):
    """Exit status, one line, the named key or file, under 5 s of CPU, and nothing changed on disk."""
    assert len(CASES) >= 120
    assert named.replace("{w}", str(world)) in refused(words)


@pytest.mark.parametrize(("given", "named"), ENDPOINTS)
def test_an_endpoint_that_cannot_be_asked_is_one_line(given, named, refused, monkeypatch):
    """One probe; the key stands in no line."""
    for name, value in {**KEY, **given}.items():
        monkeypatch.setenv(name, value)
    found = refused("standardize -f {w}/ask.yaml")
    assert named in found and "planted" not in found and "secret" not in found


@pytest.mark.parametrize("words", [
    f"{RUN['04']} -p model=nobody/nothing", "prepare tofu --subject X --out {w}/new",
    "prepare rwku --subject X --out {w}/new", "standardize -f {w}/ask.yaml -p mmlu_source= --dry-run",
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
    assert shown == ["ParameterError: steps = -1: Input should be greater than or equal to 0"]
