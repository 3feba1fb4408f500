"""Whether gunicorn as a whole is being stopped, or only some workers are being replaced.

Both reach a worker as a SIGTERM, and they ask for opposite things. A worker that is replaced must take no
connection any more: its successor, on the same socket, is there for them. When everything stops nobody else is
there, and who comes is to be told so instead of waiting in the kernel's queue. gunicorn's master knows, so it
leaves a note in a byte of memory that its workers share.
"""

import mmap
from collections.abc import Callable

_UNKNOWN, _RUNNING, _STOPPING = 0, 1, 2

_note = mmap.mmap(-1, 1)  # made in the master, inherited by every fork


def announced(stop: Callable[..., None]) -> Callable[..., None]:
    """The master's `stop`, which from now on says so before it begins."""
    _note[0] = _RUNNING

    def announcing(*arguments: bool, **options: bool) -> None:
        _note[0] = _STOPPING
        stop(*arguments, **options)

    return announcing


def everything_stops() -> bool:
    """Also if nobody can tell, which is so under somebody else's configuration of gunicorn."""
    return _note[0] != _RUNNING
