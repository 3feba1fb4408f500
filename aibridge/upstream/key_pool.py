"""A provider's keys: the first one that is not resting pays; one that was refused rests, and the next is tried.

States of a key, derived when it is looked at (nothing runs in the background):

    valid    -- 429 --> resting (rate_limited), for as long as the answer says, else COOLDOWN
    valid    -- 401 --> resting (unauthorized), for COOLDOWN, whatever the answer says
    resting  -- time --> valid; an answer that comes late can make it rest longer, never shorter

Any other answer, 403 included, is about the request and not about the key.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Literal, Protocol, TypeVar

import structlog

from aibridge.errors import KeysRateLimited, KeysUnauthorized, UpstreamError
from aibridge.upstream.call import (
    Headers,
    Upstream,
    UpstreamBody,
    UpstreamRequest,
    UpstreamResponse,
    discard,
    header,
)
from aibridge.upstream.clock import Clock
from aibridge.upstream.retry_after import retry_after

COOLDOWN = 60.0  # seconds, where an answer does not say
LONGEST_COOLDOWN = 86400.0  # after a day a key is worth another try, whatever the answer said

Reason = Literal["rate_limited", "unauthorized"]

_REASONS: dict[int, Reason] = {429: "rate_limited", 401: "unauthorized"}

_log = structlog.get_logger("aibridge.key_pool")


@dataclass(frozen=True, slots=True)
class Key:
    """One key: the header that carries it, and what may be shown of it."""

    hint: str
    header: tuple[str, str] = field(repr=False)

    def sign(self, headers: Headers) -> Headers:
        """The headers with this key instead of the one that they carry."""
        name = self.header[0]
        return tuple(self.header if pair[0] == name else pair for pair in headers)


@dataclass(frozen=True, slots=True)
class Rest:
    reason: Reason
    seconds: float


class Cooldowns(Protocol):
    """Which keys rest. One that several machines share has the same two methods; times are spans, since clocks
    differ."""

    def of(self, key: Key) -> Rest | None:
        """Why the key rests and for how much longer, more than 0 s; None if it is valid."""

    def begin(self, key: Key, rest: Rest) -> bool:
        """Let a key rest, unless it rests for longer already. Whether it was valid until now."""


class ProcessCooldowns:
    """The keys of one process, for all of its threads."""

    def __init__(self, clock: Clock = time) -> None:
        self._clock = clock
        self._until: dict[Key, tuple[float, Reason]] = {}
        self._lock = Lock()

    def of(self, key: Key) -> Rest | None:
        until, reason = self._until.get(key, (0.0, "rate_limited"))
        left = until - self._clock.monotonic()
        return Rest(reason, left) if left > 0 else None

    def begin(self, key: Key, rest: Rest) -> bool:
        with self._lock:
            earlier = self.of(key)
            if earlier is None or rest.seconds >= earlier.seconds:
                self._until[key] = (self._clock.monotonic() + rest.seconds, rest.reason)
            return earlier is None


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers: ...

    @property
    def body(self) -> UpstreamBody: ...


A = TypeVar("A", bound=Answer)


class KeyPool:
    """The keys of one provider, in the order of their use. Raises ValueError if there is none, or one twice.
    `transitions` counts by reason how often a key began to rest, `exhaustions` how often none was left."""

    def __init__(
        self, provider: str, keys: Sequence[Key], cooldowns: Cooldowns | None = None, clock: Clock = time
    ) -> None:
        if not keys or len(set(keys)) < len(keys):
            raise ValueError("a key pool needs keys, each of them once")
        self.transitions: Counter[str] = Counter()
        self.exhaustions: Counter[str] = Counter()
        self._provider = provider
        self._keys = tuple(keys)
        self._clock = clock
        self._cooldowns = cooldowns or ProcessCooldowns(clock)
        self._counting = Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def walk(self) -> Iterator[Key]:
        """For one call: the keys that are valid when their turn comes, each at most once."""
        return (key for key in self._keys if self._cooldowns.of(key) is None)

    def ask(self, send: Callable[[Key], A], *, once: bool = False) -> A:
        """The first answer that is not about the key it was asked with; with `once` there is no second try.

        If there is but one key, or one try, the provider's own answer tells best that the key is over its limit;
        the answers to several keys disagree, and KeysRateLimited is raised. KeysUnauthorized (or, after one try of
        several, UpstreamError) takes the place of a 401, which clients would understand of their own key.
        """
        tried, final = False, True
        for key in self.walk():
            answer = send(key)
            if not self._refused(key, answer.status, answer.headers):
                return answer
            alone = once or len(self._keys) == 1
            if alone and answer.status == 429:
                return answer
            discard(answer.headers, answer.body)
            if once and len(self._keys) > 1:
                raise UpstreamError("the provider refused a key; try again, and another one is used")
            tried, final = True, final and header(answer.headers, "x-should-retry").lower() == "false"
        raise self._exhausted(tried=tried, final=final)

    def status(self) -> list[dict[str, Any]]:
        """How each key is now, as plain values."""

        def told(key: Key) -> dict[str, Any]:
            rest = self._cooldowns.of(key)
            resting = {"state": rest.reason, "seconds": round(rest.seconds, 3)} if rest else {"state": "valid"}
            return {"key": key.hint, **resting}

        return [told(key) for key in self._keys]

    def _refused(self, key: Key, status: int, headers: Headers) -> bool:
        """Whether an answer to this key was about the key, which rests from now on."""
        reason = _REASONS.get(status)
        if reason is None:
            return False
        told = retry_after(headers, self._clock.time()) if reason == "rate_limited" else None
        rest = Rest(reason, min(told or COOLDOWN, LONGEST_COOLDOWN))
        if self._cooldowns.begin(key, rest):
            with self._counting:
                self.transitions[reason] += 1
            about = {"provider": self._provider, "key": key.hint, "status": status}
            _log.info("a key rests", **about, seconds=round(rest.seconds, 3))
        return True

    def _exhausted(self, *, tried: bool, final: bool) -> KeysRateLimited | KeysUnauthorized:
        """The error of a call for which no key is left; see KeysRateLimited for `tried` and `final`."""
        rests = [self._cooldowns.of(key) for key in self._keys]
        resting = [rest for rest in rests if rest is not None]
        limited = len(resting) < len(rests) or any(rest.reason == "rate_limited" for rest in resting)
        with self._counting:
            self.exhaustions["rate_limited" if limited else "unauthorized"] += 1
        if not limited:
            return KeysUnauthorized("all configured keys failed authentication: please tell the administrator")
        recovered = len(resting) < len(rests)  # since the walk passed it
        soonest = None if recovered else min(rest.seconds for rest in resting)
        message = "all configured keys are rate-limited"
        return KeysRateLimited(message, retry_after=soonest, tried=tried, final=final)


def keys(pool: KeyPool | None, upstream: Upstream) -> Upstream:
    """An upstream that pays with the pool's keys where the provider's own are to pay; raises what `ask` raises."""

    def call(request: UpstreamRequest) -> UpstreamResponse:
        def send(key: Key) -> UpstreamResponse:
            request.attempted(key.hint)
            return upstream(replace(request, headers=key.sign(request.headers)))

        if pool is not None and request.central:
            return pool.ask(send)
        request.attempted(None)
        return upstream(request)

    return call
