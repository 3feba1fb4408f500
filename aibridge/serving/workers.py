"""gunicorn's gevent worker, stopping without waiting for connections on which nothing happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gunicorn.http.errors import NoMoreData
from gunicorn.workers import ggevent

STOP_LINGER = 1.0  # seconds


class GeventWorker(ggevent.GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own waits for every open connection, so a client that keeps one alive holds the stop until
    graceful_timeout. This one closes what only waits for a next request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: set[gevent.Greenlet[..., Any]] = set()

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around every wait for a request: gunicorn's own time limit, and the waiting greenlet is known."""
        waiting = gevent.getcurrent()
        assert isinstance(waiting, gevent.Greenlet)
        self._waiting.add(waiting)
        try:
            # Told to stop, it only gives a client that was promised more the time to say so.
            seconds = self.cfg.keepalive if self.alive else STOP_LINGER
            with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # False: end the block silently
                yield
        finally:
            self._waiting.discard(waiting)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        gevent.spawn(self._close_idle)

    def _close_idle(self) -> None:
        for waiting in list(self._waiting):
            # As if the client had hung up: gunicorn closes the connection and answers nothing.
            waiting.kill(NoMoreData, block=False)
