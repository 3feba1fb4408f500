"""The machine of a pure relay: nothing to hide or add, so every chunk goes on as the object that came.

The hot path only keeps the chunks. They are read when the answer is over, when all but its end has been sent, or
earlier when so much has gathered that keeping it would cost too much memory.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from aibridge.protocols.answer import Answer, failed
from aibridge.protocols.interceptor import Intercept, Interceptor, Observation, Payload, ProviderError
from aibridge.protocols.sse import Decoder, Event

KEPT_LIMIT = 64 * 1024  # what is read at once holds up whatever else its thread carries
READ_LIMIT = 64 * 1024 * 1024  # bytes of a stream's events that its account gets, and the last ones anyway
LAST_EVENTS = 4  # where the usage and the end are


class Account(Protocol):
    """What a protocol makes of a successful answer, fed as events or as one body.

    `skim(written)` takes what it needs of events of the most common kind, pieces of the answer's text, and returns
    the rest: their bytes tell that they matter for nothing else.
    """

    def skim(self, written: bytes) -> bytes: ...

    def event(self, event: Event) -> None: ...

    def body(self, body: bytes) -> None: ...

    def answer(self) -> Answer: ...


class Relay:
    """An Interceptor that changes nothing."""

    def __init__(
        self,
        account: Account,
        payload: Payload,
        interception_id: str,
        *,
        status: int,
        event_stream: bool,
        overloaded_status: int,
    ) -> None:
        self._account = account
        self._overloaded_status = overloaded_status
        self._prompt = payload.prompt
        self._interception_id = interception_id
        self._status = status
        self._decoder = Decoder() if event_stream and status < 400 else None
        self._kept: list[bytes] = []
        self._size = 0
        self._read_size = 0
        self._last: deque[Event] = deque(maxlen=LAST_EVENTS)  # of those beyond the limit

    def feed(self, chunk: bytes) -> bytes:
        self._kept.append(chunk)
        self._size += len(chunk)
        if self._decoder is not None and self._size > KEPT_LIMIT:
            self._read(self._decoder)
        return chunk

    def finish(self) -> bytes:
        return b""

    def observe(self) -> Observation:
        return self._answer().observation(self._interception_id, self._prompt)

    def _answer(self) -> Answer:
        if self._status >= 400:
            return failed(self._status, b"".join(self._kept), self._overloaded_status)
        if self._decoder is None:
            self._account.body(b"".join(self._kept))
            return self._account.answer()
        self._read(self._decoder)
        for event in self._last:
            self._account.event(event)
        answer = self._account.answer()
        if self._decoder.oversized:
            answer.notes = (*answer.notes, f"{self._decoder.oversized} events were too large to be understood")
        if self._last:
            answer.notes = (*answer.notes, "only the beginning and the end of the answer were understood")
        return answer

    def _read(self, decoder: Decoder) -> None:
        kept, self._kept, self._size = b"".join(self._kept), [], 0
        for event in decoder.feed(self._account.skim(kept)):
            self._read_size += len(event.data)
            if self._read_size > READ_LIMIT:
                self._last.append(event)
            else:
                self._account.event(event)


def relay(account: Callable[[Payload], Account], *, overloaded_status: int) -> Intercept:
    """The `intercept` of a protocol that only has an account of its own, and a status for being overloaded."""

    def intercept(payload: Payload, interception_id: str, status: int, event_stream: bool) -> Interceptor:
        return Relay(
            account(payload),
            payload,
            interception_id,
            status=status,
            event_stream=event_stream,
            overloaded_status=overloaded_status,
        )

    return intercept


class Opaque:
    """Relays what cannot be read: an answer in a content encoding that we do not know and did not ask for."""

    def __init__(self, status: int) -> None:
        self._status = status

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def finish(self) -> bytes:
        return b""

    def observe(self) -> Observation:
        note = "the answer came in an unknown content encoding"
        error = ProviderError(note, status=self._status) if self._status >= 400 else None
        return Observation((), finished=True, error=error, notes=(note,))
