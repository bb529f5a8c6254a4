"""One trainer: the whole accumulated batch counts, draws are balanced, and divergence stops a run."""

import math
from collections import Counter

import pytest
import tiny
import torch

from mule_lib import losses
from mule_lib.data.records import Group, Objective, Role
from mule_lib.methods import ANCHOR_GROUPS, Method, Term
from mule_lib.params import TrainedOptions
from mule_lib.training import DivergedError
from mule_lib.training.batches import Example, draw_balanced, places

FORGET, RETAIN = Group(Objective.OBJ1, Role.FORGET), Group(Objective.OBJ1, Role.RETAIN)


@pytest.mark.parametrize("method", ["mule", "npo", "ngdiff"])
def test_accumulation_equals_the_larger_batch(method):
    """Answers are ragged, so a mean of micro-batch means would differ."""
    whole, parts = tiny.train(method), tiny.train(method, accumulation=4)
    for one, other in zip(whole.log, parts.log, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    torch.testing.assert_close(tiny.weights(whole.model), tiny.weights(parts.model), atol=2e-5, rtol=1e-4)


def test_activation_checkpointing_changes_nothing_but_memory():
    plain, sparing = tiny.train(), tiny.train(activation_checkpointing=True)
    torch.testing.assert_close(tiny.weights(plain.model), tiny.weights(sparing.model), atol=1e-6, rtol=1e-5)
    assert not sparing.model.model.is_gradient_checkpointing and sparing.model.config.use_cache


def on_forget(loss):
    term = Term("forget", loss, ("answer",), roles=(Role.FORGET,))
    return Method("Poisoned", (term,), TrainedOptions())


def poisoned(value, at_step):
    calls = []

    def loss(answer, options):
        calls.append(1)
        factor = value if len(calls) == at_step else 1.0
        return losses.cross_entropy(answer.logits, answer.labels) * factor

    return on_forget(loss)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_and_checkpoint(tmp_path, value):
    with pytest.raises(
        DivergedError, match=rf"^step 3 of Poisoned: the loss of term 'forget' is {value}.*checkpoint-2$"
    ):
        tiny.train(poisoned(value, 3), folder=tmp_path, steps=5, save_every=1)
    with pytest.raises(DivergedError, match=r"Last good checkpoint: none was saved$"):
        tiny.train(poisoned(value, 1))


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    def steep(answer, options):
        # Finite, with an infinite slope at 0.
        return (answer.student.sum() * 0).abs().sqrt() + losses.cross_entropy(answer.logits, answer.labels)

    model = tiny.model()
    with pytest.raises(DivergedError, match=r"^step 1 of Poisoned: the gradient norm is nan; lower the learning rate"):
        tiny.train(on_forget(steep), model=model)
    assert torch.equal(tiny.weights(model), tiny.weights(tiny.model()))


def test_auto_learning_rate_follows_the_kept_loss():
    settings = {"steps": 4, "learning_rate": 1e-4}
    still, moving = (tiny.train("ngdiff", options={"auto_learning_rate_every": every}, **settings) for every in (0, 1))
    assert {entry["learning_rate"] for entry in still.log} == {1e-4}
    assert still.log[0]["loss"] == moving.log[0]["loss"]
    assert all(0.4e-4 < entry["learning_rate"] < 2.5e-4 for entry in moving.log)


def test_progress_is_one_line_per_log(capsys):
    tiny.train("sft", steps=4, log_every=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 2 and lines[-1].startswith("SFT: step 4/4, loss ") and lines[-1].endswith(" s left")


def example(group, number, anchor=None):
    return Example(f"{group}/{number}", group, (1, 5 + number), {"answer": (9, 2)}, anchor=anchor)


def test_draws_are_balanced_and_every_record_comes_round():
    examples = [example(FORGET, i) for i in range(2)] + [example(RETAIN, i) for i in range(3)]
    draws = draw_balanced(examples, 6, seed=1)
    assert all([e.group for e in draw] == [FORGET, RETAIN] for draw in draws)
    for group, times in ((FORGET, 3), (RETAIN, 2)):
        seen = [e.id for draw in draws for e in draw if e.group == group]
        assert all(seen.count(one) == times for one in set(seen)) and len(set(seen)) * times == 6
    assert draws == draw_balanced(examples, 6, seed=1) != draw_balanced(examples, 6, seed=2)
    assert draws[:3] == draw_balanced(examples, 3, seed=1)


def test_a_batch_without_anchors_keeps_its_size_and_its_balance():
    """What remains of an objective takes the place of its anchors; with all groups, or one per objective, one each."""
    groups = {record.group for record in tiny.records()}
    assert set(places(groups).values()) == {1} == set(places(groups - {("obj1", "retain")} - ANCHOR_GROUPS).values())
    assert sorted(places(groups - ANCHOR_GROUPS).values()) == [1, 1, 2, 2]
    kept = [Example(r.id, r.group, (1,), {}) for r in tiny.records() if r.group not in ANCHOR_GROUPS]
    [draw] = draw_balanced(kept, 1, anchors=False)
    assert Counter(example.group.objective for example in draw) == dict.fromkeys(("obj1", "obj2", "obj3"), 2)
    assert len({example.id for example in draw}) == 6


def test_anchors_share_a_draw_unless_they_are_off():
    examples = [example(FORGET, i, f"{RETAIN}/{i}") for i in range(8)]
    examples += [example(RETAIN, i, f"{FORGET}/{i}") for i in range(8)]
    assert all(a.anchor == b.id for a, b in draw_balanced(examples, 16))
    assert not all(a.anchor == b.id for a, b in draw_balanced(examples, 16, anchors=False))
