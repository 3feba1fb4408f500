"""The end of a process: what may finish, what is refused, and where it is noticed."""

from collections.abc import Generator

import pytest

from aibridge.errors import ClientGone, Unavailable
from aibridge.interception.drain import Drain
from aibridge.upstream.call import IDLE
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def drain(clock: FakeClock) -> Drain:
    return Drain(clock)


class Source:
    """Silent moments without end, and a record of what was thrown in."""

    def __init__(self) -> None:
        self.ended: BaseException | None = None

    def chunks(self) -> Generator[bytes]:
        try:
            while True:
                yield IDLE
        except BaseException as error:
            self.ended = error
            raise


def test_nothing_is_refused_or_ended_before_it_begins(drain: Drain, clock: FakeClock) -> None:
    clock.advance(1e6)
    drain.admit()
    drain.check()
    assert (drain.began, drain.refusing, drain.over, drain.overdue(0)) == (False, False, False, False)


def test_what_runs_gets_its_time(drain: Drain, clock: FakeClock) -> None:
    drain.begin(10)
    clock.advance(9.9)
    drain.check()
    early = (drain.began, drain.over)
    clock.advance(0.1)
    assert (*early, drain.over, drain.overdue(0), drain.overdue(5)) == (True, False, True, True, False)
    with pytest.raises(Unavailable) as refused:
        drain.check()
    assert refused.value.retry_after


def test_of_two_allowances_the_shorter_counts(drain: Drain, clock: FakeClock) -> None:
    drain.begin(10)
    drain.begin(20)
    drain.begin(5)
    clock.advance(5)
    assert drain.over


def test_a_worker_that_is_replaced_serves_who_still_comes_and_one_that_stops_does_not(drain: Drain) -> None:
    drain.begin(10)
    drain.admit()
    drain.refuse()
    with pytest.raises(Unavailable):
        drain.admit()


def test_what_has_come_is_sent_and_then_the_source_is_told(drain: Drain, clock: FakeClock) -> None:
    source = Source()
    chunks = drain.limited(source.chunks())
    assert next(chunks) == IDLE
    drain.begin(1)
    assert next(chunks) == IDLE
    clock.advance(1)
    with pytest.raises(Unavailable):
        next(chunks)
    assert isinstance(source.ended, Unavailable)


def test_an_answer_that_ends_in_time_ends_as_it_does(drain: Drain) -> None:
    drain.begin(1)
    assert list(drain.limited(chunk for chunk in (b"a", b"b"))) == [b"a", b"b"]


def test_who_lets_go_of_the_answer_lets_go_of_its_source(drain: Drain) -> None:
    source = Source()
    chunks = drain.limited(source.chunks())
    next(chunks)
    chunks.close()
    assert isinstance(source.ended, GeneratorExit)


@pytest.mark.parametrize("over", [False, True])
def test_giving_up_the_wait_for_the_provider_is_not_the_clients_doing(drain: Drain, over: bool) -> None:
    def given_up() -> Generator[bytes]:
        yield IDLE
        if over:
            drain.begin(0)
        raise ClientGone

    chunks = drain.limited(given_up())
    next(chunks)
    with pytest.raises(Unavailable if over else ClientGone):
        next(chunks)
