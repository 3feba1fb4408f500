"""A pool of threads that grows as `concurrent.futures.ThreadPoolExecutor` does, and shrinks again.

That one keeps every thread it ever started. Fifty streams that end in the same moment need fifty threads for a
moment, and then nobody does.

And its threads wake up in front of whoever runs. On one core (`affinity.py`) that is the thread which has the
interpreter's lock: the one that woke up finds it locked and sleeps again, two changes of context for nothing. Ours
are of the kernel's class for batch work, and get their share as others do, but not by waking up (sched(7)).
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

IDLE_SECONDS = 5.0  # for which a thread is kept although there was always a free one


class Threads(Executor):
    """At most `most` threads; the last one stays. They end with the process: nothing waits for what they do."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0  # threads that take a task before they do anything else
        self._needed = 0.0  # when all of them were last busy

    @property
    def waiting(self) -> bool:
        """Whether there are tasks that no thread has taken yet."""
        return not self._tasks.empty()

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> "Future[Any]":
        """Raises RuntimeError if there is no thread, and none can be started."""
        future: Future[Any] = Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(*args, **options))
            except BaseException as error:
                future.set_exception(error)

        self._tasks.put(task)
        try:
            self._grow()
        except RuntimeError:
            future.cancel()
            raise
        return future

    def _grow(self) -> None:
        with self._lock:
            if self._threads == self._most or self._tasks.qsize() <= self._free:
                return
            try:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except RuntimeError:  # the system has none left
                if not self._threads:
                    raise
                return
            self._threads += 1
            self._free += 1

    def _run(self) -> None:
        _give_way()
        while (task := self._next()) is not None:
            self._grow()  # somebody may have counted on this thread for another task
            task()
            del task  # and all that it holds, while this thread waits
            with self._lock:
                if self._is_spare():
                    self._threads -= 1
                    return
                self._free += 1

    def _next(self) -> Callable[[], None] | None:
        """None when this thread is not needed any more."""
        while True:
            try:
                task = self._tasks.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._is_spare():
                        self._threads -= 1
                        self._free -= 1
                        return None
                continue
            with self._lock:
                self._free -= 1
                if not self._free:
                    self._needed = time.monotonic()
            return task

    def _is_spare(self) -> bool:
        """Threads take turns, so one that never waits for long may still be too many."""
        rested = time.monotonic() - self._needed >= IDLE_SECONDS
        return rested and self._threads > 1 and not self.waiting


def _give_way() -> None:
    """From now on this thread, as what it starts, does not push others aside when it wakes up."""
    if not hasattr(os, "SCHED_BATCH"):
        return
    with suppress(OSError):  # not everybody may ask, or choose
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # nobody has chosen another
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
