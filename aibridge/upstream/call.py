"""One call to a provider, as everything between the front door and the SDKs sees it.

An `Upstream` is a function; policies (key pool, retry, breaker, translation) are functions around it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from socket import socket
from typing import Protocol

from aibridge.errors import UpstreamError

# What a body yields when a moment has passed without a byte, so that whoever reads it can send a ping or
# notice that the client has gone. It is never part of an answer: feeding it on changes nothing.
IDLE = b""

Headers = tuple[tuple[str, str], ...]

# Of an answer that nobody will get, so many bytes are read on, so that its connection can be used again.
DRAINED_BYTES = 65536


def header(headers: Headers, name: str) -> str:
    """The first value of a header, "" if there is none."""
    return next((value for key, value in headers if key == name), "")


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What to send. `headers` hold the authentication, so they stay out of every repr.

    `path` is below the provider's base URL and carries the client's query string. `abandoned` tells whether
    the answer is still wanted; it is asked about once a moment while the provider is silent. With `central` the
    provider's own key pays, and the key pool decides which; `attempted` is told of every time that the provider is
    really asked, with the hint of the key that the pool chose, if it did.
    """

    path: str
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    model: str = ""
    streaming: bool = False
    central: bool = False
    abandoned: Callable[[], bool] = field(default=lambda: False, repr=False)
    attempted: Callable[[str | None], None] = field(default=lambda hint: None, repr=False)


class UpstreamBody(Protocol):
    """Bytes as they arrive, IDLE in every silent moment.

    Iterating raises UpstreamError when the provider dies and UpstreamTimeout when it is silent for too long.
    """

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Release the connection; closes it if the answer has not been read to its end. Idempotent."""

    @property
    def source(self) -> socket | None:
        """The socket that the next bytes come from, if there is one and they are not here yet. As long as there
        is, the next step of the iteration only reads from it, and yields IDLE instead of waiting if the socket
        does not block; the iteration does not end in the step that reads the last."""
        return None


class WholeBody(UpstreamBody):
    """A body that is here already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        return iter((self._content,))

    def close(self) -> None:
        """There is nothing to release."""


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """The provider's answer once its status and headers are known; header names are in lower case."""

    status: int
    headers: Headers
    body: UpstreamBody = field(repr=False)

    def header(self, name: str) -> str:
        return header(self.headers, name)

    @property
    def is_event_stream(self) -> bool:
        return self.header("content-type").partition(";")[0].strip().lower() == "text/event-stream"


class Upstream(Protocol):
    def __call__(self, request: UpstreamRequest, /) -> UpstreamResponse:
        """Answers of any status are returned. Raises UpstreamError, UpstreamTimeout, or ClientGone."""


def discard(headers: Headers, body: UpstreamBody) -> None:
    """Let go of an answer that nobody will get. A small one is read to its end, which keeps its connection."""
    length = header(headers, "content-length")
    try:
        if length.isdecimal() and int(length) <= DRAINED_BYTES:
            for _ in body:
                pass
    except UpstreamError:
        pass  # it had nothing more to tell
    finally:
        body.close()
