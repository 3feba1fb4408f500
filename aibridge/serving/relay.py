"""The one thread of a worker process that carries the streams which only wait for their providers.

A stream spends nearly all of its life waiting for the next event. Here that costs two entries in an epoll set
instead of a thread: the answer is iterated (`web/stream.py`) when its provider's socket has something to read, and
what comes out is sent on. Everything that an answer does, it does in that iteration, as under any other server.

States of a flow:

- waiting: both sockets are watched. When the provider's is readable, or a moment has passed without that, the
  answer is stepped once: it reads what is there, or learns that a moment has passed.
- held up: the client has not taken all of the last step. Only the client's socket is watched until it has; the
  provider has to wait (back-pressure).
- let go: it is not here any more; `resume` has it, and continues it on a thread.

Rules:

- No step waits. An answer that names no socket as its source (it has ended or failed, its tools are run, its
  records are committed) is let go before its next step.
- A client that hangs up is noticed at once, and the flow is let go to be closed.
- Only this thread touches a flow from `park` until it is let go.
"""

import os
import select
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from socket import socket
from threading import Thread

import structlog

MOST_EVENTS = 512  # of one look at the sockets

_HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

_log = structlog.get_logger("aibridge.relay")


@dataclass(slots=True, eq=False)
class Flow:
    """An answer on its way to a client.

    `answer` is iterated, `source` tells on which socket it waits, if on any. `frame` puts bytes into the
    response's transfer coding. `resume` continues the flow elsewhere: all has been sent then, unless the client
    has hung up (`gone`) or the last step has raised (`failure`). If it raises, the flow may still be continued: no
    second attempt is made.
    """

    answer: Iterator[bytes]
    source: Callable[[], socket | None]
    client: socket
    frame: Callable[[bytes], bytes]
    resume: Callable[["Flow"], object]
    unsent: bytes | memoryview = b""
    gone: bool = False
    failure: Exception | None = None
    provider: socket | None = field(default=None, init=False)  # the source, while it is watched
    patience: float | None = field(default=None, init=False)  # that socket's time limit on a thread
    descriptors: tuple[int, int] = field(default=(-1, -1), init=False)  # of the provider and of the client
    stepped: float = field(default=0.0, init=False)


class Relay:
    """`moment`: seconds of silence after which an answer is stepped. `over` tells whether the time of all streams
    is up: then those whose clients do not read are let go as if these had left."""

    def __init__(self, moment: float, over: Callable[[], bool]) -> None:
        self._moment = moment
        self._over = over
        self._parked: deque[Flow] = deque()
        self._flows: dict[int, Flow] = {}  # by the descriptors that are watched
        self._order: OrderedDict[Flow, None] = OrderedDict()  # whose last step is longest ago comes first
        self._sockets = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._sockets.register(self._bell, select.EPOLLIN)

    def start(self) -> None:
        Thread(target=self._run, name="relay", daemon=True).start()

    def park(self, flow: Flow) -> None:
        """Take over a flow whose source is a socket. From any thread."""
        self._parked.append(flow)
        os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while True:
            for descriptor, events in self._sockets.poll(self._patience(), MOST_EVENTS):
                if descriptor == self._bell:
                    os.eventfd_read(self._bell)
                    continue
                flow = self._flows.get(descriptor)
                if flow is None:
                    continue  # it is the other socket of a flow that was let go just now
                try:
                    self._happened(flow, descriptor, events)
                except Exception as error:
                    self._failed(flow, error)
            # Not earlier: a newcomer's descriptor may have the number of one that was closed meanwhile.
            self._take_in()
            self._look_at_the_silent()

    def _patience(self) -> float | None:
        """Seconds until a flow has been silent for a moment; None if there is no flow."""
        for flow in self._order:
            return max(0.0, flow.stepped + self._moment - time.monotonic())
        return None

    def _happened(self, flow: Flow, descriptor: int, events: int) -> None:
        if descriptor == flow.descriptors[0]:
            self._step(flow)
        elif events & _HUNG_UP:
            self._let_go(flow, gone=True)
        else:
            self._send(flow)

    def _step(self, flow: Flow) -> None:
        flow.stepped = time.monotonic()
        self._order.move_to_end(flow)
        data = next(flow.answer)
        if data:
            flow.unsent = memoryview(flow.frame(data))
            self._send(flow)
        elif flow.source() is not flow.provider:
            self._let_go(flow)

    def _send(self, flow: Flow) -> None:
        """Send what is unsent, as far as the client takes it."""
        was_held_up = flow.descriptors[0] not in self._flows
        try:
            flow.unsent = flow.unsent[flow.client.send(flow.unsent) :] or b""  # what is sent is not kept
        except BlockingIOError:
            pass
        except OSError:
            self._let_go(flow, gone=True)
            return
        if flow.unsent:
            if not was_held_up:
                self._hold_up(flow)
        elif flow.source() is not flow.provider:
            self._let_go(flow)
        elif was_held_up:
            self._watch(flow)

    def _hold_up(self, flow: Flow) -> None:
        provider, client = flow.descriptors
        self._forget(provider)
        self._sockets.modify(client, select.EPOLLOUT | select.EPOLLRDHUP)

    def _watch(self, flow: Flow) -> None:
        provider, client = flow.descriptors
        self._sockets.modify(client, select.EPOLLRDHUP)
        self._sockets.register(provider, select.EPOLLIN)
        self._flows[provider] = flow

    def _take_in(self) -> None:
        while self._parked:
            flow = self._parked.popleft()
            try:
                self._begin(flow)
            except Exception as error:
                self._failed(flow, error)

    def _begin(self, flow: Flow) -> None:
        provider = flow.provider = flow.source()
        assert provider is not None
        flow.patience = provider.gettimeout()
        flow.descriptors = provider.fileno(), flow.client.fileno()
        flow.stepped = time.monotonic()
        provider.setblocking(False)
        flow.client.setblocking(False)
        self._order[flow] = None
        self._flows[flow.descriptors[1]] = flow
        self._sockets.register(flow.client, 0)
        self._watch(flow)

    def _look_at_the_silent(self) -> None:
        latest = time.monotonic() - self._moment
        while self._order:
            flow = next(iter(self._order))
            if flow.stepped > latest:
                return
            try:
                if not flow.unsent:
                    self._step(flow)
                elif self._over():
                    self._let_go(flow, gone=True)
                else:
                    flow.stepped = time.monotonic()
                    self._order.move_to_end(flow)
            except Exception as error:
                self._failed(flow, error)

    def _failed(self, flow: Flow, error: Exception) -> None:
        """A step is not to raise anything, nor is what is done here: this is a bug of ours, or of the kernel's."""
        _log.error("a stream cannot be carried on", exc_info=error)
        flow.failure = error
        self._let_go(flow)

    def _let_go(self, flow: Flow, *, gone: bool = False) -> None:
        for descriptor in flow.descriptors:
            self._forget(descriptor)
        self._order.pop(flow, None)
        flow.gone = gone
        with suppress(OSError):  # closed, when the answer was over
            if flow.provider is not None:
                flow.provider.settimeout(flow.patience)
        with suppress(OSError):
            flow.client.setblocking(True)
        flow.provider = None
        try:
            flow.resume(flow)
        except Exception:
            _log.exception("a stream may be late")

    def _forget(self, descriptor: int) -> None:
        if self._flows.pop(descriptor, None) is not None:
            with suppress(OSError):  # closed, and so forgotten already
                self._sockets.unregister(descriptor)
