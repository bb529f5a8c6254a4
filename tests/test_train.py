"""One call trains one method: what is refused, what a seed, adapter and precision change, how a run resumes."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from mule_lib import methods, models, params
from mule_lib.methods import Method, Term
from mule_lib.training import Settings, train
from mule_lib.training.batches import encode
from mule_lib.training.teacher import build_cache
from mule_lib.training.train import training_arguments
from mule_lib.training.trainer import MultiObjectiveTrainer

COUNTS = {"records": 5, "largest": 4, "rates": (1e-5, 1e-4)}


def test_micro_batches_have_one_size_and_leave_the_batch_as_it_is(tmp_path):
    def plan(**changed):
        settings = tiny.settings(**changed)
        arguments, draws = training_arguments(settings, tmp_path, **COUNTS)
        return arguments.gradient_accumulation_steps, arguments.per_device_train_batch_size, draws

    assert plan() == (1, 5, 10) and plan(accumulation=2) == (5, 1, 10) and plan(accumulation=99) == (5, 1, 10)
    assert plan(batch_size=30, accumulation=2) == (2, 3, 12) and plan(batch_size=1) == (1, 1, 2)


def test_settings_come_from_the_notebooks_parameters(tmp_path):
    p = params.Training(steps=60, train_batch_size=12, learning_rate=0, lora_rank=4)
    settings = Settings.of(p, 3)
    assert (settings.steps, settings.batch_size, settings.learning_rate, settings.seed) == (60, 12, 0, 3)
    assert settings.lora_rank == 4 and training_arguments(settings, tmp_path, **COUNTS)[0].logging_steps == 3


def test_a_seed_gives_the_same_run_and_another_seed_another():
    first, same, other = (tiny.weights(tiny.train(lora_rank=2, seed=seed).model) for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("method", ["mule", "ngdiff"])
def test_lora_trains_the_adapter_only(method):
    trained = tiny.train(method, lora_rank=2, activation_checkpointing=True)
    base, moved = dict(tiny.model().named_parameters()), 0
    for name, parameter in trained.model.named_parameters():
        if "lora_" in name:
            moved += "lora_B" in name and bool(parameter.abs().max() > 0)
        else:
            assert torch.equal(parameter, base[name.removeprefix("base_model.model.").replace(".base_layer", "")])
    assert moved == 14  # seven linear layers in each of two decoder layers


@pytest.mark.parametrize("method", ["mule", "ngdiff"])
def test_bf16_trains_float32_weights_on_float32_losses(method):
    exact = tiny.train(method, steps=1).log[0]
    trained = tiny.train(method, steps=1, precision="bf16")
    assert {parameter.dtype for parameter in trained.model.parameters()} == {torch.float32}
    assert trained.log[0]["loss"] == pytest.approx(exact["loss"], rel=0.05)
    assert trained.log[0]["loss"] != exact["loss"]
    # The autocast that training wrapped around the forward is gone.
    assert trained.model(input_ids=torch.tensor([[1, 5, 9]])).logits.dtype == torch.float32


def test_half_precision_weights_warn_when_all_of_them_are_trained():
    with pytest.warns(UserWarning, match=r"trained weights are torch.bfloat16, which rounds small updates away"):
        tiny.train("sft", model=tiny.model(dtype=torch.bfloat16), steps=1)


def interrupt_after(monkeypatch, steps):
    plain, done = MultiObjectiveTrainer.training_step, []

    def step(self, *args, **kwargs):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(1)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(MultiObjectiveTrainer, "training_step", step)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_resumed_run_is_the_unbroken_one_bit_by_bit(tmp_path, monkeypatch, rank):
    settings = {"steps": 4, "save_every": 2, "lora_rank": rank}
    unbroken = tiny.train(folder=tmp_path / "unbroken", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 3)
        tiny.train(folder=tmp_path / "broken", **settings)
    resumed = tiny.train(folder=tmp_path / "broken", **settings)
    assert torch.equal(tiny.weights(unbroken.model), tiny.weights(resumed.model))
    times = {"train_runtime", "train_samples_per_second"}
    assert [{k: v for k, v in entry.items() if k not in times} for entry in unbroken.log] == resumed.log
    assert resumed.teacher_answers == unbroken.teacher_answers
    again = tiny.train(folder=tmp_path / "broken", **settings)
    assert torch.equal(tiny.weights(unbroken.model), tiny.weights(again.model)) and again.steps == 4
    assert not list(tmp_path.rglob("training_args.bin"))
    with pytest.raises(ValueError, match=r"holds a run with other options, settings; use another folder$"):
        tiny.train(folder=tmp_path / "broken", options={"top_k": 3}, **{**settings, "seed": 5})


def test_what_a_run_did_is_kept(tmp_path):
    trained = tiny.train(save_every=2, folder=tmp_path)
    identity = json.loads((tmp_path / "training.json").read_text())
    assert identity["options"]["top_k"] == 10 and identity["settings"]["learning_rate"] == 1e-3
    lines = (tmp_path / "teacher_answers.jsonl").read_text().splitlines()
    assert len(lines) == len(trained.teacher_answers) == 24 and "thought" in json.loads(lines[0])


def test_bad_input_is_refused_in_one_line():
    bad_record = [replace(tiny.records()[0], answer=" ", anchor=None)]
    given = (tiny.model(), tiny.tokenizer())
    cases = (
        (lambda: tiny.train(options={"top_k": 10_000}), r"^top_k: 10000 is not an integer from 1 to \d+ \(the vocab"),
        (lambda: train(*given, replace(tiny.benchmark(), records=[]), "mule"), r"^MULE needs records of obj1/\*"),
        (lambda: train(*given, tiny.benchmark(some=bad_record), "ga"), r"column 'answer'"),
        (lambda: tiny.train(options={"teacher": "none"}), r"teacher = 'none'"),
        (lambda: tiny.train(options={"positions": "last"}), r"positions = 'last'"),
        (lambda: Settings(precision="fp16"), r"^precision = 'fp16': did you mean 'bf16'\?$"),
        (lambda: Settings(steps=-1), r"^steps = -1: Input should be greater than or equal to 0$"),
        (lambda: Settings(learning_rate=-0.1), r"^learning_rate = -0.1: Input should be greater than or equal to 0$"),
        (lambda: Settings(step=3), r"^unknown parameter 'step'; did you mean 'steps'\?$"),
    )
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_precision_the_device_lacks_is_refused_or_warned_of_and_auto_does_without(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    devices = [torch.device(kind) for kind in ("cpu", "cuda", "mps")]
    for device in devices:
        assert models.precision("auto", device=device) == models.precision("fp32", device=device) == "fp32"
        if device.type != "cpu":
            with pytest.raises(ValueError, match=rf"^precision: this {device.type} device has no bfloat16; use fp32$"):
                models.precision("bf16", device=device)
    with pytest.warns(UserWarning, match="^precision: this CPU emulates bfloat16, about 20 times slower"):
        assert models.precision("bf16", device=devices[0]) == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert [models.precision("auto", name, devices[0]) for name in ("", "base")] == ["bf16", "fp32"]


def test_a_trained_model_is_no_base():
    model = tiny.train("ga").model
    with pytest.raises(ValueError, match=r"^model: already trained by 'GA' and would teach itself"):
        tiny.train(model=model)


def answer_nll(model, role: str) -> float:
    """Mean negative log-likelihood of the true answers of a role, in nats a token."""
    some = [record for record in tiny.records() if record.role == role]
    examples = encode(tiny.tokenizer(), some, tiny.method("ngdiff", max_answer_tokens=6))
    return float(build_cache(model, {e.id: (e.context, e.continuations["answer"]) for e in examples}).nll.mean())


@pytest.mark.parametrize(("method", "options"), [("ngdiff", {}), ("mollm", {"normalize": True})])
def test_gradient_editing_forgets_through_the_trainer(method, options):
    """What was learned by heart is lost where it is to be forgotten, and far less where it is kept."""
    by_heart = Method("Taught", (Term("all", methods.LIKELIHOOD),), params.TrainedOptions(max_answer_tokens=6))
    model = tiny.train(by_heart, steps=40, learning_rate=8e-3, log_every=60).model
    model.unlearned_by = ""
    assert answer_nll(model, "forget") < 0.2
    tiny.train(method, model=model, options=options, steps=25, learning_rate=3e-3, log_every=60)
    assert answer_nll(model, "forget") > max(1, 2 * answer_nll(model, "retain"))
