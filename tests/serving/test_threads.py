"""A pool has as many threads as tasks that wait, and gives back those that it does not need any more."""

import os
import threading
from threading import Barrier, Event

import pytest

from aibridge.serving import threads
from aibridge.serving.threads import Threads
from tests.system.client import DEADLINE, eventually

MOST = 8


@pytest.fixture
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Threads:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.05)
    return Threads(MOST, request.node.name)


def alive(pool: Threads) -> int:
    return sum(thread.name == pool._name for thread in threading.enumerate())


def test_tasks_that_wait_for_each_other_have_a_thread_each(pool: Threads) -> None:
    together = Barrier(MOST)
    for _ in range(3):
        futures = [pool.submit(together.wait, DEADLINE) for _ in range(MOST)]
        assert sorted(future.result(DEADLINE) for future in futures) == list(range(MOST))


def test_there_are_never_more_than_allowed_and_the_rest_waits(pool: Threads) -> None:
    go = Event()
    futures = [pool.submit(go.wait, DEADLINE) for _ in range(MOST)]
    eventually(lambda: not pool.waiting)
    late = pool.submit(lambda: "late")
    assert alive(pool) == MOST
    assert pool.waiting
    go.set()
    assert late.result(DEADLINE) == "late"
    assert all(future.result(DEADLINE) for future in futures)


def test_threads_without_work_go_and_the_last_one_stays(pool: Threads) -> None:
    together = Barrier(MOST)
    for _ in range(MOST):
        pool.submit(together.wait, DEADLINE)
    eventually(lambda: alive(pool) == 1)
    assert pool.submit(lambda: "still there").result(DEADLINE) == "still there"


def test_threads_that_take_turns_go_as_well(pool: Threads) -> None:
    together = Barrier(MOST)
    for _ in range(MOST):
        pool.submit(together.wait, DEADLINE)

    def few() -> bool:
        """One task after the other, each as soon as the one before is done."""
        assert [pool.submit(int).result(DEADLINE) for _ in range(50)] == [0] * 50
        return alive(pool) <= 2

    eventually(few, every=0)


def test_coming_and_going_loses_nothing(pool: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.0)
    for _ in range(300):
        pair = Barrier(2)  # two tasks that need two threads
        futures = [pool.submit(pair.wait, DEADLINE) for _ in range(2)]
        assert {future.result(DEADLINE) for future in futures} == {0, 1}


def test_without_another_thread_the_ones_there_are_do_it(pool: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    go = Event()
    first = pool.submit(go.wait, DEADLINE)

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    second = pool.submit(lambda: "second")
    go.set()
    assert first.result(DEADLINE)
    assert second.result(DEADLINE) == "second"
    another, done = Threads(MOST, "another"), Event()
    with pytest.raises(RuntimeError):
        another.submit(done.set)
    monkeypatch.undo()
    assert another.submit(lambda: "after").result(DEADLINE) == "after"
    assert not done.is_set()


def test_what_a_task_raises_is_its_futures(pool: Threads) -> None:
    future = pool.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        future.result(DEADLINE)
    assert pool.submit(int, "4", base=8).result(DEADLINE) == 4


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="the kernel has no such class")
def test_its_threads_give_way_to_others(pool: Threads) -> None:
    assert pool.submit(os.sched_getscheduler, 0).result(DEADLINE) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
