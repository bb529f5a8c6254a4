"""Multiple choice by option log-likelihood: Retain Acc with a refusal option (5.1, Obj2) and four-choice accuracy.

One accuracy cannot tell over-refusal from lost knowledge, so three rates stand side by side. Letter balance shows a
model that has collapsed to one letter.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from string import ascii_uppercase


def score_choices(
    log_likelihoods: Sequence[Sequence[float]],
    answer_index: Sequence[int],
    refusal_index: Sequence[int | None] | None = None,
    *,
    subjects: Sequence[str] | None = None,
) -> dict:
    """Score items by the option of the highest summed log-likelihood, the first one on ties (as lm-eval does).

    Returns rates in 0 to 1: `correct` (over all items; equals lm-eval's `acc` and its group mean weighted by subject
    size), `refusal`, `distractor`, which add up to 1; `subject_mean` (each subject counts once) and `by_subject`;
    `letters`, per position: how often it was chosen, how often it was right, and how often refusals at it were
    chosen; `items`, per item: `chosen`, `outcome` (correct, refusal, distractor) and `margin` in nats over the best
    other option. Raises `ValueError` naming the item for a NaN, fewer than two options, an index outside the options,
    or a refusal that is the answer.
    """
    n = len(log_likelihoods)
    refusals = [None] * n if refusal_index is None else list(refusal_index)
    groups = ["all"] * n if subjects is None else list(subjects)
    if not n or not len(answer_index) == len(refusals) == len(groups) == n:
        raise ValueError(
            f"{n} items with {len(answer_index)} answers, {len(refusals)} refusals and {len(groups)} subjects"
        )
    items = []
    for i, (scores, answer, refusal) in enumerate(zip(log_likelihoods, answer_index, refusals, strict=True)):
        _check(i, scores, answer, refusal)
        chosen = max(range(len(scores)), key=lambda k, scores=scores: scores[k])
        outcome = "correct" if chosen == answer else "refusal" if chosen == refusal else "distractor"
        margin = scores[answer] - max(score for k, score in enumerate(scores) if k != answer)
        items.append({"chosen": chosen, "outcome": outcome, "margin": margin})
    outcomes = [item["outcome"] for item in items]
    by_subject = {}
    for subject in dict.fromkeys(groups):
        own = [outcome for outcome, group in zip(outcomes, groups, strict=True) if group == subject]
        by_subject[subject] = {"n": len(own), "correct": own.count("correct") / len(own)}
    return {
        "correct": outcomes.count("correct") / n,
        "refusal": outcomes.count("refusal") / n,
        "distractor": outcomes.count("distractor") / n,
        "n": n,
        "subject_mean": fmean(subject["correct"] for subject in by_subject.values()),
        "by_subject": by_subject,
        "letters": _letters(items, log_likelihoods, answer_index, refusals),
        "items": items,
    }


def _check(i: int, scores: Sequence[float], answer: int, refusal: int | None) -> None:
    if len(scores) < 2 or any(math.isnan(score) for score in scores):
        raise ValueError(f"item {i}: log-likelihoods {list(scores)} are fewer than two or hold a NaN")
    for name, index in (("answer_index", answer), ("refusal_index", refusal)):
        if index is not None and not 0 <= index < len(scores):
            raise ValueError(f"item {i}: {name} {index} is outside the {len(scores)} options")
    if answer == refusal:
        raise ValueError(f"item {i}: option {answer} is both answer and refusal")


def _letters(items, log_likelihoods, answers, refusals) -> dict[str, dict[str, float | None]]:
    letters = {}
    for k in range(max(len(scores) for scores in log_likelihoods)):
        offered = [i for i, scores in enumerate(log_likelihoods) if k < len(scores)]
        refusable = [i for i in offered if refusals[i] == k]
        letters[ascii_uppercase[k]] = {
            "chosen": fmean(items[i]["chosen"] == k for i in offered),
            "right": fmean(answers[i] == k for i in offered),
            # None where no item has its refusal option here.
            "refused": fmean(items[i]["chosen"] == k for i in refusable) if refusable else None,
        }
    return letters
