"""Time, as the policies see it: they are given a clock and never look at another one."""

from collections.abc import Callable
from typing import Protocol

from aibridge.errors import ClientGone

MOMENT = 0.1  # seconds within which a client that leaves is noticed


class Clock(Protocol):
    """The module `time` is one."""

    def monotonic(self) -> float:
        """Seconds, from some beginning; never goes back."""

    def time(self) -> float:
        """Seconds since 1970, for dates that others name."""

    def sleep(self, seconds: float, /) -> None: ...


def wait(seconds: float, abandoned: Callable[[], bool], clock: Clock) -> None:
    """Let `seconds` pass. Raises ClientGone as soon as nobody waits with us."""
    end = clock.monotonic() + seconds
    while (left := end - clock.monotonic()) > 0:
        if abandoned():
            raise ClientGone
        clock.sleep(min(left, MOMENT))
