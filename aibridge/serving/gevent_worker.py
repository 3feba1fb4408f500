"""gunicorn's gevent worker, draining, and not held by connections on which nothing happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.workers import ggevent

from aibridge.serving.draining import LINGER, Draining
from aibridge.serving.memory import Trimming
from aibridge.serving.response import Response

wsgi.Response = Response  # the base class takes it from there


class GeventWorker(Draining, Trimming, ggevent.GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own waits for every open connection, so a client that keeps one alive holds the stop until
    graceful_timeout. This one closes what only waits for a next request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._servers: list[StreamServer] = []
        self._waiting: set[gevent.Greenlet[..., Any]] = set()
        self._lingering = False

    def server_class(self, listener: Any, *, spawn: Any, **_: Any) -> StreamServer:
        """What gunicorn makes of each listening socket; here, too, but they are known to us."""
        server = StreamServer(listener, handle=partial(self.handle, listener), spawn=spawn)
        if self.cfg.workers > 1:
            server.max_accept = 1
        self._servers.append(server)
        return server

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Around every wait for a request: gunicorn's own time limit, and the waiting greenlet is known."""
        waiting = gevent.getcurrent()
        assert isinstance(waiting, gevent.Greenlet)
        self._waiting.add(waiting)
        try:
            # Told to stop, it only gives a client that was promised more the time to say so.
            seconds = min(self.cfg.keepalive, LINGER) if self.draining else self.cfg.keepalive
            with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # False: end the block silently
                yield
        finally:
            self._waiting.discard(waiting)

    def running(self) -> int:
        return sum(len(server.pool or ()) for server in self._servers) - len(self._waiting)

    def linger(self) -> None:
        if not self.takes_connections:
            for server in self._servers:
                server.stop_accepting()
        elif self.alive:
            for server in self._servers:
                server.start_accepting()
        if not self._lingering:
            self._lingering = True
            gevent.spawn_later(LINGER, self._close_idle)

    def stop_listening(self) -> None:
        for server in self._servers:
            server.close()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        gevent.spawn(self.notify)  # a signal handler must not wait

    def _close_idle(self) -> None:
        for waiting in list(self._waiting):
            # As if the client had hung up: gunicorn closes the connection and answers nothing.
            waiting.kill(NoMoreData, block=False)
