"""The machine of a pure relay: nothing to hide or add, so every chunk goes on as the object that came.

The hot path only keeps the chunks. They are read when the answer is over, on a recorder's thread, or
earlier when so much has gathered that keeping it would cost too much memory.
"""

from typing import Protocol

from aibridge.protocols.interceptor import Observation
from aibridge.protocols.sse import Decoder, Event

KEPT_LIMIT = 1024 * 1024


class Account(Protocol):
    """What a protocol makes of an answer."""

    def event(self, event: Event) -> None: ...

    def body(self, body: bytes) -> None: ...

    def failure(self, status: int, body: bytes) -> None: ...

    def observation(self, notes: tuple[str, ...]) -> Observation: ...


class Relay:
    """An Interceptor that changes nothing."""

    def __init__(self, account: Account, status: int, event_stream: bool) -> None:
        self._account = account
        self._status = status
        self._decoder = Decoder() if event_stream and status < 400 else None
        self._kept: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        self._kept.append(chunk)
        self._size += len(chunk)
        if self._decoder is not None and self._size > KEPT_LIMIT:
            self._read(self._decoder)
        return chunk

    def observe(self) -> Observation:
        if self._decoder is not None:
            self._read(self._decoder)
        elif self._status < 400:
            self._account.body(b"".join(self._kept))
        else:
            self._account.failure(self._status, b"".join(self._kept))
        return self._account.observation(self._notes())

    def _read(self, decoder: Decoder) -> None:
        kept, self._kept, self._size = b"".join(self._kept), [], 0
        for event in decoder.feed(kept):
            self._account.event(event)

    def _notes(self) -> tuple[str, ...]:
        oversized = self._decoder.oversized if self._decoder else 0
        return (f"{oversized} events were too large to be understood",) if oversized else ()


class Opaque:
    """Relays what cannot be read: an answer in a content encoding that we do not know and did not ask for."""

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def observe(self) -> Observation:
        return Observation((), finished=True, notes=("the answer came in an unknown content encoding",))
