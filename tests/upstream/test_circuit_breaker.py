"""When a provider is not asked, for how long, and what brings it back."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aibridge import settings
from aibridge.errors import (
    CircuitOpen,
    ClientGone,
    InvalidRequest,
    KeysRateLimited,
    KeysUnauthorized,
    Unreachable,
    UpstreamError,
    UpstreamTimeout,
)
from aibridge.upstream import circuit_breaker
from aibridge.upstream.call import UpstreamRequest, UpstreamResponse
from aibridge.upstream.circuit_breaker import SHARED, CircuitBreaker, Outcome, breaker
from tests.fakes import FakeClock
from tests.upstream.scripted import Asker, answer

POLICY = settings.CircuitBreaker(failure_threshold=3, interval=10, timeout=30, max_requests=2)

LIMITED = KeysRateLimited("limited", retry_after=1, tried=True, final=False)


class Guarded:
    """A provider behind a breaker, that does what it is told."""

    def __init__(self, policy: settings.CircuitBreaker = POLICY) -> None:
        self.clock = FakeClock()
        self.breaker = CircuitBreaker("acme", policy, self.clock)
        self.then: int | Exception = 200
        self.asked = 0
        self.asker = Asker(breaker(self.breaker, self.upstream))

    def upstream(self, request: UpstreamRequest) -> UpstreamResponse:
        self.asked += 1
        if isinstance(self.then, Exception):
            raise self.then
        return answer(self.then)

    def ask(self, then: int | Exception = 200, path: str = "/v1/messages", model: str = "m") -> int | Exception:
        self.then = then
        try:
            return self.asker.status(path, model)
        except Exception as error:
            return error

    def fails(self, times: int = 3, model: str = "m") -> None:
        for _ in range(times):
            self.ask(503, model=model)

    @property
    def state(self) -> str:
        told = self.breaker.status()
        return str(told[0]["state"]) if told else "closed"

    def is_rejected(self, path: str = "/v1/messages", model: str = "m") -> bool:
        before = self.asked
        rejected = isinstance(self.ask(200, path, model), CircuitOpen)
        assert rejected == (self.asked == before)
        return rejected


def test_no_breaker_is_no_breaker() -> None:
    guarded = Guarded()
    assert breaker(None, guarded.upstream) == guarded.upstream


FAILURES: list[int | Exception] = [
    503,
    504,
    529,
    Unreachable("x"),
    UpstreamError("reset"),
    UpstreamTimeout("late"),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_in_a_row_open_it(failure: int | Exception) -> None:
    guarded = Guarded()
    assert [guarded.ask(failure) for _ in range(3)] == [failure] * 3
    assert guarded.is_rejected()
    assert guarded.breaker.status() == [
        {"endpoint": "/v1/messages", "model": "m", "state": "open", "failures": 0, "seconds": 30.0}
    ]
    assert (guarded.breaker.trips, guarded.breaker.rejections) == (1, 1)


@pytest.mark.parametrize("other", [200, 400, 401, 403, 429, 500, 502])
def test_any_other_answer_ends_the_row(other: int) -> None:
    guarded = Guarded()
    guarded.fails(2)
    assert guarded.ask(other) == other
    guarded.fails(2)
    assert not guarded.is_rejected()


SILENT = [ClientGone(), LIMITED, KeysUnauthorized("no"), InvalidRequest("no"), KeyError("bug")]


@pytest.mark.parametrize("nothing", SILENT)
def test_what_says_nothing_about_the_provider_changes_nothing(nothing: Exception) -> None:
    guarded = Guarded()
    guarded.fails(2)
    assert guarded.ask(nothing) is nothing
    guarded.fails(1)
    assert guarded.is_rejected()


def test_the_count_starts_anew_after_the_interval() -> None:
    guarded = Guarded()
    guarded.fails(2)
    guarded.clock.advance(10.5)
    guarded.fails(2)
    assert not guarded.is_rejected()
    guarded.clock.advance(5)
    guarded.fails(3)
    assert guarded.is_rejected()


def test_a_rejection_tells_how_long_it_stays_open() -> None:
    guarded = Guarded()
    guarded.fails()
    guarded.clock.advance(12.5)
    error = guarded.ask()
    assert isinstance(error, CircuitOpen)
    assert (error.status, error.retry_after) == (503, 17.5)
    guarded.clock.advance(17.2)
    error = guarded.ask()
    assert isinstance(error, CircuitOpen)
    assert error.retry_after == 1.0


def test_half_open_as_many_successes_close_it() -> None:
    guarded = Guarded()
    guarded.fails()
    guarded.clock.advance(30)
    assert guarded.ask(200) == 200
    assert guarded.state == "half_open"
    assert guarded.ask(429) == 429
    assert guarded.state == "closed"
    guarded.fails(2)
    assert not guarded.is_rejected()


def test_half_open_one_failure_opens_it_again() -> None:
    guarded = Guarded()
    guarded.fails()
    guarded.clock.advance(30)
    assert guarded.ask(200) == 200
    assert guarded.ask(529) == 529
    assert guarded.is_rejected()
    assert guarded.breaker.status()[0]["seconds"] == 30.0
    assert guarded.breaker.trips == 2


def test_half_open_only_some_are_let_through_at_a_time() -> None:
    guarded = Guarded()
    guarded.fails()
    guarded.clock.advance(30)
    first = guarded.breaker.admit("/v1/messages", "m")
    second = guarded.breaker.admit("/v1/messages", "m")
    with pytest.raises(CircuitOpen) as raised:
        guarded.breaker.admit("/v1/messages", "m")
    assert raised.value.retry_after == 1.0
    guarded.breaker.settle(first, Outcome.UNKNOWN)  # its client left: another one may find out
    third = guarded.breaker.admit("/v1/messages", "m")
    guarded.breaker.settle(second, Outcome.SUCCESS)
    guarded.breaker.settle(third, Outcome.SUCCESS)
    assert guarded.state == "closed"


def test_a_call_from_before_it_opened_says_nothing_any_more() -> None:
    guarded = Guarded()
    early = guarded.breaker.admit("/v1/messages", "m")
    guarded.fails()
    guarded.breaker.settle(early, Outcome.SUCCESS)
    assert guarded.state == "open"
    assert guarded.breaker.trips == 1


def test_endpoints_and_models_have_circuits_of_their_own() -> None:
    guarded = Guarded()
    guarded.fails(model="a")
    assert not guarded.is_rejected(model="b")
    assert not guarded.is_rejected("/v1/chat/completions", "a")
    assert guarded.is_rejected("/v1/messages?beta=true", "a")


def test_models_that_clients_invent_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "MOST_CIRCUITS", 4)
    guarded = Guarded()
    for number in range(50):
        assert guarded.ask(200, model=f"healthy-{number}") == 200
    assert len(guarded.breaker._circuits) <= 4
    for number in range(10):
        guarded.fails(2, model=f"sick-{number}")
    assert len(guarded.breaker._circuits) == 5
    assert {each["model"] for each in guarded.breaker.status()} == {"sick-0", "sick-1", "sick-2", "sick-3", "*"}
    assert guarded.is_rejected(model="sick-9")
    assert guarded.is_rejected(model="never seen")
    assert not guarded.is_rejected(model="sick-1")
    guarded.ask(model="x" * 100_000)
    assert all(len(model) <= 256 for _, model in guarded.breaker._circuits)
    assert SHARED in guarded.breaker._circuits


def test_threads_share_a_breaker() -> None:
    guarded = Guarded(settings.CircuitBreaker(failure_threshold=400))
    together = threading.Barrier(8)

    def many(_: int) -> None:
        together.wait(10)
        for _ in range(50):
            ticket = guarded.breaker.admit("/v1/messages", "m")
            guarded.breaker.settle(ticket, Outcome.FAILURE)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(many, range(8)))
    assert guarded.breaker.trips == 1
