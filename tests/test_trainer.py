"""One trainer: the whole accumulated batch counts, runs resume bit by bit, and divergence stops them."""

import json
import math
from dataclasses import replace

import pytest
import tiny
import torch

from mule_lib import losses
from mule_lib.method_terms import Method, Term
from mule_lib.methods import DATA
from mule_lib.settings import Settings, check_precision, training_arguments
from mule_lib.trainer import DivergedError, MultiObjectiveTrainer
from mule_lib.training import train
from mule_lib.training_data import Collator, Example, draw_balanced

QUICK = Settings(
    steps=2, batch_size=24, learning_rate=1e-3, warmup=0, log_every=1, min_obedience=0, max_thought_tokens=4
)
CAP = {"max_answer_tokens": 6}


def run(method="mule", *, settings=QUICK, model=None, **more):
    options = CAP if isinstance(method, str) else {}
    model = model or tiny.model()
    return train(
        model, tiny.tokenizer(), tiny.records(), method, topic=tiny.TOPIC, settings=settings, **{**options, **more}
    )


def weights(trained):
    return torch.cat([parameter.detach().float().flatten() for parameter in trained.model.parameters()])


@pytest.mark.parametrize("method", ["mule", "npo", "ngdiff"])
def test_accumulation_equals_the_larger_batch(method):
    """Answers are ragged, so a mean of micro-batch means would differ."""
    whole = run(method)
    parts = run(method, settings=replace(QUICK, accumulation=4))
    assert whole.groups == parts.groups
    for one, other in zip(whole.log, parts.log, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    torch.testing.assert_close(weights(whole), weights(parts), atol=2e-5, rtol=1e-4)


def test_micro_batches_have_one_size_and_leave_the_batch_as_it_is(tmp_path):
    def plan(**changed):
        arguments, draws = training_arguments(
            replace(QUICK, **changed), tmp_path, groups=5, largest=4, rates=(1e-5, 1e-4)
        )
        return arguments.gradient_accumulation_steps, arguments.per_device_train_batch_size, draws

    assert plan() == (1, 5, 10) and plan(accumulation=2) == (5, 1, 10) and plan(accumulation=99) == (5, 1, 10)
    assert plan(batch_size=30, accumulation=2) == (2, 3, 12) and plan(batch_size=1) == (1, 1, 2)


def test_a_seed_gives_the_same_run_and_another_seed_another():
    first = weights(run(settings=replace(QUICK, lora_rank=2)))
    assert torch.equal(first, weights(run(settings=replace(QUICK, lora_rank=2))))
    assert not torch.equal(first, weights(run(settings=replace(QUICK, lora_rank=2, seed=1))))


def test_activation_checkpointing_changes_nothing_but_memory():
    model = run(settings=replace(QUICK, activation_checkpointing=True))
    torch.testing.assert_close(weights(run()), weights(model), atol=1e-6, rtol=1e-5)
    assert not model.model.is_gradient_checkpointing and model.model.config.use_cache


@pytest.mark.parametrize("method", ["mule", "ngdiff"])
def test_lora_trains_the_adapter_only(method):
    trained = run(method, settings=replace(QUICK, lora_rank=2, activation_checkpointing=True), model=tiny.model())
    base = dict(tiny.model().named_parameters())
    moved = 0
    for name, parameter in trained.model.named_parameters():
        if "lora_" in name:
            moved += "lora_B" in name and bool(parameter.abs().max() > 0)
        else:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            assert torch.equal(parameter, base[plain])
    assert moved == 14  # seven linear layers in each of two decoder layers


@pytest.mark.parametrize("method", ["mule", "ngdiff"])
def test_bf16_trains_float32_weights_on_float32_losses(method):
    exact = run(method, settings=replace(QUICK, steps=1)).log[0]
    trained = run(method, settings=replace(QUICK, steps=1, precision="bf16"))
    assert {parameter.dtype for parameter in trained.model.parameters()} == {torch.float32}
    assert trained.log[0]["loss"] == pytest.approx(exact["loss"], rel=0.05)
    assert trained.log[0]["loss"] != exact["loss"]
    # The autocast that training wrapped around the forward is gone.
    assert trained.model(input_ids=torch.tensor([[1, 5, 9]])).logits.dtype == torch.float32


def test_half_precision_weights_warn_when_all_of_them_are_trained():
    with pytest.warns(UserWarning, match=r"trained weights are torch.bfloat16, which rounds small updates away"):
        run("sft", model=tiny.model(dtype=torch.bfloat16), settings=replace(QUICK, steps=1))


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
    settings = replace(QUICK, steps=4, save_every=2, lora_rank=rank)
    unbroken = run(settings=settings, out_dir=tmp_path / "unbroken")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_after(patch, 3)
        run(settings=settings, out_dir=tmp_path / "broken")
    resumed = run(settings=settings, out_dir=tmp_path / "broken")
    assert torch.equal(weights(unbroken), weights(resumed))
    times = {"train_runtime", "train_samples_per_second"}
    assert [{k: v for k, v in e.items() if k not in times} for e in unbroken.log] == resumed.log
    assert resumed.targets == unbroken.targets
    again = run(settings=settings, out_dir=tmp_path / "broken")
    assert torch.equal(weights(unbroken), weights(again)) and again.steps == 4
    assert not list(tmp_path.rglob("training_args.bin"))
    with pytest.raises(ValueError, match=r"holds a run with other options, settings; use another folder$"):
        run(settings=replace(settings, seed=5), out_dir=tmp_path / "broken", top_k=3)


def poisoned(value, at_step):
    calls = []

    def loss(answer, options):
        calls.append(1)
        factor = value if len(calls) == at_step + 1 else 1.0  # the first call tries the loss out
        return losses.cross_entropy(answer.logits, answer.labels) * factor

    return Method("Poisoned", (Term("forget", ("*/forget",), ("answer",), loss),), DATA)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_and_checkpoint(tmp_path, value):
    settings = replace(QUICK, steps=5, save_every=1)
    with pytest.raises(
        DivergedError, match=rf"^step 3 of Poisoned: the loss of term 'forget' is {value}.*checkpoint-2$"
    ):
        run(poisoned(value, 3), settings=settings, out_dir=tmp_path)
    with pytest.raises(DivergedError, match=r"Last good checkpoint: none was saved$"):
        run(poisoned(value, 1), settings=QUICK)


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    def loss(answer, options):
        # Finite, with an infinite slope at 0.
        return (answer.student.sum() * 0).abs().sqrt() + losses.cross_entropy(answer.logits, answer.labels)

    method = Method("Steep", (Term("forget", ("*/forget",), ("answer",), loss),), DATA)
    model = tiny.model()
    with pytest.raises(DivergedError, match=r"^step 1 of Steep: the gradient norm is nan; lower the learning rate"):
        run(method, model=model)
    for old, new in zip(tiny.model().parameters(), model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_auto_learning_rate_follows_the_kept_loss():
    settings = replace(QUICK, steps=4, learning_rate=1e-4)
    still = run("ngdiff", settings=settings, auto_learning_rate_every=0)
    moving = run("ngdiff", settings=settings, auto_learning_rate_every=1)
    assert {entry["learning_rate"] for entry in still.log} == {1e-4}
    assert still.log[0]["loss"] == moving.log[0]["loss"]
    assert all(0.4e-4 < entry["learning_rate"] < 2.5e-4 for entry in moving.log)


def test_progress_is_one_line_per_log(capsys):
    run("sft", settings=replace(QUICK, steps=4, log_every=2))
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 2 and lines[-1].startswith("SFT: step 4/4, loss ") and lines[-1].endswith(" s left")


def example(group, number, anchor=None):
    return Example(f"{group}/{number}", group, (1, 5 + number), {"answer": (9, 2)}, anchor=anchor)


def test_draws_are_balanced_and_every_record_comes_round():
    examples = [example("obj1/forget", i) for i in range(2)] + [example("obj1/retain", i) for i in range(3)]
    draws = draw_balanced(examples, 6, seed=1)
    assert all([e.group for e in draw] == ["obj1/forget", "obj1/retain"] for draw in draws)
    for group, times in (("obj1/forget", 3), ("obj1/retain", 2)):
        seen = [e.id for draw in draws for e in draw if e.group == group]
        assert all(seen.count(one) == times for one in set(seen)) and len(set(seen)) * times == 6
    assert draws == draw_balanced(examples, 6, seed=1) != draw_balanced(examples, 6, seed=2)
    assert draws[:3] == draw_balanced(examples, 3, seed=1)


def test_anchors_share_a_draw_unless_they_are_off():
    examples = [example("obj1/forget", i, f"obj1/retain/{i}") for i in range(8)]
    examples += [example("obj1/retain", i, f"obj1/forget/{i}") for i in range(8)]
    paired = draw_balanced(examples, 16)
    assert all(a.anchor == b.id for a, b in paired)
    assert not all(a.anchor == b.id for a, b in draw_balanced(examples, 16, anchors=False))


def test_a_batch_is_nested_by_group_and_padded_on_the_right():
    examples = [
        Example("a", "obj1/forget", (1, 7, 8), {"answer": (9, 2), "refusal": (6, 2)}),
        example("obj1/forget", 0),
    ]
    examples[1].continuations["refusal"] = (6, 5, 2)
    batch = Collator(pad_id=3)([[examples[0]], [examples[1]]])
    rows = batch["obj1/forget"]["answer"]
    assert rows["input_ids"].tolist() == [[1, 7, 8, 9, 2], [1, 5, 9, 2, 3]]
    assert rows["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert rows["labels"].tolist() == [[-100, -100, -100, 9, 2], [-100, -100, 9, 2, -100]]
    assert batch["obj1/forget"]["refusal"]["labels"].tolist() == [[-100] * 3 + [6, 2], [-100, -100, 6, 5, 2]]
    assert list(rows) == ["input_ids", "attention_mask", "labels"]


def test_bad_input_is_refused_in_one_line(tmp_path):
    other = type(tiny.tokenizer()).from_pretrained(tiny_saved(tmp_path))
    other.add_tokens(["another"])
    bad_record = [replace(tiny.records()[0], answer=" ", anchor=None)]
    cases = (
        (lambda: run(top_k=10_000), r"^top_k: 10000 is not an integer from 1 to \d+ \(the vocabulary size\)$"),
        (
            lambda: run(teacher_model=tiny.model(), teacher_tokenizer=other),
            r"^teacher: its tokenizer is not the student's",
        ),
        (lambda: train(tiny.model(), tiny.tokenizer(), [], "mule", topic="x"), r"^MULE needs records of obj1/\*"),
        (lambda: train(tiny.model(), tiny.tokenizer(), bad_record, "ga"), r"column 'answer': empty$"),
        (lambda: train(tiny.model(), tiny.tokenizer(), tiny.records(), "mule"), r"^topic: empty; the teacher's"),
        (lambda: run(teacher="none"), r"^teacher: 'none' would teach"),
        (lambda: replace(QUICK, precision="fp16"), r"^precision: 'fp16' is unknown; use one of fp32, bf16$"),
        (lambda: replace(QUICK, steps=-1), r"^steps: -1 is not an integer of 0 or more$"),
        (lambda: replace(QUICK, learning_rate=-0.1), r"^learning_rate: -0.1 is not a number from 0 to inf$"),
        (lambda: run(positions="last"), r"^positions='last': choose from answer, first$"),
    )
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def tiny_saved(folder):
    tiny.tokenizer().save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def test_a_precision_the_device_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(ValueError, match=r"^precision: this GPU has no bfloat16; use fp32$"):
        check_precision("bf16", torch.device("cuda"))
    with pytest.raises(ValueError, match=r"^precision: bf16 is not supported on mps"):
        check_precision("bf16", torch.device("mps"))
    check_precision("fp32", torch.device("cuda"))


def test_a_trained_model_is_no_base(tmp_path):
    model = run("ga").model
    with pytest.raises(ValueError, match=r"^model: already trained by 'GA' and would teach itself"):
        run("mule", model=model)
    assert run("mule", model=model, teacher_model=tiny.model()).steps == 2


def test_what_a_run_did_is_kept(tmp_path):
    trained = run(settings=replace(QUICK, save_every=2), out_dir=tmp_path)
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["options"]["top_k"] == 10 and told["settings"]["learning_rate"] == 1e-3
    lines = (tmp_path / "targets.jsonl").read_text().splitlines()
    assert len(lines) == len(trained.targets) == 24 and "thought" in json.loads(lines[0])
