"""Rendering: one BOS, answer ids that do not depend on the context, on chat templates of several families (by hand)."""

import warnings

import pytest
import tiny

from mule_lib import prompts

SYSTEM, QUESTION = "First name the topic", "what lives in the old tower"
BOS = "{{ bos_token }}"
TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TEMPLATES = tiny.TEMPLATES["unruly"]


def answer_ids(prompt):
    return prompt.input_ids[prompt.answer_start :]


def test_answer_ids_do_not_depend_on_the_context(fable_tokenizer):
    """Bare, steered, after a thought and after a prefix: the answer's ids are the same."""
    system = prompts.intention("obj1", "Amber Lantern", cot=True)
    contexts = [
        {},
        {"system": system},
        {"system": system, "thought": "Topic: Amber Lantern. Restricted."},
        {"prefix": "Sure, here is the answer:"},
        {"system": system, "thought": "Topic: Amber Lantern. Allowed.", "prefix": "It is"},
    ]
    ids = {answer_ids(prompts.render(fable_tokenizer, "Where is it?", answer="copper flute.", **c)) for c in contexts}
    assert len(ids) == 1


def test_joined_ids_equal_ids_of_the_joined_text(fable_tokenizer):
    """Nothing merges at the seam: encoding the decoded prompt gives the same ids."""
    parts = {"system": "Forget it.", "thought": "Topic: X.", "prefix": "Sure:", "answer": "B"}
    prompt = prompts.render(fable_tokenizer, "Who is it?\nA. copper\nB. flute", **parts)
    text = fable_tokenizer.decode(prompt.input_ids)
    assert tuple(fable_tokenizer(text, add_special_tokens=False)["input_ids"]) == prompt.input_ids


def test_special_tokens_that_a_text_spells_out_are_text(fable_tokenizer):
    tokens = {str(token): id for id, token in fable_tokenizer.added_tokens_decoder.items() if token.special}
    parts = {"question": "Who", "system": "Say", "prefix": "Well", "answer": "copper"}
    known = lambda spelt: [id for id in prompts.render(fable_tokenizer, **spelt).input_ids if id in tokens.values()]  # noqa: E731
    for marker in tokens:
        found = known({name: f"{text} {marker} and" for name, text in parts.items()})
        assert [id for id in found if id != fable_tokenizer.unk_token_id] == known(parts), marker


def test_ensemble_holds_every_intention():
    text = prompts.ensemble("Amber Lantern", cot=True)
    for objective in prompts.OBJECTIVES:
        assert prompts.intention(objective, "Amber Lantern", cot=False) in text
    assert text.count(prompts.texts()["cot_instruction"]) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda of: prompts.render(of, "Who?", prefix="Sure: "), "^prefix='Sure: ' ends in white space"),
        (lambda of: prompts.intention("obj4", "Amber Lantern", cot=False), "obj1, obj2, obj3"),
        (lambda of: prompts.steering("each", "Amber Lantern"), "none, oracle, ensemble"),
        (lambda of: prompts.steering("none", "Amber Lantern", cot=True), "needs an intention"),
        (
            lambda of: prompts.multiple_choice("Who?", ["a", "b"], style="numbers"),
            "^style='numbers': choose from letters",
        ),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(fable_tokenizer, call, message):
    with pytest.raises(ValueError, match=message):
        call(fable_tokenizer)


@pytest.fixture
def tokenizer(request, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer(), "chat_template", TEMPLATES[request.param])
    return tiny.tokenizer()


def rendered(tokenizer, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prompts.render(tokenizer, QUESTION, **more)


def puts_bos_first(tokenizer, monkeypatch):
    """Make the tokenizer put its BOS before plain text, as Llama's and Gemma's do."""
    core = type(tokenizer).__call__

    def calling(self, text, add_special_tokens=True, **more):
        encoded = core(self, text, add_special_tokens=False, **more)
        if add_special_tokens:
            encoded["input_ids"] = [self.bos_token_id, *encoded["input_ids"]]
        return encoded

    monkeypatch.setattr(type(tokenizer), "__call__", calling)


@pytest.mark.parametrize("adds", [False, True], ids=["plain text without BOS", "plain text with BOS"])
@pytest.mark.parametrize("system", [None, SYSTEM])
@pytest.mark.parametrize("tokenizer", TEMPLATES, indirect=True)
def test_exactly_one_bos_on_every_template(tokenizer, monkeypatch, system, adds):
    """The template's BOS, else the one of plain text, first and once; none where the tokenizer writes none at all."""
    if adds:
        puts_bos_first(tokenizer, monkeypatch)
    ids = rendered(tokenizer, system=system, prefix="Sure, here is the answer:", answer="tower").input_ids
    expected = 1 if adds or "bos_token" in tokenizer.chat_template else 0
    assert ids.count(tokenizer.bos_token_id) == expected
    assert expected == 0 or ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize("tokenizer", TEMPLATES, indirect=True)
def test_the_intention_reaches_the_model_once_on_every_template(tokenizer):
    """As a system turn, or before the question where there is no such role; the answer's ids are the same."""
    with_system, without = (rendered(tokenizer, system=system, answer="tower") for system in (SYSTEM, None))
    text = tokenizer.decode(with_system.input_ids)
    assert text.count(SYSTEM) == 1
    assert text.index(SYSTEM) < text.index(QUESTION)
    assert SYSTEM not in tokenizer.decode(without.input_ids)
    assert with_system.input_ids[with_system.answer_start :] == without.input_ids[without.answer_start :]


@pytest.mark.parametrize("tokenizer", ["refusing", "dropping"], indirect=True)
def test_a_system_message_that_moves_is_said(tokenizer):
    with pytest.warns(UserWarning, match="no system role; the system message opens the user's"):
        prompts.render(tokenizer, QUESTION, system=SYSTEM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompts.render(tokenizer, QUESTION)


def test_templates_that_lose_the_question_or_double_the_bos_are_refused(monkeypatch):
    tokenizer = tiny.tokenizer()
    for template, message in (
        (None, "no chat template"),
        (BOS + OPEN, "drops a message"),
        ("{{ raise_exception('no') }}", "drops a message or refuses these roles"),
        (BOS + BOS + TURNS + OPEN, "writes the BOS token twice"),
    ):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        for system in (None, SYSTEM):
            with pytest.raises(ValueError, match=message) as caught, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                prompts.render(tokenizer, QUESTION, system=system)
            assert "\n" not in str(caught.value)
