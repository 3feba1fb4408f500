"""Where requests get their place and where they give it back, whatever becomes of them.

`interception/admission.py` counts. Every route that reaches a provider asks for a place, first of all; the health
routes never do.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Flask

from aibridge.interception.admission import Place
from aibridge.interception.gateway import Gateway
from aibridge.interception.model import Actor

_PLACE = "aibridge.place"
TAIL = 16384  # bytes that a connection takes at once unless its client reads nothing

Environ = dict[str, Any]


def admit(gateway: Gateway, environ: Environ) -> None:
    """Give the request a place, before anything of its body is read. Raises Unavailable."""
    environ[_PLACE] = gateway.admission.enter()


def claim(environ: Environ, actor: Actor) -> None:
    """The place is this actor's. Raises RateLimited."""
    environ[_PLACE].claim(actor.id)


def needs_no_thread(environ: Environ) -> None:
    """The request's answer goes on without a thread: another request may have it."""
    environ[_PLACE].rest()


def give_places_back(app: Flask) -> None:
    """Around the whole application, so that nothing that fails on the way keeps a place."""
    serve = app.wsgi_app

    def serving(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        length: int | None = None

        def started(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            nonlocal length
            lengths = (value for name, value in headers if name.lower() == "content-length")
            length = next((int(value) for value in lengths if value.isdecimal()), None)
            return start_response(status, headers, *error)

        try:
            answer = serve(environ, started)
        except BaseException:
            _leave(environ)
            raise
        place = environ.get(_PLACE)
        return answer if place is None else _Answer(answer, place, length)

    app.wsgi_app = serving  # type: ignore[method-assign]


def _leave(environ: Environ) -> None:
    place = environ.get(_PLACE)
    if place is not None:
        place.leave()


class _Answer:
    """An answer as the WSGI server iterates it. The place is free just before the client has all of the answer,
    so that its next request finds it; at the latest when the server closes the answer, which it does however it
    ends."""

    def __init__(self, answer: Iterable[bytes], place: Place, length: int | None) -> None:
        self._answer = answer
        self._place = place
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        if self._length is None:
            yield from self._answer
        else:
            yield from self._measured(self._length)
        self._place.leave()

    def _measured(self, left: int) -> Iterator[bytes]:
        """Nothing tells the client of the end but the number of bytes, so the last few wait for the place."""
        for chunk in self._answer:
            left -= len(chunk)
            if left > 0:
                yield chunk
                continue
            if len(chunk) > TAIL:
                yield chunk[:-TAIL]
            self._place.leave()
            yield chunk[-TAIL:]

    def close(self) -> None:
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            self._place.leave()
