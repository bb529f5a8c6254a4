"""Attacks beyond the paper on a random model: what they change, what they hold, invariances, errors."""

import copy
import json
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from mule_lib.data.attacks import HELD_OUT_FAMILIES
from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem
from mule_lib.evaluate import robustness
from mule_lib.evaluate.robustness import (
    RobustnessSettings,
    plain_copy,
    quantized,
    relearn,
    relearned_facts,
    rounded,
    taught_again,
)
from mule_lib.prompts import steering

NONE = steering("none", tiny.TOPIC)
QUICK = RobustnessSettings(relearn_items=2, relearn_at=(0, 2), max_new_tokens=3, batch_size=8, group_size=16)


def changed(settings, **fields):
    return RobustnessSettings(**{**settings.model_dump(), **fields})


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
def test_every_attack_is_measured_and_the_model_is_left_alone(make):
    """Metrics are the means of their item values, everything is JSON, weights and flags stay."""
    model, sets = make(), evaluation_sets()
    before = states(model)
    generator = torch.get_rng_state()
    found = robustness.attack_and_degrade(
        model, tiny.tokenizer(), sets, NONE, records=tiny.records(), settings=QUICK, held_out=sets
    )
    assert json.loads(json.dumps(found)) == found
    after = states(model)
    assert before[1:] == after[1:]
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert torch.equal(torch.get_rng_state(), generator)
    measurements = [
        *found["relearning"]["curve"],
        found["reteaching"]["same"],
        found["reteaching"]["disjoint"],
        found["quantization"]["int8"],
        found["quantization"]["int4"],
        found["held_out_prefixes"],
    ]
    for each in measurements:
        assert set(each["metrics"]) == set(each["n"]) == set(each["values"]) != set()
        for metric, values in each["values"].items():
            assert len(values) == each["n"][metric]
            assert each["metrics"][metric] == pytest.approx(100 * sum(values) / len(values))
    assert [point["step"] for point in found["relearning"]["curve"]] == [0, 2]
    assert len(found["relearning"]["loss"]) == 2
    assert found["relearning"]["trained"] == ("all weights" if make is tiny.model else "LoRA of rank 3")
    assert set(found["quantization"]["int8"]["metrics"]) == {"forget", "general", "neighbor", "asr"}
    assert set(found["held_out_prefixes"]["metrics"]) == {"asr", "controls"}
    assert found["held_out_prefixes"]["details"]["attack"]["by_family"]["affirmation"]["n"] == 4


def test_held_out_families_are_made_where_none_are_given():
    """The same questions with prefixes of families that the sets do not use; none left is said."""
    sets = evaluation_sets()
    made = robustness.held_out_attacks(sets)
    for old, new in zip((*sets.attack, *sets.controls), (*made.attack, *made.controls), strict=True):
        assert (new.id, new.question, new.reference, new.control) == (old.id, old.question, old.reference, old.control)
        assert new.family in HELD_OUT_FAMILIES
        assert new.prefix not in (old.prefix, "")
    part = [replace(sets.attack[0], id=name, family=name) for name in HELD_OUT_FAMILIES]
    some = robustness.held_out_attacks(replace(sets, attack=tuple(part[1:])))
    assert {item.family for item in some.attack} == {HELD_OUT_FAMILIES[0]}
    full = replace(sets, attack=tuple(part))
    assert robustness.held_out_attacks(full) is None
    found = robustness.attack_and_degrade(
        tiny.model(), tiny.tokenizer(), full, NONE, records=tiny.records(), settings=QUICK
    )
    assert "use every held-out prefix family" in found["held_out_prefixes"]["skipped"]


def test_relearning_learns_its_facts_and_repeats_itself():
    """The loss falls; the random state does not matter; a fresh adapter starts where all weights do."""
    facts = [record for record in tiny.records() if record.objective == "obj1" and record.role == "forget"][:2]

    def attack(at, rank):
        settings = changed(QUICK, relearn_at=at, relearn_learning_rate=1e-2, relearn_lora_rank=rank)
        return relearn(tiny.model(), tiny.tokenizer(), facts, lambda model: {"metrics": {"forget": 0.0}}, settings)

    found = attack((0, 30), 0)
    assert found["loss"][-1] < 0.1 < found["loss"][0]
    assert [point["step"] for point in found["curve"]] == [0, 30]
    assert attack((0, 30), 0) == found
    torch.manual_seed(5)
    with_adapter = attack((3,), 2)
    assert with_adapter == attack((3,), 2)
    assert with_adapter["trained"] == "LoRA of rank 2"
    assert with_adapter["loss"][0] == pytest.approx(found["loss"][0])


def test_relearned_facts_are_none_that_is_evaluated():
    """Neither by the fact's id nor by the question; one record a fact; the seed decides."""
    sets, records = evaluation_sets(), tiny.records()
    facts = relearned_facts(records, sets, count=4)
    assert all(fact.objective == "obj1" and fact.role == "forget" for fact in facts)
    assert relearned_facts(records, sets, count=3) == relearned_facts(records, sets, count=3)
    asked = replace(sets, forget=(replace(sets.forget[0], question=facts[0].question), *sets.forget[1:]))
    assert facts[0] not in relearned_facts(records, asked, count=3)
    sourced = [replace(record, source=f"s{i % 2}") for i, record in enumerate(facts)]
    assert len(relearned_facts(sourced, sets, count=2)) == 2
    same = replace(sets, attack=(replace(sets.attack[0], id="s0"),))
    with pytest.raises(ValueError, match="relearn_items is 2, but 1 training facts"):
        relearned_facts(sourced, same, count=2)


def test_recovery_is_the_first_measured_step_at_half_of_perfect_recall():
    """None where no measured step reaches it, whatever comes between."""
    for points, step in (([5, 39, 50, 20], 2), ([50, 0, 0, 0], 0), ([5, 10, 49.9, 20], None)):
        told = iter(points)
        settings = changed(QUICK, relearn_at=(0, 1, 2, 3))
        found = relearn(
            tiny.model(),
            tiny.tokenizer(),
            tiny.records()[:1],
            lambda _, t=told: {"metrics": {"forget": next(t)}},
            settings,
        )
        assert (found["steps_to_recover"], found["target"]) == (step, 50)


def again(kind, sets, **fields):
    return taught_again(sets, kind, records=tiny.records(), settings=changed(QUICK, **fields))


def test_same_fact_reteaching_states_the_answer_and_disjoint_does_not():
    """The stated facts stand before the question; ids and references stay; the seed decides."""
    sets = evaluation_sets()
    for facts in (1, 3):
        for old, new in zip(sets.forget, again("same", sets, reteach_facts=facts).forget, strict=True):
            assert f"{old.question} {old.reference}." in new.question
            assert new.question.endswith(old.question)
            assert (new.id, new.reference) == (old.id, old.reference)
    disjoint = again("disjoint", sets, reteach_facts=2)
    for old, new in zip(sets.forget, disjoint.forget, strict=True):
        assert f"{old.question} {old.reference}." not in new.question
        assert sum(record.question in new.question for record in tiny.records() if record.role == "forget") == 2
    assert disjoint == again("disjoint", sets, reteach_facts=2)
    assert disjoint != again("disjoint", sets, reteach_facts=2, seed=1)
    assert (disjoint.general, disjoint.attack, disjoint.mmlu) == ((), (), ())
    with pytest.raises(ValueError, match="reteach_facts is 9, but the Forget set has 3 other facts"):
        again("same", sets, reteach_facts=9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("relearn_items", 0),
        ("relearn_at", ()),
        ("relearn_at", (0, -1)),
        ("relearn_learning_rate", 0.0),
        ("reteach_facts", 0),
        ("quantized_bits", (8, 2)),
        ("group_size", 0),
        ("choice_style", "numbers"),
        ("relearn_itmes", 3),
    ],
)
def test_bad_settings_are_refused(name, value):
    """By name, before any model is there."""
    with pytest.raises(ValueError, match=name):
        RobustnessSettings(**{name: value})


def test_too_few_records_are_refused_before_anything_is_measured():
    """Not after minutes of quantized evaluation: no model is needed to hear it."""
    with pytest.raises(ValueError, match="relearn_items is 8, but 4 training facts"):
        robustness.attack_and_degrade(None, None, evaluation_sets(), NONE, records=tiny.records())


def test_a_loss_that_is_not_finite_is_an_error():
    """Never a curve of garbage."""
    settings = changed(QUICK, relearn_at=(3,), relearn_learning_rate=float("inf"))
    with pytest.raises(RuntimeError, match="relearning: the loss is nan at step 2; lower relearn_learning_rate"):
        relearn(tiny.model(), tiny.tokenizer(), tiny.records()[:1], lambda model: {}, settings)


def test_four_bits_by_hand():
    """Steps of max|w| / 7 per group of two; a group of zeros stays zero."""
    weight = torch.tensor([[7.0, 3.4, -1.4, 0.55, 0.0, 0.0], [1.0, -1.0, 14.0, 5.1, 0.2, 0.11]])
    want = torch.tensor([[7.0, 3.0, -1.4, 0.6, 0.0, 0.0], [1.0, -1.0, 14.0, 6.0, 0.2, 4 * 0.2 / 7]])
    torch.testing.assert_close(rounded(weight, bits=4, group_size=2), want)


def test_eight_bits_by_hand():
    """One step of max|w| / 127 for the whole row, whatever the group size."""
    weight = torch.tensor([[127.0, 0.4, -3.6], [1.27, 0.004, -0.016]])
    want = torch.tensor([[127.0, 0.0, -4.0], [1.27, 0.0, -0.02]])
    torch.testing.assert_close(rounded(weight, bits=8, group_size=1), want)


@pytest.mark.parametrize(("bits", "levels"), [(8, 255), (4, 15)])
def test_errors_are_at_most_half_a_step_and_levels_are_few(bits, levels):
    """Within each group: |error| <= step / 2, at most 2^bits - 1 different values, and rounding twice is once."""
    weight = torch.randn(5, 600, generator=torch.Generator().manual_seed(0))
    new = rounded(weight, bits=bits, group_size=200)
    for old_row, row in zip(weight, new, strict=True):
        width = 600 if bits == 8 else 200
        for old, part in zip(old_row.split(width), row.split(width), strict=True):
            step = old.abs().max() / (levels // 2)
            assert (old - part).abs().max() <= step / 2 * (1 + 1e-5)
            assert len(part.unique()) <= levels
    torch.testing.assert_close(rounded(new, bits=bits, group_size=200), new)


def test_a_last_group_may_be_shorter_and_the_dtype_stays():
    """Seven inputs in groups of four; bfloat16 in, bfloat16 out."""
    weight = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    want = torch.cat([rounded(weight[:, :4], bits=4), rounded(weight[:, 4:], bits=4)], 1)
    torch.testing.assert_close(rounded(weight, bits=4, group_size=4), want)
    assert rounded(weight.bfloat16(), bits=8).dtype == torch.bfloat16


def test_only_linear_layers_of_a_copy_are_rounded():
    """Embeddings, head and norms stay; the model that was given does not change; the report counts weights."""
    model = tiny.model(tied=False)
    before = copy.deepcopy(model.state_dict())
    made, report = quantized(model, bits=4, group_size=16)
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "_proj.weight" in name}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert report["weights"] == sum(before[name].numel() for name in changed)
    assert (report["bits"], report["group_size"]) == (4, 16)
    assert quantized(model, bits=8)[1]["group_size"] == 0


def test_an_adapter_is_merged_first():
    """The quantized model is that of the merged weights, and the given one keeps its adapter."""
    torch.manual_seed(0)
    adapted = get_peft_model(
        tiny.model(), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    ).eval()
    ids = torch.arange(5, 30).reshape(1, -1)
    with torch.no_grad():
        want = adapted(ids).logits
        merged = plain_copy(adapted)
        torch.testing.assert_close(merged(ids).logits, want, atol=1e-4, rtol=1e-4)
        got = quantized(adapted, bits=8)[0](ids).logits
        torch.testing.assert_close(got, quantized(merged, bits=8)[0](ids).logits)
        torch.testing.assert_close(adapted(ids).logits, want)
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert any(parameter.requires_grad for parameter in adapted.parameters())


def test_transposed_linear_layers_are_rounded_along_their_inputs():
    """GPT-2 keeps its weights as [in, out]."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    made, _ = quantized(model, bits=8)
    old, new = (each.transformer.h[0].mlp.c_fc.weight for each in (model, made))
    torch.testing.assert_close(new, rounded(old.detach().T, bits=8).T)
