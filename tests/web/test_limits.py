"""Admission as clients meet it, and that every answer gives its place back, however it ends."""

import itertools
import random
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from flask import Flask
from structlog.testing import capture_logs
from werkzeug.test import EnvironBuilder

from aibridge import Settings, create_app
from aibridge.app import gateway_of
from aibridge.errors import ClientGone, UpstreamError
from aibridge.interception.admission import Admission
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import ForwardedRequest, ForwardedResponse, Provider
from aibridge.protocols.sse import encode
from aibridge.upstream.call import IDLE, Headers, UpstreamRequest, UpstreamResponse
from aibridge.web.limits import TAIL
from aibridge.web.stream import StreamCut
from tests.fakes import MemoryRecorder, ScriptedBody

START = encode("message_start", b'{"type":"message_start","message":{"id":"m","usage":{"input_tokens":3}}}')
STOP = encode("message_stop", b'{"type":"message_stop"}')
SSE = (("content-type", "text/event-stream"),)
JSON = (("content-type", "application/json"),)

Answer = Callable[[], UpstreamResponse]


def answers(*chunks: bytes | Exception, headers: Headers = SSE, status: int = 200) -> Answer:
    return lambda: UpstreamResponse(status, headers, ScriptedBody(chunks))


def fails(error: Exception) -> Answer:
    def answer() -> UpstreamResponse:
        raise error

    return answer


class Call:
    """A request whose answer is read as far as the test wants, and then closed as a server does."""

    def __init__(self, app: Flask, environ: dict[str, Any], *, strict: bool = False) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            if strict:
                raise ValueError("a header that the server does not send")
            self.status = int(status[:3])
            self.headers = {name.lower(): value for name, value in headers}

        self._iterable = app.wsgi_app(environ, start_response)
        self._chunks: Iterator[bytes] = iter(self._iterable)

    def read(self, chunks: int | None = None) -> bytes:
        return b"".join(itertools.islice(self._chunks, chunks))

    def close(self) -> None:
        self._iterable.close()  # type: ignore[attr-defined]

    def whole(self) -> bytes:
        try:
            return self.read()
        finally:
            self.close()


class House:
    """A gateway with one provider that answers as told, asked through WSGI as a server asks it."""

    def __init__(self, tmp_path: Path, **limits: Any) -> None:
        settings = Settings.model_validate(
            {
                "limits": limits,
                "recording": {"spool_dir": str(tmp_path / "spool")},
                "server": {"body_limit": 1000},
                "auth": {"allow_byok": False},
            }
        )
        rules = CredentialRules(("x-api-key",), "x-api-key", keys=("sk-central",))
        provider = Provider("acme", "anthropic", self._bridge, self._forward, rules)
        self.answer: Answer = answers(START, STOP)
        self.store = MemoryRecorder()
        self.app: Flask = create_app(settings, recorder=self.store, providers=[provider], toolboxes=[])

    @property
    def admission(self) -> Admission:
        return gateway_of(self.app).admission

    def _bridge(self, request: UpstreamRequest, /) -> UpstreamResponse:
        return self.answer()

    def _forward(self, request: ForwardedRequest, /) -> ForwardedResponse:
        request.body.read()
        response = self.answer()
        return ForwardedResponse(response.status, response.headers, response.body)

    def call(
        self,
        path: str = "/v1/messages",
        body: bytes = b"{}",
        *,
        method: str = "POST",
        user: str = "alice",
        key: str = "",
        stream: Any = None,
        length: int | None = None,
        strict: bool = False,
    ) -> Call:
        headers = [("X-User-ID", user), *([("X-Api-Key", key)] if key else [])]
        environ = EnvironBuilder(f"/acme{path}", method=method, data=body, headers=headers).get_environ()
        if length is not None:
            environ["CONTENT_LENGTH"] = str(length)
        if stream is not None:
            environ["wsgi.input"] = stream
        return Call(self.app, environ, strict=strict)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    gateway_of(house.app).close()


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def build(**limits: Any) -> House:
        houses.append(House(tmp_path, **limits))
        return houses[-1]

    yield build
    for house in houses:
        gateway_of(house.app).close()


# --- refusals ----------------------------------------------------------------------------------------------------


class Untouched(BytesIO):
    """A body that must not be read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models", "/v1/messages/count_tokens"])
def test_a_full_gateway_refuses_before_it_reads(limited: Callable[..., House], path: str) -> None:
    house = limited(max_concurrency=1)
    held = house.call()
    with capture_logs() as logs:
        refusal = house.call(path, stream=Untouched(), user="bob")
        body = orjson.loads(refusal.whole())
    assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
    assert body["error"]["type"] == "overloaded_error"
    assert "x-should-retry" not in refusal.headers
    assert "x-aibridge-interception-id" not in refusal.headers
    assert [line["reason"] for line in logs] == ["all places are taken"]
    assert held.whole() == START + STOP
    assert house.call(user="bob").whole() == START + STOP


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models", "/v1/messages/count_tokens"])
def test_an_actor_with_too_many_requests_is_refused_before_the_body_is_read(
    limited: Callable[..., House], path: str
) -> None:
    house = limited(per_actor_concurrency=1)
    held = house.call()
    with capture_logs() as logs:
        refusal = house.call(path, stream=Untouched())
        body = orjson.loads(refusal.whole())
    assert (refusal.status, refusal.headers["retry-after"]) == (429, "1")
    assert body["error"]["type"] == "rate_limit_error"
    assert "x-should-retry" not in refusal.headers
    assert [(line["event"], line["actor"]) for line in logs] == [("request refused", "alice")]
    assert house.call(user="bob").whole() == START + STOP
    held.close()
    assert house.call().whole() == START + STOP


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models"])
def test_a_rate_is_refused_with_the_time_to_wait(limited: Callable[..., House], path: str) -> None:
    house = limited(rate="2/hour")
    assert [house.call(path).status, house.call("/v1/messages").status] == [200, 200]
    refusal = house.call(path, stream=Untouched())
    assert orjson.loads(refusal.whole())["error"]["type"] == "rate_limit_error"
    assert refusal.status == 429
    assert 3590 <= int(refusal.headers["retry-after"]) <= 3600
    assert house.call(path, user="bob").status == 200


def test_a_refusal_leaves_no_interception(limited: Callable[..., House]) -> None:
    house = limited(rate="1/hour")
    assert house.call().whole() == START + STOP
    known = len(house.store.records)
    assert house.call().status == 429
    assert known
    assert len(house.store.records) == known


def test_too_large_is_told_even_to_those_who_are_over_their_limits(limited: Callable[..., House]) -> None:
    """Waiting would not help."""
    house = limited(per_actor_concurrency=1)
    house.call()
    assert house.call(length=5000).status == 413


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/acme", "/acme/api/hello"])
def test_health_and_warm_ups_need_no_place(limited: Callable[..., House], path: str) -> None:
    house = limited(max_concurrency=1, per_actor_concurrency=1, rate="1/hour")
    house.call()
    for _ in range(3):
        response = house.app.test_client().get(path)
        assert response.status_code == (503 if path == "/readyz" else 200)  # its database has no tables
    assert house.admission.taken == 1


# --- places are given back ---------------------------------------------------------------------------------------


def test_a_stream_holds_its_place_until_its_end(house: House) -> None:
    call = house.call()
    assert (house.admission.taken, house.admission.actors) == (1, 1)
    assert call.read(2) == START + STOP
    assert house.admission.taken == 1
    assert call.read() == b""
    assert house.admission.taken == 0  # before the server sends the final chunk
    call.close()
    assert house.admission.taken == 0


def test_a_client_that_has_its_whole_answer_finds_its_place_free(house: House) -> None:
    """Nothing follows the last byte of an answer with a length, so the place is free before it."""
    body = b'{"x":"' + b"x" * 3 * TAIL + b'"}'
    house.answer = answers(body, headers=JSON)
    call = house.call()
    first = call.read(1)
    assert len(first) == len(body) - TAIL
    assert house.admission.taken == 1
    assert first + call.read(1) == body
    assert house.admission.taken == 0
    assert call.read() == b""
    call.close()


def test_so_it_is_with_passed_through_answers(house: House) -> None:
    house.answer = answers(b"abc", b"", b"def", headers=(*JSON, ("content-length", "6")))
    call = house.call("/v1/models", method="GET")
    assert call.read(2) == b"abc"
    assert house.admission.taken == 1
    assert call.read(1) == b"def"
    assert house.admission.taken == 0
    call.close()


def bug() -> Exception:
    return ZeroDivisionError("a bug")


def ended(call: Call) -> None:
    call.whole()


def hung_up_at_once(call: Call) -> None:
    call.close()


def hung_up_half_way(call: Call) -> None:
    call.read(1)
    call.close()


def cut(call: Call) -> None:
    with pytest.raises(StreamCut):
        call.whole()


ENDINGS: dict[str, Callable[[House], None]] = {}


def ending(visit: Callable[[House], None]) -> Callable[[House], None]:
    ENDINGS[visit.__name__] = visit
    return visit


def tells(house: House, answer: Answer, finish: Callable[[Call], None] = ended, **request: Any) -> int:
    house.answer = answer
    call = house.call(**request)
    finish(call)
    return call.status


@ending
def a_whole_stream(house: House) -> None:
    assert tells(house, answers(START, IDLE, STOP)) == 200


@ending
def a_client_that_hangs_up_at_once(house: House) -> None:
    tells(house, answers(START, STOP), hung_up_at_once)


@ending
def a_client_that_hangs_up_half_way(house: House) -> None:
    tells(house, answers(START, IDLE, STOP), hung_up_half_way)


@ending
def a_client_gone_before_the_answer(house: House) -> None:
    assert tells(house, fails(ClientGone())) == 499


@ending
def a_provider_that_dies(house: House) -> None:
    tells(house, answers(START, UpstreamError("died")), cut)


@ending
def a_stream_without_its_end(house: House) -> None:
    tells(house, answers(START), cut)


@ending
def a_bug_in_the_stream(house: House) -> None:
    tells(house, answers(START, bug()), cut)


@ending
def an_empty_stream(house: House) -> None:
    assert tells(house, answers()) == 502


@ending
def an_unreachable_provider(house: House) -> None:
    assert tells(house, fails(UpstreamError("unreachable"))) == 502


@ending
def a_bug_before_the_answer(house: House) -> None:
    assert tells(house, fails(bug())) == 500


@ending
def a_blocking_answer(house: House) -> None:
    assert tells(house, answers(b'{"id":"m"}', headers=JSON)) == 200


@ending
def an_error_of_the_provider(house: House) -> None:
    assert tells(house, answers(b"{}", headers=JSON, status=529)) == 529


@ending
def a_blocking_answer_nobody_reads(house: House) -> None:
    tells(house, answers(b"{}", headers=JSON), hung_up_at_once)


@ending
def no_json(house: House) -> None:
    assert tells(house, answers(), body=b"[") == 400


@ending
def too_large(house: House) -> None:
    assert tells(house, answers(), body=b" " * 2000) == 413


@ending
def declared_too_large(house: House) -> None:
    assert tells(house, answers(), length=2000) == 413


@ending
def a_body_that_breaks_off(house: House) -> None:
    assert tells(house, answers(), length=900) == 499


@ending
def a_body_that_cannot_be_read(house: House) -> None:
    assert tells(house, answers(), stream=Untouched()) == 400


@ending
def a_key_that_is_not_allowed(house: House) -> None:
    assert tells(house, answers(), key="sk-own") == 403


@ending
def passed_through(house: House) -> None:
    assert tells(house, answers(b"a", b"b", headers=JSON), path="/v1/models", method="GET") == 200


@ending
def passed_through_head(house: House) -> None:
    headers = (*JSON, ("content-length", "99"))
    assert tells(house, answers(headers=headers), path="/v1/models", method="HEAD") == 200


@ending
def passed_through_with_an_odd_length(house: House) -> None:
    headers = (*JSON, ("content-length", "many"))
    assert tells(house, answers(b"x", headers=headers), path="/v1/models", method="GET") == 200


@ending
def passed_through_and_dead(house: House) -> None:
    tells(house, answers(b"a", UpstreamError("died"), headers=JSON), cut, path="/v1/models")


@ending
def passed_through_and_left(house: House) -> None:
    tells(house, answers(b"a", b"b", headers=JSON), hung_up_half_way, path="/v1/models")


@ending
def passed_through_to_nobody(house: House) -> None:
    assert tells(house, fails(UpstreamError("unreachable")), path="/v1/models") == 502


@ending
def a_bug_while_passing_through(house: House) -> None:
    assert tells(house, fails(bug()), path="/v1/models") == 500


@ending
def a_path_that_climbs(house: House) -> None:
    assert tells(house, answers(), path="/v1/models/../files") == 404


@ending
def no_such_route(house: House) -> None:
    house.call("/v1/nothing")


@ending
def a_header_that_the_server_refuses(house: House) -> None:
    house.answer = answers(START, STOP)
    with pytest.raises(ValueError, match="does not send"):
        house.call(strict=True)


@ending
def a_bug_while_closing(house: House) -> None:
    class Stuck(ScriptedBody):
        def close(self) -> None:
            raise bug()

    house.answer = lambda: UpstreamResponse(200, JSON, Stuck([b"a", b"b"]))
    call = house.call("/v1/models")
    with pytest.raises(ZeroDivisionError):
        call.close()


@ending
def an_exit_in_the_view(house: House) -> None:
    """As gunicorn ends a worker that hangs."""

    def exits() -> UpstreamResponse:
        raise SystemExit(1)

    house.answer = exits
    with pytest.raises(SystemExit):
        house.call("/v1/models")


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_gives_the_place_back(house: House, name: str) -> None:
    ENDINGS[name](house)
    assert (house.admission.taken, house.admission.actors) == (0, 0)


def test_500_requests_of_all_endings_leave_nothing_behind(limited: Callable[..., House]) -> None:
    """With one place in all, each next one proves that the last was given back."""
    house = limited(max_concurrency=1, per_actor_concurrency=1)
    choose = random.Random(5)
    for _ in range(500):
        ENDINGS[choose.choice(list(ENDINGS))](house)
    assert (house.admission.taken, house.admission.actors) == (0, 0)
