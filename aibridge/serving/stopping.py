"""Whether gunicorn as a whole is being stopped, or only some workers are being replaced.

Both reach a worker as a SIGTERM, and they ask for opposite things. A worker that is replaced must take no
connection any more: its successor, on the same socket, is there for them. When everything stops nobody else is
there, and who comes is to be told so instead of waiting in the kernel's queue. gunicorn's master knows, so it
leaves a note in a byte of memory that its workers share.
"""

import mmap
from typing import Any

_UNKNOWN, _RUNNING, _STOPPING = 0, 1, 2

_note = mmap.mmap(-1, 1)  # made in the master, inherited by every fork


def announce_stops(master: Any) -> None:
    """From now on gunicorn's `master` says so before it stops its workers, unless somebody else has the listening
    sockets, too: another master, while gunicorn is being upgraded (USR2), or systemd."""
    _note[0] = _RUNNING
    stop = master.stop

    def announced(*arguments: bool, **options: bool) -> None:
        if not (master.reexec_pid or master.master_pid or master.systemd):
            _note[0] = _STOPPING
        stop(*arguments, **options)

    master.stop = announced


def everything_stops() -> bool:
    """Also if nobody can tell, which is so under somebody else's configuration of gunicorn."""
    return _note[0] != _RUNNING
