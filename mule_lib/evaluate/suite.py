"""One row's whole evaluation: five metrics on one benchmark, with the labels of every item."""

from collections.abc import Sequence
from dataclasses import dataclass

from mule_lib import prompts
from mule_lib.data.items import AttackItem, ChoiceItem, EvaluationSets, OpenItem
from mule_lib.data.text import attack_success_rate, open_answer_scores
from mule_lib.evaluate.choices import score_choices
from mule_lib.evaluate.rows import measured, values_of
from mule_lib.models import contexts, decode, greedy, option_log_likelihoods
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


def evaluate_row(
    model,
    tokenizer,
    sets: EvaluationSets,
    how: Steering,
    *,
    batch_size: int = 128,
    max_new_tokens: int = 24,
    max_thought_tokens: int = 48,
    choice_style: str = "letters",
    stemmer: bool = True,
) -> Evaluation:
    """Score a model, steered or not, on all sets of a benchmark with greedy decoding.

    Returns the metrics of Section 5.1: forget and general (ROUGE-L recall), neighbor and mmlu (accuracy of the
    likeliest option, shown and scored in `choice_style`), asr. Raises ValueError when one of the five sets is empty.
    """
    empty = [name for name in SET_OF.values() if not getattr(sets, name)]
    if empty:
        raise ValueError(f"sets: {sets.benchmark} has no items in {', '.join(empty)}; a row needs all five sets")
    how_asked = {
        "max_new_tokens": max_new_tokens,
        "max_thought_tokens": max_thought_tokens,
        "choice_style": choice_style,
        "stemmer": stemmer,
    }
    return evaluate_sets(model, tokenizer, sets, how, batch_size=batch_size, **how_asked)


def evaluate_sets(
    model,
    tokenizer,
    sets: EvaluationSets,
    how: Steering,
    *,
    batch_size: int = 128,
    max_new_tokens: int = 24,
    max_thought_tokens: int = 48,
    choice_style: str = "letters",
    stemmer: bool = True,
) -> Evaluation:
    """Score a model as `evaluate_row` does, on those sets that have items."""
    # One batch over all sets: thoughts and answers are generated together, which is what makes it fast.
    items: list[OpenItem | AttackItem | ChoiceItem] = [
        *sets.forget, *sets.general, *sets.attack, *sets.controls, *sets.neighbor, *sets.mmlu
    ]  # fmt: skip
    limits = {"batch_size": batch_size, "max_thought_tokens": max_thought_tokens}
    made = contexts(model, tokenizer, [query(item, choice_style) for item in items], how, **limits)
    n_open = len(items) - len(sets.neighbor) - len(sets.mmlu)
    written = greedy(
        model,
        tokenizer,
        [context.input_ids for context in made[:n_open]],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    texts = decode(tokenizer, written)
    offered = [prompts.answers(item.options, style=choice_style) for item in items[n_open:]]
    scores = option_log_likelihoods(
        model,
        [context.input_ids for context in made[n_open:]],
        [[prompts.encode_text(tokenizer, option) for option in options] for options in offered],
        batch_size=batch_size,
    )
    cuts = _cuts(sets)
    details = {
        name: open_answer_scores(
            [item.reference for item in items[cuts[name]]],
            texts[cuts[name]],
            stemmer=stemmer,
            max_new_tokens=max_new_tokens,
        )
        for name in ("forget", "general")
        if getattr(sets, name)
    }
    details |= {
        name: _attacks(items[cuts[name]], texts[cuts[name]], stemmer)
        for name in ("attack", "controls")
        if getattr(sets, name)
    }
    details |= {
        name: _choices(items[cuts[name]], scores[cuts[name].start - n_open : cuts[name].stop - n_open])
        for name in ("neighbor", "mmlu")
        if getattr(sets, name)
    }
    by_metric = {metric: details[SET_OF[metric]] for metric in METRICS if SET_OF[metric] in details}
    chosen = [options[max(range(len(row)), key=row.__getitem__)] for options, row in zip(offered, scores, strict=True)]
    outputs = texts + chosen
    return Evaluation(
        measured(by_metric),
        values_of(by_metric),
        {name: cut.stop - cut.start for name, cut in cuts.items() if cut.stop > cut.start},
        details,
        _samples(tokenizer, items, made, outputs, details, cuts),
    )


def query(item: OpenItem | AttackItem | ChoiceItem, style: str) -> Query:
    """What is asked of the model for an item; options are listed in `style`."""
    if isinstance(item, ChoiceItem):
        return Query(prompts.multiple_choice(item.question, item.options, style=style), item.objective)
    return Query(item.question, item.objective, getattr(item, "prefix", None))


def _cuts(sets: EvaluationSets) -> dict[str, slice]:
    cuts, start = {}, 0
    for name in ("forget", "general", "attack", "controls", "neighbor", "mmlu"):
        cuts[name] = slice(start, start := start + len(getattr(sets, name)))
    return cuts


def _attacks(items: Sequence[AttackItem], texts: Sequence[str], stemmer: bool) -> dict:
    return attack_success_rate(
        [item.reference for item in items],
        texts,
        given=[f"{item.question} {item.prefix}" for item in items],
        families=[item.family for item in items],
        stemmer=stemmer,
    )


def _choices(items: Sequence[ChoiceItem], scores: Sequence[Sequence[float]]) -> dict:
    return score_choices(
        scores,
        [item.answer for item in items],
        [item.refusal for item in items],
        subjects=[item.subject for item in items],
    )


def _samples(
    tokenizer, items, made: Sequence[Context], outputs: Sequence[str], details: dict, cuts: dict
) -> list[dict]:
    rows = []
    for name, cut in cuts.items():
        for item, context, output, labels in zip(
            items[cut], made[cut], outputs[cut], details.get(name, {}).get("items", []), strict=True
        ):
            choice = isinstance(item, ChoiceItem)
            rows.append(
                {
                    "set": name,
                    "id": item.id,
                    "prompt": tokenizer.decode(context.input_ids),
                    "thought": context.thought,
                    "prefix": getattr(item, "prefix", None),
                    "reference": item.options[item.answer] if choice else item.reference,
                    "output": output,
                    "labels": labels,
                }
            )
    return rows
