"""Giving memory back that glibc keeps.

What many threads allocate and free leaves holes in their heaps. glibc hands back only what is free at a heap's
end, so that a busy worker's resident memory creeps up for hours although it holds nothing more.
"""

import ctypes
import time
from typing import Any

INTERVAL = 60.0  # seconds

# malloc_trim(3); musl and others have none, and need none.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda padding: 0)


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
