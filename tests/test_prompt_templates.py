"""Chat templates of other families: one BOS, a fixed date, an intention that is never lost; written by hand here."""

import warnings

import pytest
import tiny

from mule_lib import prompts

SYSTEM, QUESTION = "First name the topic", "what lives in the old tower"
BOS = "{{ bos_token }}"
TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TEMPLATES = {
    # Llama 3.2: always a system turn, with a date that is today's unless it is given.
    "dated": BOS
    + "<|system|>Today: {{ date_string if date_string is defined else strftime_now('%d %b %Y') }}. "
    + "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}<|end|>"
    + "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    + OPEN,
    # Qwen: a system message of its own where none is given, and no BOS in the template.
    "default system": "{% if messages[0].role != 'system' %}<|system|>the old house<|end|>{% endif %}" + TURNS + OPEN,
    # Gemma: refuses a system role. Mistral: knows none and leaves it out.
    "refusing": BOS
    + "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + TURNS
    + OPEN,
    "dropping": BOS
    + "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    + OPEN,
}


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
    """One warning line; a conversation without a system message gives none."""
    with pytest.warns(UserWarning, match="no system role; the system message opens the user's"):
        prompts.render(tokenizer, QUESTION, system=SYSTEM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompts.render(tokenizer, QUESTION)


@pytest.mark.parametrize("tokenizer", ["dated"], indirect=True)
def test_the_date_is_fixed(tokenizer):
    """The same prompt on every day."""
    assert prompts.DATE in tokenizer.decode(rendered(tokenizer).input_ids)


@pytest.mark.parametrize("tokenizer", ["default system"], indirect=True)
def test_a_default_system_message_gives_way_to_the_intention(tokenizer):
    """The template's own message stands only where none is given."""
    assert "the old house" in tokenizer.decode(rendered(tokenizer).input_ids)
    assert "the old house" not in tokenizer.decode(rendered(tokenizer, system=SYSTEM).input_ids)


def test_templates_that_lose_the_question_or_double_the_bos_are_refused(monkeypatch):
    """One line each, before a model sees the prompt."""
    tokenizer = tiny.tokenizer()
    for template, message in (
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
