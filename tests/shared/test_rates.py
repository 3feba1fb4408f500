"""Counting together in a real Redis, and alone where it is away."""

import socket
import time
from urllib.parse import urlsplit

import pytest
import redis
from structlog.testing import capture_logs

from aibridge.interception.rates import SharedOrOwn, Window
from aibridge.settings import Limits
from aibridge.shared.rates import RedisWindow, rate_of
from tests.redis_server import RedisServer


def test_only_what_is_limited_is_counted() -> None:
    assert rate_of(Limits()) is None
    assert rate_of(Limits(redis_url="redis://h")) is None
    assert isinstance(rate_of(Limits(rate="1/minute")), Window)
    assert isinstance(rate_of(Limits(rate="1/minute", redis_url="redis://h")), SharedOrOwn)


def test_several_processes_count_together(redis_server: RedisServer) -> None:
    one, other = RedisWindow(redis_server.url, 3, 2), RedisWindow(redis_server.url, 3, 2)
    started = time.monotonic()
    assert [one.hit("alice"), other.hit("alice"), one.hit("alice")] == [0, 0, 0]
    wait = other.hit("alice")
    assert 2 - (time.monotonic() - started) - 0.1 <= wait <= 2
    assert one.hit("bob") == 0
    time.sleep(wait)
    assert other.hit("alice") == 0


def test_redis_learns_no_names_and_forgets_by_itself(redis_server: RedisServer) -> None:
    window = RedisWindow(redis_server.url, 3, 60)
    for key in ("alice", "a" * 256, "\u00e9 */:\n", ""):
        assert window.hit(key) == 0
    with redis.Redis(port=urlsplit(redis_server.url).port or 0) as client:
        keys = [key.decode() for key in client.scan_iter()]
        assert len(keys) == 4
        assert all(key.startswith("aibridge:") and len(key) < 120 and "alice" not in key for key in keys)
        assert all(0 < client.ttl(key) <= 60 for key in keys)


def test_without_redis_each_process_counts_for_itself(redis_server: RedisServer) -> None:
    rate = rate_of(Limits(rate="2/minute", redis_url=redis_server.url))
    assert isinstance(rate, SharedOrOwn)
    rate._pause = 0.2
    with capture_logs() as logs:
        assert [rate.hit("alice"), rate.hit("alice")] == [0, 0]
        assert rate.hit("alice") > 0
        redis_server.stop()
        started = time.monotonic()
        assert [rate.hit("alice"), rate.hit("alice")] == [0, 0]
        assert rate.hit("alice") > 0
        assert time.monotonic() - started < 2
        redis_server.start()
        time.sleep(0.3)
        assert rate.hit("alice") == 0  # the new server knows nothing
    assert [line["log_level"] for line in logs] == ["warning", "info"]


def test_a_redis_that_says_nothing_delays_no_more_than_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibridge.shared.rates.PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rate = rate_of(Limits(rate="2/minute", redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}"))
        assert rate is not None
        started = time.monotonic()
        assert rate.hit("alice") == 0
        first = time.monotonic() - started
        assert rate.hit("alice") == 0
        assert rate.hit("alice") > 0
        assert 0.1 < first < 1.5
        assert time.monotonic() - started - first < 0.1
