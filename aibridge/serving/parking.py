"""Answers of gunicorn's gthread worker that need no thread while they wait: the relay carries them (`relay.py`).

What is used and overridden here is private to gunicorn, which is pinned; `tests/serving/` says loudly if an
upgrade changes it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from socket import socket
from typing import Any

from gunicorn.http import wsgi

from aibridge.interception.gateway import Gateway
from aibridge.serving.relay import Flow, Relay
from aibridge.serving.response import Response
from aibridge.serving.threads import Threads
from aibridge.web.limits import needs_no_thread
from aibridge.web.stream import SOURCE

# Steps without a byte, after its provider's last, that show that an answer waits for its tools: ending takes two.
SILENT_STEPS = 3

PARKED = object()  # in the place of gunicorn's "keep the connection alive": it is not known yet


@dataclass(slots=True)
class Answer:
    """A response on its way out, on one thread after another. `connection` is gunicorn's TConn."""

    connection: Any
    request: Any
    environ: dict[str, Any]
    response: Response
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


class Parking:
    """To be mixed in before gunicorn's gthread worker. A request begins on a thread of the pool; its answer leaves
    it when it only waits for its provider, and ends on a thread of a second pool, so that no number of ending
    streams keeps the first from what is new. (That thread also answers what follows at once on the connection,
    unless another stream waits for its end.) If it runs tools instead, it goes on in a third pool, which has a
    thread for everybody: who ends must not wait for them."""

    alive: bool
    cfg: Any
    keepalived_conns: Any
    log: Any
    method_queue: Any
    wsgi: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._relay: Relay | None = None
        self._resuming: Threads
        self._waiting: Threads

    def run(self) -> None:
        gateway: Gateway | None = self.gateway  # type: ignore[attr-defined]  # Draining's
        if gateway is not None and gateway.settings.server.relay and not self.cfg.is_ssl:
            self._resuming = Threads(self.cfg.threads, "resumed")
            self._waiting = Threads(self.cfg.worker_connections, "waiting")
            for pool in (self._resuming, self._waiting):
                pool.submit(bool)  # it has a thread now, even if later no other can be started
            self._relay = Relay(gateway.settings.server.moment, lambda: gateway.drain.over)
            self._relay.start()
        super().run()  # type: ignore[misc]  # gunicorn's

    @property
    def ends_wait(self) -> bool:
        """Whether streams are at their end and find no thread."""
        return self._relay is not None and self._resuming.waiting

    def handle_request(self, req: Any, conn: Any) -> object:
        """gunicorn's, but for the answers that are parked."""
        response: Any = None
        try:
            self.cfg.pre_request(self, req)
            began = datetime.now()
            response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, Response)
            environ["wsgi.multithread"] = True
            self._count_request(response)
            body = self.wsgi(environ, response.start_response)
            return self._carried(Answer(conn, req, environ, response, body, began))
        except OSError:
            raise
        except (Exception, SystemExit):
            if response is not None and response.headers_sent:
                self.log.exception("Error handling request")
                raise StopIteration from None  # what was sent cannot be taken back; gunicorn closes the connection
            raise

    def _count_request(self, response: Response) -> None:
        self.nr: int = self.nr + 1
        if self.nr >= self.max_requests:  # type: ignore[attr-defined]  # gunicorn's
            self.alive = False
        full = len(self.keepalived_conns) >= self.max_keepalived  # type: ignore[attr-defined]  # gunicorn's
        if not self.alive or not self.cfg.keepalive or full:
            response.force_close()

    def _carried(self, answer: Answer, move: Callable[[], object] | None = None) -> object:
        """Send what comes until the answer ends, and then whether the connection can be kept alive; or park it, or
        `move` it to a thread where it may wait."""
        parked = False
        silent = 0
        try:
            for chunk in answer.chunks:
                answer.response.write(chunk)
                silent += not chunk
                if self._relay is not None and answer.source() is not None:
                    parked = True
                    self._park(self._relay, answer)
                    return PARKED
                if move is not None and silent == SILENT_STEPS:
                    move()
                    parked = True
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

    def _park(self, relay: Relay, answer: Answer) -> None:
        """From here on the answer is not this thread's any more."""
        needs_no_thread(answer.environ)
        resume = partial(self._resume, answer)
        relay.park(Flow(answer.chunks, answer.source, answer.connection.sock, answer.response.framed, resume))

    def _resume(self, answer: Answer, flow: Flow) -> None:
        move = partial(self._continue_on, self._waiting, answer, flow, None)
        self._continue_on(self._resuming, answer, flow, move)

    def _continue_on(self, pool: Threads, answer: Answer, flow: Flow, move: Callable[[], object] | None) -> None:
        """As gunicorn's `enqueue_req`."""
        done = pool.submit(self._continued, answer, flow, move)
        done.add_done_callback(partial(self.method_queue.defer, self.finish_request, answer.connection))

    def _continued(self, answer: Answer, flow: Flow, move: Callable[[], object] | None) -> object:
        """As gunicorn's `handle`: whether the connection can be kept alive, or PARKED."""
        try:
            if flow.gone or flow.failure:
                self._ended(answer)
                return False
            with self.held(answer.connection):  # type: ignore[attr-defined]  # Connections'
                carried = self._carried(answer, move)
                result = self._keepalive_after(answer.connection, carried)  # type: ignore[attr-defined]  # gunicorn's
            return self.and_the_next(answer.connection, result)  # type: ignore[attr-defined]  # Connections'
        except OSError as error:  # the client left, or the answer was cut
            self.log.debug("Ignoring %r", error)
        except Exception:
            self.log.exception("Error handling request")
        return False

    def finish_request(self, conn: Any, fs: "Future[object]") -> None:
        if fs.cancelled() or fs.exception() is not None or fs.result() is not PARKED:
            super().finish_request(conn, fs)  # type: ignore[misc]  # gunicorn's
