"""Checks of one question-answer pair, each a reason to reject it or nothing, and near duplicates among questions.

They are rules on text: cheap, the same on every machine, and wrong at times. What they do to published questions is
measured in tests/test_standardize_checks.py.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from nltk.stem.porter import PorterStemmer  # the one that rouge_score uses
from sklearn.feature_extraction.text import CountVectorizer

from mule_lib.data.files import is_scorable
from mule_lib.data.text import is_refusal, normalise

# Every reason that a rejected item may carry; docs/standardization.md says what each means.
REASONS = tuple(
    "llm_failed llm_refused malformed question_length answer_length not_a_question yes_no refusal "
    "unscorable refers_to_text pronoun leak quote_not_found unsupported restricted same_concept "
    "bad_options prefix_length prefix_answer prefix_repeated duplicate_within duplicate_across".split()
)
Fault = tuple[str, str] | None  # reason and detail
QUESTION_WORDS, ANSWER_WORDS = (4, 45), 12
SUPPORT = 0.6  # least share of the answer's words that its quote has to hold
NEAR_DUPLICATE = 0.7  # similarity from which a question repeats another
SAME_ANSWER = 0.6  # two questions with one answer ask for the same fact when they are this much less alike

_TEXT = r"(?:passage|text|excerpt|extract|snippet|paragraph|context|quote)"
_WORK = r"(?:article|chapter|section|document|book|story|scene|case|example|code|page|author|narrator)"
_REFERS = re.compile(
    rf"\b(?:the|this|that|these|given|following|provided|above) (?:\w+ )?{_TEXT}s?\b"
    r"(?! (?:of|by|written|authored|called)\b)"
    rf"|\b(?:this|these|the (?:given|above|following|provided)) {_WORK}s?\b"
    rf"|\b(?:according to|based on|(?:described|mentioned|stated) (?:in|by)) the {_WORK}s?(?=\W*$|,)"
    r"|\b(?:mentioned|described|discussed|stated|listed) (?:above|here|below)\b",
    re.I,
)
_PRONOUN = re.compile(
    r"\b(?:he|she|it|they|him|them|his|hers?|its|theirs?|(?:him|her|it|them)sel(?:f|ves)|th[eo]se|this)\b", re.I
)
_UNKNOWN = re.compile(r"\b(?:unknown|not (?:stated|mentioned|specified|given|known)|n/?a|none|unclear)\b", re.I)
_SMALL = frozenset(
    "a an the of in on at to for from by with and or as is are was were be been that which who whom whose what when "
    "where how why did do does has have had this these those it its he she they his her their them him not no "
    "one".split()
)


def fault(question: str, answer: str) -> Fault:
    """Why a pair cannot be used whatever its source: (reason, detail), or None. Reasons are those of `REASONS`."""
    words, (low, high) = len(question.split()), QUESTION_WORDS
    if not question.strip() or not answer.strip():
        return "malformed", "question or answer is empty"
    if not low <= words <= high:
        return "question_length", f"{words} words, {low} to {high} allowed"
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
    named = re.search(r"(?<=\s)[\"'“‘(]*(?:[A-Z]|\d)|[\"“‘]\w", question)  # the first name, number or quotation
    pronoun = _PRONOUN.search(question)
    if pronoun and not (named and named.start() <= pronoun.start()):
        return "pronoun", pronoun[0]
    wanted = content_words(answer) or set(normalise(answer).split())
    # A name of two words is given away by both only.
    return ("leak", " ".join(sorted(wanted))) if wanted and wanted <= content_words(question) else None


def support_fault(answer: str, quote: str) -> Fault:
    """Why a quote does not bear an answer out: it lacks words of it."""
    wanted = stems(answer)
    share = len(wanted & stems(quote)) / len(wanted) if wanted else 0.0
    missing = f"{share:.0%} of the answer's words are in the quote, {SUPPORT:.0%} needed"
    return None if share >= SUPPORT else ("unsupported", missing)


def restricted_fault(text: str, terms: Sequence[str]) -> Fault:
    """An item that has to be answered names what is to be forgotten: whole words, any case, accents apart."""
    plain = f" {normalise(text)} "
    named = [term for term in terms if f" {normalise(term)} " in plain]
    return ("restricted", ", ".join(named)) if named else None


def options_fault(answer: str, distractors: Sequence[str], *, count: int) -> Fault:
    """Why wrong options cannot be used: too few, doubled, the right one, a refusal, or far longer than the answer."""
    plain = [normalise(option) for option in distractors]
    if len(plain) != count or len({*plain, normalise(answer), ""}) < count + 2:
        return "bad_options", f"{count} different ones needed, beside the answer: {list(distractors)}"
    for option, words in zip(distractors, plain, strict=True):
        # A right answer that stands out by its length needs no knowledge.
        long = not 1 / 3 <= len(option) / len(answer) <= 3 and abs(len(option) - len(answer)) > 12
        if words.startswith(("all of", "none of", "both ")) or is_refusal(option) or long:
            return "bad_options", option
    return None


def content_words(text: str) -> set[str]:
    """The words of a text that carry meaning, normalised."""
    return set(normalise(text).split()) - _SMALL


def stems(text: str) -> set[str]:
    """Stems of the words that carry meaning; all words' stems where none does."""
    return {_stem(word) for word in content_words(text) or normalise(text).split()}


_stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)


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


def find_duplicates(pairs: Sequence[tuple[str, str]]) -> list[int | None]:
    """For each (question, answer) the index of an earlier, kept one that it nearly repeats, or None where it is kept.

    Same answers need less similarity. The order decides which one stays: put what must stay first.
    """
    answers = np.array([normalise(answer) for _, answer in pairs])
    kept = np.zeros(len(pairs), bool)
    repeated: list[int | None] = []
    for i, alike in similarities([question for question, _ in pairs]):
        needed = np.where(answers == answers[i], SAME_ANSWER * NEAR_DUPLICATE, NEAR_DUPLICATE)
        hits = np.flatnonzero(kept & (alike >= needed))
        repeated.append(int(hits[alike[hits].argmax()]) if len(hits) else None)
        kept[i] = not len(hits)
    return repeated
