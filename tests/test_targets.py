"""The teacher's turn: what stands in whose context, whose ids are whose, and whether the teacher obeyed."""

import warnings
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from mule_lib import models, prompts, targets
from mule_lib.training_data import encode

CAPS = {"max_answer_tokens": 6, "max_thought_tokens": 5}


def said(answers="teacher", model=None, *, kind="oracle", cot=True, records=None):
    how = prompts.steering(kind, tiny.TOPIC, cot=cot)
    return targets.teacher_targets(
        model or tiny.model(), tiny.tokenizer(), records or tiny.records(), how, answers=answers, **CAPS
    )


def test_the_thought_stands_in_the_teachers_context_only_and_before_the_prefix():
    tokenizer, records = tiny.tokenizer(), tiny.records()
    made = said(records=records)
    for record, target in zip(records, made, strict=True):
        told = tokenizer.decode(target.context_ids)
        system = prompts.intention(record.objective, tiny.TOPIC, cot=True)
        assert system in told and target.id == record.id
        thought_at = told.index(prompts.THINK)
        assert prompts.END_THINK in told[thought_at:]
        if record.prefix:
            assert told.endswith(record.prefix) and told.index(record.prefix) > told.index(prompts.END_THINK)
        bare = tokenizer.decode(targets.student_context(tokenizer, record).input_ids)
        assert "<|system|>" not in bare and prompts.THINK not in bare
        assert bare.endswith(record.prefix or "<|assistant|>")


def test_without_chain_of_thought_there_is_no_thought():
    for target in said(cot=False):
        assert target.thought == ""
        assert tiny.tokenizer().convert_tokens_to_ids(prompts.THINK) not in target.context_ids


def test_the_ensemble_teacher_reads_all_intentions():
    told = tiny.tokenizer().decode(said(kind="ensemble", cot=False)[0].context_ids)
    assert all(prompts.intention(o, tiny.TOPIC, cot=False) in told for o in prompts.OBJECTIVES)


def test_teacher_and_student_share_the_answer_ids():
    tokenizer, records = tiny.tokenizer(), tiny.records()
    made = said(records=records)
    groups = {f"{record.objective}/{record.role}": ("taught", "answer") for record in records}
    for example, target in zip(encode(tokenizer, records, groups, targets=made), made, strict=True):
        context, answer = example.frozen_sequence("taught")
        assert context == target.context_ids and answer == target.answer_ids == example.continuations["taught"]
        assert example.frozen_sequence("answer")[0] == example.context
        for ids in (context, example.context):
            assert ids.count(tokenizer.bos_token_id) == 1


def test_first_position_keeps_one_token_behind_the_prefix():
    records = tiny.records()
    groups = {f"{record.objective}/{record.role}": ("taught", "answer") for record in records}
    for example in encode(tiny.tokenizer(), records, groups, targets=said(), positions="first"):
        assert {len(ids) for ids in example.continuations.values()} == {1}
    with pytest.raises(ValueError, match=r"^positions='last': choose from answer, first$"):
        encode(tiny.tokenizer(), records, groups, positions="last")


def test_written_answers_end_their_turn_unless_they_were_cut():
    end = tiny.tokenizer().eos_token_id
    for target in said():
        assert len(target.answer_ids) <= CAPS["max_answer_tokens"]
        assert (target.answer_ids[-1] == end) or len(target.answer_ids) == CAPS["max_answer_tokens"]
        assert end not in target.answer_ids[:-1]


def test_given_answers_are_the_records_targets_and_are_not_judged():
    tokenizer, records = tiny.tokenizer(), tiny.records()
    how = prompts.steering("oracle", tiny.TOPIC, cot=False)
    made = targets.teacher_targets(tiny.model(), tokenizer, records, how, answers="given")
    for record, target in zip(records, made, strict=True):
        assert target.answer == record.target and target.obeyed is None
        assert target.answer_ids[-1] == tokenizer.eos_token_id
    assert targets.obedience(made) == []
    with pytest.raises(ValueError, match=r"^answers='mine': choose from teacher, given$"):
        said("mine")


def test_obedience_is_refusing_or_answering_right_by_role():
    records = {record.role: record for record in tiny.records()}
    for role in ("forget", "adversarial"):
        assert targets.obeyed(records[role], tiny.REFUSAL) and not targets.obeyed(records[role], "The red tower.")
    for role in ("retain", "neighbor", "benign"):
        record = replace(records[role], answer="red tower.")
        assert targets.obeyed(record, "It is the red tower.") and not targets.obeyed(record, tiny.REFUSAL)


def test_a_disobedient_teacher_is_reported_with_its_rates():
    made = [
        replace(target, obeyed=(target.objective == "obj2" or target.id.endswith(("0", "1", "2")))) for target in said()
    ]
    rates = targets.obedience(made)
    assert {"objective": "obj1", "role": "forget", "obeyed": 0.75, "n": 4} in rates and len(rates) == 6
    with pytest.warns(targets.DisobedientTeacherWarning, match=r"obj1/forget 75% \(n=4\).*min_obedience is 80%"):
        targets.warn_if_disobedient(rates, 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        targets.warn_if_disobedient(rates, 0.75)


def test_the_teacher_is_the_base_and_not_the_adapter():
    plain = said(model=tiny.model())
    adapted = get_peft_model(
        tiny.model(), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    )
    assert said(model=adapted) == plain
    ids = torch.tensor([plain[0].context_ids])
    with models.frozen(adapted):
        off = adapted(input_ids=ids).logits
    assert (adapted(input_ids=ids).logits - off).abs().max() > 1e-3


def test_targets_survive_a_file(tmp_path):
    made = said()
    targets.write(tmp_path / "targets.jsonl", made)
    assert targets.read(tmp_path / "targets.jsonl") == made


def test_a_tokenizer_without_thought_tokens_ends_a_thought_at_a_blank_line():
    class Plain:
        def get_vocab(self):
            return {"a": 0, ".\n\n": 7, "\n": 2}

        def decode(self, ids):
            return next(text for text, number in self.get_vocab().items() if number == ids[0])

    assert models.thought_ends(Plain()) == [7]
    assert models.thought_ends(tiny.tokenizer()) == [tiny.tokenizer().convert_tokens_to_ids(prompts.END_THINK)]
