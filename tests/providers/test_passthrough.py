"""The reverse proxy over real sockets."""

import io
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trustme

from aibridge.errors import ClientGone, UpstreamError, UpstreamTimeout
from aibridge.interception.gateway import ForwardedRequest
from aibridge.providers import passthrough as passthrough_module
from aibridge.providers.passthrough import Passthrough
from tests.fake_provider.server import FakeProvider, Reply
from tests.providers.test_transport import Proxy, served


def forwarded(
    fake: FakeProvider, body: bytes = b"", *, length: int | None = 0, method: str = "GET"
) -> tuple[int, bytes]:
    request = ForwardedRequest(method, "/v1/models/a%2Fb?x=1", (("a", "1"), ("a", "2")), io.BytesIO(body), length)
    answer = Passthrough(fake.url, 1, 0.3)(request)
    try:
        return answer.status, b"".join(answer.body)
    finally:
        answer.body.close()


@pytest.mark.parametrize("framing", ["length", "chunked", "until-close"])
def test_an_answer_comes_back_as_it_is(fake: FakeProvider, framing: str) -> None:
    fake.reply(Reply.json(b'{ "a":1 }', 404).but(framing=framing))
    assert forwarded(fake) == (404, b'{ "a":1 }')
    sent = fake.whole_request()
    assert (sent.method, sent.target, sent.header("a")) == ("GET", "/v1/models/a%2Fb?x=1", "1, 2")
    assert not {"accept", "cookie"} & sent.names()


@pytest.mark.parametrize("length", [300_000, None])
def test_bodies_are_streamed_with_and_without_a_length(fake: FakeProvider, length: int | None) -> None:
    fake.reply(Reply.json({}))
    body = b"x" * 300_000
    assert forwarded(fake, body, length=length, method="PUT")[0] == 200
    sent = fake.whole_request()
    assert bytes(sent.body) == body
    assert (sent.header("content-length") or None) == (str(length) if length else None)


def test_cookies_and_compressed_bytes(fake: FakeProvider) -> None:
    passthrough = Passthrough(fake.url, 1, 1)
    request = ForwardedRequest("GET", "/", (), io.BytesIO(), 0)
    zipped = Reply.json({}, headers=(("set-cookie", "a=b"),)).gzipped()
    fake.reply(zipped, Reply.json({}))
    answer = passthrough(request)
    assert dict(answer.headers)["content-encoding"] == "gzip"
    assert "set-cookie" not in dict(answer.headers)
    assert b"".join(answer.body) == zipped.content()
    passthrough(request)
    assert "cookie" not in fake.request(2).names()


def test_failures_are_ours(fake: FakeProvider) -> None:
    short = Reply.garbage(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort")
    torn = Reply.json(b"x" * 100).but(framing="chunked", ending="torn")
    fake.reply(Reply.json({}).but(before=fake.hold()), short, torn)
    with pytest.raises(UpstreamTimeout):
        forwarded(fake)
    for _ in (short, torn):
        with pytest.raises(UpstreamError):
            forwarded(fake)
    fake.refuse()
    with pytest.raises(UpstreamError):
        forwarded(fake)


# --- an answer that nobody wants any more ------------------------------------------------------------------------


class Silent(BaseHTTPRequestHandler):
    """Sends a head and the beginning of a body, and then nothing more. Tells when its peer has left."""

    left: Event

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "50")
        self.end_headers()
        self.wfile.write(b"first")
        try:
            self.connection.recv(1)
        finally:
            self.left.set()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=["tls", "plain", "tunnel"])
def silent(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Event]]:
    """A silent provider's address, and whether its peer has left."""
    monkeypatch.setattr(passthrough_module, "MOMENT", 0.02)
    handler: type[BaseHTTPRequestHandler] = type("Silently", (Silent,), {"left": Event()})
    if request.param == "plain":
        for port in served(handler):
            yield f"http://127.0.0.1:{port}", handler.left  # type: ignore[attr-defined]
        return
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    monkeypatch.delenv("no_proxy", raising=False)
    for port in served(handler, context):
        for proxy in served(Proxy):
            if request.param == "tunnel":
                monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy}")
            yield f"https://127.0.0.1:{port}", handler.left  # type: ignore[attr-defined]


def test_an_answer_that_is_not_wanted_any_more_is_left(silent: tuple[str, Event]) -> None:
    url, left = silent
    answers = [True, False, False]  # the last is given first
    request = ForwardedRequest("GET", "/", (), io.BytesIO(), 0, abandoned=answers.pop)
    chunks = iter(Passthrough(url, 5, 30)(request).body)
    assert next(chunks) == b"first"
    with pytest.raises(ClientGone):
        next(chunks)
    assert left.wait(5)
    assert not answers


def test_a_silent_provider_has_its_time(silent: tuple[str, Event]) -> None:
    url, left = silent
    request = ForwardedRequest("GET", "/", (), io.BytesIO(), 0)
    with pytest.raises(UpstreamError):
        list(Passthrough(url, 5, 0.5)(request).body)
    assert left.wait(5)


def test_what_is_not_wanted_before_it_begins(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passthrough_module, "MOMENT", 0.02)
    fake.reply(Reply.json({}).but(before=fake.hold()))
    request = ForwardedRequest("GET", "/", (), io.BytesIO(), 0, abandoned=lambda: True)
    with pytest.raises(ClientGone):
        Passthrough(fake.url, 5, 30)(request)
    assert fake.request().gone.wait(5)
