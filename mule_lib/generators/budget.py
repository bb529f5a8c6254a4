"""Tokens: how many may be spent, how many are out, how far a batch is."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mule_lib.generators.requests import BudgetError, Call


def estimate(call: Call) -> int:
    """Tokens that a call may cost at most: its prompt, one token for three bytes, and a full reply.

    Texts of most languages and tokenizers stay below; what a reply really cost is counted when it is there.
    """
    size = sum(len(message["content"].encode("utf-8", "replace")) for message in call.messages)
    return -(-(size + len(str(call.schema or ""))) // 3) + 16 * len(call.messages) + call.max_tokens


@dataclass
class Budget:
    """A hard stop: nothing is sent that, with what is under way, may pass `limit` (tokens; None for no limit)."""

    limit: int | None = None
    spent: int = 0
    reserved: int = 0

    def __post_init__(self):
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"budget_tokens={self.limit}: should be at least 1, or None for no limit")

    def reserve(self, tokens: int) -> bool:
        """Set tokens aside for a call about to be sent, or False where they do not fit now.

        Raises BudgetError where they do not fit even when nothing is under way.
        """
        if self.limit is None or self.spent + self.reserved + tokens <= self.limit:
            self.reserved += tokens
            return True
        if self.reserved:
            return False
        raise BudgetError(
            f"budget_tokens={self.limit}: {self.spent} are spent and the next request may take {tokens}; "
            "raise it and start again to go on"
        )

    def settle(self, reserved: int, used: int) -> None:
        """Give back what was set aside and count what was used."""
        self.reserved -= reserved
        self.spent += used


@dataclass(frozen=True)
class Progress:
    """Where a batch stands; `seconds_left` is None before anything was answered."""

    done: int
    total: int
    cached: int
    failed: int
    tokens: int
    seconds_left: float | None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", about {self.seconds_left:.0f} s left"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total} replies ({self.cached} cached{failed}), {self.tokens} tokens{left}"


Report = Callable[[Progress], None]


@dataclass
class Meter:
    """Counts a batch and reports it at every reply."""

    report: Report | None
    total: int = 0
    cached: int = 0
    fresh: int = 0
    failed: int = 0
    tokens: int = 0
    begun: float = field(default_factory=time.monotonic)

    def now(self) -> Progress:
        """The batch's progress."""
        done = self.cached + self.fresh + self.failed
        asked = self.fresh + self.failed
        pace = (time.monotonic() - self.begun) / asked if asked else None
        left = pace * (self.total - done) if pace is not None else (0.0 if done == self.total else None)
        return Progress(done, self.total, self.cached, self.failed, self.tokens, left)

    def count(self, kind: str, *, number: int = 1, tokens: int = 0) -> None:
        """Add replies of a kind (`cached`, `fresh`, `failed`) and report."""
        setattr(self, kind, getattr(self, kind) + number)
        self.tokens += tokens
        if self.report and number:
            self.report(self.now())


class PrintProgress:
    """A report that prints one line, at most every `seconds` and at the end, to standard error."""

    def __init__(self, *, seconds: float = 5.0):
        self.seconds, self.last = seconds, -1e9

    def __call__(self, progress: Progress) -> None:
        if progress.done == progress.total or time.monotonic() - self.last >= self.seconds:
            self.last = time.monotonic()
            print(progress, file=sys.stderr, flush=True)
