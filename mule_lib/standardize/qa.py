"""Raw text and multiple-choice questions to focused question-answer pairs (Section 3.2, Obj1)."""

from collections.abc import Sequence

from mule_lib import prompt_files
from mule_lib.data.items import ChoiceItem
from mule_lib.generators import Generator
from mule_lib.standardize.checks import Limits, fault, restricted_fault, support_fault
from mule_lib.standardize.chunks import Chunk, find_quote
from mule_lib.standardize.ledger import Ledger, Pair


def passage_pairs(
    chunks: Sequence[Chunk],
    generator: Generator,
    ledger: Ledger,
    *,
    step: str,
    focus: str,
    count: int,
    limits: Limits,
    known: Sequence[str] = (),
    restricted: Sequence[str] = (),
) -> list[Pair]:
    """Ask for up to `count` pairs per chunk and keep those that stand alone and that their quoted words bear out.

    `focus` says what about, `known` are words that questions may name although the chunk does not, and a pair that
    names a `restricted` term is rejected. A pair's span is that of its quote in the cleaned source.
    """
    by_id = {chunk.id: chunk for chunk in chunks}
    slots = {
        chunk.id: {
            "count": count,
            "focus": focus,
            "answer_words": limits.answer_words,
            "source": chunk.title or "an untitled text",
            "passage": chunk.text,
        }
        for chunk in chunks
    }
    kept = []
    for unit, data in ledger.ask(generator, step, "qa", slots):
        chunk = by_id[unit]
        for n, entry in enumerate(data["pairs"], 1):
            question, answer, quote = (entry[key].strip() for key in ("question", "answer", "quote"))
            ledger.item(step)
            found = fault(question, answer, limits=limits) or restricted_fault(f"{question} {answer}", restricted)
            place = find_quote(quote, chunk.text)
            if not found and place is None:
                found = "quote_not_found", quote
            if not found:
                words = [*known, chunk.title]
                found = support_fault(
                    question, answer, quote=chunk.text[slice(*place)], source=chunk.text, limits=limits, known=words
                )
            item = {"unit": unit, "question": question, "answer": answer, "quote": quote}
            if found:
                ledger.reject(step, found, **item)
                continue
            span = chunk.start + place[0], chunk.start + place[1]
            kept.append(
                Pair(
                    id=f"{unit}#{n}",
                    step=step,
                    question=question,
                    answer=answer,
                    # With the chunk: a book of a million characters is no unit that is held out.
                    source=f"{chunk.source}:{chunk.start}-{chunk.end}",
                    prompt_id=prompt_files.prompt_id("llm/qa"),
                    span=span,
                    quote=chunk.text[slice(*place)],
                    subject=chunk.title,
                )
            )
    return kept


def open_pairs(
    items: Sequence[ChoiceItem], generator: Generator, ledger: Ledger, *, step: str, limits: Limits
) -> list[Pair]:
    """Multiple-choice questions as open ones (Section 5.1 asks WMDP openly); the right option bears the answer out."""
    by_id = {item.id: item for item in items}
    slots = {
        item.id: {
            "question": item.question,
            "options": "; ".join(item.options),
            "answer": item.options[item.answer],
            "answer_words": limits.answer_words,
        }
        for item in items
    }
    kept = []
    for unit, data in ledger.ask(generator, step, "open_question", slots):
        item = by_id[unit]
        question, answer = data["question"].strip(), data["answer"].strip()
        ledger.item(step)
        found = None if data["possible"] else ("not_convertible", item.question[:80])
        if not found:
            found = fault(question, answer, limits=limits) or support_fault(
                question,
                answer,
                quote=item.options[item.answer],
                source=f"{item.question} {' '.join(item.options)}",
                limits=limits,
            )
        if found:
            ledger.reject(step, found, unit=unit, question=question, answer=answer, quote=item.options[item.answer])
            continue
        kept.append(
            Pair(
                id=unit,
                step=step,
                question=question,
                answer=answer,
                source=item.id,
                prompt_id=prompt_files.prompt_id("llm/open_question"),
                quote=item.options[item.answer],
                subject=item.subject,
            )
        )
    return kept
