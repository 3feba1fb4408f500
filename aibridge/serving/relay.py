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
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from socket import socket
from threading import Thread

import structlog

MOST_EVENTS = 512  # of one look at the sockets
LOOKS = 4  # at all flows, for silent ones, in a moment; so a silence is noticed up to a fourth of it late

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
        self._waiting: dict[int, Flow] = {}  # by their providers' descriptors
        self._flows: dict[int, Flow] = {}  # all, by their clients' descriptors
        self._now = time.monotonic()  # of this look at the sockets
        self._look_again = 0.0  # when to look for silent flows
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
            happened = self._sockets.poll(self._patience(), MOST_EVENTS)
            self._now = time.monotonic()
            for descriptor, events in happened:
                flow = self._waiting.get(descriptor)
                if flow is not None:
                    self._attempt(self._step, flow)
                elif (flow := self._flows.get(descriptor)) is not None:
                    self._attempt(self._hung_up if events & _HUNG_UP else self._send, flow)
                elif descriptor == self._bell:
                    os.eventfd_read(self._bell)
                # else it is the other socket of a flow that was let go just now
            # Not earlier: a newcomer's descriptor may have the number of one that was closed meanwhile.
            while self._parked:
                self._attempt(self._begin, self._parked.popleft())
            if self._now >= self._look_again:
                self._look_again = self._now + self._moment / LOOKS
                for flow in list(self._flows.values()):
                    if flow.stepped <= self._now - self._moment:
                        self._attempt(self._silent, flow)

    def _patience(self) -> float | None:
        """Seconds until it is time to look for silent flows; None if there is no flow."""
        return max(0.0, self._look_again - time.monotonic()) if self._flows else None

    def _attempt(self, action: Callable[[Flow], None], flow: Flow) -> None:
        try:
            action(flow)
        except Exception as error:  # none is to raise anything: this is a bug of ours, or of the kernel's
            _log.error("a stream cannot be carried on", exc_info=error)
            flow.failure = error
            self._let_go(flow)

    def _begin(self, flow: Flow) -> None:
        provider = flow.provider = flow.source()
        assert provider is not None
        flow.patience = provider.gettimeout()
        flow.descriptors = provider.fileno(), flow.client.fileno()
        flow.stepped = self._now
        provider.setblocking(False)
        flow.client.setblocking(False)
        self._flows[flow.descriptors[1]] = flow
        self._sockets.register(flow.client, 0)
        self._watch(flow)

    def _watch(self, flow: Flow) -> None:
        provider, client = flow.descriptors
        self._sockets.modify(client, select.EPOLLRDHUP)
        self._sockets.register(provider, select.EPOLLIN)
        self._waiting[provider] = flow

    def _step(self, flow: Flow) -> None:
        flow.stepped = self._now
        data = next(flow.answer)
        if data:
            flow.unsent = flow.frame(data)
            self._send(flow)
        elif flow.source() is not flow.provider:
            self._let_go(flow)

    def _send(self, flow: Flow) -> None:
        """Send what is unsent, as far as the client takes it."""
        try:
            sent = flow.client.send(flow.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._hung_up(flow)
            return
        held_up = flow.descriptors[0] not in self._waiting
        if sent < len(flow.unsent):
            flow.unsent = memoryview(flow.unsent)[sent:]
            if not held_up:
                self._hold_up(flow)
            return
        flow.unsent = b""  # what is sent is not kept
        if flow.source() is not flow.provider:
            self._let_go(flow)
        elif held_up:
            self._watch(flow)

    def _hold_up(self, flow: Flow) -> None:
        provider, client = flow.descriptors
        self._forget(self._waiting, provider)
        self._sockets.modify(client, select.EPOLLOUT | select.EPOLLRDHUP)

    def _silent(self, flow: Flow) -> None:
        if not flow.unsent:
            self._step(flow)
        elif self._over():
            self._hung_up(flow)
        else:
            flow.stepped = self._now

    def _hung_up(self, flow: Flow) -> None:
        flow.gone = True
        self._let_go(flow)

    def _let_go(self, flow: Flow) -> None:
        provider, client = flow.descriptors
        self._forget(self._waiting, provider)
        self._forget(self._flows, client)
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

    def _forget(self, watched: dict[int, Flow], descriptor: int) -> None:
        if watched.pop(descriptor, None) is not None:
            with suppress(OSError):  # closed, and so forgotten already
                self._sockets.unregister(descriptor)
