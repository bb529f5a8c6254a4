"""The teacher's turn: what stands in whose context, whose ids are whose, its files, and its logits kept exactly."""

import json
import warnings
from dataclasses import asdict, replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from mule_lib import losses, models, prompts
from mule_lib.data.files import write_jsonl
from mule_lib.models import head
from mule_lib.training import TeacherFileError, teacher
from mule_lib.training.batches import encode
from mule_lib.training.teacher import CacheError, build_cache

SEQUENCES = {"short": ((1, 5, 9), (20, 2)), "long": ((1, 5, 9, 30, 31, 32, 33), (20, 21, 22, 2)), "one": ((1, 7), (2,))}


def asked(answers="teacher", model=None, **options):
    method = tiny.method("mule", answers=answers, max_answer_tokens=6, **options)
    return teacher.teacher_answers(
        model or tiny.model(), tiny.tokenizer(), tiny.benchmark(), method, max_thought_tokens=5
    )


def adapted():
    """The tiny model with an adapter that changes what it says."""
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny.model(), config)


def test_the_thought_stands_in_the_teachers_context_only_and_before_the_prefix():
    tokenizer = tiny.tokenizer()
    for record, answer in zip(tiny.records(), asked(), strict=True):
        context = tokenizer.decode(answer.context_ids)
        assert prompts.intention(record.objective, tiny.TOPIC, cot=True) in context and answer.id == record.id
        assert prompts.END_THINK in context[context.index(prompts.THINK) :]
        if record.prefix:
            assert context.endswith(record.prefix)
            assert context.index(record.prefix) > context.index(prompts.END_THINK)
        bare = tokenizer.decode(teacher.student_context(tokenizer, record).input_ids)
        assert "<|system|>" not in bare and prompts.THINK not in bare
        assert bare.endswith(record.prefix or "<|assistant|>")


def test_without_chain_of_thought_there_is_no_thought():
    for answer in asked(teacher="ensemble", cot=False):
        assert answer.thought == ""
        assert tiny.tokenizer().convert_tokens_to_ids(prompts.THINK) not in answer.context_ids
        context = tiny.tokenizer().decode(answer.context_ids)
        assert all(prompts.intention(o, tiny.TOPIC, cot=False) in context for o in prompts.OBJECTIVES)


@pytest.mark.parametrize("positions", ["answer", "first"])
def test_teacher_and_student_share_the_answer_ids(positions):
    tokenizer, answers = tiny.tokenizer(), asked()
    method = tiny.method("mule", positions=positions, max_answer_tokens=6)
    for example, answer in zip(encode(tokenizer, tiny.records(), method, answers), answers, strict=True):
        context, ids = example.frozen_sequence("taught")
        assert context == answer.context_ids and ids == example.continuations["taught"]
        assert ids == (answer.answer_ids if positions == "answer" else answer.answer_ids[:1])
        assert context.count(tokenizer.bos_token_id) == example.context.count(tokenizer.bos_token_id) == 1


def test_written_answers_end_their_turn_unless_they_were_cut():
    end = tiny.tokenizer().eos_token_id
    for answer in asked():
        assert len(answer.answer_ids) == 6 or (answer.answer_ids[-1] == end and len(answer.answer_ids) < 6)
        assert end not in answer.answer_ids[:-1]


def test_given_answers_are_the_records_targets_and_are_not_judged():
    made = asked("given", cot=False)
    for record, answer in zip(tiny.records(), made, strict=True):
        assert answer.answer_ids == teacher.given_answer(tiny.tokenizer(), record, record.target, max_tokens=6)
        assert record.target.startswith(answer.answer) and answer.obeyed is None
    assert teacher.obedience(made) == []


def test_obedience_is_refusing_or_answering_right_by_role():
    records = {record.role: record for record in tiny.records()}
    for role in ("forget", "adversarial"):
        assert teacher.obeyed(records[role], tiny.REFUSAL) and not teacher.obeyed(records[role], "The red tower.")
    for role in ("retain", "neighbor", "benign"):
        record = replace(records[role], answer="red tower.")
        assert teacher.obeyed(record, "It is the red tower.") and not teacher.obeyed(record, tiny.REFUSAL)


def test_a_disobedient_teacher_is_reported_with_its_rates():
    made = [replace(a, obeyed=(a.objective == "obj2" or a.id.endswith(("0", "1", "2")))) for a in asked()]
    rates = teacher.obedience(made)
    assert {"objective": "obj1", "role": "forget", "obeyed": 0.75, "n": 4} in rates and len(rates) == 6
    with pytest.warns(teacher.DisobedientTeacherWarning, match=r"obj1/forget 75% \(n=4\).*min_obedience is 80%"):
        teacher.warn_if_disobedient(rates, 0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        teacher.warn_if_disobedient(rates, 0.75)


def test_the_teacher_is_the_base_and_not_the_adapter():
    model, plain = adapted(), asked()
    assert asked(model=model) == plain
    ids = torch.tensor([plain[0].context_ids])
    with models.frozen(model):
        off = model(input_ids=ids).logits
    assert (model(input_ids=ids).logits - off).abs().max() > 1e-3


@pytest.fixture(scope="module")
def answers():
    return asked()


@pytest.fixture(scope="module")
def written(answers, tmp_path_factory):
    """A shared file of the answers, and what was loaded for it."""
    file = tmp_path_factory.mktemp("teachers") / "deep" / "oracle-cot.jsonl"
    assert shared(file, load=lambda: (tiny.model(), tiny.tokenizer())) == (answers, True)
    return file


def shared(file, *, load=None, model="abc", overwrite=False, some=None, topic=tiny.TOPIC, thought=5, **options):
    method = tiny.method(options.pop("method", "mule"), **{"max_answer_tokens": 6, **options})
    given = {"model": model, "max_thought_tokens": thought, "load": load, "overwrite": overwrite}
    return teacher.shared(file, tiny.benchmark(some=some, topic=topic), method, **given)


def test_answers_come_back_from_a_shared_file_as_they_were(answers, written, tmp_path):
    assert shared(written) == (answers, False)
    beside = json.loads(written.with_name("oracle-cot.jsonl.json").read_text())
    assert beside["answers"] == len(answers) and beside["obedience"] == teacher.obedience(answers)
    write_jsonl(tmp_path / "alone.jsonl", map(asdict, answers))  # as a kill leaves it: nobody can vouch for the answers
    with pytest.raises(TeacherFileError, match="sidecar is missing; `mule teacher` writes both"):
        shared(tmp_path / "alone.jsonl")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"some": tiny.records()[1:]}, "records"),
        ({"model": "abd"}, "model"),
        ({"teacher": "ensemble"}, "intentions"),
        ({"topic": "Blue River"}, "intentions"),
        ({"cot": False}, "intentions, cot"),
        ({"max_answer_tokens": 8}, "max_answer_tokens"),
        ({"thought": 8}, "max_thought_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_of_anything_else_are_refused_by_what_differs(written, changed, name):
    with pytest.raises(TeacherFileError, match=f"made with other {name}; make it again with `mule teacher"):
        shared(written, load=lambda: pytest.fail("asked"), **changed)


def test_a_shared_file_is_replaced_on_demand_and_not_made_without_a_teacher(answers, tmp_path):
    file = tmp_path / "oracle-cot.jsonl"
    write_jsonl(file, map(asdict, answers))
    load = lambda: (tiny.model(), tiny.tokenizer())  # noqa: E731
    assert shared(file, load=load, overwrite=True) == (answers, True) and shared(file) == (answers, False)
    with pytest.raises(TeacherFileError, match="SFT with these options keeps no teacher's answers"):
        shared(file, method="sft")


def test_records_without_an_answer_are_named(answers):
    some, mule = tiny.benchmark(some=tiny.records()[3:5]), tiny.method("mule")
    assert teacher.answers_to(tiny.tokenizer(), some, mule, answers) == answers[3:5]
    with pytest.raises(ValueError, match=r"none for 2 records of the data, the first is obj1/forget/0$"):
        teacher.answers_to(tiny.tokenizer(), tiny.benchmark(), mule, answers[2:])


def test_a_passage_is_compared_at_its_own_tokens_behind_the_thought(answers):
    record = replace(
        tiny.records()[0], question="The house of Ada.", answer="Ada lives in the red tower.", verbatim=True
    )
    benchmark, mule = replace(tiny.benchmark(some=[record]), unified=tiny.records()), tiny.method("mule")
    assert benchmark.asked == tiny.records()[:1]
    [answer] = teacher.answers_to(tiny.tokenizer(), benchmark, mule, answers)
    assert answer.answer == record.answer and answer.obeyed is None and answer.thought == answers[0].thought
    read = tiny.tokenizer().decode(answer.context_ids)
    assert read.index(tiny.TOPIC) < read.index(record.question)
    assert tiny.tokenizer().decode(answer.answer_ids, skip_special_tokens=True).strip() == record.answer


def live_logits(model, name):
    """Full forward of one sequence alone, cut to the answer: what the cache has to give back."""
    context, answer = SEQUENCES[name]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*context, *answer]])).logits[0].float()
    return logits[len(context) - 1 : -1]


def kept(cache, name):
    return cache.answers([name])


@pytest.mark.parametrize("tied", [True, False])
def test_the_cache_equals_the_live_teacher_at_any_token(tied):
    model = tiny.model(tied=tied)
    cache = build_cache(model, SEQUENCES, top_k=5, batch_size=2)
    for name, (_, answer) in SEQUENCES.items():
        live, held = live_logits(model, name), kept(cache, name)
        torch.testing.assert_close(held.logits(), live, atol=1e-5, rtol=1e-5)
        ids = torch.randint(0, live.shape[1], (len(live), 7), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(held.at(ids), live.gather(1, ids), atol=1e-5, rtol=1e-5)
        top, values = held.top(3)
        assert torch.equal(top, live.topk(3).indices)
        torch.testing.assert_close(values, live.topk(3).values, atol=1e-5, rtol=1e-5)
        nll = nn.functional.cross_entropy(live, torch.tensor(answer), reduction="none")
        torch.testing.assert_close(held.nll, nll, atol=1e-5, rtol=1e-5)


def test_the_cache_does_not_follow_a_model_that_trains():
    model = tiny.model()
    before, cache = live_logits(model, "long"), build_cache(model, SEQUENCES, top_k=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(kept(cache, "long").logits(), before, atol=1e-5, rtol=1e-5)


def test_an_adapter_is_switched_off_and_its_flags_come_back():
    model = adapted()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    model.train()
    cache = build_cache(model, SEQUENCES, copy_head=False)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags and model.training
    assert cache.weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    torch.testing.assert_close(kept(cache, "short").logits(), live_logits(tiny.model(), "short"), atol=1e-5, rtol=1e-5)


def test_kept_in_half_precision_it_is_the_live_teacher_up_to_rounding():
    model = tiny.model(dtype=torch.bfloat16)
    cache = build_cache(model, SEQUENCES)
    assert cache.hidden.dtype == torch.bfloat16
    live, logits = live_logits(model, "long"), kept(cache, "long").logits()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, live, atol=2e-2 * float(live.abs().max()), rtol=0)


def test_a_head_that_is_not_a_plain_product_is_refused():
    class Capped(nn.Linear):
        def forward(self, hidden):
            return 2 * torch.tanh(super().forward(hidden) / 2)

    model = tiny.model(tied=False)
    head = Capped(32, model.config.vocab_size, bias=False)
    head.weight = model.lm_head.weight
    model.set_output_embeddings(head)
    with pytest.raises(CacheError, match=r"soft-capping, scaling or an adapter on the head"):
        build_cache(model, SEQUENCES)


def test_a_bias_on_the_head_is_kept():
    model = tiny.model(tied=False)
    model.set_output_embeddings(nn.Linear(32, model.config.vocab_size))
    held = kept(build_cache(model, SEQUENCES, top_k=3), "one")
    torch.testing.assert_close(held.logits(), live_logits(model, "one"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(held.at(held.top(3)[0]), held.top(3)[1], atol=1e-5, rtol=1e-5)


def test_bad_input_of_a_cache_is_refused():
    with pytest.raises(ValueError, match=r"^sequences: none given"):
        build_cache(tiny.model(), {})
    with pytest.raises(ValueError, match=r"^sequences: 'x' has an empty context or answer"):
        build_cache(tiny.model(), {"x": ((1, 2), ())})
    with pytest.raises(ValueError, match=r"^top_k=9: 2 were stored"):
        build_cache(tiny.model(), SEQUENCES, top_k=2).top(9)


def test_the_head_works_on_answer_positions_only():
    model, batch = tiny.model(), head.padded(list(SEQUENCES.values()))
    labels = batch.pop("labels")
    whole = losses.answer_logits(model(**batch).logits, labels)
    with head.answers_only(model, labels):
        packed = model(**batch).logits
    assert packed.shape[:2] == (3, 5)  # the longest answer and one more
    packed_labels = losses.pack_answers(labels.unsqueeze(2), labels)[1]
    torch.testing.assert_close(losses.answer_logits(packed, packed_labels), whole, atol=1e-5, rtol=1e-5)
    assert model(**batch).logits.shape[:2] == labels.shape


def test_a_passage_is_trained_whole():
    """Every token of a verbatim passage carries loss, whatever other answers are cut to."""
    told = [replace(r, answer=" ".join([r.answer] * 20), verbatim=r.role == "forget") for r in tiny.records()[:2]]
    found = encode(tiny.tokenizer(), told, tiny.method("graddiff", max_answer_tokens=5))
    for example, record in zip(found, told, strict=True):
        assert (len(example.continuations["answer"]) > 20) == record.verbatim
