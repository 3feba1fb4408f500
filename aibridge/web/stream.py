"""The answer to a streamed request, as the WSGI server iterates it.

Bytes go out as they come. In silence the client's presence is checked and, between two events only, a ping
is sent when one is due; otherwise a silent moment is an empty chunk, which WSGI servers pass over. The end is
held until the records are durable. An answer that did not reach its end gets an error event and is cut: the
connection closes without the final chunk, because several SDKs take a clean end for a whole answer.
"""

import errno
import time
from collections.abc import Callable, Generator, Iterator

import structlog

from aibridge.errors import ClientGone, GatewayError, InternalError, UpstreamError
from aibridge.interception.exchange import Exchange
from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.sse import Border, has_event
from aibridge.upstream.call import IDLE

OPENING_LIMIT = 65536

# In the WSGI environ: tells on which socket the answer waits now, if it waits for nothing else, so that a server
# which watches many sockets can iterate it when there is something to read (`upstream.call.UpstreamBody.source`).
SOURCE = "aibridge.source"

_log = structlog.get_logger("aibridge.stream")


class StreamCut(ConnectionResetError):
    """Makes the server drop the connection. It takes this for a connection that broke, so it logs no error."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the answer was cut")


def opening(
    chunks: Iterator[bytes], gone: Callable[[], bool], patience: float, words: Callable[[], bytes]
) -> bytes:
    """The first bytes, from which on the answer is a 200 for good.

    A stream that holds no event at all is an error, so comments alone wait for an event, though not longer than
    `patience` seconds; as long as there is nothing else, `words` tells what the gateway has to say after that
    time, if anything. Raises UpstreamError (also if the stream ends like that) and ClientGone.
    """
    held, since = b"", time.monotonic()
    for chunk in chunks:
        if not chunk and gone():
            raise ClientGone
        if chunk and not held:
            since = time.monotonic()
        held += chunk
        late = time.monotonic() - since > patience or len(held) > OPENING_LIMIT
        if has_event(held) or (late and (held or words())):
            return held or words()
    raise UpstreamError("the provider's stream ended without a single event")


class AnswerStream:
    """The rest of a stream whose `first` bytes are known. `close` is the server's duty, however it ends.

    `relaying`: whether the next step may still be the provider's; afterwards it waits for the records.
    """

    def __init__(
        self,
        exchange: Exchange,
        first: bytes,
        chunks: Generator[bytes] | Iterator[bytes],
        protocol: WireProtocol,
        *,
        gone: Callable[[], bool],
        ping_interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = exchange
        self._first = first
        self._chunks = chunks
        self._protocol = protocol
        self._gone = gone
        self._ping_interval = ping_interval
        self._clock = clock
        self._border = Border()
        self.relaying = True

    def __iter__(self) -> Iterator[bytes]:
        failure: GatewayError | None = None
        gone = False
        try:
            yield from self._relayed()
        except ClientGone:
            gone = True
        except GatewayError as error:
            failure = error
        except Exception:
            _log.exception("a bug of the gateway", interception_id=self._exchange.id)
            failure = InternalError("the gateway failed")
        self.relaying = False
        yield IDLE  # what follows waits for the records, and whoever only carries bytes may give it to another
        if gone:
            self.close()
            raise StreamCut
        verdict = self._exchange.settle(200, failure=failure, sent=True)
        if verdict.failure is not None:
            yield self._last_words(verdict.failure)
            raise StreamCut

    def close(self) -> None:
        """End the interception as cancelled unless it has ended already, and let the provider go."""
        if isinstance(self._chunks, Generator):
            self._chunks.close()
        if not self._exchange.settled:
            self._exchange.settle(200, cancelled=True, sent=True)

    def _relayed(self) -> Iterator[bytes]:
        self._border.sent(self._first)
        written = self._clock()
        yield self._first
        for chunk in self._chunks:
            if chunk:
                self._border.sent(chunk)
                written = self._clock()
                yield chunk
            elif self._gone():
                raise ClientGone
            elif self._border.reached and self._clock() - written >= self._ping_interval:
                written = self._clock()
                yield self._protocol.ping
            else:
                yield IDLE

    def _last_words(self, failure: GatewayError) -> bytes:
        event = self._protocol.error_event(failure.kind, failure.message, self._exchange.id)
        return self._border.closing() + event
