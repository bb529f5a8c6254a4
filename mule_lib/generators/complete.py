"""Requests to replies over any back end: cache first, then the back end, then one repair of what did not fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mule_lib.generators.budget import Budget, Meter, Report
from mule_lib.generators.cache import ReplyFile
from mule_lib.generators.requests import (
    Call,
    Exchange,
    Failed,
    GeneratorError,
    Reply,
    Request,
    call_of,
    check_requests,
)
from mule_lib.generators.structured import Reading, read, repair

Outcome = Exchange | Failed
Keep = Callable[[Call, Outcome], None]


class Sender(Protocol):
    """Where calls go that no file answers."""

    name: str

    def send(self, calls: Sequence[Call], *, budget: Budget, keep: Keep) -> None:
        """Hand every call's outcome to `keep` as soon as it is there; reserve and settle the budget around each."""
        ...


@dataclass
class Tally:
    """What a generator did since it was made; tokens are those paid now, `refused` and `errors` count replies."""

    requests: int = 0
    cached: int = 0
    repaired: int = 0
    refused: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completer:
    """A `Generator` over a sender: nothing in the cache is asked again, every reply is kept before the next is used.

    `budget_tokens` bounds what the sender's replies in the cache have cost in all runs together.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        cache: ReplyFile,
        budget_tokens: int | None = None,
        report: Report | None = None,
    ):
        self.name, self.sender, self.cache, self.report = sender.name, sender, cache, report
        self.budget = Budget(budget_tokens)
        self.tally = Tally()

    def complete(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply per request, in order; a call that failed after all retries is an error reply.

        Raises ValueError for a bad request before anything is sent, BudgetError and GeneratorError when the batch
        cannot go on; what was answered until then is in the cache.
        """
        check_requests(requests)
        self.cache.refresh()
        self.budget.spent, self.budget.reserved = self.cache.spent(self.name), 0
        meter = Meter(self.report)
        calls = [call_of(request) for request in requests]
        paid: set[str] = set()
        first = self._outcomes(calls, meter, paid)
        readings = [_read(call, first[call.key(self.name)]) for call in calls]
        repairs = {
            i: repair(calls[i], first[calls[i].key(self.name)], reading.error)
            for i, reading in enumerate(readings)
            if reading.error and calls[i].schema and isinstance(first[calls[i].key(self.name)], Exchange)
        }
        second = self._outcomes(list(repairs.values()), meter, paid)
        replies = []
        for i, (request, call, reading) in enumerate(zip(requests, calls, readings, strict=True)):
            chain = [(call.key(self.name), first[call.key(self.name)])]
            if i in repairs:
                key = repairs[i].key(self.name)
                chain.append((key, second[key]))
                reading = _after_repair(repairs[i], second[key], reading)
            replies.append(_reply(request, chain, reading, paid))
        self._count(replies, repairs)
        return replies

    def _outcomes(self, calls: Sequence[Call], meter: Meter, paid: set[str]) -> Mapping[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        missing: dict[str, Call] = {}
        for call in calls:
            key = call.key(self.name)
            if (known := self.cache.get(key)) is not None:
                outcomes[key] = known
            else:
                missing[key] = call
        meter.total += len(outcomes) + len(missing)
        meter.count("cached", number=len(outcomes))

        def keep(call: Call, outcome: Outcome) -> None:
            key = call.key(self.name)
            outcomes[key] = outcome
            if isinstance(outcome, Failed):
                meter.count("failed")
                return
            self.cache.put(self.name, call, outcome)
            paid.add(key)
            self.tally.prompt_tokens += outcome.prompt_tokens
            self.tally.completion_tokens += outcome.completion_tokens
            meter.count("fresh", tokens=outcome.tokens)

        if missing:
            try:
                self.sender.send(list(missing.values()), budget=self.budget, keep=keep)
            except GeneratorError as error:
                where = f"kept in {self.cache.path}" if self.cache.path else "kept in memory only (no cache was given)"
                now = meter.now()
                have = f"; {now.done - now.failed} of {now.total} replies are {where}" if now.done else ""
                raise type(error)(f"{error}{have}") from None
        return outcomes

    def _count(self, replies: Sequence[Reply], repairs: Mapping[int, Call]) -> None:
        self.tally.requests += len(replies)
        self.tally.cached += sum(reply.cached for reply in replies)
        self.tally.repaired += sum(replies[i].error is None for i in repairs)
        self.tally.refused += sum(reply.refused for reply in replies)
        self.tally.errors += sum(reply.error is not None for reply in replies)


def _read(call: Call, outcome: Outcome) -> Reading:
    return Reading(error=outcome.reason) if isinstance(outcome, Failed) else read(call, outcome)


def _after_repair(call: Call, outcome: Outcome, before: Reading) -> Reading:
    after = _read(call, outcome)
    return Reading(error=f"{before.error}; asked again: {after.error}") if after.error else after


def _reply(request: Request, chain: Sequence[tuple[str, Outcome]], reading: Reading, paid: set[str]) -> Reply:
    exchanges = [(key, outcome) for key, outcome in chain if isinstance(outcome, Exchange)]
    last = exchanges[-1][1] if exchanges else None
    return Reply(
        id=request.id,
        text=(last.text or last.refusal or "") if last else "",
        data=reading.data,
        refused=reading.refused,
        error=reading.error,
        prompt_tokens=sum(exchange.prompt_tokens for _, exchange in exchanges),
        completion_tokens=sum(exchange.completion_tokens for _, exchange in exchanges),
        cached=bool(exchanges) and not any(key in paid for key, _ in exchanges),
    )
