"""The table of methods: every row trains, says what it needs, and a new row is a loss and an entry."""

import importlib
import inspect
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from mule_lib import losses, methods, params, prompts
from mule_lib.data.records import Group, Objective, Role
from mule_lib.methods import METHODS, Method, MethodError, Term
from mule_lib.paper import LABELS
from mule_lib.training import Settings, train
from mule_lib.training.teacher import student_context

TRAINED = [name for name, row in METHODS.items() if row.terms]
RETAIN = Group(Objective.OBJ1, Role.RETAIN)
QUICK = Settings(
    steps=3, batch_size=12, learning_rate=1e-3, warmup=0, log_every=1, min_obedience=0, max_thought_tokens=4
)


@pytest.fixture(autouse=True)
def quiet(capsys):
    yield
    capsys.readouterr()


def run(method, *, settings=QUICK, model=None, **options):
    if method in TRAINED:
        options = {"max_answer_tokens": 6, **options}
    return train(model or tiny.model(), tiny.tokenizer(), tiny.benchmark(), method, settings=settings, options=options)


def groups(trained):
    return {str(group) for term in trained.method.terms for group in term.groups}


@pytest.mark.parametrize("name", TRAINED)
def test_every_row_trains_and_changes_the_model(name):
    before = tiny.model()
    trained = run(name)
    assert trained.steps == 3 and len(trained.log) == 3 and not trained.model.training
    pairs = zip(before.parameters(), trained.model.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in TRAINED])
def test_rows_in_context_train_nothing(name):
    model = tiny.model()
    trained = run(name, model=model)
    assert trained.model is model and trained.steps == 0


def test_rows_in_context_are_steered_at_evaluation_and_trained_ones_are_not():
    assert METHODS["upper_bound"].steering(tiny.TOPIC) == prompts.steering("oracle", tiny.TOPIC, cot=True)
    assert METHODS["ensemble_teacher"].steering(tiny.TOPIC) == prompts.steering("ensemble", tiny.TOPIC, cot=True)
    for name in ("base", "mule", "ga"):
        assert METHODS[name].steering(tiny.TOPIC) == prompts.steering("none", tiny.TOPIC)


def test_the_methods_of_the_papers_tables_are_all_there_with_the_options_that_parameters_check():
    assert set(LABELS) <= set(METHODS)
    assert {name: type(method.options) for name, method in METHODS.items()} == params.METHOD_OPTIONS
    for name, method in METHODS.items():
        assert method.options == params.method_options(name) and method.options.trains == bool(method.terms)


def test_mules_first_loss_is_eq3_with_the_live_teacher():
    """The student is the bare model, the teacher its base behind its context; both on the teacher's answer ids."""

    def adapted():  # an adapter that changes what it says: a student that differs from its teacher without any prompt
        torch.manual_seed(3)
        adapter = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        return get_peft_model(tiny.model(), adapter)

    one_step = Settings(**{**vars(QUICK), "steps": 1, "batch_size": 24})
    result = run("mule", settings=one_step, model=adapted(), top_k=5)
    records = {record.id: record for record in tiny.records()}
    for objective in ("obj1", "obj2", "obj3"):
        of_student, of_teacher = [], []
        # A batch of 24 is four draws of six groups: every record of the tiny data once.
        for target in (target for target in result.teacher_answers if target.objective == objective):
            context = student_context(tiny.tokenizer(), records[target.id]).input_ids
            for side, model, ids in ((of_student, adapted(), context), (of_teacher, tiny.model(), target.context_ids)):
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([[*ids, *target.answer_ids]])).logits[0]
                side.append(logits[len(ids) - 1 : -1])
        expected = losses.bidirectional_topk(torch.cat(of_student), torch.cat(of_teacher), top_k=5)
        assert result.log[0][f"loss_{objective}"] == pytest.approx(float(expected), rel=1e-4)


def test_switches_of_the_ablation_change_what_is_trained():
    assert groups(run("mule", anchors=False)) == {"obj1/forget", "obj1/retain", "obj2/neighbor", "obj3/adversarial"}
    assert all(target.thought == "" for target in run("mule", cot=False).teacher_answers)
    given = run("mule", answers="given", cot=False, max_answer_tokens=64)
    assert given.obedience == [] and {t.answer for t in given.teacher_answers if t.role == "forget"} == {tiny.REFUSAL}
    losses_by = {
        str(options): run("mule", cot=False, **options).log[0]["loss"]
        for options in ({}, {"top_k": 3}, {"positions": "first"}, {"over_k": "sum"}, {"teacher": "ensemble"})
    }
    assert len(set(losses_by.values())) == 5
    assert losses_by["{'over_k': 'sum'}"] == pytest.approx(10 * losses_by["{}"], rel=1e-4)


def test_a_new_method_is_a_loss_and_a_row(monkeypatch):
    def soft_forget(answer, options):
        return (answer.student.softmax(1) ** options.power).sum(1).log().mean()

    class SoftForgetOptions(params.TrainedOptions):
        power: float = 2.0

    forget = Term("forget", soft_forget, ("answer",), roles=(Role.FORGET,))
    keep = replace(forget, name="keep", loss=METHODS["sft"].terms[0].loss, roles=(Role.RETAIN, Role.NEIGHBOR))
    row = Method("Soft forget", (forget, keep), SoftForgetOptions())
    monkeypatch.setitem(METHODS, "soft_forget", row)
    trained = run("soft_forget", power=3.0, settings=Settings(**{**vars(QUICK), "steps": 6}))
    assert trained.steps == 6 and trained.log[-1]["loss_forget"] < trained.log[0]["loss_forget"]
    assert groups(trained) == {"obj1/forget", "obj1/retain", "obj2/forget", "obj2/neighbor"}


def test_the_trainer_knows_no_method_by_name():
    for module in ("train", "trainer", "batches"):
        text = inspect.getsource(importlib.import_module(f"mule_lib.training.{module}"))
        assert not [name for name in METHODS if f'"{name}"' in text or f"'{name}'" in text]


def test_bad_methods_and_options_are_refused_with_the_nearest_name():
    for call, message in (
        (lambda: run("mulle"), r"^method='mulle' is unknown; did you mean 'mule'\?$"),
        (lambda: run("mule", topk=3), r"^MULE: unknown parameter 'topk'; did you mean 'top_k'\?$"),
        (lambda: run("mule", beta=0), r"^MULE: beta = 0: Input should be greater than 0$"),
        (lambda: run("mule_bild_loss", top_k=1), r"^Ours w/ BILD Loss: top_k = 1: .* greater than or equal to 2$"),
        (lambda: methods.get("base", {"beta": 1}), r"^Base: unknown parameter 'beta'; choose from none$"),
        (
            lambda: METHODS["ngdiff"].on_groups([RETAIN]),
            r"^NGDiff needs records of obj2/neighbor for its term 'neighbor'; the data has obj1/retain$",
        ),
        (lambda: METHODS["ga"].on_groups([RETAIN]), r"^GA needs records of \*/forget for its term 'forget'"),
        (lambda: METHODS["sft"].on_groups([]), r"^SFT needs records of \*/\* for its term 'all'; the data has none$"),
    ):
        with pytest.raises(MethodError, match=message):
            call()


def test_a_disobedient_teacher_warns():
    with pytest.warns(UserWarning, match=r"the teacher does not obey its intention in obj1/forget 0%"):
        run("mule", settings=Settings(**{**vars(QUICK), "steps": 1, "min_obedience": 0.5}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run("sft", settings=Settings(**{**vars(QUICK), "steps": 1, "min_obedience": 1.0}))


@pytest.mark.parametrize("line", Path(__file__).with_name("signatures.txt").read_text("utf-8").splitlines())
def test_names_that_others_build_on_keep_their_signatures(line):
    room, name = line.split("(")[0].split(".")
    signature = inspect.signature(getattr(importlib.import_module(f"mule_lib.{room}"), name))
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    assert f"{room}.{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}" == line
