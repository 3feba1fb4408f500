"""What the gateway remembers of answers whose clients did not see all of them.

The hidden turns of an actor are found by the keys that the protocols make (`protocols/rounds.py`). They hold what
models and tools said, so where nothing of that may be stored they stay in the process.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Protocol

from aibridge.protocols.rounds import HiddenTurn

REMEMBERED_FOR = 24 * 3600.0  # seconds
LARGEST_TURN = 16 * 1024 * 1024  # bytes; a larger one is not remembered
PROCESS_LIMIT = 64 * 1024 * 1024  # bytes of turns that stay in the process


class Memory(Protocol):
    """Neither method raises: a turn that is not found is simply not put back."""

    def remember(self, actor: str, keys: Sequence[str], turn: HiddenTurn) -> None:
        """Keep the turn under each of the keys, in place of what was there. It is kept when this returns."""

    def recall(self, actor: str, keys: Sequence[str]) -> Mapping[str, HiddenTurn]:
        """The turns under these keys that are there and not too old."""


class ProcessMemory:
    """A Memory that ends with the process; when it is full the oldest turns go."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int = PROCESS_LIMIT) -> None:
        self._clock = clock
        self._limit = limit
        self._turns: OrderedDict[tuple[str, str], tuple[float, HiddenTurn]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def remember(self, actor: str, keys: Sequence[str], turn: HiddenTurn) -> None:
        with self._lock:
            for key in keys:
                self._forget((actor, key))
                self._turns[actor, key] = (self._clock() + REMEMBERED_FOR, turn)
                self._size += size(turn)
            while self._size > self._limit:
                self._forget(next(iter(self._turns)))

    def recall(self, actor: str, keys: Sequence[str]) -> Mapping[str, HiddenTurn]:
        with self._lock:
            found = {key: self._turns[actor, key] for key in keys if (actor, key) in self._turns}
        return {key: turn for key, (until, turn) in found.items() if until > self._clock()}

    def _forget(self, name: tuple[str, str]) -> None:
        _, turn = self._turns.pop(name, (0.0, None))
        self._size -= size(turn) if turn else 0


def size(turn: HiddenTurn) -> int:
    """Bytes of what it holds."""
    return sum(len(each.said) + sum(map(len, each.results)) for each in turn.rounds)
