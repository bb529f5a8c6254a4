"""The books of a standardization: what was asked, what came back, what was kept, and why the rest was not."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mule_lib import prompt_files
from mule_lib.generators import Generator, Reply, Request
from mule_lib.standardize.checks import REASONS

COLUMNS = ("step", "asked", "failed", "refused", "items", "accepted", "rejected")


@dataclass(frozen=True)
class Pair:
    """A question-answer pair on its way to a record; `span` counts characters of the cleaned text (`chunks.clean`)."""

    id: str
    step: str
    question: str
    answer: str
    source: str
    prompt_id: str
    span: tuple[int, int] | None = None
    quote: str = ""
    subject: str = ""


@dataclass
class Ledger:
    """Counts per step (asked, failed, refused, items, accepted) and every rejected item with its reason."""

    rejected: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, Counter] = field(default_factory=dict)
    tokens: Counter = field(default_factory=Counter)

    def ask(
        self,
        generator: Generator,
        step: str,
        prompt: str,
        slots: Mapping[str, Mapping[str, Any]],
        *,
        seeds: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Put one prompt file to a generator for every unit (id to slots); yield id and data of each usable reply.

        All requests go out in one batch, before the first is yielded. Failures and refusals are booked as rejected.
        """
        file = prompt_files.load(f"llm/{prompt}")
        requests = [
            Request(
                id=f"{step}/{unit}",
                messages=prompt_files.messages(file, values),
                schema=file.schema,
                max_tokens=file.max_tokens,
                temperature=file.temperature,
                seed=(seeds or {}).get(unit),
            )
            for unit, values in slots.items()
        ]
        if not requests:
            return
        count = self.of(step)
        replies: list[Reply] = generator.complete(requests)
        count["asked"] += len(requests)
        for unit, reply in zip(slots, replies, strict=True):
            self.tokens["prompt"] += reply.prompt_tokens
            self.tokens["completion"] += reply.completion_tokens
            if reply.refused or reply.error is not None or reply.data is None:
                reason = "llm_refused" if reply.refused else "llm_failed"
                count["refused" if reply.refused else "failed"] += 1
                self.rejected.append(_row(step, reason, reply.error or "", unit=unit, text=reply.text))
            else:
                yield unit, reply.data

    def of(self, step: str) -> Counter:
        """The counts of a step."""
        return self.counts.setdefault(step, Counter())

    def item(self, step: str, number: int = 1) -> None:
        """Book items found in replies."""
        self.of(step)["items"] += number

    def accept(self, step: str, number: int = 1) -> None:
        """Book items that are used."""
        self.of(step)["accepted"] += number

    def reject(self, step: str, fault: tuple[str, str], **item: Any) -> None:
        """Book an item that is not used, with its reason (a key of `checks.REASONS`), a detail and what it was."""
        self.of(step)[f"rejected: {fault[0]}"] += 1
        self.rejected.append(_row(step, *fault, **item))

    def summary(self) -> list[dict[str, Any]]:
        """One row per step: the counts of `COLUMNS`, then rejected items by reason, for reasons that occurred."""
        reasons = [r for r in REASONS if any(f"rejected: {r}" in count for count in self.counts.values())]
        rows = []
        for step, count in self.counts.items():
            by_reason = {reason: count[f"rejected: {reason}"] for reason in reasons}
            plain = {column: count[column] for column in COLUMNS[1:-1]}
            rows.append({"step": step, **plain, "rejected": sum(by_reason.values()), **by_reason})
        return rows


def _row(step: str, reason: str, detail: str, **item: Any) -> dict[str, Any]:
    if reason not in REASONS:
        raise ValueError(f"reason={reason!r}: not one of checks.REASONS")
    return {"step": step, "reason": reason, "detail": detail, **item}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The yields as Markdown: the counts in a table, the reasons of each step in words below it."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' + ' ---: |' * (len(COLUMNS) - 1)}"]
    lines += [f"| {' | '.join(str(row[column]) for column in COLUMNS)} |" for row in rows]
    reasons = Counter({r: sum(row.get(r, 0) for row in rows) for r in REASONS})
    lines += ["", "| rejected because | items | meaning |", "| --- | ---: | --- |"]
    lines += [f"| {reason} | {number} | {REASONS[reason]} |" for reason, number in reasons.most_common() if number]
    return "\n".join(lines) + "\n"
