"""Contrastive anchor pairs (Section 3.3): beside a question to refuse, a question like it that has to be answered."""

from collections.abc import Mapping, Sequence

from mule_lib import prompt_files
from mule_lib.generators import Generator
from mule_lib.standardize.checks import Limits
from mule_lib.standardize.duplicates import nearest
from mule_lib.standardize.ledger import Ledger, Pair
from mule_lib.standardize.neighbors import closed_book_fault


def contrasts(
    pairs: Sequence[Pair],
    generator: Generator,
    ledger: Ledger,
    *,
    objective: str,
    topic: str,
    restricted: Sequence[str],
    limits: Limits,
    more: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Pair]:
    """Counterparts by the id of the pair that they stand against; a pair whose counterpart was rejected has none.

    `more` are further slots of the objective's prompt, by pair id: `concepts` for obj2, `prefix` for obj3.
    """
    step, prompt = f"{objective} anchors", f"anchor_{objective}"
    slots = {
        pair.id: {
            "topic": topic,
            "question": pair.question,
            **({} if objective == "obj3" else {"answer": pair.answer}),
            "answer_words": limits.answer_words,
            **(more or {}).get(pair.id, {}),
        }
        for pair in pairs
    }
    made = {}
    for unit, data in ledger.ask(generator, step, prompt, slots):
        question, answer = data["question"].strip(), data["answer"].strip()
        ledger.item(step)
        if found := closed_book_fault(question, answer, limits=limits, restricted=restricted):
            ledger.reject(step, found, unit=unit, question=question, answer=answer)
            continue
        made[unit] = Pair(
            id=f"{unit}~{objective}",
            step=step,
            question=question,
            answer=answer,
            source=f"counterpart of {unit}",
            prompt_id=prompt_files.prompt_id(f"llm/{prompt}"),
        )
    return made


def with_partners(pairs: Sequence[Pair], made: Mapping[str, Pair], pool: Sequence[Pair]) -> list[tuple[Pair, Pair]]:
    """Each pair with its counterpart, else with the most similar pair of the pool among those used least so far.

    Raises ValueError where the pool is empty and a pair needs it.
    """
    lacking = [pair for pair in pairs if pair.id not in made]
    chosen = nearest([p.question for p in lacking], [p.question for p in pool]) if lacking else []
    found = {pair.id: pool[j] for pair, j in zip(lacking, chosen, strict=True)}
    return [(pair, made.get(pair.id) or found[pair.id]) for pair in pairs]
