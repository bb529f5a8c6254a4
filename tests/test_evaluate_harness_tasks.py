"""Whole harness tasks on the live model: the same number as our own scores, settings, and every refusal line."""

import json
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_evaluate_harness import CHAT, render, rows
from test_generate import byte_tokenizer, tiny_llama

from mule_lib import training_run
from mule_lib.evaluate import harness, harness_tasks, run_tasks
from mule_lib.params import ParameterError, Training
from mule_lib.run import _check_tasks

TASK = """
task: invented_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
description: "The following are multiple choice questions (with answers) about {topic}.\\n\\n"
doc_to_text: "{{{{question.strip()}}}}\\nA. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\nC. {{{{choices[2]}}}}\\nD. {{{{choices[3]}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list:
  - metric: acc
"""  # noqa: E501


@pytest.fixture
def folder(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(40, subjects=("castle_law",))))
    (tmp_path / "task.yaml").write_text(TASK.format(file=file, topic="castle law"))
    return tmp_path


@pytest.mark.parametrize("chat", [False, True])
def test_the_same_accuracy_as_our_own_scores(folder, chat):
    """One name, one number; the global random states do not move."""
    model, tokenizer = tiny_llama(), byte_tokenizer(CHAT)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    found = run_tasks(
        model, tokenizer, ["invented_choice"], batch_size=4, apply_chat_template=chat, include_path=folder
    )
    ours = harness.four_choice_scores(
        model, tokenizer, rows(40, subjects=("castle_law",)), batch_size=7, render=render if chat else None
    )
    assert found["results"]["invented_choice"]["acc,none"] == ours["correct"]
    assert 0 < ours["correct"] < 1
    assert found["n"] == {"invented_choice": 40}
    assert found["settings"]["apply_chat_template"] is chat
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    json.dumps(found)


def test_a_limit_takes_the_first_items_of_a_yaml_file(folder):
    """A task may be a file, and `limit` counts items."""
    found = run_tasks(tiny_llama(), byte_tokenizer(), [str(folder / "task.yaml")], limit=6, batch_size=4)
    assert list(found["n"].values()) == [6]


def test_one_parameter_of_a_run_asks_for_tasks(folder):
    """What notebook 04 does: the parameter is checked first, the numbers are told as a table."""
    file = str(folder / "task.yaml")
    p = Training(harness_tasks=[file], harness_limit=7)
    found = training_run.harness(p, SimpleNamespace(model=tiny_llama()), byte_tokenizer())
    lines = harness_tasks.table(found)
    assert list(lines["n"]) == [7] and list(lines["metric"]) == ["acc,none"] and lines["value"].between(0, 1).all()
    with pytest.raises(ParameterError, match="'mmlv' is neither a harness task nor a YAML file; did you mean 'mmlu'"):
        _check_tasks(["mmlv"])


def test_a_run_that_asks_for_tasks_without_the_package_is_refused(monkeypatch):
    """With the parameter's name and the command, before anything is loaded."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ParameterError, match=r"harness_tasks: .*pip install lm-eval==0\.4\.13"):
        _check_tasks(["mmlu"])


def test_an_unknown_task_is_answered_with_the_nearest(folder):
    """Before the model is asked: None would fail."""
    with pytest.raises(ValueError, match=r"'invented_chioce' is neither .*; did you mean 'invented_choice'"):
        run_tasks(None, None, ["invented_chioce"], include_path=folder)


def test_bad_settings_and_a_missing_package_are_one_line(monkeypatch):
    """The line names the parameter, or the command that installs what is missing."""
    with pytest.raises(ValueError, match="tasks: empty"):
        run_tasks(None, None, [])
    with pytest.raises(ValueError, match="limit is 0, should be at least 1"):
        run_tasks(None, None, ["mmlu"], limit=0)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(RuntimeError, match=r"pip install lm-eval==0\.4\.13"):
        run_tasks(None, None, ["mmlu"])
