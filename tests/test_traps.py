"""The ten traps of transformers 5 and peft that fail in silence, each with a test that would see us in it."""

import json
import math
import os
import socket

import pytest
import tiny
import torch
import torch.multiprocessing as mp
from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from mule_lib import models, prompts
from mule_lib.methods import METHODS, Answers, Method, Term
from mule_lib.params import TrainedOptions
from mule_lib.training import DivergedError
from mule_lib.training.batches import encode
from mule_lib.training.teacher import teacher_answers
from mule_lib.training.trainer import MultiObjectiveTrainer


def bare_trainer(model, folder, **changed):
    """A trainer of SFT on one draw, with arguments as transformers sets them by default."""
    groups = {record.group for record in tiny.records()}
    row = METHODS["sft"].on_groups(groups)
    examples = encode(tiny.tokenizer(), tiny.records(), row)
    draw = list({example.group: example for example in examples}.values())
    arguments = TrainingArguments(output_dir=str(folder), max_steps=1, report_to="none", disable_tqdm=True, **changed)
    arguments.per_device_train_batch_size = 1
    return MultiObjectiveTrainer(model, arguments, [draw], row)


def test_1_accumulation_does_not_multiply_the_gradient():
    one, four = (tiny.train("sft", accumulation=n).log[0] for n in (1, 4))
    assert four["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    assert four["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_2_a_model_in_training_with_checkpointing_answers_as_in_evaluation():
    given = (tiny.tokenizer(), tiny.benchmark(), tiny.method("mule", max_answer_tokens=12))
    expected = teacher_answers(tiny.model(), *given, max_thought_tokens=4)
    model = tiny.model()
    model.activation_checkpointing_enable()
    model.train()
    assert teacher_answers(model, *given, max_thought_tokens=4) == expected
    assert model.training and max(len(target.answer_ids) for target in expected) > 2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_3_backward_happens_with_the_adapter_on(tmp_path, checkpointing):
    model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    trainer = bare_trainer(model, tmp_path, activation_checkpointing=checkpointing)
    with models.frozen(model):
        pass
    batch = trainer.data_collator(trainer.train_dataset)
    trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
    loss = trainer.compute_loss(model.train(), batch)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if "lora_B" in name}
    assert len(found) == 14 and all(grad is not None and grad.abs().max() > 0 for grad in found.values())


def test_4_adapter_weights_frozen_by_hand_stay_frozen():
    model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    by_hand = [p for name, p in model.named_parameters() if "layers.0" in name and "lora" in name]
    for parameter in by_hand:
        parameter.requires_grad_(False)
    with model.disable_adapter():
        pass
    assert all(parameter.requires_grad for parameter in by_hand), "peft no longer falls into this"
    for parameter in by_hand:
        parameter.requires_grad_(False)
    with models.frozen(model):
        pass
    assert not any(parameter.requires_grad for parameter in by_hand)


def test_5_half_precision_checkpoints_load_as_float32_and_losses_compute_in_it(tmp_path):
    tiny.model(dtype=torch.bfloat16).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model, _ = models.load(str(tmp_path))
    assert model.dtype == torch.float32
    half = Answers(torch.zeros(1, 3, 7, dtype=torch.bfloat16), torch.tensor([[-100, 2, 3]]))
    assert half.student.dtype == torch.float32


def test_6_a_nan_is_neither_logged_as_zero_nor_trained_on(tmp_path):
    assert bare_trainer(tiny.model(), tmp_path, logging_nan_inf_filter=True).args.logging_nan_inf_filter is False
    method = Method("Broken", (Term("all", lambda a, o: a.logits.sum() * math.nan, ("answer",)),), TrainedOptions())
    with pytest.raises(DivergedError, match=r"^step 1 of Broken: the loss of term 'all' is nan"):
        tiny.train(method)


def test_7_nested_batches_are_not_emptied(tmp_path):
    trainer = bare_trainer(tiny.model(), tmp_path, remove_unused_columns=True)
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch) == 6 and all(example.continuations["desired"] for example in batch)
    trainer.train()
    assert trainer.state.global_step == 1


def test_8_prompts_are_plain_ids_with_one_bos_and_a_mask_that_needs_no_marks_in_the_template():
    tokenizer = tiny.tokenizer()
    prompt = prompts.render(tokenizer, "who lives in the house", system="near the river", answer="Ada.")
    assert all(type(i) is int for i in prompt.input_ids)
    assert prompt.input_ids.count(tokenizer.bos_token_id) == 1
    answer = [*prompts.encode_text(tokenizer, "Ada."), tokenizer.eos_token_id]
    assert list(prompt.input_ids[prompt.answer_start :]) == answer
    unmarked = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    unmarked.chat_template = tokenizer.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    again = prompts.render(unmarked, "who lives in the house", system="near the river", answer="Ada.")
    assert again == prompt


# Batch sizes of four draws, two for each process; the rows use six, five and three groups.
PARALLEL = {"mule": 24, "ngdiff": 24, "npo": 16}


def train_for_parallel():
    found = {}
    for method, batch_size in PARALLEL.items():
        options = {"auto_learning_rate_every": 1} if method == "ngdiff" else {}
        trained = tiny.train(method, options=options, batch_size=batch_size)
        weights = tiny.weights(trained.model)[::7].tolist()
        found[method] = {"weights": weights, "rates": [entry["learning_rate"] for entry in trained.log]}
    return found


def worker(rank, port, folder):
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    found = train_for_parallel()
    (folder / f"{rank}.json").write_text(json.dumps(found))
    # Results are on disk; a gloo thread that still holds a tensor would abort an interpreter that shuts down in order.
    os._exit(0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="compares CPU processes")
def test_9_two_processes_train_as_one(tmp_path):
    """Both through DDP's own reduction (a sum of terms) and through autograd.grad, which DDP leaves alone."""
    expected = train_for_parallel()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, tmp_path), nprocs=2)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for method in PARALLEL:
        assert ranks[0][method] == ranks[1][method]
        for key in ("weights", "rates"):
            assert ranks[0][method][key] == pytest.approx(expected[method][key], abs=2e-5)


def test_10_several_visible_devices_in_one_process_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(
        ValueError, match=r"^2 visible devices in one process.*CUDA_VISIBLE_DEVICES.*accelerate launch$"
    ):
        bare_trainer(tiny.model(), tmp_path)
