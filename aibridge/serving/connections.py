"""What gunicorn's gthread worker does with connections on which no request is being answered.

Its own ways cost threads, or the one loop that accepts connections and starts requests:

- a new connection waits for its first bytes on a thread, for 5 s; here it waits in the loop's poller
- the head of a request is waited for without end; here for HEAD_TIMEOUT
- what a refused client still uploads is read away on a thread, for 5 s; here for a moment
- a connection that is closed is waited for, so that the client gets the last bytes: up to 2 s for each, one after
  the other, in the loop itself, during which the worker is deaf; here in its poller, all at once
- a connection that cannot be accepted because the process has too many files open ends the loop; here it waits
"""

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from selectors import EVENT_READ, BaseSelector
from threading import get_ident
from typing import Any

from gunicorn import util

from aibridge.serving.threads import Threads

HEAD_TIMEOUT = 5.0  # seconds from the first byte of a request to the end of its head
UPLOAD_MOMENT = 0.1  # seconds in which the rest of a refused upload may come, to keep its connection
LINGER = 2.0  # seconds that a client gets to close after us
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 0.5  # seconds without accepting when one of these is in short supply
# Milliseconds that a thread stays with a connection after a response. Proxies send the next request at once, and
# the way back through the main loop costs as much as a request.
NEXT_REQUEST = 5


class Lingering:
    """Connections that are over on our side. What still comes is read away: the kernel would answer it with a
    reset, and so take back the end of our answer. Used by the loop's thread only."""

    def __init__(self, poller: BaseSelector, gone: Callable[[], None]) -> None:
        self._poller = poller
        self._gone = gone
        self._until: dict[socket.socket, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, sock: socket.socket) -> None:
        """`gone` is called once for each, when it is closed."""
        self._until[sock] = time.monotonic() + LINGER
        try:
            sock.setblocking(False)
            sock.shutdown(socket.SHUT_WR)
            self._poller.register(sock, EVENT_READ, self._read)
        except (OSError, ValueError, KeyError):
            self._close(sock)

    def expire(self) -> None:
        now = time.monotonic()
        for sock in [sock for sock, until in self._until.items() if until <= now]:
            self._close(sock)

    def _read(self, sock: socket.socket) -> None:
        try:
            over = not sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        del self._until[sock]
        with suppress(OSError, ValueError, KeyError):
            self._poller.unregister(sock)
        util.close(sock)
        self._gone()


class Connections:
    """To be mixed in before gunicorn's gthread worker. What it changes there is not public: gunicorn is pinned."""

    alive: bool
    cfg: Any
    log: Any
    nr_conns: int
    pending_conns: Any
    poller: BaseSelector
    tpool: Threads

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._heads: dict[Any, float] = {}  # connections whose next request is being read, and until when
        self._held: dict[int, Any] = {}  # connections that a thread has, by the thread
        self._accepting_from = 0.0

    def get_thread_pool(self) -> Threads:
        return Threads(self.cfg.threads, "request")

    def run(self) -> None:
        self.lingering = Lingering(self.poller, self._closed)
        super().run()  # type: ignore[misc]  # gunicorn's

    def accept(self, listener: Any) -> None:
        try:
            super().accept(listener)  # type: ignore[misc]  # gunicorn's
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            self.log.error("a connection cannot be accepted: %s", error.strerror)
            self._accepting_from = time.monotonic() + PAUSE
            self.set_accept_enabled(False)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Called in every round of the loop as long as it makes a difference."""
        super().set_accept_enabled(enabled and time.monotonic() >= self._accepting_from)  # type: ignore[misc]

    def enqueue_req(self, conn: Any) -> None:
        """A connection on which something is to be read, or a new one."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)  # type: ignore[misc]  # gunicorn's
            return
        conn.close = partial(self._close, conn)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        readable: Any = self.on_pending_socket_readable  # type: ignore[attr-defined]  # gunicorn's
        self.poller.register(conn.sock, EVENT_READ, partial(readable, conn))

    def handle(self, conn: Any) -> object:
        """A request on a connection, and the next ones if they follow at once."""
        return self.and_the_next(conn, self._handled(conn))

    def and_the_next(self, conn: Any, result: object) -> object:
        """After a request that ended with `result`: what gunicorn's `handle` returned, for the last of them."""
        while result is True and self._more_follows(conn):
            result = self._handled(conn)
        return result

    def _more_follows(self, conn: Any) -> bool:
        draining = self.draining  # type: ignore[attr-defined]  # of the class that this is mixed into
        wanted = self.tpool.waiting or self.ends_wait  # type: ignore[attr-defined]  # Parking's
        if not self.alive or draining or wanted:
            return False
        if conn.parser.unreader.buf.tell():
            return True
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(NEXT_REQUEST))

    def _handled(self, conn: Any) -> object:
        self._heads[conn] = time.monotonic() + HEAD_TIMEOUT
        try:
            with self.held(conn):
                handled: object = super().handle(conn)  # type: ignore[misc]  # gunicorn's
                return handled
        finally:
            self._heads.pop(conn, None)

    @contextmanager
    def held(self, conn: Any) -> Iterator[None]:
        """By this thread, which may wait for its client."""
        self._held[get_ident()] = conn
        try:
            yield
        finally:
            del self._held[get_ident()]

    def handle_request(self, req: Any, conn: Any) -> Any:
        self._heads.pop(conn, None)
        return super().handle_request(req, conn)  # type: ignore[misc]  # gunicorn's

    def murder_pending(self) -> None:
        """Called in every round of the loop, at least once a second."""
        now = time.monotonic()
        if not self.alive:
            self.cap_pending(now + LINGER)
        super().murder_pending()  # type: ignore[misc]  # gunicorn's
        for conn in [conn for conn, until in list(self._heads.items()) if until <= now]:
            _hang_up(conn, socket.SHUT_RD)
        self.lingering.expire()

    def cap_pending(self, deadline: float) -> None:
        """Close connections that never brought a byte, by then."""
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def hang_up(self) -> None:
        """On all clients whose requests are under way; threads that wait for one of them go on."""
        for conn in list(self._held.values()):
            _hang_up(conn, socket.SHUT_RDWR)

    def _keepalive_after(self, conn: Any, keepalive: object) -> object:
        if keepalive is not True:  # it may be unknown yet
            return keepalive
        return bool(conn.parser.finish_body(deadline=time.monotonic() + UPLOAD_MOMENT))

    def _close(self, conn: Any, graceful: bool = False) -> None:
        """Instead of the connection's own `close`. gunicorn has counted it off before this."""
        if not graceful:
            util.close(conn.sock)
            return
        self.nr_conns += 1
        self.lingering.add(conn.sock)

    def _closed(self) -> None:
        self.nr_conns -= 1


def _hang_up(conn: Any, how: int) -> None:
    """Whoever waits for the client finds that it has left."""
    with suppress(OSError):
        conn.sock.shutdown(how)
