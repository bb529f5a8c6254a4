"""Attacks beyond the paper on a random model: what they change, what they hold, invariances, errors."""

import copy
import json
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from mule_lib.data.attacks import HELD_OUT_FAMILIES
from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem
from mule_lib.evaluate import beyond
from mule_lib.evaluate.relearning import relearn, relearned_facts, steps_to_recover
from mule_lib.evaluate.reteaching import taught_again
from mule_lib.prompts import steering

NONE = steering("none", tiny.TOPIC)
QUICK = beyond.BeyondSettings(relearn_items=2, relearn_at=(0, 2), max_new_tokens=3, batch_size=8, group_size=16)


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
    found = beyond.run(model, tiny.tokenizer(), sets, NONE, records=tiny.records(), settings=QUICK, held_out=sets)
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


def test_what_is_off_or_lacks_something_says_so():
    """No number where nothing was measured, and a table without those lines."""
    off = replace(QUICK, relearning=False, reteaching=False, quantization=False, held_out_prefixes=False)
    found = beyond.run(tiny.model(), tiny.tokenizer(), evaluation_sets(), NONE, records=[], settings=off)
    assert found["relearning"] == {"skipped": "relearning is off in the settings"}
    assert found["reteaching"] == {"skipped": "reteaching is off in the settings"}
    assert found["quantization"] == {"skipped": "quantization is off in the settings"}
    assert found["held_out_prefixes"] == {"skipped": "held_out_prefixes is off in the settings"}


def test_held_out_families_are_made_where_none_are_given():
    """The same questions with prefixes of families that the sets do not use; none left is said."""
    sets = evaluation_sets()
    made = beyond.held_out_attacks(sets)
    for old, new in zip((*sets.attack, *sets.controls), (*made.attack, *made.controls), strict=True):
        assert (new.id, new.question, new.reference, new.control) == (old.id, old.question, old.reference, old.control)
        assert new.family in HELD_OUT_FAMILIES
        assert new.prefix not in (old.prefix, "")
    part = [replace(sets.attack[0], id=name, family=name) for name in HELD_OUT_FAMILIES]
    some = beyond.held_out_attacks(replace(sets, attack=tuple(part[1:])))
    assert {item.family for item in some.attack} == {HELD_OUT_FAMILIES[0]}
    full = replace(sets, attack=tuple(part))
    assert beyond.held_out_attacks(full) is None
    off = replace(QUICK, relearning=False, reteaching=False, quantization=False)
    for each, key in ((sets, "metrics"), (full, "skipped")):
        found = beyond.run(tiny.model(), tiny.tokenizer(), each, NONE, records=[], settings=off)
        assert key in found["held_out_prefixes"]


def test_relearning_learns_its_facts_and_repeats_itself():
    """The loss falls, the curve is the same in every run, and the copy that is measured answers as taught."""
    facts = [record for record in tiny.records() if record.objective == "obj1" and record.role == "forget"][:2]
    measured = []

    def measure(model):
        measured.append(model)
        return {}

    def attack():
        return relearn(tiny.model(), tiny.tokenizer(), facts, measure, at=(0, 30), learning_rate=1e-2, lora_rank=0)

    curve, lost, _ = attack()
    assert lost[-1] < 0.1 < lost[0]
    assert curve == [{"step": 0}, {"step": 30}]
    assert attack()[1] == lost
    torch.manual_seed(5)
    with_adapter = relearn(tiny.model(), tiny.tokenizer(), facts, measure, at=(3,), learning_rate=1e-2, lora_rank=2)
    again = relearn(tiny.model(), tiny.tokenizer(), facts, measure, at=(3,), learning_rate=1e-2, lora_rank=2)
    assert with_adapter == again
    assert with_adapter[2] == "LoRA of rank 2"
    assert with_adapter[1][0] == pytest.approx(lost[0])


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


def test_steps_to_recover_by_hand():
    """The first measured step at the stated share of the base; None where none is."""
    curve = [{"step": s, "metrics": {"forget": f}} for s, f in ((0, 5.0), (2, 39.0), (4, 45.0), (8, 20.0))]
    assert steps_to_recover(curve, share=0.5, base=80.0) == 4
    assert steps_to_recover(curve, share=0.05, base=100.0) == 0
    assert steps_to_recover(curve, share=0.5, base=100.0) is None


def test_base_forget_sets_the_target():
    """Recovery is a share of the base where it is given, else of perfect recall."""
    only = replace(QUICK, reteaching=False, quantization=False, held_out_prefixes=False)
    for base, target, of in ((None, 50.0, "perfect recall"), (60.0, 30.0, "the base model's Forget")):
        how = replace(only, base_forget=base)
        found = beyond.run(
            tiny.model(), tiny.tokenizer(), evaluation_sets(), NONE, records=tiny.records(), settings=how
        )
        assert (found["relearning"]["target"], found["relearning"]["target_of"]) == (target, of)


def test_same_fact_reteaching_states_the_answer_and_disjoint_does_not():
    """The stated facts stand before the question; ids and references stay; the seed decides."""
    sets, records = evaluation_sets(), tiny.records()
    for facts in (1, 3):
        for old, new in zip(sets.forget, taught_again(sets, "same", facts=facts).forget, strict=True):
            assert f"{old.question} {old.reference}." in new.question
            assert new.question.endswith(old.question)
            assert (new.id, new.reference) == (old.id, old.reference)
    disjoint = taught_again(sets, "disjoint", records=records, facts=2)
    for old, new in zip(sets.forget, disjoint.forget, strict=True):
        assert f"{old.question} {old.reference}." not in new.question
        assert sum(record.question in new.question for record in records if record.role == "forget") == 2
    assert disjoint == taught_again(sets, "disjoint", records=records, facts=2)
    assert disjoint != taught_again(sets, "disjoint", records=records, facts=2, seed=1)
    assert (disjoint.general, disjoint.attack, disjoint.mmlu) == ((), (), ())


def test_reteaching_keeps_braces_and_refuses_bad_input():
    """A fact with braces is no slot; the parameter stands in every refusal."""
    sets = evaluation_sets()
    braced = replace(sets, forget=tuple(replace(i, question=i.question + " {facts}") for i in sets.forget))
    first = taught_again(braced, "same", template="Given: {facts} Now: {question}").forget[0]
    question = sets.forget[0].question
    assert first.question == f"Given: {question} {{facts}} red tower. Now: {question} {{facts}}"
    for changes, message in (
        ({"kind": "both"}, "kind is 'both', should be one of same, disjoint"),
        ({"facts": 0}, "reteach_facts is 0"),
        ({"facts": 9}, "reteach_facts is 9, but the Forget set has 3 other facts"),
        ({"template": "{facts}"}, "reteach_template is '{facts}', should hold"),
    ):
        with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
            taught_again(sets, **{"kind": "same", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relearn_items": 0}, "relearn_items is 0, should be an integer of at least 1"),
        ({"relearn_at": ()}, r"relearn_at is \(\), should be steps"),
        ({"relearn_at": (0, -1)}, "relearn_at is"),
        ({"relearn_learning_rate": 0.0}, "relearn_learning_rate is 0.0, should be above 0"),
        ({"recover_share": 1.5}, "recover_share is 1.5"),
        ({"base_forget": 0.0}, "base_forget is 0.0"),
        ({"quantized_bits": (8, 2)}, r"quantized_bits is \(8, 2\), should hold some of 8, 4"),
        ({"quantized_sets": ("forgot",)}, "quantized_sets is .* should hold some of forget, general"),
        ({"choice_style": "numbers"}, "choice_style is 'numbers', should be one of letters, texts"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    """Before any model is there."""
    with pytest.raises(ValueError, match=message):
        beyond.BeyondSettings(**changes)


def test_too_few_records_are_refused_before_anything_is_measured():
    """Not after minutes of quantized evaluation: no model is needed to hear it."""
    with pytest.raises(ValueError, match="relearn_items is 8, but 4 training facts"):
        beyond.run(None, None, evaluation_sets(), NONE, records=tiny.records())


def test_a_loss_that_is_not_finite_is_an_error():
    """Never a curve of garbage."""
    facts = tiny.records()[:1]
    with pytest.raises(RuntimeError, match="relearning: the loss is nan at step 2; lower relearn_learning_rate"):
        relearn(tiny.model(), tiny.tokenizer(), facts, lambda model: {}, at=(3,), learning_rate=float("inf"))
    with pytest.raises(ValueError, match="at least one fact"):
        relearn(tiny.model(), tiny.tokenizer(), [], lambda model: {})
