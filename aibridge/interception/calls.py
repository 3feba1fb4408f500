"""The calls of one turn, each on a thread of its own, a few at a time.

A thread cannot be stopped. One whose call overruns its deadline is abandoned: the model gets an error result, and
the thread keeps its place in the process's count until it really ends, so that tools which never return cannot
pile up threads.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import BoundedSemaphore, Condition, Thread

from aibridge.interception.toolbox import CallContext
from aibridge.interception.tools import Catalogue, Outcome, Toolbelt, failed
from aibridge.protocols.tools import ToolCall

MOST_THREADS = 256  # of tool calls in one process
GRACE = 0.25  # seconds after a call's deadline in which its toolbox may still tell of it in its own words

PLACES = BoundedSemaphore(MOST_THREADS)


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf calls are made, and until when at the latest (monotonic seconds)."""

    actor: str
    interception_id: str
    response_id: str
    latest: float


class Calls:
    """`wait` drives them: it starts what may start, gives up what is late, and takes what has come."""

    def __init__(
        self,
        toolbelt: Toolbelt,
        catalogue: Catalogue,
        calls: Sequence[ToolCall],
        asker: Asker,
        *,
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
        places: BoundedSemaphore = PLACES,
    ) -> None:
        self._toolbelt = toolbelt
        self._catalogue = catalogue
        self._calls = calls
        self._asker = asker
        self._at_once = at_once
        self._clock = clock
        self._places = places
        self._waiting = list(range(len(calls)))
        self._running: dict[int, CallContext] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._news = Condition()

    def wait(self, seconds: float) -> bool:
        """Go on for at most so long; whether all calls are over."""
        with self._news:
            self._advance()
            if self._running:
                self._news.wait(min(seconds, self._until_next_deadline()))
                self._advance()
            return not self._running and not self._waiting

    def outcomes(self) -> list[Outcome]:
        """In the order of the calls, once all are over."""
        return [self._outcomes[number] for number in range(len(self._calls))]

    def abandon(self, reason: str) -> list[Outcome]:
        """Nobody waits any more: what runs is told so, what waits is not begun."""
        with self._news:
            for number in list(self._running):
                self._give_up(number, reason)
            for number in self._waiting:
                self._outcomes[number] = self._failed(number, self._context(number), reason)
            self._waiting.clear()
        return self.outcomes()

    def _advance(self) -> None:
        for number, context in list(self._running.items()):
            if self._clock() >= context.deadline + GRACE:
                self._give_up(number, "the call timed out")
        while self._waiting and len(self._running) < self._at_once:
            self._start(self._waiting.pop(0))

    def _start(self, number: int) -> None:
        context = self._context(number)
        if not self._places.acquire(blocking=False):
            self._outcomes[number] = self._failed(number, context, "too many tool calls are running")
            return
        self._running[number] = context
        Thread(target=self._run, args=(number, context), name="tool", daemon=True).start()

    def _run(self, number: int, context: CallContext) -> None:
        try:
            outcome = self._toolbelt.call(self._catalogue, self._calls[number], context)
        finally:
            self._places.release()
        with self._news:
            if self._running.pop(number, None) is not None:
                self._outcomes[number] = outcome
                self._news.notify_all()

    def _give_up(self, number: int, reason: str) -> None:
        context = self._running.pop(number)
        context.cancelled.set()
        self._outcomes[number] = self._failed(number, context, reason)

    def _failed(self, number: int, context: CallContext, reason: str) -> Outcome:
        call = self._calls[number]
        return failed(self._catalogue.tool(call.name), call, context, reason, None)

    def _context(self, number: int) -> CallContext:
        asker = self._asker
        deadline = self._toolbelt.deadline(self._catalogue, self._calls[number], asker.latest)
        return CallContext(asker.actor, asker.interception_id, deadline, asker.response_id)

    def _until_next_deadline(self) -> float:
        return max(0.0, min(each.deadline for each in self._running.values()) + GRACE - self._clock())
