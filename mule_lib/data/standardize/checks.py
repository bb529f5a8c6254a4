"""Checks of one question-answer pair, each a reason to reject it or nothing, and how alike questions are.

They are rules on text: cheap, the same on every machine, and wrong at times. What they do to published questions is
measured in tests/test_standardize_checks.py.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from mule_lib.data.files import is_scorable
from mule_lib.data.text import is_refusal, normalise, rouge_l

# Every reason that a rejected item may carry; docs/standardization.md says what each means.
REASONS = tuple(
    "llm_failed llm_refused malformed answer_length not_a_question yes_no refusal "
    "unscorable refers_to_text leak quote_not_found unsupported restricted same_concept "
    "bad_options prefix_length prefix_answer duplicate_within duplicate_across".split()
)
Fault = tuple[str, str] | None  # reason and detail
ANSWER_WORDS = 12
SUPPORT = 0.6  # least share of the answer that its quote has to hold

_REFERS = re.compile(
    r"\b(?:the|this|that|these|given|following|above) (?:\w+ )?(?:passage|text|excerpt|paragraph|context|quote)s?\b"
    r"(?! (?:of|by|written|authored|called)\b)|\b(?:mentioned|described|stated|listed) (?:above|here|below)\b"
    r"|\b(?:in|of|by) this (?:article|chapter|document|book|story)\b"
    r"|\b(?:according to|based on) the (?:article|chapter|document|book|story|author)(?=\W*$|,)",
    re.I,
)
_UNKNOWN = re.compile(r"(?:is )?(?:unknown|not (?:stated|mentioned|specified|given|known)|n/?a|none|unclear)", re.I)
_SMALL = frozenset(
    "a an the of in on at to for from by with and or as is are was were be been that which who whom whose what when "
    "where how why did do does has have had this these those it its he she they his her their them him not no "
    "one".split()
)


def fault(question: str, answer: str) -> Fault:
    """Why a pair cannot be used whatever its source: (reason, detail), or None. Reasons are those of `REASONS`."""
    if not question.strip() or not answer.strip():
        return "malformed", "question or answer is empty"
    if len(answer.split()) > ANSWER_WORDS:
        return "answer_length", f"{len(answer.split())} words, {ANSWER_WORDS} allowed"
    if not question.rstrip().endswith("?") or question.count("?") != 1:
        return "not_a_question", f"{question.count('?')} question marks"
    if normalise(answer) in ("yes", "no", "true", "false"):
        return "yes_no", answer
    if is_refusal(answer) or _UNKNOWN.fullmatch(answer.strip(" .")):
        return "refusal", answer
    if not is_scorable(answer):
        return "unscorable", answer
    if reference := _REFERS.search(question):
        return "refers_to_text", reference[0]
    wanted = content_words(answer) or set(normalise(answer).split())
    # A name of two words is given away by both only.
    return ("leak", " ".join(sorted(wanted))) if wanted and wanted <= content_words(question) else None


def support_fault(answer: str, quote: str) -> Fault:
    """Why a quote does not bear an answer out: ROUGE-L misses too much of the answer in it."""
    share = rouge_l(answer, quote).recall
    missing = f"{share:.0%} of the answer is in the quote, {SUPPORT:.0%} needed"
    return None if share >= SUPPORT else ("unsupported", missing)


def restricted_fault(text: str, terms: Sequence[str]) -> Fault:
    """An item that has to be answered names what is to be forgotten: whole words, any case, accents apart."""
    plain = f" {normalise(text)} "
    named = [term for term in terms if f" {normalise(term)} " in plain]
    return ("restricted", ", ".join(named)) if named else None


def options_fault(answer: str, distractors: Sequence[str], *, count: int) -> Fault:
    """Why wrong options cannot be used: too few, doubled, the right one, or a refusal."""
    different = len({normalise(option) for option in (*distractors, answer, "")}) == count + 2
    right = len(distractors) == count and different and not any(map(is_refusal, distractors))
    return None if right else ("bad_options", f"{count} wrong answers needed, not {list(distractors)}")


def content_words(text: str) -> set[str]:
    """The words of a text that carry meaning, normalised."""
    return set(normalise(text).split()) - _SMALL


def similarities(texts: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """For each text its index and its similarity to every text, `[n]`: Jaccard of character 5-grams, 0 to 1."""
    if not texts:
        return
    padded = [f" {normalise(text)} " for text in texts]
    grams = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, lowercase=False).fit_transform(padded)
    sizes, columns = np.maximum(1, np.asarray(grams.sum(axis=1)).ravel()), grams.T.tocsr()
    for i in range(len(texts)):  # memory for a row at a time
        shared = (grams[i] @ columns).toarray()[0]
        yield i, shared / (sizes[i] + sizes - shared)
