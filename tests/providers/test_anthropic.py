"""The Anthropic provider through the real SDK over real sockets: what goes out, what comes back, what fails."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from typing import Literal

import anthropic
import httpx2
import pytest

from aibridge import settings
from aibridge.errors import ClientGone, Unreachable, UpstreamError, UpstreamTimeout
from aibridge.interception.gateway import Provider
from aibridge.providers.anthropic import anthropic_provider
from aibridge.providers.decoding import ProviderBody, decoded
from aibridge.providers.refusals import LARGEST_REFUSAL
from aibridge.providers.transport import Transport
from aibridge.upstream.call import IDLE, UpstreamRequest, UpstreamResponse
from tests.fake_provider.server import FakeProvider, Reply, Step
from tests.providers.conftest import only_the_stock_one

BODY = b'{ "model":"m",  "seed": 123456789012345678901234567890, "stream":true }'
HEADERS = (
    ("anthropic-beta", "one"),
    ("anthropic-beta", "two"),
    ("x-latin", "caf\xe9"),
    ("x-stainless-raw-response", "raw"),
    ("x-api-key", "sk-central"),
)
REQUEST = UpstreamRequest("/v1/messages?beta=true&x=%2F", HEADERS, BODY, streaming=True)
SSE = b"event: ping\ndata: {}\n\n"


def read(response: UpstreamResponse) -> bytes:
    try:
        return b"".join(response.body)
    finally:
        response.body.close()


def test_exactly_the_given_bytes_and_headers_go_out(fake: FakeProvider, provider: Provider) -> None:
    fake.reply(Reply.json({"ok": True}))
    assert read(provider.upstream(REQUEST)) == b'{"ok": true}'
    sent = fake.whole_request()
    assert (sent.method, sent.target, bytes(sent.body)) == ("POST", REQUEST.path, BODY)
    ours = [(name, value) for name, value in sent.headers if name.lower() not in ("host", "content-length")]
    assert tuple(ours) == HEADERS
    assert sent.header("content-length") == str(len(BODY))


def test_nothing_of_the_environment_influences_a_request(
    fake: FakeProvider, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "ANTHROPIC_WEBHOOK_SIGNING_KEY"):
        monkeypatch.setenv(name, "from-the-environment")
    custom = "x-env: from-the-environment\nUser-Agent: from-the-environment"
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", custom)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    configured = settings.Provider(name="a", type="anthropic", base_url=fake.url)
    provider = anthropic_provider(configured, settings.UpstreamTimeouts(), http)
    fake.reply(Reply.json({}))
    read(provider.upstream(REQUEST))
    assert "from-the-environment" not in repr(fake.request().headers)
    assert "from-the-environment" not in repr(provider.defaults)


def test_the_sdk_supplies_what_the_api_needs(provider: Provider) -> None:
    defaults = dict(provider.defaults)
    assert defaults["anthropic-version"]
    assert defaults["content-type"] == "application/json"
    assert defaults["user-agent"].startswith("Anthropic/Python") or anthropic.__version__ in defaults["user-agent"]


def test_streams_come_as_they_arrive_with_idle_moments(fake: FakeProvider, provider: Provider) -> None:
    hold = fake.hold()
    fake.reply(Reply.sse([SSE, hold, SSE]))
    response = provider.upstream(REQUEST)
    assert response.is_event_stream
    chunks = iter(response.body)
    assert next(chunks) == SSE
    assert next(chunks) is IDLE
    hold.set()
    assert b"".join(chunks) == SSE
    assert not fake.request().gone.is_set()


def test_connections_are_reused(fake: FakeProvider, provider: Provider) -> None:
    fake.always(Reply.sse(SSE))
    for _ in range(3):
        assert read(provider.upstream(REQUEST)) == SSE
    assert {request.connection for request in fake.received} == {1}


def test_a_connection_that_the_provider_closed_meanwhile_is_not_used(
    fake: FakeProvider, provider: Provider
) -> None:
    fake.reply(Reply.json({"n": 1}).but(ending="close"), Reply.json({"n": 2}))
    assert read(provider.upstream(REQUEST)) == b'{"n": 1}'
    fake.wait_until_all_is_closed()
    assert read(provider.upstream(REQUEST)) == b'{"n": 2}'
    assert [request.connection for request in fake.received] == [1, 2]


def test_closing_half_way_hangs_up_on_the_provider(fake: FakeProvider, provider: Provider) -> None:
    fake.reply(Reply.sse([SSE, fake.hold()]))
    response = provider.upstream(REQUEST)
    assert next(iter(response.body)) == SSE
    response.body.close()
    response.body.close()
    assert fake.request().gone.wait(5)


@pytest.mark.parametrize("framing", ["chunked", "until-close"])
def test_closing_from_elsewhere_ends_the_reading_at_once(
    fake: FakeProvider, provider: Provider, framing: str
) -> None:
    fake.reply(Reply.sse([SSE, fake.hold()]).but(framing=framing))
    response = provider.upstream(REQUEST)
    chunks = iter(response.body)
    assert next(chunks) == SSE
    threading.Timer(0.05, response.body.close).start()
    with pytest.raises(UpstreamError):
        b"".join(chunks)
    assert fake.request().gone.wait(5)


@only_the_stock_one
def test_a_provider_is_not_read_further_ahead_than_a_few_pieces(fake: FakeProvider, provider: Provider) -> None:
    sent = 0

    def body() -> Iterator[Step]:
        nonlocal sent
        for _ in range(640):
            sent += 65536
            yield b"x" * 65536

    fake.reply(Reply(200, body=body(), framing="chunked"))
    response = provider.upstream(REQUEST)
    time.sleep(0.3)
    assert sent < 20 * 1024 * 1024  # what the sockets hold, and the queue
    assert len(read(response)) == 640 * 65536
    fake.reply(Reply(200, body=body(), framing="chunked"))
    response = provider.upstream(REQUEST)
    time.sleep(0.1)  # its thread waits for room in the queue
    response.body.close()
    assert fake.request(2).gone.wait(5)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_error_answers_are_answers(fake: FakeProvider, provider: Provider, status: int) -> None:
    body = b'{"type":"error",  "error":{"type":"x","message":"y"}}'
    fake.reply(Reply.json(body, status, (("retry-after", "7"),)))
    response = provider.upstream(REQUEST)
    assert (response.status, response.header("retry-after"), read(response)) == (status, "7", body)
    assert len(fake.received) == 1


def test_trailers_are_no_headers(fake: FakeProvider, provider: Provider) -> None:
    trailing = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Late: %b\r\n\r\n"
    fake.reply(Reply(raw=True, body=(trailing % (b"x" * 9),)))
    response = provider.upstream(REQUEST)
    assert read(response) == b"{}"
    assert response.header("x-late") == ""


def test_gzip_is_undone_for_answers_and_errors(fake: FakeProvider, provider: Provider) -> None:
    fake.reply(Reply.sse(SSE).gzipped(), Reply.json({"e": 1}, 500).gzipped())
    for expected in (SSE, b'{"e": 1}'):
        response = provider.upstream(REQUEST)
        assert response.header("content-encoding") == ""
        assert read(response) == expected


def test_gzip_may_have_several_members(fake: FakeProvider, provider: Provider) -> None:
    packed = gzip.compress(SSE) + gzip.compress(SSE)
    encoded = (("content-type", "text/event-stream"), ("content-encoding", "gzip"))
    for size in (1, 7, len(packed)):
        fake.reply(Reply(200, encoded, [packed[i : i + size] for i in range(0, len(packed), size)]))
        assert read(provider.upstream(REQUEST)) == SSE + SSE


def test_much_text_in_few_packed_bytes_comes_in_pieces(fake: FakeProvider, provider: Provider) -> None:
    """They need nothing from the socket, so that whoever watches it does not have to hold them all."""
    text = b"data: 0123456789\n\n" * 500_000
    encoded = (("content-type", "text/event-stream"), ("content-encoding", "gzip"))
    fake.reply(Reply(200, encoded, (gzip.compress(text), fake.hold())))
    body = provider.upstream(REQUEST).body
    chunks = iter(body)
    received, sources = b"", set()
    while len(received) < len(text):
        received += (chunk := next(chunks))
        assert len(chunk) <= 1_000_000
        sources.add(body.source)
    assert received == text
    assert None in sources
    body.close()


def test_the_end_of_gzip_which_is_no_text_is_a_step_of_its_own() -> None:
    class Packed(ProviderBody):
        def __iter__(self) -> Iterator[bytes]:
            packed = gzip.compress(SSE)
            yield packed[:-8]
            yield packed[-8:]

        def close(self) -> None: ...

    _, body = decoded([(b"content-encoding", b"gzip")], Packed())
    assert list(body) == [SSE, IDLE]


@pytest.mark.parametrize("packed", [b"this is not gzip", gzip.compress(SSE)[:-9]])
@pytest.mark.parametrize("status", [200, 500])
def test_broken_gzip_is_an_error(fake: FakeProvider, provider: Provider, packed: bytes, status: int) -> None:
    encoded = (("content-type", "text/event-stream"), ("content-encoding", "gzip"))
    fake.reply(Reply(status, encoded, (packed,)))
    with pytest.raises(UpstreamError, match="gzip"):
        read(provider.upstream(REQUEST))


@pytest.mark.parametrize("status", [200, 429])
def test_other_encodings_are_left_with_their_header(fake: FakeProvider, provider: Provider, status: int) -> None:
    fake.reply(Reply(status, (("content-encoding", "br"),), (b"\x1b\x00",)))
    response = provider.upstream(REQUEST)
    assert (response.header("content-encoding"), read(response)) == ("br", b"\x1b\x00")


@pytest.mark.parametrize(
    ("given", "sent"),
    [('/v1/messages?q="%7e|{x}\xe9', '/v1/messages?q="%7e|{x}\xe9'), ("/a?b c\r\nd", "/a?b%20c%0D%0Ad")],
)
def test_the_query_is_spelled_as_the_client_did(
    fake: FakeProvider, provider: Provider, transport: type, given: str, sent: str
) -> None:
    fake.reply(Reply.json({}))
    read(provider.upstream(UpstreamRequest(given, HEADERS, BODY)))
    assert fake.request().target == (sent if transport is Transport else sent.replace("\xe9", "%E9"))


FRAMINGS = [
    Reply.json({"a": 1}),
    Reply.json({"a": 1}).but(framing="chunked"),
    Reply.json({"a": 1}).but(framing="until-close"),
    Reply.json({"a": 1}).but(interim=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
    Reply.json({"a": 1}).in_single_bytes().but(framing="chunked"),
]


@pytest.mark.parametrize("reply", FRAMINGS)
def test_every_framing_of_http(fake: FakeProvider, provider: Provider, reply: Reply) -> None:
    fake.always(reply)
    for _ in range(2):
        response = provider.upstream(REQUEST)
        assert (response.status, read(response)) == (200, b'{"a": 1}')
        assert "link" not in dict(response.headers)


BEFORE_THE_HEAD = [
    (Reply.nothing("cut"), "closed|disconnected"),
    (Reply.nothing("reset"), "reset"),
    (Reply.garbage(), "HTTP"),
    (Reply.garbage(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000), "head|too long"),
]


@pytest.mark.parametrize(("reply", "word"), BEFORE_THE_HEAD)
def test_what_fails_before_the_head_is_an_upstream_error_and_is_not_sent_again(
    fake: FakeProvider, provider: Provider, reply: Reply, word: str
) -> None:
    fake.reply(Reply.json({}), reply)
    read(provider.upstream(REQUEST))
    with pytest.raises(UpstreamError, match=f"(?i){word}"):
        provider.upstream(REQUEST)
    assert len(fake.received) == 2


@pytest.mark.parametrize("ending", ["cut", "reset"])
def test_the_quick_end_of_a_reused_connection_means_that_nothing_was_done(
    fake: FakeProvider, provider: Provider, ending: Literal["cut", "reset"]
) -> None:
    fake.reply(Reply.json({}), Reply.nothing(ending), Reply.nothing(ending))
    read(provider.upstream(REQUEST))
    with pytest.raises(Unreachable, match="idle"):
        provider.upstream(REQUEST)
    assert fake.received[0].connection == fake.received[1].connection
    with pytest.raises(UpstreamError) as fresh:
        provider.upstream(REQUEST)
    assert not isinstance(fresh.value, Unreachable)


def test_the_late_end_of_a_reused_connection_and_one_inside_an_answer_do_not(
    fake: FakeProvider, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.reply(
        Reply.json({}), Reply.garbage(b"HTTP/1.1 200 OK\r\ncontent-ty"), Reply.json({}), Reply.nothing("cut")
    )
    for stale_seconds in (5.0, 0.0):
        for module in ("transport", "stock_transport"):
            monkeypatch.setattr(f"aibridge.providers.{module}.STALE_SECONDS", stale_seconds)
        read(provider.upstream(REQUEST))
        with pytest.raises(UpstreamError) as raised:
            provider.upstream(REQUEST)
        assert not isinstance(raised.value, Unreachable)


@pytest.mark.parametrize("ending", ["cut", "torn", "reset"])
def test_a_body_that_breaks_off_is_an_upstream_error(fake: FakeProvider, provider: Provider, ending: str) -> None:
    fake.reply(Reply.sse([SSE, SSE]).but(ending=ending))
    response = provider.upstream(REQUEST)
    with pytest.raises(UpstreamError):
        read(response)


def test_garbage_inside_the_framing_is_an_upstream_error(fake: FakeProvider, provider: Provider) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    fake.reply(Reply.garbage(head + b"zz\r\n"))
    with pytest.raises(UpstreamError):
        read(provider.upstream(REQUEST))


def test_an_answer_that_comes_while_we_still_send_is_not_lost(http: httpx2.Client) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(refusal)
                connection.shutdown(socket.SHUT_RD)
                connection.recv(1)

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        configured = settings.Provider(name="a", type="anthropic", base_url=url)
        timeouts = settings.UpstreamTimeouts(connect_timeout=1, read_timeout=1)
        provider = anthropic_provider(configured, timeouts, http)
        large = UpstreamRequest("/v1/messages", HEADERS, b"x" * 20_000_000)
        try:
            status = provider.upstream(large).status
        except UpstreamError as error:  # the kernel may drop what it had received when the reset comes
            status = error.status
        assert status in (413, 502)
        thread.join()


def test_silence_before_and_in_the_answer_is_a_timeout(fake: FakeProvider, provider: Provider) -> None:
    fake.reply(Reply.json({}).but(before=fake.hold()), Reply.sse([SSE, fake.hold()]))
    with pytest.raises(UpstreamTimeout):
        provider.upstream(REQUEST)
    response = provider.upstream(REQUEST)
    with pytest.raises(UpstreamTimeout, match="silent"):
        read(response)


def test_an_abandoned_request_is_dropped_before_the_provider_answers(
    fake: FakeProvider, provider: Provider
) -> None:
    fake.reply(Reply.json({}).but(before=fake.hold()))
    abandoned = UpstreamRequest("/v1/messages", HEADERS, BODY, abandoned=lambda: bool(fake.received))
    with pytest.raises(ClientGone):
        provider.upstream(abandoned)
    assert fake.request().gone.wait(5)


def test_an_abandoned_error_answer_is_dropped_before_its_end(fake: FakeProvider, provider: Provider) -> None:
    half_sent = threading.Event()

    def body() -> Iterator[Step]:
        yield b'{"type":'
        half_sent.set()
        yield fake.hold()

    fake.reply(Reply(500, body=body(), framing="chunked"))
    with pytest.raises(ClientGone):
        provider.upstream(UpstreamRequest("/v1/messages", HEADERS, BODY, abandoned=half_sent.is_set))
    assert fake.request().gone.wait(5)


def test_an_abandoned_request_is_dropped_while_the_provider_does_not_take_it(http: httpx2.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        configured = settings.Provider(name="a", type="anthropic", base_url=url)
        timeouts = settings.UpstreamTimeouts(connect_timeout=1, read_timeout=20)
        provider = anthropic_provider(configured, timeouts, http)
        large = UpstreamRequest("/v1/messages", HEADERS, b"x" * 20_000_000, abandoned=lambda: True)
        with pytest.raises(ClientGone):
            provider.upstream(large)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_an_error_answer_too_large_to_be_held_is_not(fake: FakeProvider, provider: Provider, packed: bool) -> None:
    largest, larger = (Reply.json(b" " * size, status=529) for size in (LARGEST_REFUSAL, LARGEST_REFUSAL + 1))
    fake.reply(*(reply.gzipped() if packed else reply for reply in (largest, larger)))
    assert len(read(provider.upstream(REQUEST))) == LARGEST_REFUSAL
    with pytest.raises(UpstreamError, match="too large"):
        provider.upstream(REQUEST)


def test_nobody_there_is_an_upstream_error(fake: FakeProvider, provider: Provider) -> None:
    fake.refuse()
    with pytest.raises(Unreachable, match="refused"):
        provider.upstream(REQUEST)


def test_a_provider_that_does_not_accept_cannot_be_reached(http: httpx2.Client) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        configured = settings.Provider(name="a", type="anthropic", base_url=f"http://127.0.0.1:{port}")
        timeouts = settings.UpstreamTimeouts(connect_timeout=0.2, read_timeout=0.2)
        with pytest.raises(Unreachable, match="reached in time") as error:
            anthropic_provider(configured, timeouts, http).upstream(REQUEST)
        assert error.value.status == 502
        for sock in waiting:
            sock.close()


def test_the_client_still_makes_its_own_requests(fake: FakeProvider, http: httpx2.Client) -> None:
    """Our override must not get in the way of the rest of the SDK."""
    from aibridge.providers.anthropic import AnthropicClient

    fake.reply(Reply.json({"input_tokens": 3}))
    client = AnthropicClient(api_key="k", base_url=fake.url, http_client=http, max_retries=0)
    counted = client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "hi"}])
    assert counted.input_tokens == 3
