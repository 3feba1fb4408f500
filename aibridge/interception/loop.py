"""Running one interception: rounds of asking the provider, until there is nothing more to ask."""

from collections.abc import Generator
from contextlib import closing
from typing import Protocol

from aibridge.protocols.interceptor import Interceptor, Observation, Observer
from aibridge.upstream.call import IDLE, UpstreamResponse


class Rounds(Observer, Protocol):
    """What is driven: the provider's answer, round by round. `response` is the current round's."""

    @property
    def response(self) -> UpstreamResponse: ...

    @property
    def streamed(self) -> bool:
        """Whether the client gets a stream of events."""

    @property
    def must_speak(self) -> bool:
        """Whether a stream has to begin although the provider has given nothing to show yet."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what the provider sent; return what the client gets of it now."""

    def another(self) -> Generator[bytes, None, bool]:
        """The round is over: do what it asks for and begin the next one, yielding IDLE meanwhile. Whether there is
        one."""

    def finish(self) -> bytes:
        """There is none: what was held back and still belongs to the answer."""


class SingleRound:
    """The rounds of a request without tools: there is one, and nothing in it is ours."""

    must_speak = False

    def __init__(self, response: UpstreamResponse, interceptor: Interceptor, *, streamed: bool) -> None:
        self.response = response
        self.streamed = streamed
        self.feed = interceptor.feed  # called for every chunk
        self._interceptor = interceptor

    def another(self) -> Generator[bytes, None, bool]:
        yield from ()
        return False

    def finish(self) -> bytes:
        return self._interceptor.finish()

    def observe(self) -> Observation:
        return self._interceptor.observe()


def intercept(rounds: Rounds) -> Generator[bytes]:
    """What the client gets, as it comes, and IDLE in silent moments. Raises what reading a body raises,
    GatewayError for what goes wrong between the rounds, and ClientGone."""
    another = True
    while another:
        with closing(rounds.response.body) as body:
            for chunk in body:
                yield rounds.feed(chunk) if chunk else IDLE
        another = yield from rounds.another()
    yield rounds.finish()
