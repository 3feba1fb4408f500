"""One asyncio event loop on one thread per process, and how the other threads reach it.

It is a plain `threading.Thread`, so under gevent's patching it is a greenlet and the loop waits in gevent's
selector like everybody else. That was measured against a real OS thread behind gevent's back: there a child
process cannot be watched (gevent: "child watchers are only available on the default loop"), so stdio servers
cannot be started, while as a greenlet streamable HTTP, SSE and stdio all work. Nothing here knows of gevent.

One thing follows from it: asyncio keeps the running loop per OS thread, so under gevent `asyncio.run` refuses to
run in any other greenlet of the worker while this loop runs. (Hiding our loop while it waits is no way out:
httpcore's look at an idle connection switches greenlets in the middle of a step, and comes back to another's.)
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from threading import Event, Lock, Thread
from typing import Any, TypeVar

Result = TypeVar("Result")

LOOK_INTERVAL = 0.05  # seconds between two looks at whether a call was cancelled
CLOSE_LIMIT = 5.0  # seconds; the SDK gives a stdio server about 4 before it kills it


class PortalClosed(Exception):
    """The loop does not run, or stopped while the call was waiting."""


class Abandoned(Exception):
    """Nobody waits for the call any more; it was cancelled."""


class Portal:
    """Runs coroutine functions for other threads. Nothing starts before `start`, which belongs after the fork."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = Lock()

    def start(self) -> bool:
        """Whether this started it; it may run already."""
        with self._lock:
            if self._loop is not None:
                return False
            self._stopping = asyncio.Event()
            self._loop = asyncio.new_event_loop()
            self._thread = Thread(target=self._serve, args=(self._loop, self._stopping), name="mcp", daemon=True)
            self._thread.start()
            return True

    def close(self) -> None:
        """Cancel what was spawned, let it clean up for CLOSE_LIMIT seconds, stop the loop. Idempotent."""
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is None or self._thread is None or self._stopping is None:
                return
            loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(CLOSE_LIMIT + 0.5)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        """Run it in the background until it ends or the portal closes."""
        self._open_loop().call_soon_threadsafe(self._adopt, function, arguments)

    def run(
        self,
        function: Callable[..., Coroutine[Any, Any, Result]],
        *arguments: Any,
        deadline: float,
        cancelled: Event,
    ) -> Result:
        """Wait for its result, until `deadline` (on `time.monotonic`'s clock) or until `cancelled` is set; then it
        is cancelled. Raises what it raises, TimeoutError, Abandoned, PortalClosed."""
        loop = self._open_loop()
        future = _submitted(loop, function(*arguments))
        while not wait([future], timeout=max(0.0, min(LOOK_INTERVAL, deadline - time.monotonic()))).done:
            reason = self._reason_to_stop(loop, deadline, cancelled)
            if reason is not None and future.cancel():
                raise reason
        try:
            return future.result()
        except CancelledError:
            raise PortalClosed from None

    def _reason_to_stop(
        self, loop: asyncio.AbstractEventLoop, deadline: float, cancelled: Event
    ) -> Exception | None:
        if cancelled.is_set():
            return Abandoned()
        if time.monotonic() >= deadline:
            return TimeoutError()
        return None if self._loop is loop else PortalClosed()

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            raise PortalClosed
        return loop

    def _adopt(self, function: Callable[..., Coroutine[Any, Any, None]], arguments: tuple[Any, ...]) -> None:
        task = asyncio.ensure_future(function(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serve(self, loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._until(stopping))

    async def _until(self, stopping: asyncio.Event) -> None:
        """Only tasks of ours are cancelled: those inside the SDK must end in its own order."""
        await stopping.wait()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_LIMIT)


def _submitted(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Result]) -> "Future[Result]":
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:  # the loop was closed meanwhile
        coroutine.close()
        raise PortalClosed from None
