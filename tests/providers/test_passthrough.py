"""The reverse proxy over real sockets."""

import io

import pytest

from aibridge.errors import UpstreamError, UpstreamTimeout
from aibridge.interception.gateway import ForwardedRequest
from aibridge.providers.passthrough import Passthrough
from tests.fake_provider.server import FakeProvider, Reply


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
