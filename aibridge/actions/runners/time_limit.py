"""How long a run may take: until its deadline, or until nobody waits for it any more."""

import time

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

    def check(self) -> None:
        """Raises ToolFailed when it is over."""
        if self._cancelled.is_set():
            raise ToolFailed("the call was cancelled")
        if self.left() == 0:
            raise ToolFailed(f"timed out after {time.monotonic() - self._begin:.1f} s")
