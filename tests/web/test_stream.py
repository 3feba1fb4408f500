"""The iterable that the WSGI server reads, with a scripted provider and a clock that is told the time."""

from collections.abc import Generator
from pathlib import Path

import pytest

from aibridge.errors import ClientGone, UpstreamError, UpstreamTimeout
from aibridge.interception.exchange import Exchange
from aibridge.interception.recorder import BackgroundRecorder
from aibridge.interception.spool import Spool
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.sse import encode
from aibridge.records import InterceptionEnded, TokenUsage
from aibridge.upstream.call import IDLE
from aibridge.web.stream import AnswerStream, StreamCut, opening
from tests.fakes import FakeClock, MemoryRecorder
from tests.interception.samples import started

START = encode("message_start", b'{"type":"message_start","message":{"id":"m","usage":{"input_tokens":3}}}')
STOP = encode("message_stop", b'{"type":"message_stop"}')
ERROR = b"event: error\ndata: {"


def nothing_to_say() -> bytes:
    return b""


Step = bytes | float | Exception


class Scene:
    """A stream in progress: steps are chunks, seconds that pass before an idle moment, or exceptions."""

    def __init__(self, tmp_path: Path, steps: list[Step]) -> None:
        self.clock = FakeClock()
        self.store = MemoryRecorder()
        self.recorder = BackgroundRecorder(self.store, Spool(tmp_path))
        self.recorder.start()
        self.exchange = Exchange(started(), self.recorder, arrived=0)
        self.exchange.begin()
        self.interceptor = MESSAGES.intercept(MESSAGES.parse(b"{}"), "i1", 200, True)
        self.exchange.observer = self.interceptor
        self.gone = False
        self.provider_released = False
        self._steps = steps
        chunks = self._chunks()
        first = opening(chunks, lambda: self.gone, 10, nothing_to_say)
        self.stream = AnswerStream(
            self.exchange,
            first,
            chunks,
            MESSAGES,
            gone=lambda: self.gone,
            ping_interval=10,
            clock=self.clock,
        )

    def _chunks(self) -> Generator[bytes]:
        try:
            for step in self._steps:
                match step:
                    case bytes():
                        yield self.interceptor.feed(step)
                    case Exception():
                        raise step
                    case _:
                        self.clock.advance(step)
                        yield IDLE
        finally:
            self.provider_released = True

    def read(self) -> tuple[bytes, bool]:
        """What the client gets, and whether the connection was cut."""
        got, cut = b"", False
        try:
            for chunk in self.stream:
                got += chunk
        except StreamCut:
            cut = True
        self.stream.close()
        self.recorder.close()
        return got, cut

    @property
    def end(self) -> InterceptionEnded:
        (end,) = self.store.of(InterceptionEnded)
        assert isinstance(end, InterceptionEnded)
        return end


def test_a_whole_stream_passes_and_its_end_waits_for_the_records(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [START, STOP])
    chunks = iter(scene.stream)
    assert [next(chunks), next(chunks)] == [START, STOP]
    assert not scene.store.of(InterceptionEnded)
    assert b"".join(chunks) == b""
    assert scene.end.status == "completed"
    scene.recorder.close()


def test_an_answer_whose_client_has_left_waits_for_its_provider_no_more(tmp_path: Path) -> None:
    """What it does next is to wait for its records, which must not hold up a thread that carries other answers."""
    scene = Scene(tmp_path, [START, 1.0, STOP])
    chunks = iter(scene.stream)
    assert (next(chunks), scene.stream.relaying) == (START, True)
    scene.gone = True
    assert (next(chunks), scene.stream.relaying) == (IDLE, False)
    assert not scene.store.of(InterceptionEnded)
    scene.stream.close()
    assert scene.end.status == "cancelled"
    scene.recorder.close()


def test_pings_come_in_silence_and_between_events_only(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [START, 9.0, 2.0, 5.0, STOP[:10], 11.0, STOP[10:]])
    assert scene.read() == (START + MESSAGES.ping + STOP, False)


@pytest.mark.parametrize("sent", [b"", STOP[:10], STOP[:21]])
def test_a_death_ends_with_an_error_event_and_a_cut(tmp_path: Path, sent: bytes) -> None:
    scene = Scene(tmp_path, [START, sent, UpstreamError("it died")] if sent else [START, UpstreamError("it died")])
    got, cut = scene.read()
    assert cut
    assert got.startswith(START + sent)
    assert b"\n\n" + ERROR in got
    assert b"it died" in got
    assert (scene.end.status, scene.end.http_status, scene.end.error_message) == ("failed", 200, "it died")
    assert scene.store.of(TokenUsage)


def test_a_clean_end_without_the_terminal_event_is_a_death(tmp_path: Path) -> None:
    got, cut = (scene := Scene(tmp_path, [START])).read()
    assert cut
    assert ERROR in got
    assert scene.end.status == "failed"


def test_silence_past_the_timeout_is_told_as_such(tmp_path: Path) -> None:
    got, cut = (scene := Scene(tmp_path, [START, UpstreamTimeout("silent")])).read()
    assert cut
    assert b"timeout_error" in got
    assert scene.end.error_type == "timeout"


def test_the_providers_own_error_event_is_relayed_and_ends_cleanly(tmp_path: Path) -> None:
    error = encode("error", b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    scene = Scene(tmp_path, [START, error])
    assert scene.read() == (START + error, False)
    assert (scene.end.status, scene.end.error_type, scene.end.error_message) == (
        "failed",
        "overloaded",
        "Overloaded",
    )


def test_a_client_that_left_in_silence_is_noticed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [START, 1.0, STOP])
    scene.gone = True
    assert scene.read() == (START, True)
    assert scene.end.status == "cancelled"
    assert scene.provider_released


def test_a_server_that_stops_reading_cancels(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [START, STOP])
    next(iter(scene.stream))
    scene.stream.close()
    scene.recorder.close()
    assert scene.end.status == "cancelled"
    assert scene.provider_released


def test_a_server_that_never_reads_cancels_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [START, STOP])
    scene.stream.close()
    scene.recorder.close()
    assert scene.end.status == "cancelled"


def test_a_bug_of_ours_is_an_error_event_without_details(tmp_path: Path) -> None:
    got, cut = (scene := Scene(tmp_path, [START, ZeroDivisionError("secret detail")])).read()
    assert cut
    assert ERROR in got
    assert b"secret detail" not in got
    assert scene.end.status == "failed"


@pytest.mark.parametrize("chunks", [[], [IDLE], [b": comment\n\n"], [b"<html>"]])
def test_a_stream_without_an_event_is_an_upstream_error(chunks: list[bytes]) -> None:
    with pytest.raises(UpstreamError, match="without a single event"):
        opening(iter(chunks), lambda: False, 10, nothing_to_say)


def test_comments_wait_for_an_event_but_not_for_ever() -> None:
    def begun(*chunks: bytes, patience: float = 10) -> bytes:
        return opening(iter(chunks), lambda: False, patience, nothing_to_say)

    assert begun(b": hi\n\n", IDLE, b"event", b": x") == b": hi\n\nevent: x"
    assert begun(b": hi\n\n", IDLE, patience=-1) == b": hi\n\n"
    assert begun(b":" * 70_000) == b":" * 70_000


def test_the_gateway_speaks_first_where_it_must() -> None:
    """While a tool runs and the provider has given nothing to show."""
    assert opening(iter([IDLE, IDLE]), lambda: False, -1, lambda: b": ping\n\n") == b": ping\n\n"
    assert opening(iter([b"data: x", IDLE]), lambda: False, -1, lambda: b": ping\n\n") == b"data: x"


def test_a_client_that_leaves_before_the_first_bytes_is_noticed() -> None:
    with pytest.raises(ClientGone):
        opening(iter([IDLE]), lambda: True, 10, nothing_to_say)
