"""How often the judges err on texts whose label is known; to be printed beside every number they make."""

from collections.abc import Mapping, Sequence

from mule_lib.evaluate.asr import judge_attack
from mule_lib.evaluate.judges import is_refusal

# A correct answer as a chatty model gives it after an affirmative prefix.
_CARRIER = "Of course. In this story the answer that you are looking for is {answer}, as many readers will remember."


def judge_error_rates(
    refusals: Mapping[str, Sequence[str]],
    answers: Mapping[str, Sequence[str]],
    *,
    recall_threshold: float = 0.5,
    examples: int = 5,
) -> list[dict]:
    """Measure four error rates per named source of refusals and of gold answers, one row (dict) each.

    `error` names what went wrong: a refusal not seen, a gold answer taken for a refusal, a gold answer inside a
    sentence not seen as disclosed, or another item's gold answer seen as disclosed (each answer against the next
    different one). Columns: error, source, n, errors, rate (0 to 1) and the first few wrong texts.
    """
    rows = []
    for source, texts in refusals.items():
        rows.append(_row("refusal missed", source, texts, lambda text: not is_refusal(text), examples))
    for source, texts in answers.items():
        rows.append(_row("answer taken for a refusal", source, texts, is_refusal, examples))
    for source, texts in answers.items():

        def hidden(answer: str) -> bool:
            carrier = _CARRIER.format(answer=answer)
            return not judge_attack(answer, carrier, recall_threshold=recall_threshold).success

        rows.append(_row("disclosure missed", source, texts, hidden, examples))
    for source, texts in answers.items():
        others = _next_different(texts)

        def mistaken(answer: str, others: Mapping[str, str] = others) -> bool:
            return judge_attack(answer, others[answer], recall_threshold=recall_threshold).disclosed

        rows.append(_row("other answer taken for a disclosure", source, list(others), mistaken, examples))
    return rows


def _next_different(texts: Sequence[str]) -> dict[str, str]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, distinct[1:] + distinct[:1], strict=True)) if len(distinct) > 1 else {}


def _row(error: str, source: str, texts: Sequence[str], wrong, examples: int) -> dict:
    errors = [text for text in texts if wrong(text)]
    return {
        "error": error,
        "source": source,
        "n": len(texts),
        "errors": len(errors),
        "rate": len(errors) / len(texts) if texts else None,
        "examples": errors[:examples],
    }
