"""gunicorn's gthread worker, draining, and with streams that need no thread while they wait (`relay.py`).

What is used and overridden here is private to gunicorn, which is pinned; `tests/serving/` says loudly if an
upgrade changes it.
"""

import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from socket import socket
from typing import Any

from gunicorn.http import wsgi
from gunicorn.workers import gthread

from aibridge.serving.draining import LINGER, Draining
from aibridge.serving.relay import Flow, Relay
from aibridge.serving.response import Response
from aibridge.web.limits import needs_no_thread
from aibridge.web.stream import SOURCE

# Milliseconds that a thread stays with a connection after a response. Proxies send the next request at once, and
# the way back through the main loop costs as much as a request.
NEXT_REQUEST = 5

PARKED = object()  # in the place of gunicorn's "keep the connection alive": it is not known yet


@dataclass(slots=True)
class Answer:
    """A response on its way out, on one thread after another. `connection` is gunicorn's TConn."""

    connection: Any
    request: Any
    environ: dict[str, Any]
    response: Any
    body: Any
    began: datetime
    chunks: Iterator[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.chunks = iter(self.body)

    @property
    def source(self) -> Callable[[], socket | None]:
        return self.environ.get(SOURCE, _no_source)  # type: ignore[no-any-return]


def _no_source() -> None:
    return None


class ThreadWorker(Draining, gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A request begins on a thread of the pool. Its answer leaves it when it only waits for its provider, and ends
    on a thread of a second pool, so that no number of ending streams keeps the first from what is new."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._relay: Relay | None = None
        self._resuming: ThreadPoolExecutor

    def run(self) -> None:
        self._resuming = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="resumed")
        gateway = self.gateway
        if gateway is not None and gateway.settings.server.relay and not self.cfg.is_ssl:
            self._relay = Relay(gateway.settings.server.moment, lambda: gateway.drain.over)
            self._relay.start()
        super().run()
        self._resuming.shutdown(wait=False)

    # --- a request -----------------------------------------------------------------------------------------------

    def handle(self, conn: Any) -> object:
        """A request on a connection, and the next ones if they follow at once."""
        result: object = super().handle(conn)
        while result is True and self._more_follows(conn):
            result = super().handle(conn)
        return result

    def _more_follows(self, conn: Any) -> bool:
        if not self.alive or self.draining or not self.tpool._work_queue.empty():
            return False
        if conn.parser.unreader.buf.tell():
            return True
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(NEXT_REQUEST))

    def handle_request(self, req: Any, conn: Any) -> object:
        """gunicorn's, but for the answers that are parked."""
        response: Any = None
        try:
            self.cfg.pre_request(self, req)
            began = datetime.now()
            response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, Response)
            environ["wsgi.multithread"] = True
            self._count_request(response)
            answer = Answer(conn, req, environ, response, self.wsgi(environ, response.start_response), began)
            return self._carried(answer)
        except OSError:
            raise
        except (Exception, SystemExit):
            if response is not None and response.headers_sent:
                self.log.exception("Error handling request")
                raise StopIteration from None  # what was sent cannot be taken back; gunicorn closes the connection
            raise

    def _count_request(self, response: Any) -> None:
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        if not self.alive or not self.cfg.keepalive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()

    def _carried(self, answer: Answer) -> object:
        """Send what comes until the answer ends, and then whether the connection can be kept alive; or park it."""
        parked = False
        try:
            for chunk in answer.chunks:
                answer.response.write(chunk)
                if self._relay is not None and answer.source() is not None:
                    parked = True
                    self._park(self._relay, answer)
                    return PARKED
            answer.response.close()
            return not answer.response.should_close()
        finally:
            if not parked:
                self._ended(answer)

    def _ended(self, answer: Answer) -> None:
        try:
            self.log.access(answer.response, answer.request, answer.environ, datetime.now() - answer.began)
            if hasattr(answer.body, "close"):
                answer.body.close()
        finally:
            self.cfg.post_request(self, answer.request, answer.environ, answer.response)

    # --- a stream that waits -------------------------------------------------------------------------------------

    def _park(self, relay: Relay, answer: Answer) -> None:
        """From here on the answer is not this thread's any more."""
        needs_no_thread(answer.environ)
        resume = partial(self._resume, answer)
        relay.park(Flow(answer.chunks, answer.source, answer.connection.sock, answer.response.framed, resume))

    def _resume(self, answer: Answer, flow: Flow) -> None:
        connection = answer.connection
        future = self._resuming.submit(self._continued, answer, flow)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, connection, done))

    def _continued(self, answer: Answer, flow: Flow) -> object:
        """As `handle`: whether the connection can be kept alive, or PARKED."""
        try:
            if flow.gone or flow.failure:
                self._ended(answer)
                return False
            answer.connection.sock.sendall(flow.unsent)
            return self._keepalive_after(answer.connection, self._carried(answer))
        except OSError as error:  # the client left, or the answer was cut
            self.log.debug("Ignoring %r", error)
        except Exception:
            self.log.exception("Error handling request")
        return False

    def _keepalive_after(self, conn: Any, keepalive: object) -> object:
        return keepalive if keepalive is PARKED else super()._keepalive_after(conn, keepalive)

    def finish_request(self, conn: Any, fs: "Future[object]") -> None:
        if fs.cancelled() or fs.exception() is not None or fs.result() is not PARKED:
            super().finish_request(conn, fs)

    # --- the end -------------------------------------------------------------------------------------------------

    def running(self) -> int:
        return int(self.nr_conns - len(self.keepalived_conns) - len(self.pending_conns))

    def linger(self) -> None:
        self.set_accept_enabled(True)
        self._cap_keepalive(time.monotonic() + LINGER)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        if self.alive:
            self.method_queue.defer(self.notify)  # the main loop goes on at once

    def handle_quit(self, sig: int, frame: Any) -> None:
        super().handle_quit(sig, frame)
        self.method_queue.defer(self.notify)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Whether there is room for more, as far as gunicorn is concerned."""
        super().set_accept_enabled(enabled and self.takes_connections)
