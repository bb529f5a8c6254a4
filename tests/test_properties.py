"""Whatever the text: records, prompts and batches keep their form. Hash seed and order of jobs change no byte."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

from mule_lib import prompts
from mule_lib.data import files, records
from mule_lib.models.head import padded
from mule_lib.params import ROOT

TEXT = st.text(min_size=1, max_size=40).filter(files._is_text)
CELL = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)
ROW = st.dictionaries(st.sampled_from([*records.Record.__annotations__, "other"]), CELL, max_size=4)
ROWS = st.lists(ROW.map(lambda cells: tiny.records()[0].__dict__ | cells), max_size=2)
FILE = st.binary(max_size=200) | ROWS.map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
IDS = st.lists(st.integers(1, 99), min_size=1, max_size=9)
some = settings(max_examples=50, deadline=None, database=None, derandomize=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "train.jsonl"


@some
@given(FILE)
def test_any_file_is_records_or_refused_in_one_line(file, content):
    file.write_bytes(content)
    try:
        assert records.read_records(file)
    except files.DataFileError as error:
        assert str(error).startswith(str(file)) and "\n" not in str(error)


@some
@given(TEXT, TEXT, TEXT, st.none() | TEXT.map(str.rstrip))
def test_any_text_comes_back_as_written(file, question, answer, source, prefix):
    written = [replace(tiny.records()[0], question=question, answer=answer, source=source, prefix=prefix, anchor=None)]
    records.write_records(file, written)
    assert records.read_records(file) == written


@some
@given(TEXT, TEXT, st.none() | TEXT, st.none() | TEXT.map(str.rstrip))
def test_any_text_is_one_exchange(question, answer, system, prefix):
    """One BOS, at the start; the answer's ids do not hang on what stands before; the end of turn once after it."""
    tokenizer = tiny.tokenizer()
    prompt = prompts.render(tokenizer, question, system=system, prefix=prefix, answer=answer)
    ids, own = prompt.input_ids, prompt.input_ids[prompt.answer_start :]
    assert ids.index(tokenizer.bos_token_id) == 0 and ids.count(tokenizer.bos_token_id) == 1
    bare = prompts.render(tokenizer, "Who?", answer=answer)
    assert own == bare.input_ids[bare.answer_start :] and own.index(tokenizer.eos_token_id) == len(own) - 1
    assert sum(i in tokenizer.all_special_ids for i in ids) == 5 + 2 * (system is not None)


@some
@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=5))
def test_any_batch_is_its_rows(sequences):
    """Each row as if it were alone, then padding that is neither read nor supervised."""
    batch = padded(sequences)
    for i, (context, answer) in enumerate(sequences):
        width = len(context) + len(answer)
        assert batch["input_ids"][i, :width].tolist() == [*context, *answer]
        assert batch["labels"][i].tolist()[:width] == [-100] * len(context) + answer
        assert (batch["labels"][i, width:] == -100).all()
        assert batch["attention_mask"][i].tolist() == [1] * width + [0] * (batch["labels"].shape[1] - width)


BUILD = """
import sys, matplotlib; sys.path.insert(0, "tests"); matplotlib.use("Agg")
from dataclasses import replace; from pathlib import Path
import run_folders
from mule_lib import data
from mule_lib.data.files import write_json
from mule_lib.data.items import SETS
from mule_lib.params import Training
from mule_lib.report import beyond, charts, results, tables
from mule_lib.suite import identity, runs
out, order = Path(sys.argv[1]), int(sys.argv[2])
for name in ("books", "cyber")[::order]:
    data.save(out / name, data.load_benchmark(name))
books = data.load_benchmark("books")
sets = replace(books.sets, **{name: getattr(books.sets, name)[:2] for name in SETS})
data.save(out / "few", replace(books, records=books.records[:6], validation=[], sets=sets))
runs.shared_teacher_answers(Training(data_dir=str(out / "few")), out / "teacher.jsonl", ask=True)
write_json(out / "code.json", identity.code_hashes("mule"))
run_folders.write_runs(out / "made", rows=("base", "mule", "sft", "sft_standardized")[::order], seeds=2)
made = results.load_runs(out / "made")
one, three = (tables.measured_table(*of, made) for of in (("table1", "books"), ("table3", "cyber")))
for table in (one, one.answers, beyond.lead_table(made), beyond.kinds_table(made, "books", order=one.rows())):
    table.write(out / "tables")
for draw in (charts.overall_ranks, charts.trade_off, charts.benign_controls, charts.radars, charts.radar):
    draw(three).write(out / "figures", draw.__name__)
"""


def test_hash_seed_threads_and_order_of_jobs_change_no_byte(tmp_path, monkeypatch):
    """Data, teacher's answers, hashes of code, runs, tables and figures (PDF too) of two processes."""
    monkeypatch.setattr(sys, "argv", ["here", str(tmp_path / "here"), "1"])
    exec(BUILD, {})
    own = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", BUILD, str(tmp_path / "there"), "-1"], cwd=ROOT, env=own, check=True)
    one, other = (
        {file.relative_to(made): file.read_bytes() for file in made.rglob("*") if file.is_file()}
        for made in (tmp_path / "here", tmp_path / "there")
    )
    assert len(one) > 60 and one.keys() == other.keys()
    differ = [str(name) for name in one if one[name] != other[name]]
    assert not differ
