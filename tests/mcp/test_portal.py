"""The loop's thread, and how others reach it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from aibridge.mcp.portal import Abandoned, Portal, PortalClosed
from tests.mcp.servers import eventually


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    portal.start()
    yield portal
    portal.close()


def soon() -> float:
    return time.monotonic() + 10


class Sleeper:
    """Sleeps until cancelled, and tells."""

    def __init__(self) -> None:
        self.started, self.ended = Event(), Event()

    async def sleep(self) -> None:
        self.started.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.ended.set()


def once(happened: Event, then: Callable[[], None]) -> None:
    happened.wait(5)
    then()


async def doubled(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def broken() -> None:
    raise LookupError("no")


def test_a_result_and_an_error_come_back(portal: Portal) -> None:
    assert portal.run(doubled, 4, deadline=soon(), cancelled=Event()) == 8
    with pytest.raises(LookupError):
        portal.run(broken, deadline=soon(), cancelled=Event())


def test_at_the_deadline_the_coroutine_is_cancelled(portal: Portal) -> None:
    sleeper = Sleeper()
    with pytest.raises(TimeoutError):
        portal.run(sleeper.sleep, deadline=time.monotonic() + 0.05, cancelled=Event())
    assert sleeper.ended.wait(5)


def test_a_cancelled_call_ends_soon(portal: Portal) -> None:
    sleeper, cancelled = Sleeper(), Event()
    threading.Thread(target=once, args=(sleeper.started, cancelled.set)).start()
    before = time.monotonic()
    with pytest.raises(Abandoned):
        portal.run(sleeper.sleep, deadline=soon(), cancelled=cancelled)
    assert sleeper.ended.wait(5)
    assert time.monotonic() - before < 1


def test_closing_ends_what_runs_and_what_waits() -> None:
    portal, background, waited_for = Portal(), Sleeper(), Sleeper()
    assert portal.start()
    assert not portal.start()
    portal.spawn(background.sleep)
    threading.Thread(target=once, args=(waited_for.started, portal.close)).start()
    with pytest.raises(PortalClosed):
        portal.run(waited_for.sleep, deadline=soon(), cancelled=Event())
    assert background.ended.wait(5)
    eventually(lambda: "mcp" not in {thread.name for thread in threading.enumerate()})
    portal.close()
    with pytest.raises(PortalClosed):
        portal.run(doubled, 1, deadline=soon(), cancelled=Event())


def test_it_can_be_started_again(portal: Portal) -> None:
    portal.close()
    portal.start()
    assert portal.run(doubled, 1, deadline=soon(), cancelled=Event()) == 2


def test_building_one_starts_nothing() -> None:
    before = threading.active_count()
    Portal().close()
    assert threading.active_count() == before
