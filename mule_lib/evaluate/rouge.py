"""ROUGE-L of open answers (Forget and General of Tables 1 to 3), with what ROUGE cannot tell beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import fmean

from rouge_score.rouge_scorer import RougeScorer

from mule_lib.benchmarks.items import is_scorable
from mule_lib.evaluate.judges import is_empty, is_garbled, is_refusal


@dataclass(frozen=True)
class RougeL:
    """ROUGE-L of one answer, each value in 0 to 1; read as attribute or by key."""

    recall: float
    precision: float
    f1: float

    def __getitem__(self, name: str) -> float:
        return getattr(self, name)


def rouge_l(reference: str, prediction: str, *, stemmer: bool = True) -> RougeL:
    """Score a prediction against its reference by `rouge_score`, which lower-cases and sees only `[a-z0-9]+`.

    Recall is the share of the reference that is found, precision the share of the prediction that belongs to it.
    Gold answers of two or three words make them different metrics: a correct sentence has recall 1 and a low F1.
    """
    score = _scorer(stemmer).score(reference, prediction)["rougeL"]
    return RougeL(recall=score.recall, precision=score.precision, f1=score.fmeasure)


def judge_open_answer(reference: str, prediction: str, *, stemmer: bool = True) -> dict[str, float | bool]:
    """Label one open answer: recall, precision and f1 in 0 to 1, and whether it is refused, empty or garbled."""
    return {
        **asdict(rouge_l(reference, prediction, stemmer=stemmer)),
        "refused": is_refusal(prediction),
        "empty": is_empty(prediction),
        "garbled": is_garbled(prediction),
    }


def open_answer_scores(
    references: Sequence[str],
    predictions: Sequence[str],
    *,
    stemmer: bool = True,
    headline: str = "recall",
    max_new_tokens: int | None = None,
) -> dict:
    """Score a set of open answers: means and rates in 0 to 1, the settings behind them, and the labels per item.

    `headline` (recall or f1) becomes `score`, which enters Overall Performance; the paper says only "ROUGE scores
    against reference targets" (5.1). `max_new_tokens` is the cap that the answers were generated under; it is stored,
    because recall grows with it. Raises `ValueError` for no items, unequal lengths or an unscorable reference.
    """
    if headline not in ("recall", "f1"):
        raise ValueError(f"headline is {headline!r}, should be 'recall' or 'f1'")
    if len(references) != len(predictions) or not references:
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions; one of each per item")
    for i, reference in enumerate(references):
        if not is_scorable(reference):
            raise ValueError(f"item {i}: reference {reference!r} holds nothing that ROUGE can see")
    items = [judge_open_answer(r, p, stemmer=stemmer) for r, p in zip(references, predictions, strict=True)]
    return {
        "score": _mean(items, headline),
        "headline": f"rougeL_{headline}",
        "recall": _mean(items, "recall"),
        "precision": _mean(items, "precision"),
        "f1": _mean(items, "f1"),
        "refusal_rate": _mean(items, "refused"),
        "empty_rate": _mean(items, "empty"),
        "garbled_rate": _mean(items, "garbled"),
        "n": len(items),
        "settings": {"package": "rouge_score", "stemmer": stemmer, "max_new_tokens": max_new_tokens},
        "items": items,
    }


def _mean(items: Sequence[Mapping[str, float]], name: str) -> float:
    return fmean(float(item[name]) for item in items)


@lru_cache(maxsize=2)
def _scorer(stemmer: bool) -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=stemmer)
