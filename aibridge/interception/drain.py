"""The end of a process: until when what runs may finish, and whether anything new is taken meanwhile."""

import time
from collections.abc import Callable, Generator
from contextlib import closing

from aibridge.errors import ClientGone, Unavailable

RETRY_AFTER = 5  # seconds until somebody else answers here, or on the other machine


class Drain:
    """Begins at most once. Safe to begin in a signal handler: there is no lock that could be held."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline: float | None = None
        self.refusing = False

    def begin(self, seconds: float) -> None:
        """What runs gets so many seconds. A later, shorter allowance wins."""
        deadline = self._clock() + seconds
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline

    def refuse(self) -> None:
        """From now on nothing new is taken. Otherwise who still comes, on a connection kept alive, is served."""
        self.refusing = True

    @property
    def began(self) -> bool:
        return self._deadline is not None

    @property
    def over(self) -> bool:
        """Whether the time of what runs is up."""
        return self._deadline is not None and self._clock() >= self._deadline

    def overdue(self, seconds: float) -> bool:
        """Whether it has been up for so long."""
        return self._deadline is not None and self._clock() >= self._deadline + seconds

    def admit(self) -> None:
        """Before anything new. Raises Unavailable."""
        if self.refusing:
            raise stopping()

    def check(self) -> None:
        """In the course of anything. Raises Unavailable when its time is up."""
        if self.over:
            raise stopping()

    def limited(self, chunks: Generator[bytes]) -> Generator[bytes]:
        """`chunks` until the time is up; then Unavailable is raised where they come from, so that whatever waits
        there lets go."""
        with closing(chunks):
            try:
                for chunk in chunks:
                    yield chunk  # what was observed is sent
                    if self.over:
                        chunks.throw(stopping())
            except ClientGone:
                self.check()  # the wait for the provider was given up because of us
                raise


def stopping() -> Unavailable:
    return Unavailable("the gateway is being stopped or restarted", retry_after=RETRY_AFTER)
