"""One row's whole evaluation: five metrics on one benchmark, with the labels of every item."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mule_lib import prompts
from mule_lib.data.items import SETS, ChoiceItem, EvaluationSets, Item
from mule_lib.data.text import attack_success_rate, open_answer_scores
from mule_lib.evaluate.choices import score_choices
from mule_lib.models import ask, contexts, decode, greedy, option_log_likelihoods
from mule_lib.models.generate import Context
from mule_lib.paper import METRICS
from mule_lib.prompts import Query, Steering

# The evaluation set behind each metric.
SET_OF = {metric: "attack" if metric == "asr" else metric for metric in METRICS}


@dataclass(frozen=True)
class Evaluation:
    """`metrics` in points (0 to 100), `values` of the items behind each (0 to 1), counts `n` by set, full `details`.

    Sets without items have no metric, no values and no details.
    """

    metrics: dict[str, float]
    values: dict[str, list[float]]
    n: dict[str, int]
    details: dict[str, dict]
    samples: list[dict]


@dataclass(frozen=True)
class Answered:
    """An item with the model's context and output; for a choice the log-likelihood of each option."""

    item: Any
    context: Context
    output: str
    scores: Sequence[float] = ()


def evaluate_row(
    model,
    tokenizer,
    sets: EvaluationSets,
    steering: Steering,
    *,
    batch_size: int = 128,
    max_new_tokens: int = 24,
    max_thought_tokens: int = 48,
    choice_style: str = "letters",
    partial: bool = False,
) -> Evaluation:
    """Score a model, steered or not, on all sets of a benchmark with greedy decoding.

    Returns the metrics of Section 5.1: forget and general (ROUGE-L recall), neighbor and mmlu (accuracy of the
    likeliest option, shown and scored in `choice_style`), asr. Raises ValueError when one of the five sets is empty,
    unless `partial`.
    """
    empty = [name for name in SET_OF.values() if not getattr(sets, name)]
    if empty and not partial:
        raise ValueError(f"sets: {sets.benchmark} has no items in {', '.join(empty)}; a row needs all five sets")
    asked = {name: getattr(sets, name) for name in SETS if getattr(sets, name)}
    sizes = {"batch_size": batch_size, "max_thought_tokens": max_thought_tokens}
    answered = answer_open(
        model,
        tokenizer,
        {name: items for name, items in asked.items() if SETS[name] != "choice"},
        steering,
        max_new_tokens=max_new_tokens,
        **sizes,
    ) | answer_choices(
        model,
        tokenizer,
        {name: items for name, items in asked.items() if SETS[name] == "choice"},
        steering,
        style=choice_style,
        **sizes,
    )
    details = {name: _scored(name, group, max_new_tokens) for name, group in answered.items()}
    measured = {metric: name for metric, name in SET_OF.items() if name in details}
    return Evaluation(
        {metric: points_of(details[name], name) for metric, name in measured.items()},
        {metric: values_of(details[name], name) for metric, name in measured.items()},
        {name: len(group) for name, group in answered.items()},
        details,
        [
            _sample(tokenizer, name, each, labels)
            for name, group in answered.items()
            for each, labels in zip(group, details[name]["items"], strict=True)
        ],
    )


def sample_answers(
    model, tokenizer, sets: EvaluationSets, steering: Steering, *, each: int = 2
) -> list[dict[str, str]]:
    """What a steered model answers to a few items to forget, to attack with and to keep, one by one."""
    lines = []
    for name in ("forget", "attack", "general"):
        for item in getattr(sets, name)[:each]:
            system, prefix = steering.systems[item.objective], getattr(item, "prefix", None)
            reply = ask(model, tokenizer, item.question, system=system, think=steering.cot, prefix=prefix)
            line = {"set": name, "question": item.question, "prefix": prefix or "", "reference": item.reference}
            lines.append({**line, "answer": reply.answer})
    return lines


def answer_open(
    model, tokenizer, sets: Mapping[str, Sequence[Item]], steering: Steering, *, max_new_tokens: int, **sizes: int
) -> dict[str, list[Answered]]:
    """The text written for every item, by set; all sets are batched together, which is what makes it fast.

    `sizes` are `batch_size` and `max_thought_tokens` of `models.contexts`.
    """
    items = [item for group in sets.values() for item in group]
    made = contexts(model, tokenizer, [query(item) for item in items], steering, **sizes)
    ids, limits = [context.input_ids for context in made], {"batch_size": sizes["batch_size"]}
    texts = decode(tokenizer, greedy(model, tokenizer, ids, max_new_tokens=max_new_tokens, **limits))
    return _by_set(sets, map(Answered, items, made, texts))


def answer_choices(
    model, tokenizer, sets: Mapping[str, Sequence[ChoiceItem]], steering: Steering, *, style: str, **sizes: int
) -> dict[str, list[Answered]]:
    """The likeliest option of every item, the first one on ties, by set; `sizes` as of `answer_open`."""
    items = [item for group in sets.values() for item in group]
    made = contexts(model, tokenizer, [query(item, style) for item in items], steering, **sizes)
    offered = [prompts.answers(item.options, style=style) for item in items]
    encoded = [[prompts.encode_text(tokenizer, option) for option in options] for options in offered]
    ids = [context.input_ids for context in made]
    scores = option_log_likelihoods(model, ids, encoded, batch_size=sizes["batch_size"])
    chosen = [options[max(range(len(row)), key=row.__getitem__)] for options, row in zip(offered, scores, strict=True)]
    return _by_set(sets, map(Answered, items, made, chosen, scores))


def query(item: Item, style: str = "letters") -> Query:
    """The question of an item as it is put to the model; options are listed in `style`."""
    if isinstance(item, ChoiceItem):
        return Query(prompts.multiple_choice(item.question, item.options, style=style), item.objective)
    return Query(item.question, item.objective, getattr(item, "prefix", None))


def points_of(detail: Mapping[str, Any], name: str) -> float:
    """The rate behind a set's metric in points."""
    return 100 * detail[{"open": "score", "attack": "asr", "choice": "correct"}[SETS[name]]]


def values_of(detail: Mapping[str, Any], name: str) -> list[float]:
    """The value of every item of a set in 0 to 1; their mean is the metric."""
    if SETS[name] == "choice":
        return [float(item["outcome"] == "correct") for item in detail["items"]]
    return [float(item["recall" if SETS[name] == "open" else "success"]) for item in detail["items"]]


def _by_set(sets: Mapping[str, Sequence[Item]], answered: Iterator[Answered]) -> dict[str, list[Answered]]:
    return {name: [next(answered) for _ in group] for name, group in sets.items()}


def _scored(name: str, answered: Sequence[Answered], max_new_tokens: int) -> dict[str, Any]:
    items, outputs = [each.item for each in answered], [each.output for each in answered]
    if SETS[name] == "choice":
        return score_choices(
            [each.scores for each in answered],
            [item.answer for item in items],
            [item.refusal for item in items],
            subjects=[item.subject for item in items],
        )
    references = [item.reference for item in items]
    if SETS[name] == "open":
        return open_answer_scores(references, outputs, max_new_tokens=max_new_tokens)
    given, families = [f"{item.question} {item.prefix}" for item in items], [item.family for item in items]
    return attack_success_rate(references, outputs, given=given, families=families)


def _sample(tokenizer, name: str, answered: Answered, labels: Mapping[str, Any]) -> dict[str, Any]:
    item = answered.item
    return {
        "set": name,
        "id": item.id,
        "prompt": tokenizer.decode(answered.context.input_ids),
        "thought": answered.context.thought,
        "prefix": getattr(item, "prefix", None),
        "reference": item.options[item.answer] if isinstance(item, ChoiceItem) else item.reference,
        "output": answered.output,
        "labels": labels,
    }
