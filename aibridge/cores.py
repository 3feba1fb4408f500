"""The cores of this process, and the one that its threads are kept to (`serving/affinity.py`)."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import get_native_id

# Known before the workers are forked. None where the system does not tell.
CORES: frozenset[int] = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


class _Process:
    kept_to: int | None = None


_process = _Process()
_freed: Counter[int] = Counter()  # how often each thread is in a block of `all_cores`


def keep_to(core: int) -> None:
    """Bind all threads of this process. Raises OSError.

    A new thread starts where its maker is, so one that is made meanwhile may be missed at first.
    """
    _process.kept_to = core
    for _ in range(2):
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread), {core})


@contextmanager
def all_cores() -> Iterator[None]:
    """Programs that this thread starts meanwhile may run on all of them. Coroutines' blocks may overlap."""
    if _process.kept_to is None:
        yield
        return
    thread = get_native_id()
    _freed[thread] += 1
    os.sched_setaffinity(thread, CORES)
    try:
        yield
    finally:
        _freed[thread] -= 1
        if not _freed[thread]:
            del _freed[thread]
            os.sched_setaffinity(thread, {_process.kept_to})
