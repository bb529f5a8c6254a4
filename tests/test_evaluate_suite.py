"""A row's evaluation from sets to metrics, on a random model: shapes, invariances, and what the samples hold."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mule_lib import prompts
from mule_lib.data.fable.benchmark import evaluation_sets
from mule_lib.data.items import EvaluationSets
from mule_lib.evaluate.suite import evaluate_row
from mule_lib.models import contexts
from mule_lib.prompts import steering


@pytest.fixture(scope="module")
def model(fable_tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fable_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=fable_tokenizer.eos_token_id,
        pad_token_id=fable_tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def sets(fable):
    whole = evaluation_sets(fable, "books")
    names = ("forget", "general", "neighbor", "attack", "mmlu", "controls")
    return EvaluationSets("fable-books", whole.topic, **{name: getattr(whole, name)[:6] for name in names})


@pytest.mark.parametrize("style", prompts.CHOICE_STYLES)
def test_row_has_every_metric_and_sample(model, fable_tokenizer, sets, style):
    """Five metrics in points, one value per item behind each, and a sample for every item of every set."""
    result = evaluate_row(model, fable_tokenizer, sets, steering("none", sets.topic), choice_style=style)
    assert set(result.metrics) == {"forget", "general", "neighbor", "asr", "mmlu"}
    assert all(0 <= value <= 100 for value in result.metrics.values())
    for metric, values in result.values.items():
        assert len(values) == 6
        assert result.metrics[metric] == pytest.approx(100 * sum(values) / 6)
    assert len(result.samples) == 36
    chosen = next(sample for sample in result.samples if sample["set"] == "neighbor")
    item = next(item for item in sets.neighbor if item.id == chosen["id"])
    assert chosen["output"] in prompts.answers(item.options, style=style)


def test_batch_size_and_order_change_nothing(model, fable_tokenizer, sets):
    """One by one, in other batches, or with the sets reversed: the same outputs for the same items."""
    how = steering("oracle", sets.topic, cot=True)

    def outputs(each, size):
        result = evaluate_row(model, fable_tokenizer, each, how, batch_size=size, max_new_tokens=4)
        return {(sample["set"], sample["id"]): sample["output"] for sample in result.samples}

    names = ("forget", "general", "neighbor", "attack", "mmlu", "controls")
    turned = EvaluationSets(sets.benchmark, sets.topic, **{name: getattr(sets, name)[::-1] for name in names})
    assert outputs(sets, 64) == outputs(sets, 5) == outputs(turned, 64)


def test_thought_comes_before_the_prefix(model, fable_tokenizer, sets):
    """In a steered attack the teacher's thought precedes the attacker's words, and one BOS opens the prompt."""
    item = sets.attack[0]
    how = steering("oracle", sets.topic, cot=True)
    made = contexts(model, fable_tokenizer, [item], how, max_thought_tokens=5)[0]
    text = fable_tokenizer.decode(made.input_ids)
    assert text.index(prompts.THINK) < text.index(prompts.END_THINK) < text.index(item.prefix)
    assert list(made.input_ids).count(fable_tokenizer.bos_token_id) == 1


def test_bad_steerings_are_refused():
    """An unknown kind and a thought about nothing are named."""
    with pytest.raises(ValueError, match="none, oracle, ensemble"):
        steering("router", "Misty Cradle")
    with pytest.raises(ValueError, match="cot=True needs an intention"):
        steering("none", "Misty Cradle", cot=True)


def test_unknown_choice_style_is_refused():
    """The valid styles stand in the message."""
    with pytest.raises(ValueError, match="letters, texts"):
        prompts.multiple_choice("Who?", ["a", "b"], style="numbers")
