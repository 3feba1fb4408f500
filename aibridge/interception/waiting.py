"""Waiting for something slow while a client's answer is open."""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

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


def _run(function: Callable[[], Result], future: "Future[Result]") -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # whoever waits gets it
        future.set_exception(error)
