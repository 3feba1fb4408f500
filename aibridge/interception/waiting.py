"""Waiting for something slow while a client's answer is open, and for something that may never come."""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Generic, TypeVar

from aibridge.upstream.call import IDLE

MOMENT = 0.1  # seconds between two signs of life

Result = TypeVar("Result")


def in_background(
    function: Callable[[], Result], discard: Callable[[Result], None]
) -> Generator[bytes, None, Result]:
    """Run `function` on a thread and yield IDLE until it is done. Returns what it returns, raises what it raises.
    If nobody waits to the end (this is closed, or something is thrown into it), `discard` gets the result."""
    future: Future[Result] = Future()
    Thread(target=_run, args=(function, future), name="round", daemon=True).start()
    try:
        while True:
            try:
                return future.result(MOMENT)
            except TimeoutError:
                if future.done():  # just now, or what it raises is a TimeoutError of its own
                    return future.result()
                yield IDLE
    except BaseException:
        future.add_done_callback(lambda done: None if done.exception() else discard(done.result()))
        raise


class Patience(Generic[Result]):
    """A question that many ask and that may never be answered: it is put once at a time, on one thread, and nobody
    waits for it longer than `seconds`."""

    def __init__(self, question: Callable[[], Result], seconds: float, otherwise: Result) -> None:
        self._question = question
        self._seconds = seconds
        self._otherwise = otherwise
        self._asked: Future[Result] | None = None
        self._asking = Lock()

    def __call__(self) -> Result:
        """The answer, or `otherwise`. Raises what the question raises."""
        with self._asking:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                Thread(target=_run, args=(self._question, self._asked), name="question", daemon=True).start()
            asked = self._asked
        try:
            return asked.result(self._seconds)
        except TimeoutError:
            return self._otherwise


def _run(function: Callable[[], Result], future: "Future[Result]") -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # whoever waits gets it
        future.set_exception(error)
