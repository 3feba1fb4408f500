"""What both worker classes do when they are told to stop: let what runs finish, up to server.drain_timeout.

gunicorn's own way to stop is left for the end: until nothing runs any more the worker stays alive in gunicorn's
eyes. Meanwhile connections are closed after their next answer; new ones are taken, and refused by the application,
if everything stops, and left to the successors if there are any (`stopping.py`). At the deadline the application
ends the streams by itself (`interception/drain.py`).

A worker whose master was killed drains as well. gunicorn's own gthread worker would keep the address for as long,
so that nobody could start anew, and its gevent worker would cut all streams.
"""

import os
from typing import Any

from aibridge.app import gateway_of
from aibridge.interception.gateway import Gateway
from aibridge.serving.stopping import everything_stops

LINGER = 2.0  # seconds in which a client may still use a connection that it was promised
LAST_WORDS = 12.0  # seconds after the deadline for error events and records; COMMIT_TIMEOUT and two moments
HANG_UP = LAST_WORDS - 1.0  # then a client that does not even read is left, and what it used is recorded
QUICK = 2.0  # seconds that streams get when the stop is to be quick (SIGINT, SIGQUIT)
# Seconds after the drain timeout in which a worker is surely gone: LAST_WORDS, LINGER, its exit.
MARGIN = 20.0


class Draining:
    """To be mixed in before a gunicorn worker class, which has `running`, `linger` and `stop_listening`."""

    alive: bool
    app: Any
    cfg: Any
    ppid: int
    orphaned = False

    def running(self) -> int:
        """How many requests are under way, at most; connections on which nothing happens are none."""
        raise NotImplementedError

    def linger(self) -> None:
        """Close idle connections, in LINGER seconds; called again and again while the worker drains."""
        raise NotImplementedError

    def stop_listening(self) -> None:
        """Give the listening sockets up for good."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """On clients whose requests are under way, where that helps what waits for them to end."""

    @property
    def gateway(self) -> Gateway | None:
        """None as long as the application is not loaded."""
        app = getattr(self.app, "callable", None)
        return gateway_of(app) if app is not None else None

    @property
    def draining(self) -> bool:
        return self.gateway is not None and self.gateway.drain.began

    @property
    def takes_connections(self) -> bool:
        return not self.orphaned and (not self.draining or everything_stops())

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM. It comes more than once: from the master, and from whoever signals all processes."""
        if self.gateway is None:
            super().handle_exit(sig, frame)  # type: ignore[misc]  # gunicorn's
        else:
            self._begin(self.gateway.settings.server.drain_timeout)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGINT and SIGQUIT. gunicorn's own handler of threads shuts their pool down right here, and waits for
        ever if the signal came while the main loop, with the pool's lock in its hands, was giving it a request."""
        if self.gateway is None:
            super().handle_quit(sig, frame)  # type: ignore[misc]  # gunicorn's
        else:
            self._begin(QUICK)

    def notify(self) -> None:
        """gunicorn's worker says that it lives, about once a second."""
        if self.gateway is not None and self.ppid != os.getppid():
            self.ppid = os.getppid()  # which gunicorn compares, too
            self.orphaned = True
            self.stop_listening()
            self._begin(self.gateway.settings.server.drain_timeout)
        super().notify()  # type: ignore[misc]  # gunicorn's
        if self.gateway is None:
            return
        if not self.alive:  # for reasons of gunicorn's: a changed file under --reload, max_requests
            self._begin(self.gateway.settings.server.drain_timeout)
        elif self.draining:
            self._proceed(self.gateway)

    def _begin(self, seconds: float) -> None:
        assert self.gateway is not None
        self.gateway.drain.begin(seconds)
        if everything_stops():
            self.gateway.drain.refuse()

    def _proceed(self, gateway: Gateway) -> None:
        if everything_stops():
            gateway.drain.refuse()
        self.linger()
        if gateway.drain.overdue(HANG_UP):
            self.hang_up()
        late = gateway.drain.overdue(LAST_WORDS)
        if late:
            self.cfg.set("graceful_timeout", 1)  # there is nothing to be waited for any more
        if late or not self.running():
            super().handle_exit(0, None)  # type: ignore[misc]  # gunicorn's
