"""Rates of requests: in this process's memory or, where there is a Redis, in it.

The counting in Redis is the moving window of the library `limits`: exact, one script call for each request. The
machines' clocks must agree to a fraction of the window.
"""

import hashlib
import time

from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

from aibridge.interception.rates import Rate, SharedOrOwn, Window
from aibridge.settings import Limits, allowance, revealed

PATIENCE = 0.5  # seconds to connect to Redis, and to wait for its answer
CONNECTIONS = 1000  # more than there are threads


class RedisWindow:
    """At most `count` in any `seconds`, per key, for everybody who asks the same Redis. Raises what the client of
    Redis raises."""

    def __init__(self, url: str, count: int, seconds: int) -> None:
        # connects when it is first asked
        storage = RedisStorage(
            url,
            key_prefix="aibridge",
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            max_connections=CONNECTIONS,
        )
        self._limiter = MovingWindowRateLimiter(storage)
        self._limit = RateLimitItemPerSecond(count, seconds)

    def hit(self, key: str, /) -> float:
        # Of any length and with any characters, and no names of people in Redis.
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        if self._limiter.hit(self._limit, name):
            return 0.0
        free = self._limiter.get_window_stats(self._limit, name).reset_time
        return max(free - time.time(), 0.001)


def rate_of(limits: Limits) -> Rate | None:
    """The rate that the settings allow to an actor, if they limit it. Nothing connects yet."""
    allowed = allowance(limits.rate)
    if allowed is None:
        return None
    own, url = Window(*allowed), revealed(limits.redis_url)
    return SharedOrOwn(RedisWindow(url, *allowed), own) if url else own
