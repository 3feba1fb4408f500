"""Nothing to change, nothing changed: the same bytes in both directions (behaviour.md 1, 3, 4)."""

import gzip
import http.client
import re

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import (
    Conversation,
    every_conversation,
    message_end,
    message_start,
    request_bytes,
    text,
    text_block,
    user,
)
from tests.system.conftest import Gateways
from tests.system.gateway import CENTRAL_KEY, LEAK, MESSAGES, SEVERAL, Gateway

pytestmark = pytest.mark.system

conversations = pytest.mark.parametrize("conversation", every_conversation(), ids=str)
streaming = pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])


@conversations
@streaming
def test_bytes_are_the_same_both_ways(gateway: Gateway, conversation: Conversation, stream: bool) -> None:
    body = conversation.request(stream=stream)
    gateway.provider.reply(conversation.reply(stream=stream))

    with gateway.post(body, target=f"{MESSAGES}?beta=true&x=%2F+1") as answer:
        answer.read()

    upstream = gateway.provider.whole_request()
    assert (upstream.method, upstream.target) == ("POST", "/v1/messages?beta=true&x=%2F+1")
    assert bytes(upstream.body) == body
    assert (answer.status, answer.ended) == (200, "clean")
    assert bytes(answer.body) == conversation.answer(stream=stream)


@conversations
def test_a_stream_in_single_bytes(gateway: Gateway, conversation: Conversation) -> None:
    gateway.provider.reply(conversation.reply(stream=True).in_single_bytes())

    with gateway.post(conversation.request(stream=True)) as answer:
        answer.read()

    assert answer.ended == "clean"
    assert bytes(answer.body) == conversation.stream


def test_a_stream_split_inside_a_character(gateway: Gateway) -> None:
    conversation = text()
    inside = conversation.stream.index("🌧".encode()) + 2
    gateway.provider.reply(conversation.reply(stream=True).split_at(inside, inside + 1))

    with gateway.post(conversation.request(stream=True)) as answer:
        assert bytes(answer.read().body) == conversation.stream


@streaming
def test_an_answer_that_ends_with_its_connection(gateway: Gateway, stream: bool) -> None:
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=stream).but(framing="until-close"))

    with gateway.post(conversation.request(stream=stream)) as answer:
        assert bytes(answer.read().body) == conversation.answer(stream=stream)


def test_chunks_are_passed_on_as_they_come(gateway: Gateway) -> None:
    """Not even half an event is held back until the rest of it is here."""
    conversation = text()
    half = len(conversation.events[0]) + 20
    first, rest = conversation.stream[:half], conversation.stream[half:]
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((first, hold, rest)))

    with gateway.post(conversation.request(stream=True)) as answer:
        answer.read_bytes(half)
        hold.set()
        assert bytes(answer.read().body) == conversation.stream


def test_a_request_in_chunks(gateway: Gateway) -> None:
    conversation = text()
    body = conversation.request(stream=False)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:11], body[11:]))
    gateway.provider.reply(conversation.reply(stream=False))

    with gateway.post(chunks + b"0\r\n\r\n", [("Transfer-Encoding", "chunked")]) as answer:
        assert answer.read().status == 200

    assert bytes(gateway.provider.whole_request().body) == body


def test_a_client_that_waits_for_100_continue(gateway: Gateway) -> None:
    conversation = text()
    body = conversation.request(stream=True)
    gateway.provider.reply(conversation.reply(stream=True))
    headers = [("Content-Type", "application/json"), ("Expect", "100-continue")]
    headers.append(("Content-Length", str(len(body))))

    with gateway.request("POST", MESSAGES, headers) as answer:
        assert not answer.is_silent_for(2)
        answer.send(body)
        assert bytes(answer.read().body) == conversation.stream


@pytest.mark.parametrize(
    "body",
    [
        request_bytes(user("hi").replace("hi", "half an emoji \\ud83d"), stream=False),
        request_bytes('"not a list"', stream=False),
        request_bytes("null", stream=False),
        request_bytes("[]", stream=False),
        request_bytes("[7, null, {}]", stream=False),
        request_bytes('[{"role": "user", "content": {"type": "hologram"}}]', stream=False),
        b'{"model": 7, "stream": "perhaps"}',
        b"{}",
        request_bytes(user("x" * 900_000), stream=False),
    ],
    ids=["lone surrogate", "string", "null", "empty", "numbers", "object", "wrong types", "no key", "900 kB"],
)
def test_odd_requests_are_for_the_provider_to_judge(gateway: Gateway, body: bytes) -> None:
    verdict = b'{"type":"error", "error":{"type":"invalid_request_error","message":"n\\u00f6"}}'
    gateway.provider.reply(Reply.json(verdict, status=400))

    with gateway.post(body) as answer:
        answer.read()

    assert bytes(gateway.provider.whole_request().body) == body
    assert (answer.status, bytes(answer.body)) == (400, verdict)


def test_an_event_over_the_bound_is_relayed(gateway: Gateway) -> None:
    """Beyond 16 MiB an event is no longer understood, but the answer and its usage stand (behaviour.md 4.6)."""
    events = [
        message_start("msg_huge", {"input_tokens": 5, "output_tokens": 1}),
        *text_block(0, "a" * (17 * 1024 * 1024)),
        *message_end("end_turn", {"output_tokens": 6}),
    ]
    gateway.provider.reply(Reply.sse(events))

    with gateway.post(request_bytes(user("long"), stream=True)) as answer:
        assert bytes(answer.read().body) == b"".join(events)

    recorded = gateway.recorded(answer.interception_id)
    assert recorded.interception["status"] == "completed"
    assert [(row["input_tokens"], row["output_tokens"]) for row in recorded.tokens] == [(5, 6)]


@streaming
def test_compressed_answers_stay_readable(gateway: Gateway, stream: bool) -> None:
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=stream).gzipped())

    with gateway.post(conversation.request(stream=stream)) as answer:
        answer.read()

    content = bytes(answer.body)
    if answer.header("content-encoding"):
        assert answer.header("content-encoding") == "gzip"
        content = gzip.decompress(content)
    assert content == conversation.answer(stream=stream)
    tokens = gateway.recorded(answer.interception_id).tokens
    assert [(row["input_tokens"], row["output_tokens"]) for row in tokens] == [(21, 17)]


@streaming
@pytest.mark.parametrize(("encoding", "streaming_seen"), [("gzip", True), ("zstd", False)])
def test_compressed_requests_go_on_as_they_came(
    gateway: Gateway, encoding: str, streaming_seen: bool, stream: bool
) -> None:
    """What only the provider can unpack is forwarded unread; the answer's tokens are counted all the same."""
    conversation = text()
    body = gzip.compress(conversation.request(stream=stream))
    gateway.provider.reply(conversation.reply(stream=stream))

    with gateway.post(body, [("Content-Encoding", encoding)]) as answer:
        assert bytes(answer.read().body) == conversation.answer(stream=stream)

    upstream = gateway.provider.whole_request()
    assert (bytes(upstream.body), upstream.header("content-encoding")) == (body, encoding)
    recorded = gateway.recorded(answer.interception_id)
    assert bool(recorded.interception["streaming"]) is (stream and streaming_seen)
    assert [(row["input_tokens"], row["output_tokens"]) for row in recorded.tokens] == [(21, 17)]


@streaming
def test_interim_answers_of_the_provider_are_no_answers(gateway: Gateway, stream: bool) -> None:
    conversation = text()
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"
    gateway.provider.reply(conversation.reply(stream=stream).but(interim=hints))

    with gateway.post(conversation.request(stream=stream)) as answer:
        assert bytes(answer.read().body) == conversation.answer(stream=stream)


def test_connections_that_the_provider_dropped_are_not_used_again(gateway: Gateway) -> None:
    """Providers close idle connections unannounced; the next request must not pay for it."""
    conversation = text()
    for _ in range(4):
        gateway.provider.reply(conversation.reply(stream=True).but(ending="close"))
        with gateway.post(conversation.request(stream=True)) as answer:
            assert answer.read().status == 200
            assert bytes(answer.body) == conversation.stream


def test_two_requests_over_one_client_connection(gateway: Gateway) -> None:
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=True), conversation.reply(stream=False))
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    for stream in (True, False):
        connection.request("POST", MESSAGES, conversation.request(stream=stream))
        assert connection.getresponse().read() == conversation.answer(stream=stream)
    connection.close()


# --- headers to the provider -------------------------------------------------------------------------------------

DROPPED = [
    ("Proxy-Authorization", "Basic eA=="),
    ("TE", "trailers"),
    ("Keep-Alive", "timeout=5"),
    ("Connection", "keep-alive, X-Private"),
    ("X-Private", "named in Connection"),
    ("Accept-Encoding", "br"),
    ("X-AIBridge-Anything", "ours"),
    ("X-AI-Bridge-Actor-ID", "root"),
    ("X-AI-Bridge-Actor-Metadata-Username", "root"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-User", "root"),
    ("Forwarded", "for=203.0.113.9"),
    ("Cookie", "session=secret"),
    ("Anthropic-Workspace-Id", "wrkspc_1"),
    ("X-Coder-Agent-Firewall-Session-Id", "1"),
]
KEPT = [
    ("anthropic-version", "2099-01-01"),
    ("User-Agent", "my-agent/1.0 (tests)"),
    ("Accept", "application/json"),
    ("anthropic-beta", "one-2025-01-01,two-2025-02-02"),
    ("anthropic-beta", "three-2025-03-03"),
    ("x-stainless-lang", "js"),
    ("X-App", "cli"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("session_id", "sess-with-underscore"),
    ("X-Claude-Code-Session-Id", "sess-1"),
    ("openai-organization", "org-1"),
    ("X-Empty", ""),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


@streaming
def test_headers_to_the_provider(gateway: Gateway, stream: bool) -> None:
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=stream))

    with gateway.post(conversation.request(stream=stream), [*DROPPED, *KEPT]) as answer:
        answer.read()

    upstream = gateway.provider.whole_request()
    accept_encoding = upstream.header("accept-encoding") or ""
    assert "br" not in accept_encoding.split(", ")
    gone = {name.lower() for name, _ in DROPPED} - {"connection", "accept-encoding", "keep-alive"}
    assert upstream.names() & gone == set()
    assert "X-Private" not in (upstream.header("connection") or "")
    for name in {name for name, _ in KEPT}:
        sent = ", ".join(value for kept, value in KEPT if kept == name)
        assert re.split(r",\s*", upstream.header(name) or "") == re.split(r",\s*", sent), name
    assert upstream.header("host") == gateway.provider.url.removeprefix("http://")
    assert upstream.header("x-api-key") == CENTRAL_KEY
    assert upstream.header("authorization") is None


def test_defaults_fill_in_only_what_is_missing(gateway: Gateway) -> None:
    conversation = text()
    body = conversation.request(stream=False)
    gateway.provider.reply(conversation.reply(stream=False))

    with gateway.request("POST", MESSAGES, [], body) as answer:
        assert answer.read().status == 200

    upstream = gateway.provider.whole_request()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", upstream.header("anthropic-version") or "")
    assert upstream.header("content-type") == "application/json"
    assert upstream.header("user-agent")
    transport = {"host", "content-length", "connection", "accept", "accept-encoding", "x-api-key"}
    assert upstream.names() - transport == {"anthropic-version", "content-type", "user-agent"}


def test_other_variables_of_the_environment_reach_no_provider(gateway: Gateway) -> None:
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=False), Reply.json({"data": []}))

    with gateway.post(conversation.request(stream=False)) as answer:
        answer.read()
    with gateway.get("/anthropic/v1/models") as models:
        models.read()

    for number in (1, 2):
        upstream = gateway.provider.whole_request(number)
        assert LEAK not in repr(upstream.headers)
        assert upstream.header("authorization") is None


def test_header_values_outside_ascii_pass(gateway: Gateway) -> None:
    conversation = text()
    title = "Zürich".encode().decode("latin-1")
    gateway.provider.reply(conversation.reply(stream=False))

    with gateway.post(conversation.request(stream=False), [("X-Title", title)]) as answer:
        assert answer.read().status == 200

    assert gateway.provider.whole_request().header("x-title") == title


def test_configured_actor_headers_are_ours_alone(gateways: Gateways, actor: str) -> None:
    gateway = gateways(SEVERAL)
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=False))
    spoofed = [("X-User-ID", actor), ("X-Acme-User", "root"), ("X-AI-Bridge-Actor-ID", "root")]

    with gateway.post(conversation.request(stream=False), spoofed, "/acme/v1/messages") as answer:
        assert answer.read().status == 200

    upstream = gateway.provider.whole_request()
    assert upstream.header("x-acme-user") == actor
    assert upstream.header("x-ai-bridge-actor-id") is None


# --- headers to the client ---------------------------------------------------------------------------------------

FROM_PROVIDER = (
    ("request-id", "req_011"),
    ("anthropic-ratelimit-requests-remaining", "42"),
    ("anthropic-ratelimit-tokens-reset", "2026-11-20T10:00:00Z"),
    ("x-ratelimit-limit-requests", "7"),
    ("openai-processing-ms", "12"),
)


@streaming
def test_headers_to_the_client(gateway: Gateway, stream: bool) -> None:
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=stream, headers=FROM_PROVIDER))

    with gateway.post(conversation.request(stream=stream)) as answer:
        answer.read()

    assert answer.interception_id
    for name, value in FROM_PROVIDER:
        assert answer.header(name) == value
    if stream:
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        assert answer.header("cache-control") == "no-cache"
        assert answer.header("x-accel-buffering") == "no"
        assert answer.header("content-length") is None
    else:
        assert answer.header("content-type") == "application/json"
