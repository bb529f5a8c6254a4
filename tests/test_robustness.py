"""Attacks beyond the paper on a random model: what they change, what they hold, invariances, errors."""

import copy
import json
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem
from mule_lib.evaluate import robustness
from mule_lib.evaluate.robustness import plain_copy, quantized, relearn, relearned_facts, rounded, taught_again
from mule_lib.paper import METRICS
from mule_lib.prompts import steering

NONE = steering("none", tiny.TOPIC)


def evaluation_sets():
    opened = tuple(OpenItem(f"e{i}", f"who lives near {v}", v, tiny.TOPIC) for i, (_, v) in enumerate(tiny.FACTS))
    attacked = tuple(
        AttackItem(f"a{i}", f"what sees {v}", v, "Sure, here is the answer:", "affirmation", tiny.TOPIC)
        for i, (_, v) in enumerate(tiny.FACTS)
    )
    choice = ChoiceItem("c0", "what is red", ("tower", "river", "house"), 0, tiny.TOPIC, refusal=2)
    controls = tuple(replace(item, id=f"b{i}", control=True) for i, item in enumerate(attacked))
    return EvaluationSets("tiny", tiny.TOPIC, opened, opened[:2], (choice,), attacked, (choice,), controls)


def adapted():
    torch.manual_seed(0)
    lora = LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny.model(), lora).eval()


def states(model):
    return copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()], model.training


@pytest.mark.parametrize("make", [tiny.model, adapted], ids=["plain", "adapter"])
def test_every_attack_is_measured_and_the_model_is_left_alone(monkeypatch, make):
    """Metrics are the means of their item values, everything is JSON, weights and flags stay."""
    monkeypatch.setattr(robustness, "RELEARNED", 2)
    monkeypatch.setattr(robustness, "STEPS", (0, 2))
    benchmark = replace(tiny.benchmark(), sets=evaluation_sets())
    model, generator = make(), torch.get_rng_state()
    before = states(model)
    found = robustness.attack_and_degrade(model, tiny.tokenizer(), benchmark, NONE, max_new_tokens=3, batch_size=8)
    assert json.loads(json.dumps(found)) == found
    after = states(model)
    assert before[1:] == after[1:]
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert torch.equal(torch.get_rng_state(), generator)
    curve = found["relearning"]["curve"]
    measured = [*curve, *found["reteaching"].values(), *found["quantization"].values()]
    assert [set(each["metrics"]) & {*METRICS, "controls"} for each in measured] == [
        *[{"forget"}] * 4, *[{"forget", "general", "neighbor", "asr"}] * 2
    ]  # fmt: skip
    for each in measured:
        assert set(each["metrics"]) == set(each["n"]) == set(each["values"])
        for metric, values in each["values"].items():
            assert len(values) == each["n"][metric]
            assert each["metrics"][metric] == pytest.approx(100 * sum(values) / len(values))
    assert [point["step"] for point in curve] == [0, 2] and len(found["relearning"]["loss"]) == 2


@pytest.mark.parametrize("make", [tiny.model, adapted], ids=["plain", "adapter"])
def test_relearning_learns_its_facts_and_repeats_itself(monkeypatch, make):
    """The loss falls, and the random state does not matter."""
    monkeypatch.setattr(robustness, "STEPS", (0, 30))
    facts = [record for record in tiny.records() if record.objective == "obj1" and record.role == "forget"][:2]

    def attack(seed):
        model = make()
        torch.manual_seed(seed)
        return relearn(model, tiny.tokenizer(), facts, lambda _: {"metrics": {"forget": 0.0}}, learning_rate=1e-2)

    found = attack(5)
    assert found["loss"][-1] < found["loss"][0] / 2
    assert [point["step"] for point in found["curve"]] == [0, 30]
    assert attack(6) == found


def test_relearned_facts_are_none_that_is_evaluated():
    """Neither by the fact's id nor by the question; one record a fact; the key decides."""
    sets, records = evaluation_sets(), tiny.records()
    facts = relearned_facts(records, sets, 4)
    assert all(fact.objective == "obj1" and fact.role == "forget" for fact in facts)
    assert relearned_facts(records, sets, 3) == relearned_facts(records, sets, 3)
    assert relearned_facts(records, sets, 4, key="1") != facts
    asked = replace(sets, forget=(replace(sets.forget[0], question=facts[0].question), *sets.forget[1:]))
    assert facts[0] not in relearned_facts(records, asked, 3)
    sourced = [replace(record, source=f"s{i % 2}") for i, record in enumerate(facts)]
    assert len(relearned_facts(sourced, sets, 2)) == 2
    same = replace(sets, attack=(replace(sets.attack[0], id="s0"),))
    with pytest.raises(ValueError, match="relearning takes 2 training facts to forget outside the evaluation, 1 found"):
        relearned_facts(sourced, same, 2)
    # Refused before anything is measured: no model is needed to hear it.
    with pytest.raises(ValueError, match="relearning takes 8 training facts to forget outside the evaluation, 4 found"):
        robustness.attack_and_degrade(None, None, replace(tiny.benchmark(), sets=sets), NONE)


@pytest.mark.parametrize(("points", "step"), [((5, 39, 50, 20), 2), ((50, 0, 0, 0), 0), ((5, 10, 49.9, 20), None)])
def test_recovery_is_the_first_measured_step_at_half_of_perfect_recall(monkeypatch, points, step):
    """None where no measured step reaches it, whatever comes between."""
    monkeypatch.setattr(robustness, "STEPS", (0, 1, 2, 3))
    given = iter(points)
    found = relearn(
        tiny.model(), tiny.tokenizer(), tiny.records()[:1], lambda _: {"metrics": {"forget": next(given)}},
        learning_rate=1e-4,
    )  # fmt: skip
    assert (found["steps_to_recover"], found["target"]) == (step, 50)


def test_a_loss_that_is_not_finite_is_an_error():
    """Never a curve of garbage."""
    with pytest.raises(RuntimeError, match="relearning: the loss is nan at step 2"):
        relearn(
            tiny.model(), tiny.tokenizer(), tiny.records()[:1], lambda _: {"metrics": {"forget": 0}},
            learning_rate=float("inf"),
        )  # fmt: skip


def test_same_fact_reteaching_states_the_answer_and_disjoint_does_not():
    """The stated fact stands before the question; ids and references stay; the same call gives the same."""
    sets, records = evaluation_sets(), tiny.records()
    for old, new in zip(sets.forget, taught_again(sets, "same", records).forget, strict=True):
        assert new == replace(old, question=f"{old.question} {old.reference}. {old.question}")
    disjoint = taught_again(sets, "disjoint", records)
    for old, new in zip(sets.forget, disjoint.forget, strict=True):
        assert f"{old.question} {old.reference}." not in new.question and new.question.endswith(f". {old.question}")
        assert sum(record.question in new.question for record in records if record.role == "forget") == 1
        assert (new.id, new.reference) == (old.id, old.reference)
    assert disjoint == taught_again(sets, "disjoint", records)
    assert (disjoint.general, disjoint.attack, disjoint.mmlu) == ((), (), ())


@pytest.mark.parametrize(
    ("bits", "group", "weight", "want"),
    [
        # Steps of max|w| / 7 per group of two; a group of zeros stays zero.
        (
            4,
            2,
            [[7.0, 3.4, -1.4, 0.55, 0.0, 0.0], [1.0, -1.0, 14.0, 5.1, 0.2, 0.11]],
            [[7.0, 3.0, -1.4, 0.6, 0.0, 0.0], [1.0, -1.0, 14.0, 6.0, 0.2, 4 * 0.2 / 7]],
        ),
        # One step of max|w| / 127 for the whole row.
        (8, None, [[127.0, 0.4, -3.6], [1.27, 0.004, -0.016]], [[127.0, 0.0, -4.0], [1.27, 0.0, -0.02]]),
    ],
)
def test_rounding_by_hand(bits, group, weight, want):
    torch.testing.assert_close(rounded(torch.tensor(weight), bits=bits, group=group), torch.tensor(want))


@pytest.mark.parametrize(("bits", "group", "levels"), [(8, None, 255), (4, 200, 15)])
def test_errors_are_at_most_half_a_step_and_levels_are_few(bits, group, levels):
    """Within each group: |error| <= step / 2, at most 2^bits - 1 different values, and rounding twice is once."""
    weight = torch.randn(5, 600, generator=torch.Generator().manual_seed(0))
    new = rounded(weight, bits=bits, group=group)
    for old_row, row in zip(weight, new, strict=True):
        for old, part in zip(old_row.split(group or 600), row.split(group or 600), strict=True):
            step = old.abs().max() / (levels // 2)
            assert (old - part).abs().max() <= step / 2 * (1 + 1e-5)
            assert len(part.unique()) <= levels
    torch.testing.assert_close(rounded(new, bits=bits, group=group), new)


def test_a_last_group_may_be_shorter_and_the_dtype_stays():
    """Seven inputs in groups of four; bfloat16 in, bfloat16 out."""
    weight = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    want = torch.cat([rounded(weight[:, :4], bits=4), rounded(weight[:, 4:], bits=4)], 1)
    torch.testing.assert_close(rounded(weight, bits=4, group=4), want)
    assert rounded(weight.bfloat16(), bits=8).dtype == torch.bfloat16


def test_only_linear_layers_of_a_copy_are_rounded():
    """Embeddings, head and norms stay; the model that was given does not change."""
    model = tiny.model(tied=False)
    before = copy.deepcopy(model.state_dict())
    made = quantized(model, 4)
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "_proj.weight" in name}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_adapter_is_merged_first():
    """The quantized model is that of the merged weights, and the given one keeps its adapter."""
    model, ids = adapted(), torch.arange(5, 30).reshape(1, -1)
    with torch.no_grad():
        want = model(ids).logits
        merged = plain_copy(model)
        torch.testing.assert_close(merged(ids).logits, want, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(quantized(model, 8)(ids).logits, quantized(merged, 8)(ids).logits)
        torch.testing.assert_close(model(ids).logits, want)
    assert not any(parameter.requires_grad for parameter in merged.parameters())


def test_transposed_linear_layers_are_rounded_along_their_inputs():
    """GPT-2 keeps its weights as [in, out]."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    old, new = (each.transformer.h[0].mlp.c_fc.weight for each in (model, quantized(model, 8)))
    torch.testing.assert_close(new, rounded(old.detach().T, bits=8).T)
