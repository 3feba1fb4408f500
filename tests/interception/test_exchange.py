"""The life of an interception, with a store in memory and a scripted provider."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from aibridge.errors import RecordingError, Unavailable, UpstreamError, UpstreamTimeout
from aibridge.interception import recorder as recorder_module
from aibridge.interception.exchange import Exchange
from aibridge.interception.gateway import Gateway
from aibridge.interception.loop import SingleRound, intercept
from aibridge.interception.memory import ProcessMemory
from aibridge.interception.outcome import category, judge
from aibridge.interception.recorder import BackgroundRecorder
from aibridge.interception.spool import Spool
from aibridge.interception.tools import Toolbelt
from aibridge.protocols.interceptor import Observation, ProviderError
from aibridge.protocols.messages import MESSAGES
from aibridge.records import InterceptionEnded, TokenUsage, shortened
from aibridge.settings import Settings, Tools
from aibridge.upstream.call import IDLE, UpstreamRequest, UpstreamResponse
from tests.fakes import FakeClock, FakeToolbox, FakeUpstream, MemoryRecorder
from tests.interception.samples import started

REQUEST = UpstreamRequest("/v1/messages", (("x-api-key", "sk-secret"),), b"{}")
BODY = b'{"id":"msg_1","model":"m","content":[],"usage":{"input_tokens":3,"output_tokens":4}}'


@pytest.fixture
def store() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def recorder(store: MemoryRecorder, tmp_path: Path) -> Iterator[BackgroundRecorder]:
    recorder = BackgroundRecorder(store, Spool(tmp_path))
    recorder.start()
    yield recorder
    recorder.close()


def the_end(store: MemoryRecorder) -> InterceptionEnded:
    (end,) = store.of(InterceptionEnded)
    assert isinstance(end, InterceptionEnded)
    return end


def run(exchange: Exchange, upstream: FakeUpstream) -> bytes:
    response = exchange.call(upstream, REQUEST)
    interceptor = MESSAGES.intercept(MESSAGES.parse(b"{}"), exchange.id, response.status, False)
    exchange.observer = rounds = SingleRound(response, interceptor, streamed=False)
    body = b"".join(intercept(rounds))
    exchange.first_byte()
    return body


def test_a_completed_interception_tells_its_times_and_usage(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    clock = FakeClock()
    exchange = Exchange(started(), recorder, arrived=clock(), clock=clock)
    clock.advance(0.002)
    exchange.begin()
    upstream = FakeUpstream(BODY[:9], IDLE, BODY[9:])
    assert run(exchange, upstream) == BODY
    clock.advance(0.5)
    before = exchange.settled
    assert not before
    assert exchange.settle(200).status == "completed"
    assert exchange.settled
    end = the_end(store)
    assert (end.duration_ms, end.gateway_ms, end.time_to_first_byte_ms) == (502.0, 2.0, 2.0)
    assert (end.status, end.http_status, end.rounds, end.attempts) == ("completed", 200, 1, 1)
    assert len(store.of(TokenUsage)) == 1
    assert upstream.bodies[0].closed == 1
    assert "sk-secret" not in repr(upstream.requests)


def test_every_attempt_is_counted_and_the_last_key_named(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    def policed(request: UpstreamRequest) -> UpstreamResponse:
        request.attempted("fi...st")
        request.attempted("se...nd")
        return FakeUpstream(BODY)(request)

    exchange = Exchange(started(), recorder, arrived=0.0)
    exchange.begin()
    exchange.call(policed, REQUEST)
    exchange.settle(200)
    assert (the_end(store).attempts, the_end(store).credential_hint) == (2, "se...nd")


def test_an_answer_that_cannot_be_accounted_for_is_delivered_and_ended(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    class Broken:
        def feed(self, chunk: bytes) -> bytes:
            return chunk

        def finish(self) -> bytes:
            return b""

        def observe(self) -> Observation:
            raise ZeroDivisionError

    exchange = Exchange(started(), recorder, arrived=0)
    exchange.begin()
    exchange.observer = Broken()
    assert exchange.settle(200).status == "completed"
    assert the_end(store).notes


def test_only_the_first_settlement_counts(store: MemoryRecorder, recorder: BackgroundRecorder) -> None:
    exchange = Exchange(started(), recorder, arrived=0)
    exchange.begin()
    first = exchange.settle(None, cancelled=True)
    assert exchange.settle(502, failure=UpstreamError("late")) is first
    end = the_end(store)
    assert (end.status, end.http_status, end.rounds) == ("cancelled", None, 0)


def test_an_unfinished_body_becomes_an_error_only_if_nothing_was_sent(
    store: MemoryRecorder, recorder: BackgroundRecorder
) -> None:
    exchange = Exchange(started(), recorder, arrived=0)
    exchange.begin()
    run(exchange, FakeUpstream(b"<html>"))
    verdict = exchange.settle(200)
    assert verdict.failure is not None
    assert (the_end(store).http_status, the_end(store).status) == (502, "failed")


def test_a_start_that_cannot_be_recorded_is_503(store: MemoryRecorder, recorder: BackgroundRecorder) -> None:
    store.down = RecordingError("down")
    with pytest.raises(Unavailable) as refusal:
        Exchange(started(), recorder, arrived=0).begin()
    assert refusal.value.retry_after == 5


def test_the_verdict_holds_even_if_nothing_takes_the_records(store: MemoryRecorder, tmp_path: Path) -> None:
    recorder = BackgroundRecorder(store, Spool(tmp_path, limit=1))
    recorder.start()
    exchange = Exchange(started(), recorder, arrived=0)
    exchange.begin()
    store.down = RecordingError("down")
    assert exchange.settle(502, failure=UpstreamError("gone")).status == "failed"
    recorder.close()


def test_the_verdict_does_not_wait_for_ever_for_a_store(
    store: MemoryRecorder, recorder: BackgroundRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Exchange(started(), recorder, arrived=0)
    exchange.begin()
    monkeypatch.setattr(recorder_module, "COMMIT_TIMEOUT", 0.05)
    store.open.clear()
    blocker = Exchange(started("other"), recorder, arrived=0)
    with pytest.raises(Unavailable):
        blocker.begin()
    assert exchange.settle(499, cancelled=True).status == "cancelled"
    store.open.set()


def test_long_error_messages_are_cut_between_characters() -> None:
    assert shortened("ä" * 600) == "ä" * 512
    assert shortened("short") == "short"


CATEGORIES = [
    (400, "bad_request"),
    (401, "unauthorized"),
    (403, "unauthorized"),
    (408, "timeout"),
    (418, "unknown"),
    (422, "bad_request"),
    (429, "rate_limited"),
    (500, "server_error"),
    (503, "server_error"),
    (529, "server_error"),
]


@pytest.mark.parametrize(("status", "expected"), CATEGORIES)
def test_errors_are_sorted_by_status(status: int, expected: str) -> None:
    assert category(ProviderError("m", status=status)) == expected


def test_an_api_says_that_it_is_overloaded_by_its_own_status() -> None:
    assert category(ProviderError("m", status=503, overloaded=True)) == "overloaded"


def test_errors_inside_a_stream_are_sorted_by_their_type() -> None:
    assert category(ProviderError("m", "overloaded_error")) == "overloaded"
    assert category(ProviderError("m", "novel_error")) == "unknown"


def test_our_own_failure_goes_before_what_the_provider_said() -> None:
    said = Observation((), finished=True, error=ProviderError("theirs"))
    assert judge(said, UpstreamTimeout("ours"), cancelled=False).error_type == "timeout"
    assert judge(said, None, cancelled=False).error_message == "theirs"


def test_a_provider_that_drops_the_connection_after_the_end_has_not_failed() -> None:
    dropped = UpstreamError("the connection broke")
    whole, refused = Observation((), finished=True), Observation((), finished=False, error=ProviderError("theirs"))
    assert judge(whole, dropped, cancelled=False, sent=True).status == "completed"
    assert judge(refused, dropped, cancelled=False, sent=True).error_message == "theirs"
    assert judge(refused, dropped, cancelled=False, sent=True).failure is None
    assert judge(whole, dropped, cancelled=False).failure is dropped
    assert judge(Observation((), finished=False), dropped, cancelled=False, sent=True).failure is dropped


def test_a_stop_after_the_end_has_failed_nothing() -> None:
    assert judge(Observation((), finished=True), Unavailable("we stop"), cancelled=False, sent=True).status == (
        "completed"
    )


def test_a_client_that_leaves_after_the_end_has_cancelled_nothing() -> None:
    error = Observation((), finished=False, error=ProviderError("overloaded"))
    assert judge(error, None, cancelled=True).status == "failed"
    assert judge(Observation((), finished=True), None, cancelled=True).status == "completed"
    assert judge(Observation((), finished=False), None, cancelled=True).status == "cancelled"


def test_a_gateway_starts_and_closes_once(store: MemoryRecorder, tmp_path: Path) -> None:
    closed: list[str] = []
    recorder = BackgroundRecorder(store, Spool(tmp_path))
    toolbox = FakeToolbox()
    gateway = Gateway(
        settings=Settings(),
        providers={},
        recorder=recorder,
        toolbelt=Toolbelt([toolbox], Tools()),
        memory=ProcessMemory(),
        verify_token=lambda _: None,
        problems=lambda: ["the schema is old"],
        on_close=(lambda: closed.append("database"),),
    )
    gateway.start()
    gateway.start()
    running = [toolbox.running]
    recorder.begin(started())
    recorder._degraded.set()
    assert gateway.unready() == ["the schema is old", "records wait in the spool"]
    gateway.drain.begin(60)
    gateway.drain.refuse()
    assert gateway.unready() == ["draining"]
    gateway.close()
    gateway.close()
    assert [*running, toolbox.running] == [True, False]
    assert closed == ["database", "database"]


class Held:
    """Something that a request holds, like its body."""


def test_a_failed_request_is_gone_when_it_is_over_without_any_garbage_collection(
    recorder: BackgroundRecorder,
) -> None:
    def fail() -> None:
        try:
            raise OSError
        except OSError as error:
            raise UpstreamError("the provider is down") from error

    def request() -> "weakref.ref[Held]":
        held = Held()
        exchange = Exchange(started(), recorder, arrived=0)
        exchange.begin()
        try:
            fail()
        except UpstreamError as error:
            exchange.settle(502, failure=error)
        return weakref.ref(held)

    gc.disable()
    try:
        assert request()() is None
    finally:
        gc.enable()
