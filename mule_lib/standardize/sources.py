"""What a standardization starts from, by benchmark: text to forget, published questions, general text, MMLU."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mule_lib.benchmarks import mmlu, muse_books, wikipedia, wmdp_cyber
from mule_lib.benchmarks.raw import RawText
from mule_lib.data.items import ChoiceItem, OpenItem
from mule_lib.params import Standardize


@dataclass(frozen=True)
class Sources:
    """`published` open questions evaluate as they are; `questions` are multiple choice and need an open form first."""

    forget: Sequence[RawText]
    general: Sequence[RawText]
    mmlu: Sequence[ChoiceItem]
    published: Sequence[OpenItem] = ()
    questions: Sequence[ChoiceItem] = ()


def load(p: Standardize) -> Sources:
    """The sources of `p.benchmark` from the Hub, files or folders.

    Raises DataFileError (file, row, column) or DataAccessError (page and command).
    """
    known = mmlu.questions(p.mmlu_source, split=p.mmlu_split)
    if p.benchmark == "muse_books":
        published, questions = muse_books.knowmem(p.questions_source).forget, ()
        forget = muse_books.raw(p.forget_source)
    else:
        published, questions = (), _sample(_open_able(p), p.questions, seed=p.seed)
        forget = wmdp_cyber.corpus(p.forget_source)
    general = wikipedia.articles(p.general_source, count=p.general_articles, seed=p.seed)
    return Sources(forget, general, known, published, questions)


def _open_able(p: Standardize) -> list[ChoiceItem]:
    # Programs and dumps of several thousand characters have no open form, so they are not paid for.
    return [item for item in wmdp_cyber.questions(p.questions_source) if wmdp_cyber.is_knowledge(item)]


def _sample(items: Sequence[ChoiceItem], count: int, *, seed: int) -> list[ChoiceItem]:
    places = random.Random(f"questions/{seed}").sample(range(len(items)), min(count, len(items)))
    return [items[i] for i in sorted(places)]
