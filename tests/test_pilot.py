"""The pilot study on a random model: what a cosine is made of, that the model is left alone, and what is refused."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tiny
import torch

from mule_lib import methods, pilot, targets
from mule_lib.method_terms import MethodError
from mule_lib.prompts import steering
from mule_lib.training_data import draw_balanced, encode, group_of

SETTINGS = pilot.PilotSettings(steps=(0,), batches=2, draws=2, layers=1, train_batch_size=6, train_seeds=1)


@pytest.fixture(scope="module")
def said():
    how = steering("oracle", tiny.TOPIC, cot=True)
    limits = {"max_answer_tokens": 5, "max_thought_tokens": 4}
    return targets.teacher_targets(tiny.model(), tiny.tokenizer(), tiny.records(), how, **limits)


def _measure(model, method="sft", settings=SETTINGS, records=None, **more):
    return pilot.cosines_over_training(
        model, tiny.tokenizer(), records or tiny.records(), method, topic=tiny.TOPIC, settings=settings, **more
    )


def test_cosines_are_those_of_the_plain_losses():
    """Against gradients by hand: each objective's cross-entropy on the same draws, last layer only."""
    model, tokenizer = tiny.model(), tiny.tokenizer()
    (found,) = _measure(model)[0]
    assert found.shape == (3, 2, 3, 2)
    groups = {group_of(record): ["desired"] for record in tiny.records()}
    draws = draw_balanced(encode(tokenizer, tiny.records(), groups), 4, seed=SETTINGS.seed + 10_000)
    parameters = list(model.model.layers[1].parameters())
    vectors = []
    for objective, batch in product(("obj1", "obj2", "obj3"), range(2)):
        total, tokens = 0.0, 0
        for draw in draws[2 * batch : 2 * batch + 2]:
            for example in draw:
                if example.group.startswith(objective):
                    answer = example.continuations["desired"]
                    ids = torch.tensor([[*example.context, *answer]])
                    logits = model(ids).logits[0, len(example.context) - 1 : -1].float()
                    total = total - logits.log_softmax(1)[range(len(answer)), list(answer)].sum()
                    tokens += len(answer)
        gradient = torch.autograd.grad(total / tokens, parameters)
        vectors.append(torch.cat([part.flatten() for part in gradient]))
    unit = torch.stack([vector / vector.norm() for vector in vectors])
    np.testing.assert_allclose(found.reshape(6, 6), (unit @ unit.T).numpy(), atol=1e-4)


def test_mule_needs_and_uses_the_teacher(said):
    """MULE's loss gives cosines in -1 to 1, 1 on the diagonal; other answers of the teacher give others."""
    model = tiny.model()
    found = _measure(model, "mule", said=said)[0].reshape(6, 6)
    np.testing.assert_allclose(np.diag(found), 1)
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(found, found.T)
    other = [replace(one, answer_ids=tuple(reversed(one.answer_ids))) for one in said]
    assert np.abs(_measure(model, "mule", said=other)[0].reshape(6, 6) - found).max() > 1e-3


def test_the_model_is_left_as_it_was(said):
    """Weights, flags and mode are untouched, also after a measurement that trains a copy."""
    model = tiny.model()
    model.model.embed_tokens.weight.requires_grad_(False)
    before = {name: (value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    found = _measure(model, "mule", replace(SETTINGS, steps=(0, 2)), said=said)
    assert list(found) == [0, 2]
    assert np.abs(found[0] - found[2]).max() > 1e-3
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name][0]) and value.requires_grad == before[name][1], name
        assert value.grad is None
    assert not model.training and not hasattr(model, "unlearned_by")


def test_training_in_between_is_repeatable(said):
    settings = replace(SETTINGS, steps=(2,))
    one, two = (_measure(tiny.model(), "mule", settings, said=said)[2] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (1, 3, 2, 3, 2)


def test_last_layers_are_the_last_ones():
    model = tiny.model(layers=3)
    names = [
        name for name, parameter in model.named_parameters() if any(parameter is p for p in pilot.last_layers(model, 2))
    ]
    assert names and {name.split(".")[2] for name in names} == {"1", "2"}
    with pytest.raises(ValueError, match="layers: 4; the model has 3"):
        pilot.last_layers(model, 4)


def test_terms_are_cut_to_objectives():
    """A term over all groups counts in each objective with its own groups; NPO's two terms stay two."""
    groups = {group_of(record) for record in tiny.records()}
    cut = pilot.terms_of_objectives(methods.on_groups(methods.find("sft"), groups))
    assert {objective: [term.groups for term in terms] for objective, terms in cut.items()} == {
        "obj1": [("obj1/forget", "obj1/retain")],
        "obj2": [("obj2/forget", "obj2/neighbor")],
        "obj3": [("obj3/adversarial", "obj3/benign")],
    }


@pytest.mark.parametrize(
    ("method", "message"),
    [("ngdiff", "combines gradients by a rule"), ("ga", "has no loss for obj3"), ("mull", "did you mean 'mule'")],
)
def test_methods_that_cannot_be_compared_are_refused(method, message):
    with pytest.raises(MethodError, match=message):
        _measure(tiny.model(), method)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"draws": 5}, "disjoint batches would need 10 records of obj1/forget, the data has 4"),
        ({"layers": 3}, "layers: 3; the model has 2"),
    ],
)
def test_what_the_data_or_model_lack_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        _measure(tiny.model(), settings=replace(SETTINGS, **changed))


@pytest.mark.parametrize(
    "changed", [{"batches": 1}, {"draws": 0}, {"layers": 0}, {"train_seeds": 0}, {"steps": ()}, {"steps": (-1,)}]
)
def test_bad_settings_are_named(changed):
    with pytest.raises(ValueError, match=next(iter(changed))):
        replace(SETTINGS, **changed)
