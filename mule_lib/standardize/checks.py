"""Checks of one question-answer pair; each says in a word why a pair is rejected, or nothing.

They are rules on text: cheap, the same on every machine, and wrong at times. What they do to published questions is
measured in tests/test_standardize_checks.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mule_lib.data.items import is_scorable
from mule_lib.data.text import is_refusal, normalise

# Every reason that a rejected item may carry, and what it means.
REASONS = {
    "llm_failed": "no reply after all retries, or none that fits the schema",
    "llm_refused": "the LLM declined the request",
    "malformed": "an empty text where one is needed",
    "broken_text": "marks of a damaged text: <unk>, @-@, an undecodable character",
    "question_length": "the question is too short or too long",
    "answer_length": "the answer has too many words",
    "not_a_question": "the question does not end in one question mark",
    "yes_no": "the answer is yes or no, which a guess gets right half the time",
    "refusal": "the answer is a refusal, or says that it is unknown",
    "unscorable": "the answer has no letter or digit that ROUGE can see",
    "refers_to_text": "the question speaks of a passage that nobody sees",
    "pronoun": "a pronoun stands where nothing was named before it",
    "unnamed": "the question is about someone or something that it does not name",
    "leak": "the question gives its answer away",
    "quote_not_found": "the quoted words are not in the source",
    "unsupported": "words of the answer are not in the quote",
    "premise": "the question names something that its source does not hold",
    "restricted": "an item to be answered names what is to be forgotten",
    "not_convertible": "a multiple-choice question that has no open form",
    "same_concept": "a neighbouring concept that is there already",
    "bad_options": "wrong options that are doubled, right, a refusal, or far too long",
    "not_a_refusal": "a refusal that the refusal judge does not see as one",
    "verifier": "a second look found the pair wrong, unclear or inside the domain",
    "prefix_length": "a prefix that is empty or has too many words",
    "prefix_answer": "a prefix that already holds an answer",
    "prefix_repeated": "a prefix that was tried before",
    "duplicate_within": "nearly the same question in the same split",
    "duplicate_across": "nearly the same question in another split",
}


@dataclass(frozen=True)
class Limits:
    """Sizes in words and characters; `support` is the least share of the answer's words found in the quote (0 to 1)."""

    answer_words: int = 12
    question_words: tuple[int, int] = (4, 45)
    support: float = 0.6


_BROKEN = re.compile(r"<unk>|@[-,.]@|\N{REPLACEMENT CHARACTER}")
_AUXILIARY = r"(?:is|was|did|does|do|are|were|has|had|have|can|could|will|would|should|must|may|might)"
_TEXT = r"(?:passage|text|excerpt|extract|snippet|paragraph|context|quote)"
_WORK = r"(?:article|chapter|section|document|book|story|scene|case|example|code|page|author|narrator)"
_REFERS = re.compile(
    rf"\b(?:the|this|that|these|given|following|provided|above) (?:\w+ )?{_TEXT}s?\b"
    r"(?! (?:of|by|written|authored|called)\b)"
    rf"|\b(?:this|these|the (?:given|above|following|provided)) {_WORK}s?\b"
    rf"|\b(?:according to|based on|(?:described|mentioned|stated) (?:in|by)) the {_WORK}s?"
    rf"(?=\W*$|,| \w+ {_AUXILIARY}\b)"
    r"|\b(?:mentioned|described|discussed|stated|listed) (?:above|here|below)\b",
    re.I,
)
_PRONOUN = re.compile(
    r"\b(?:he|she|it|they|him|them|his|hers?|its|theirs?|himself|herself|itself|themselves)\b|\b(?:this|these|those)\b",
    re.I,
)
_THING = (
    r"(?:man|woman|boy|girl|child|character|protagonist|speaker|writer|group|team|company|episode|song|film|game|album"
    r"|band|ship|storm|attack|tool|malware|program|function|script|user|victim|teacher|professor|house|city|town)"
)
_UNNAMED = re.compile(rf"\bthe {_THING}\b(?! (?:of|that|which|who|whose|in|for|on|from|with|called|named|to)\b)", re.I)
_UNKNOWN = re.compile(r"\b(?:unknown|not (?:stated|mentioned|specified|given|known)|n/?a|none|unclear)\b", re.I)
_SMALL = frozenset(
    "a an the of in on at to for from by with and or as is are was were be been that which who whom whose what when "
    "where how why did do does has have had this these those it its he she they his her their them him not no "
    "one".split()
)


def fault(question: str, answer: str, *, limits: Limits) -> tuple[str, str] | None:
    """Why a pair cannot be used whatever its source: (reason, detail), or None. Reasons are keys of `REASONS`."""
    words = len(answer.split())
    asked = len(question.split())
    low, high = limits.question_words
    if not question.strip() or not answer.strip():
        return "malformed", "question or answer is empty"
    if found := _BROKEN.search(f"{question} {answer}"):
        return "broken_text", found[0]
    if not low <= asked <= high:
        return "question_length", f"{asked} words, {low} to {high} allowed"
    if words > limits.answer_words:
        return "answer_length", f"{words} words, {limits.answer_words} allowed"
    if not question.rstrip().endswith("?") or question.count("?") != 1:
        return "not_a_question", f"{question.count('?')} question marks"
    if normalise(answer) in ("yes", "no", "true", "false"):
        return "yes_no", answer
    if is_refusal(answer) or _UNKNOWN.fullmatch(answer.strip(" .")):
        return "refusal", answer
    if not is_scorable(answer):
        return "unscorable", answer
    return _stands_alone(question) or _leak(question, answer)


def _stands_alone(question: str) -> tuple[str, str] | None:
    if found := _REFERS.search(question):
        return "refers_to_text", found[0]
    named = _first_named(question)
    found = _PRONOUN.search(question)
    if found and found.start() < named and not _noun_before(question, found):
        return "pronoun", found[0]
    if (found := _UNNAMED.search(question)) and named > len(question):
        return "unnamed", found[0]
    return None


def _first_named(question: str) -> int:
    """Where the first name, number or quotation begins; beyond the end where there is none."""
    found = re.search(r"(?<=\s)[\"'“‘(]*(?:[A-Z]|\d)|[\"“‘]\w", question)
    return found.start() if found else len(question) + 1


def _noun_before(question: str, pronoun: re.Match) -> bool:
    # A noun with its article may be what the pronoun stands for: "How does a worm copy itself?". "This" needs a noun of
    # its own before it just as much.
    before = question[: pronoun.start()].lower()
    if re.fullmatch(rf"\W*\w+ (?:{_AUXILIARY} )?", before):
        return False  # "What is it", "Who did he": the pronoun is the subject of the whole question
    return re.search(r"\b(?:an?|the|each|every|some|many|most|all|which|what|who|whose) \w+", before) is not None


def _leak(question: str, answer: str) -> tuple[str, str] | None:
    """The answer's words stand in the question, in a row or all of them; names of two words need both."""
    asked, wanted = content_words(question), content_words(answer) or set(normalise(answer).split())
    if wanted and wanted <= asked:
        return "leak", " ".join(sorted(wanted))
    return None


def support_fault(
    question: str, answer: str, *, quote: str, source: str, limits: Limits, known: Sequence[str] = ()
) -> tuple[str, str] | None:
    """Why a source does not bear a pair out: the quote lacks words of the answer, or the source names of the question.

    `known` are further words that a question may name (the topic, the source's title).
    """
    wanted = stems(answer)
    share = len(wanted & stems(quote)) / len(wanted) if wanted else 0.0
    if share < limits.support:
        return "unsupported", f"{share:.0%} of the answer's words are in the quote, {limits.support:.0%} needed"
    there = set(normalise(f"{source} {' '.join(known)}").split())
    foreign = [name for name in names(question) if not set(normalise(name).split()) & there]
    return ("premise", ", ".join(foreign)) if foreign else None


def restricted_fault(text: str, terms: Sequence[str]) -> tuple[str, str] | None:
    """An item that has to be answered names what is to be forgotten: whole words, any case, accents apart."""
    plain = f" {normalise(text)} "
    found = [term for term in terms if f" {normalise(term)} " in plain]
    return ("restricted", ", ".join(found)) if found else None


def options_fault(answer: str, distractors: Sequence[str], *, count: int) -> tuple[str, str] | None:
    """Why wrong options cannot be used: too few, doubled, the right one, a refusal, or far longer than the answer."""
    plain = [normalise(option) for option in distractors]
    if len(plain) != count or len({*plain, normalise(answer), ""}) < count + 2:
        return "bad_options", f"{count} different ones needed, beside the answer: {list(distractors)}"
    for option, words in zip(distractors, plain, strict=True):
        if words.startswith(("all of", "none of", "both ")) or is_refusal(option):
            return "bad_options", option
        # A right answer that stands out by its length needs no knowledge.
        if not 1 / 3 <= len(option) / len(answer) <= 3 and abs(len(option) - len(answer)) > 12:
            return "bad_options", f"{len(option)} characters beside {len(answer)} of the answer: {option}"
    return None


def names(question: str) -> list[str]:
    """Capitalised words and numbers of a question, without its first word."""
    rest = question.split(maxsplit=1)[1:]
    return re.findall(r"\b(?:[A-ZÀ-Þ][\w’'-]*|\d[\w,.]*\w|\d)", rest[0]) if rest else []


def content_words(text: str) -> set[str]:
    """The words of a text that carry meaning, normalised."""
    return set(normalise(text).split()) - _SMALL


def stems(text: str) -> set[str]:
    """Stems of the words that carry meaning; all words' stems where none does."""
    return {_stem(word) for word in content_words(text) or normalise(text).split()}


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _stemmer().stem(word)


@lru_cache(maxsize=1)
def _stemmer():
    from nltk.stem.porter import PorterStemmer  # the one that rouge_score uses

    return PorterStemmer()
