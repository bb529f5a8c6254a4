"""Rendering: one BOS, answers with the same ids in every context, prefixes without a trailing space."""

import pytest

from mule_lib import prompts


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


def test_one_bos_and_labels_on_the_answer_only(fable_tokenizer):
    """Exactly one BOS; labels are -100 up to the answer and its ids from there."""
    prompt = prompts.render(fable_tokenizer, "Who?", system="Forget it.", thought="Topic: X.", answer="copper.")
    assert prompt.input_ids.count(fable_tokenizer.bos_token_id) == 1
    assert prompt.labels[: prompt.answer_start] == [-100] * prompt.answer_start
    assert prompt.labels[prompt.answer_start :] == list(answer_ids(prompt))
    assert answer_ids(prompt)[-1] == fable_tokenizer.eos_token_id


def test_joined_ids_equal_ids_of_the_joined_text(fable_tokenizer):
    """Nothing merges at the seam: encoding the decoded prompt gives the same ids."""
    prompt = prompts.render(
        fable_tokenizer,
        "Who is it?\nA. copper\nB. flute",
        system="Forget it.",
        thought="Topic: X.",
        prefix="Sure:",
        answer="B",
    )
    text = fable_tokenizer.decode(prompt.input_ids)
    assert tuple(fable_tokenizer(text, add_special_tokens=False)["input_ids"]) == prompt.input_ids


def test_prefix_ending_in_a_space_is_refused(fable_tokenizer):
    """The error shows the prefix and says why."""
    with pytest.raises(ValueError, match="ends in white space"):
        prompts.render(fable_tokenizer, "Who?", prefix="Sure: ")


def test_tokenizer_without_a_chat_template_is_refused(fable_tokenizer, monkeypatch):
    """A base model's tokenizer is named as such before anything is rendered."""
    monkeypatch.setattr(fable_tokenizer, "chat_template", None)
    with pytest.raises(ValueError, match="no chat template"):
        prompts.render(fable_tokenizer, "Who?")


def test_unknown_objective_lists_the_known_ones():
    """A mistyped objective is answered with the valid names."""
    with pytest.raises(ValueError, match="obj1, obj2, obj3"):
        prompts.intention("obj4", "Amber Lantern", cot=False)


def test_ensemble_holds_every_intention():
    """The ensemble prompt is the intentions one after the other, and the instruction to think once."""
    text = prompts.ensemble("Amber Lantern", cot=True)
    for objective in prompts.OBJECTIVES:
        assert prompts.intention(objective, "Amber Lantern", cot=False) in text
    assert text.count(prompts.texts()["cot_instruction"]) == 1


def test_show_marks_the_scored_part(fable_tokenizer):
    """The supervised tokens stand between double angle marks."""
    prompt = prompts.render(fable_tokenizer, "Who?", answer="copper.")
    assert prompts.show(fable_tokenizer, prompt).endswith("⟪ copper.<|end|>⟫")
