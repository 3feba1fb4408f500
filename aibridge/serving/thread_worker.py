"""gunicorn's gthread worker, draining, with streams that need no thread, and not held by idle connections."""

import time
from typing import Any

from gunicorn.workers import gthread

from aibridge.serving.affinity import OneCore
from aibridge.serving.connections import Connections
from aibridge.serving.draining import LINGER, Draining
from aibridge.serving.memory import Trimming
from aibridge.serving.parking import Parking


class ThreadWorker(OneCore, Connections, Parking, Draining, Trimming, gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn's
    """The methods of the base class that are used or changed here are not public: gunicorn is pinned."""

    def running(self) -> int:
        idle = len(self.keepalived_conns) + len(self.pending_conns) + len(self.lingering)
        return int(self.nr_conns - idle)

    def linger(self) -> None:
        self.set_accept_enabled(True)
        self._cap_keepalive(time.monotonic() + LINGER)
        self.cap_pending(time.monotonic() + LINGER)

    def stop_listening(self) -> None:
        self.set_accept_enabled(False)
        for listener in self.sockets:
            listener.close()

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
