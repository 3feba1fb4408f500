"""When a provider is asked again, after how long, and what the client gets in the end."""

import random
from collections.abc import Callable

import pytest

from aibridge.errors import (
    ClientGone,
    InvalidRequest,
    KeysRateLimited,
    KeysUnauthorized,
    Unreachable,
    UpstreamError,
    UpstreamTimeout,
)
from aibridge.settings import Retry
from aibridge.upstream.call import UpstreamResponse
from aibridge.upstream.key_pool import Key, KeyPool, keys
from aibridge.upstream.retry import next_delay, retry
from tests.fakes import FakeClock
from tests.upstream.scripted import FIRST, SECOND, Asker, Script, answer, body_of

DEFAULT = Retry()


class Retrying:
    """A scripted provider behind the policy; chance takes nothing off."""

    def __init__(
        self,
        *answers: UpstreamResponse | Exception | Callable[[], UpstreamResponse],
        policy: Retry = DEFAULT,
        patience: int = 1_000_000,
        of: tuple[Key, ...] = (),
    ) -> None:
        self.clock = FakeClock()
        self.script = Script(*answers)
        pool = KeyPool("acme", of, clock=self.clock) if of else None
        upstream = retry(policy, keys(pool, self.script), clock=self.clock, chance=lambda: 0.0)
        self.asker = Asker(upstream, patience=patience)
        self.ask = self.asker.ask

    @property
    def waited(self) -> float:
        return round(self.clock.now - 1000, 6)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 501, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    run = Retrying(answer(status), answer(status), answer(200))
    assert run.ask().status == 200
    assert run.asker.hints == [None, None, None]
    assert run.waited == 0.5 + 1.0


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 413, 422])
def test_what_will_not_pass_is_not(status: int) -> None:
    run = Retrying(answer(status))
    assert run.ask().status == status
    assert run.clock.slept == []


def test_the_provider_knows_better() -> None:
    assert Retrying(answer(400, x_should_retry="true"), answer(200)).ask().status == 200
    assert Retrying(answer(529, x_should_retry="False")).ask().status == 529
    assert Retrying(answer(200, x_should_retry="true")).ask().status == 200
    assert Retrying(answer(529, x_should_retry="maybe"), answer(200)).ask().status == 200


def test_in_the_end_its_own_last_answer_is_relayed() -> None:
    answers = [answer(500), answer(503), answer(529, retry_after="1", request_id="req_3")]
    run = Retrying(*answers)
    last = run.ask()
    assert last is answers[2]
    assert (b"".join(last.body), last.header("request-id")) == (b"529", "req_3")
    assert [body_of(each).closed for each in answers] == [1, 1, 0]


def test_zero_retries_are_none() -> None:
    run = Retrying(answer(529), policy=Retry(max_retries=0))
    assert run.ask().status == 529


@pytest.mark.parametrize(("told", "waited"), [("3", 3.0), ("60", 60.0), ("0", 0.5)])
def test_as_long_as_the_provider_asks_for_but_not_shorter_than_we_would(told: str, waited: float) -> None:
    run = Retrying(answer(503, retry_after=told), answer(200))
    assert run.ask().status == 200
    assert run.waited == waited


@pytest.mark.parametrize("told", ["61", "3600"])
def test_a_long_wait_is_for_the_client_to_decide(told: str) -> None:
    run = Retrying(answer(503, retry_after=told))
    assert run.ask().status == 503
    assert run.clock.slept == []


def test_all_attempts_begin_within_the_budget() -> None:
    run = Retrying(answer(503, retry_after="40"), answer(503, retry_after="30", request_id="second"))
    assert run.ask().header("request-id") == "second"
    assert run.waited == 40.0


def test_a_tiny_wait_does_not_spin() -> None:
    run = Retrying(*(answer(429, retry_after_ms="1") for _ in range(3)), of=(FIRST,))
    assert run.ask().status == 429
    assert run.waited == 0.5 + 1.0
    assert run.script.keys == ["secret-1"] * 3


def test_delays_double_up_to_a_limit_and_chance_takes_a_quarter_off_at_most() -> None:
    policy = Retry(max_retries=10**9)
    assert [next_delay(policy, n, None, 0) for n in range(6)] == [0.5, 1, 2, 4, 8, 8]
    assert next_delay(policy, 10**6, None, 0) == 8
    assert next_delay(Retry(base_delay=20), 1, None, 0) == 20
    chance = random.Random(1)
    delays = [next_delay(policy, 1, None, 0, chance.random()) or 0 for _ in range(100)]
    assert all(0.75 <= delay <= 1 for delay in delays)
    assert len(set(delays)) == 100


def test_a_provider_that_was_not_reached() -> None:
    run = Retrying(Unreachable("refused"), Unreachable("refused"), answer(200))
    assert run.ask().status == 200
    lost = Retrying(*(Unreachable(reason) for reason in ("one", "two", "three")))
    with pytest.raises(Unreachable, match="three"):
        lost.ask()
    assert len(lost.script.requests) == 3


@pytest.mark.parametrize(
    "error", [UpstreamError("reset"), UpstreamTimeout("silent"), ClientGone(), InvalidRequest("no"), KeyError("x")]
)
def test_what_may_have_had_an_effect_is_not_repeated(error: Exception) -> None:
    run = Retrying(answer(529), error)
    with pytest.raises(type(error)):
        run.ask()
    assert len(run.script.requests) == 2


def test_if_the_last_attempt_brings_no_answer_the_one_before_stands() -> None:
    run = Retrying(answer(529, request_id="req_1"), Unreachable("refused"), Unreachable("refused"))
    last = run.ask()
    assert (last.status, last.header("request-id"), b"".join(last.body)) == (529, "req_1", b"529")


def test_the_only_key_is_waited_for_as_long_as_the_provider_asks() -> None:
    run = Retrying(answer(429, retry_after="5"), answer(200), of=(FIRST,))
    assert run.ask().status == 200
    assert run.waited == 5.0


def test_the_only_key_rests_too_long_to_be_waited_for() -> None:
    """Without a Retry-After the key rests longer than a retry waits; what the provider said is relayed."""
    run = Retrying(answer(429, request_id="req_1"), of=(FIRST,))
    assert run.ask().header("request-id") == "req_1"
    assert len(run.script.requests) == 1


def test_several_keys_are_waited_for_until_the_first_is_valid() -> None:
    run = Retrying(answer(429, retry_after="5"), answer(429, retry_after="3"), answer(200), of=(FIRST, SECOND))
    assert run.ask().status == 200
    assert run.script.keys == ["secret-1", "secret-2", "secret-2"]
    assert run.waited == 3.0


def test_several_keys_that_stay_limited() -> None:
    limits = [answer(429, retry_after="5"), answer(429, retry_after="3"), answer(429, retry_after="70")]
    run = Retrying(answer(500), *limits, of=(FIRST, SECOND))
    with pytest.raises(KeysRateLimited) as raised:
        run.ask()
    assert raised.value.retry_after == pytest.approx(2.0)
    assert run.script.keys == ["secret-1", "secret-1", "secret-2", "secret-2"]


def test_keys_that_are_resting_already_are_not_waited_for() -> None:
    """A thread for each of many clients would wait, and all would ask at once."""
    limited = [answer(429, retry_after="50"), answer(429, retry_after="70")]
    run = Retrying(*limited, of=(FIRST, SECOND), policy=Retry(max_retries=0))
    for _ in range(2):
        with pytest.raises(KeysRateLimited):
            run.ask()
    assert run.clock.slept == []
    run = Retrying(KeysRateLimited("limited", retry_after=1, tried=False, final=False))
    with pytest.raises(KeysRateLimited):
        run.ask()


def test_keys_of_which_the_provider_says_that_waiting_does_not_help() -> None:
    run = Retrying(*(answer(429, retry_after="1", x_should_retry="false") for _ in range(2)), of=(FIRST, SECOND))
    with pytest.raises(KeysRateLimited):
        run.ask()
    assert run.clock.slept == []


def test_refused_keys_are_not_tried_again() -> None:
    run = Retrying(answer(401), answer(401), of=(FIRST, SECOND))
    with pytest.raises(KeysUnauthorized):
        run.ask()
    assert run.clock.slept == []


def test_a_client_that_leaves_while_we_wait() -> None:
    run = Retrying(answer(503, retry_after="30"), patience=4)
    with pytest.raises(ClientGone):
        run.ask()
    assert run.waited == 0.4
    assert len(run.script.requests) == 1


def test_an_answer_that_breaks_off_before_it_is_asked_again() -> None:
    broken = answer(500)
    body_of(broken)._chunks = [b"5", UpstreamError("cut")]
    run = Retrying(broken)
    with pytest.raises(UpstreamError, match="cut"):
        run.ask()
    assert body_of(broken).closed == 1
