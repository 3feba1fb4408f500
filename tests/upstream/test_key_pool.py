"""Which key pays, which rests, and what is said when none is left."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aibridge.errors import KeysRateLimited, KeysUnauthorized, UpstreamError
from aibridge.upstream.call import UpstreamResponse, discard
from aibridge.upstream.key_pool import Key, KeyPool, ProcessCooldowns, Rest, keys
from tests.fakes import FakeClock, ScriptedBody
from tests.upstream.scripted import FIRST, SECOND, THIRD, Asker, Script, answer, body_of


class Pool:
    """A pool of keys in front of a scripted provider."""

    def __init__(
        self, *answers: UpstreamResponse | Exception, of: tuple[Key, ...] = (FIRST, SECOND, THIRD)
    ) -> None:
        self.clock = FakeClock()
        self.keys = KeyPool("acme", of, clock=self.clock)
        self.script = Script(*answers)
        self.asker = Asker(keys(self.keys, self.script))

    @property
    def used(self) -> list[str]:
        return self.script.keys

    def states(self) -> list[str]:
        return [key["state"] for key in self.keys.status()]


@pytest.mark.parametrize("of", [(), (FIRST, FIRST)])
def test_a_pool_has_keys_each_of_them_once(of: tuple[Key, ...]) -> None:
    with pytest.raises(ValueError, match="each of them once"):
        KeyPool("acme", of)


def test_the_first_key_pays_and_is_the_only_credential() -> None:
    pool = Pool(answer(200))
    assert pool.asker.status() == 200
    (request,) = pool.script.requests
    assert request.headers == (("accept", "*/*"), ("x-api-key", "secret-1"), ("x-app", "cli"))
    assert pool.asker.hints == ["1...1"]
    assert "secret" not in repr(request) + repr(pool.keys.status())


@pytest.mark.parametrize("pooled", [True, False])
def test_users_keys_are_left_alone(pooled: bool) -> None:
    script = Script(answer(429), answer(401))
    pool = KeyPool("acme", [FIRST])
    asker = Asker(keys(pool if pooled else None, script), central=not pooled)
    assert [asker.status(), asker.status()] == [429, 401]
    assert (script.keys, asker.hints) == (["user", "user"], [None, None])
    assert pool.status() == [{"key": "1...1", "state": "valid"}]


@pytest.mark.parametrize("status", [400, 403, 404, 408, 500, 502, 503, 504, 529])
def test_what_is_not_about_the_key_is_passed_on(status: int) -> None:
    pool = Pool(answer(status))
    assert pool.asker.status() == status
    assert pool.states() == ["valid", "valid", "valid"]


def test_a_failed_connection_is_not_about_the_key() -> None:
    pool = Pool(UpstreamError("reset"))
    with pytest.raises(UpstreamError, match="reset"):
        pool.asker.ask()
    assert (pool.used, pool.states()) == (["secret-1"], ["valid", "valid", "valid"])


COOLDOWNS = [
    (429, {"retry_after": "5"}, 5.0),
    (429, {"retry_after": "5", "retry_after_ms": "1500"}, 1.5),
    (429, {"retry_after": "Fri, 02 Jan 2026 12:17:10 GMT"}, 30.0),
    (429, {}, 60.0),
    (429, {"retry_after": "0"}, 60.0),
    (429, {"retry_after": "-4"}, 60.0),
    (429, {"retry_after": "soon"}, 60.0),
    (429, {"retry_after": "99999999"}, 86400.0),
    (401, {}, 60.0),
    (401, {"retry_after": "5"}, 60.0),
]


@pytest.mark.parametrize(("status", "headers", "seconds"), COOLDOWNS)
def test_how_long_a_key_rests(status: int, headers: dict[str, str], seconds: float) -> None:
    pool = Pool(answer(status, **headers), *(answer() for _ in range(3)))
    assert pool.asker.status() == 200
    assert pool.keys.status()[0]["seconds"] == pytest.approx(seconds)
    pool.clock.advance(seconds - 0.01)
    pool.asker.ask()
    pool.clock.advance(0.02)
    pool.asker.ask()
    assert pool.used == ["secret-1", "secret-2", "secret-2", "secret-1"]


def test_an_answer_that_was_not_accepted_is_let_go() -> None:
    refused = answer(429)
    pool = Pool(refused, answer(200))
    pool.asker.ask()
    assert body_of(refused).closed == 1


def test_a_large_answer_is_closed_unread_and_a_broken_one_is_no_error() -> None:
    for headers, chunks in (
        ((("content-length", "70000"),), [RuntimeError("it was read")]),
        ((), [RuntimeError("it was read")]),
        ((("content-length", "7"),), [b"x", UpstreamError("cut")]),
    ):
        body = ScriptedBody(chunks)  # type: ignore[arg-type]
        discard(headers, body)
        assert body.closed == 1


def test_a_resting_key_rests_longer_but_never_shorter() -> None:
    cooldowns = ProcessCooldowns(clock := FakeClock())
    assert cooldowns.begin(FIRST, Rest("rate_limited", 30))
    assert not cooldowns.begin(FIRST, Rest("unauthorized", 20))
    assert cooldowns.of(FIRST) == Rest("rate_limited", 30)
    assert not cooldowns.begin(FIRST, Rest("unauthorized", 40))
    assert cooldowns.of(FIRST) == Rest("unauthorized", 40)
    clock.advance(40)
    assert cooldowns.of(FIRST) is None
    assert cooldowns.begin(FIRST, Rest("rate_limited", 1))


def test_only_the_step_from_valid_to_resting_is_counted() -> None:
    pool = Pool(answer(429), answer(200), answer(401), answer(200))
    pool.asker.ask()
    pool.keys._refused(FIRST, 429, ())
    pool.asker.ask()
    assert pool.keys.transitions == {"rate_limited": 1, "unauthorized": 1}


def test_every_key_is_limited() -> None:
    """The provider's answers disagree: what counts is when the first key is valid again."""
    pool = Pool(*(answer(429, retry_after=seconds) for seconds in ("5", "3", "10")))
    with pytest.raises(KeysRateLimited, match="all configured keys are rate-limited") as raised:
        pool.asker.ask()
    error = raised.value
    assert (error.status, error.retry_after, error.tried, error.final) == (429, 3.0, True, False)
    assert pool.used == ["secret-1", "secret-2", "secret-3"]
    assert pool.keys.exhaustions == {"rate_limited": 1}
    with pytest.raises(KeysRateLimited) as again:
        pool.asker.ask()
    assert not again.value.tried
    assert len(pool.used) == 3


@pytest.mark.parametrize(("last", "final"), [("false", True), ("true", False), ("", False)])
def test_whether_the_provider_wants_to_be_asked_again(last: str, final: bool) -> None:
    pool = Pool(answer(429, x_should_retry="false"), answer(429, x_should_retry=last), of=(FIRST, SECOND))
    with pytest.raises(KeysRateLimited) as raised:
        pool.asker.ask()
    assert raised.value.final is final


def test_no_key_is_accepted() -> None:
    pool = Pool(answer(401), answer(401, retry_after="5"), of=(FIRST, SECOND))
    with pytest.raises(
        KeysUnauthorized, match=r"all configured keys failed authentication.*administrator"
    ) as raised:
        pool.asker.ask()
    assert (raised.value.status, raised.value.retry_after) == (502, None)
    assert pool.keys.exhaustions == {"unauthorized": 1}
    assert pool.states() == ["unauthorized", "unauthorized"]


def test_one_limit_among_refusals_is_a_limit() -> None:
    pool = Pool(answer(401), answer(429, retry_after="90"), of=(FIRST, SECOND))
    with pytest.raises(KeysRateLimited) as raised:
        pool.asker.ask()
    assert raised.value.retry_after == 60.0


def test_the_only_keys_limit_is_told_in_the_providers_words() -> None:
    limited = answer(429, retry_after="7")
    pool = Pool(limited, of=(FIRST,))
    assert pool.asker.ask() is limited
    assert body_of(limited).closed == 0
    with pytest.raises(KeysRateLimited) as raised:
        pool.asker.ask()
    assert (raised.value.retry_after, raised.value.tried) == (7.0, False)


def test_the_only_keys_refusal_is_not() -> None:
    """A client would take it for one of its own credential."""
    pool = Pool(answer(401), of=(FIRST,))
    with pytest.raises(KeysUnauthorized):
        pool.asker.ask()


def test_a_key_that_recovers_while_the_others_are_tried_is_not_tried_twice() -> None:
    """A tiny retry-after-ms must not spin."""
    clock = FakeClock()
    pool = KeyPool("acme", [FIRST, SECOND], clock=clock)

    def slow() -> UpstreamResponse:
        clock.advance(0.01)
        return answer(429, retry_after_ms="1")

    script = Script(slow, slow)
    with pytest.raises(KeysRateLimited, match="all configured keys are rate-limited") as raised:
        Asker(keys(pool, script)).ask()
    assert script.keys == ["secret-1", "secret-2"]
    assert raised.value.retry_after is None


def test_one_try_is_one_try() -> None:
    pool = KeyPool("acme", [FIRST, SECOND], clock=FakeClock())
    assert pool.ask(lambda key: answer(429), once=True).status == 429
    pool = KeyPool("acme", [FIRST, SECOND], clock=FakeClock())
    with pytest.raises(UpstreamError, match="another one is used"):
        pool.ask(lambda key: answer(401), once=True)
    with pytest.raises(KeysUnauthorized):
        KeyPool("acme", [FIRST], clock=FakeClock()).ask(lambda key: answer(401), once=True)


def test_threads_share_a_pool() -> None:
    """Whoever comes after a refusal does not ask with that key."""
    pool = KeyPool("acme", [FIRST, SECOND])
    together = threading.Barrier(8)

    def upstream(key: Key) -> UpstreamResponse:
        return answer(429 if key is FIRST else 200)

    def many(_: int) -> set[int]:
        together.wait(10)
        return {pool.ask(upstream).status for _ in range(50)}

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(many, range(8))) == [{200}] * 8
    assert pool.transitions == {"rate_limited": 1}
