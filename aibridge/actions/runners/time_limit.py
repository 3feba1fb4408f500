"""How long a run may take: until its deadline, or until nobody waits for it any more."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aibridge.interception.toolbox import CallContext, ToolFailed

# Seconds between two looks at the clock and at the caller: how late an end can be noticed.
TICK = 0.05


class TimeLimit:
    """Starts when it is made. `timeout` is the action's own, in seconds."""

    def __init__(self, context: CallContext, timeout: float | None) -> None:
        self._begin = time.monotonic()
        self._cancelled = context.cancelled
        self._deadline = min(context.deadline, self._begin + timeout) if timeout else context.deadline

    def left(self) -> float:
        """Seconds; never negative."""
        return max(0.0, self._deadline - time.monotonic())

    def is_over(self) -> bool:
        return self._cancelled.is_set() or self.left() == 0

    def check(self) -> None:
        """Raises ToolFailed when it is over."""
        if self._cancelled.is_set():
            raise ToolFailed("the call was cancelled")
        if self.left() == 0:
            raise ToolFailed(f"timed out after {time.monotonic() - self._begin:.1f} s")

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While inside, another thread calls `interrupt`, again and again, once the limit is over. What waits
        inside must end with it; `check` then tells why."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(TICK):
                if self.is_over():
                    interrupt()

        watcher = threading.Thread(target=watch, name="action-time-limit", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
