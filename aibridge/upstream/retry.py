"""Asking a provider again when that is likely to help and cannot do harm.

A call is repeated only while nothing of its answer has reached the client: an `Upstream` returns before the first
byte of a body. What the client gets in the end is the provider's own last answer.
"""

import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import structlog

from aibridge.errors import GatewayError, KeysRateLimited, Unreachable
from aibridge.settings import Retry
from aibridge.upstream.call import Upstream, UpstreamRequest, UpstreamResponse, WholeBody
from aibridge.upstream.clock import Clock, wait
from aibridge.upstream.retry_after import retry_after

FACTOR = 2.0  # from one delay to the next
LONGEST_BACKOFF = 8.0
JITTER = 0.25  # how much of a delay chance takes off
LONGEST_WAIT = 60.0  # a provider that asks for more is not waited for
BUDGET = 60.0  # seconds after the first attempt within which the last one begins

_STATUSES = (408, 409, 429)

_log = structlog.get_logger("aibridge.retry")


def next_delay(
    policy: Retry, retries: int, told: float | None, elapsed: float, chance: float = 0.0
) -> float | None:
    """Seconds to wait before the next attempt; None if there is to be none.

    `retries` were made already, `told` is what the provider asks for, `elapsed` what has passed since the first
    attempt, `chance` between 0 and 1.
    """
    backoff = min(policy.base_delay * FACTOR ** min(retries, 32), max(LONGEST_BACKOFF, policy.base_delay))
    seconds = max(backoff * (1 - JITTER * chance), told or 0.0)
    given_up = retries >= policy.max_retries or (told or 0.0) > LONGEST_WAIT or elapsed + seconds > BUDGET
    return None if given_up else seconds


def worth_retrying(response: UpstreamResponse) -> bool:
    """Whether the same request may get a better answer. What the provider says of it counts most."""
    match response.header("x-should-retry").lower():
        case "true":
            return response.status >= 400
        case "false":
            return False
    return response.status in _STATUSES or response.status >= 500


def retry(
    policy: Retry,
    upstream: Upstream,
    *,
    provider: str = "",
    clock: Clock = time,
    chance: Callable[[], float] = random.random,
) -> Upstream:
    """An upstream that asks again. If the last attempt brings no answer, the one before stands. `provider` is what
    the log calls it."""

    def call(request: UpstreamRequest) -> UpstreamResponse:
        began, retries = clock.monotonic(), 0
        answer: UpstreamResponse | None = None
        while True:
            failure: GatewayError | None = None
            try:
                answer = upstream(request)
                again, told = worth_retrying(answer), retry_after(answer.headers, clock.time())
            except Unreachable as error:
                failure, again, told = error, True, None
            except KeysRateLimited as error:
                failure, again, told = error, error.tried and not error.final, error.retry_after
                answer = None if error.tried else answer
            delay = next_delay(policy, retries, told, clock.monotonic() - began, chance()) if again else None
            if delay is None:
                return _ended(answer, failure)
            retries += 1
            answer = _kept(answer)
            reason = f"status {answer.status}" if answer and not failure else str(failure)
            _log.info("a provider is asked again", provider=provider, after=round(delay, 3), reason=reason)
            wait(delay, request.abandoned, clock)

    return call


def _ended(answer: UpstreamResponse | None, failure: GatewayError | None) -> UpstreamResponse:
    if answer is not None:
        return answer
    assert failure is not None
    raise failure


def _kept(answer: UpstreamResponse | None) -> UpstreamResponse | None:
    """The answer, read to its end, so that its connection is free while we wait. Raises UpstreamError."""
    if answer is None:
        return None
    with closing(answer.body) as body:
        return replace(answer, body=WholeBody(b"".join(body)))
