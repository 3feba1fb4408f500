"""A worker's memory: what glibc keeps is given back, what is there for good is not searched for garbage.

What many threads allocate and free leaves holes in their heaps. glibc hands back only what is free at a heap's
end, so that a busy worker's resident memory creeps up for hours although it holds nothing more.

Nearly all objects of a request die by their reference counts. Python searches for cycles among the others whenever
700 more have been made than freed, which sixteen requests at once have made long before anything of theirs is
garbage: a fifteenth of the CPU time of a request (docs/performance.md).
"""

import ctypes
import gc
import time
from typing import Any

INTERVAL = 60.0  # seconds
YOUNG_OBJECTS = 10_000  # more made than freed, after which those are searched; half a millisecond

# malloc_trim(3); musl and others have none, and need none.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda padding: 0)


def collect_seldom() -> None:
    """Once everything is loaded: all that exists now is for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


class Trimming:
    """To be mixed in before a gunicorn worker class."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._trim_at = time.monotonic() + INTERVAL

    def notify(self) -> None:
        """Called about once a second."""
        super().notify()  # type: ignore[misc]  # gunicorn's
        if time.monotonic() >= self._trim_at:
            self._trim_at = time.monotonic() + INTERVAL
            _malloc_trim(0)
