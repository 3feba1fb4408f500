"""How many requests in how much time: counted exactly, in bounded memory, on a clock that is passed in.

Knows keys and times, not what they stand for; does no I/O. `shared/rates.py` counts for several processes.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock
from typing import Protocol

import structlog

MOST_KEYS = 10_000
MOST_HITS = 200_000

_log = structlog.get_logger("aibridge.limits")


class Rate(Protocol):
    def hit(self, key: str, /) -> float:
        """Count one for `key` and return 0; if that is one too many, count nothing and return the seconds after
        which there is room again."""


class Window:
    """At most `count` in any `seconds`, per key. Keys come from clients: of too many keys or hits, those that were
    seen last longest ago are forgotten."""

    def __init__(
        self,
        count: int,
        seconds: float,
        *,
        most_keys: int = MOST_KEYS,
        most_hits: int = MOST_HITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._seconds = seconds
        self._most_keys = most_keys
        self._most_hits = most_hits
        self._clock = clock
        self._hits: OrderedDict[str, deque[float]] = OrderedDict()
        self._total = 0
        self._lock = Lock()

    @property
    def keys(self) -> int:
        """How many keys are remembered."""
        return len(self._hits)

    def hit(self, key: str, /) -> float:
        with self._lock:
            now = self._clock()
            hits = self._hits.setdefault(key, deque())
            self._hits.move_to_end(key)
            while hits and hits[0] <= now - self._seconds:
                hits.popleft()
                self._total -= 1
            if len(hits) >= self._count:
                return hits[0] + self._seconds - now
            hits.append(now)
            self._total += 1
            self._forget(now - self._seconds)
            return 0.0

    def _forget(self, horizon: float) -> None:
        """What is over, and what is too much; never the key that was hit just now, which is the last."""
        while len(self._hits) > 1:
            oldest, hits = next(iter(self._hits.items()))
            too_much = len(self._hits) > self._most_keys or self._total > self._most_hits
            if hits[-1] > horizon and not too_much:
                return
            del self._hits[oldest]
            self._total -= len(hits)


class SharedOrOwn:
    """Counts in a place that is shared with other processes; while that fails, here. A failed place is asked again
    after `pause` seconds, by one request at a time, so that an unreachable one costs next to nothing."""

    def __init__(
        self, shared: Rate, own: Rate, *, pause: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shared = shared
        self._own = own
        self._pause = pause
        self._clock = clock
        self._asked_again: float | None = None  # None: it works
        self._lock = Lock()

    def hit(self, key: str, /) -> float:
        if self._may_ask():
            try:
                wait = self._shared.hit(key)
            except Exception as error:
                self._fails(error)
            else:
                self._works()
                return wait
        return self._own.hit(key)

    def _may_ask(self) -> bool:
        with self._lock:
            if self._asked_again is None:
                return True
            if self._clock() < self._asked_again:
                return False
            self._asked_again = self._clock() + self._pause
            return True

    def _fails(self, error: Exception) -> None:
        with self._lock:
            is_news = self._asked_again is None
            self._asked_again = self._clock() + self._pause
        if is_news:
            reason = f"{type(error).__name__}: {error}"[:200]
            _log.warning("shared rate limits fail; this process counts for itself", reason=reason)

    def _works(self) -> None:
        with self._lock:
            is_news = self._asked_again is not None
            self._asked_again = None
        if is_news:
            _log.info("shared rate limits work again")
