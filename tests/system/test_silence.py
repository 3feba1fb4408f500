"""Pings while a provider is silent, and clients that leave (behaviour.md 4.3, 4.4)."""

import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from itertools import chain
from threading import Event, Semaphore

import pytest

from tests.fake_provider import Received, Reply
from tests.fake_provider.conversations import event, message_start, request_bytes, text, text_block, user
from tests.fake_provider.server import endless
from tests.system.client import DEADLINE, PING, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import MESSAGES, PING_INTERVAL, QUICK_PINGS, RELAYED, Gateway, Setup

pytestmark = pytest.mark.system

# How long the upstream call may live on after its client has gone: about a ping interval, and the machine.
NOTICED_WITHIN = PING_INTERVAL + 1.0

REQUEST = request_bytes(user("hi"), stream=True)
WORDS = "word " * 80
OPENING = (message_start("msg_left", {"input_tokens": 1234, "output_tokens": 1}), *text_block(0, WORDS)[:2])


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    return gateways(QUICK_PINGS)


def test_pings_at_event_borders(gateway: Gateway) -> None:
    conversation = text()
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((*conversation.events[:2], hold, *conversation.events[2:])))

    with gateway.post(REQUEST) as answer:
        answer.read_until(PING, 3)
        hold.set()
        answer.read()

    before = b"".join(conversation.events[:2])
    assert bytes(answer.body).startswith(before + PING * 3)
    assert answer.without_pings == conversation.stream.replace(PING, b"")
    assert answer.ended == "clean"
    assert gateway.recorded(answer.interception_id).interception["status"] == "completed"


def test_pings_keep_their_distance(gateway: Gateway) -> None:
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((*OPENING, hold)))

    with gateway.post(REQUEST) as answer:
        answer.read_until(OPENING[-1])
        started = time.monotonic()
        answer.read_until(PING, 4)
        taken = time.monotonic() - started

    assert 3 * PING_INTERVAL <= taken <= 4 * PING_INTERVAL + 1.5


def test_no_ping_inside_an_event(gateway: Gateway) -> None:
    conversation = text()
    half = len(conversation.events[0]) + 30
    first, rest = conversation.stream[:half], conversation.stream[half:]
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((first, hold, rest)))

    with gateway.post(REQUEST) as answer:
        answer.read_bytes(half)
        assert answer.is_silent_for(4 * PING_INTERVAL)
        hold.set()
        answer.read()

    assert bytes(answer.body) == conversation.stream


def test_no_ping_between_the_halves_of_a_crlf_border(gateway: Gateway) -> None:
    """\\r\\n\\r of a border has come: one byte more belongs to the event."""
    first = OPENING[0].replace(b"\n", b"\r\n")
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((first[:-1], hold, b"\n", gateway.provider.hold())))

    with gateway.post(REQUEST) as answer:
        answer.read_bytes(len(first) - 1)
        assert answer.is_silent_for(3 * PING_INTERVAL)
        hold.set()
        answer.read_until(PING)

    assert bytes(answer.body).startswith(first + PING)


@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])
def test_nothing_is_sent_before_the_provider_answers(gateway: Gateway, stream: bool) -> None:
    """Its status decides ours."""
    hold = gateway.provider.hold()
    error = b'{"type":"error","error":{"type":"overloaded_error","message":"later"}}'
    gateway.provider.reply(Reply.json(error, 529).but(before=hold))

    with gateway.post(request_bytes(user("hi"), stream=stream)) as answer:
        gateway.provider.whole_request()
        assert answer.is_silent_for(4 * PING_INTERVAL)
        hold.set()
        answer.read()

    assert (answer.status, bytes(answer.body)) == (529, error)


def test_no_ping_in_a_blocking_answer(gateway: Gateway) -> None:
    conversation = text()
    hold = gateway.provider.hold()
    half = len(conversation.body) // 2
    body = (conversation.body[:half], hold, conversation.body[half:])
    reply = conversation.reply(stream=False).but(body=body, framing="chunked")
    gateway.provider.reply(reply)

    with gateway.post(request_bytes(user("hi"), stream=False)) as answer:
        gateway.provider.whole_request()
        assert not answer.body
        assert not hold.wait(3 * PING_INTERVAL)
        hold.set()
        assert bytes(answer.read().body) == conversation.body


# --- the client leaves -------------------------------------------------------------------------------------------


def is_let_go(upstream: Received, left: float) -> None:
    """The provider sees the connection closed soon after the client left."""
    assert upstream.gone.wait(NOTICED_WITHIN - (time.monotonic() - left)), "the upstream call lives on"


def test_gone_while_bytes_flow(gateway: Gateway, actor: str) -> None:
    more = event("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "more "}})
    gateway.provider.reply(Reply.sse(chain(OPENING, endless(more))))

    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(more, 3)
    left = time.monotonic()

    is_let_go(gateway.provider.request(), left)
    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "cancelled"
    (tokens,) = recorded.tokens
    assert (tokens["input_tokens"], tokens["estimated"]) == (1234, 1)
    assert 40 <= tokens["output_tokens"] <= 2000


def test_gone_in_silence(gateway: Gateway, actor: str) -> None:
    gateway.provider.reply(Reply.sse((*OPENING, gateway.provider.hold())))

    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])
    left = time.monotonic()

    is_let_go(gateway.provider.request(), left)
    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "cancelled"
    (tokens,) = recorded.tokens
    assert (tokens["input_tokens"], tokens["estimated"]) == (1234, 1)
    assert len(WORDS) / 10 <= tokens["output_tokens"] <= len(WORDS)
    assert [row["prompt"] for row in recorded.prompts] == ["hi"]


def test_gone_inside_a_half_event(gateway: Gateway, actor: str) -> None:
    """No ping may be written there, so only a look at the connection tells."""
    half = b"".join(OPENING) + b"event: content_blo"
    gateway.provider.reply(Reply.sse((half, gateway.provider.hold())))

    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_bytes(len(half))
    left = time.monotonic()

    is_let_go(gateway.provider.request(), left)
    assert gateway.recorded_for(actor).interception["status"] == "cancelled"


@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])
def test_gone_before_the_provider_answers(gateway: Gateway, actor: str, stream: bool) -> None:
    gateway.provider.reply(text().reply(stream=stream).but(before=gateway.provider.hold()))

    with gateway.post(request_bytes(user("hi"), stream=stream), [("X-User-ID", actor)]):
        upstream = gateway.provider.whole_request()
    left = time.monotonic()

    is_let_go(upstream, left)
    assert gateway.recorded_for(actor).interception["status"] == "cancelled"


def test_gone_after_the_usage_was_told(gateway: Gateway, actor: str) -> None:
    """What the provider said itself is not an estimate."""
    conversation = text()
    gateway.provider.reply(Reply.sse((*conversation.events[:-1], gateway.provider.hold())))

    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(b"event: message_delta")
        answer.read_until(conversation.events[-2])

    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "cancelled"
    (tokens,) = recorded.tokens
    assert (tokens["input_tokens"], tokens["output_tokens"], tokens["estimated"]) == (21, 17, 0)


def test_many_that_leave_hold_nothing(gateway: Gateway, actor: str) -> None:
    """More clients leave than a worker has threads; the gateway serves on."""
    gateway.provider.always(lambda _: Reply.sse((*OPENING, gateway.provider.hold())))
    for _ in range(3):
        left = [gateway.post(REQUEST, [("X-User-ID", actor)]) for _ in range(50)]
        for answer in left:
            answer.read_until(OPENING[-1])
        for answer in left:
            answer.close()

    def all_ended() -> bool:
        rows = gateway.rows("interceptions", initiator_id=actor)
        return len(rows) == 150 and all(row["status"] == "cancelled" for row in rows)

    eventually(all_ended)
    gateway.provider.always(text().reply(stream=True))
    with gateway.post(REQUEST) as answer:
        assert bytes(answer.read().body) == text().stream


def test_clients_that_are_killed_at_the_end_leave_nothing_open(gateways: Gateways) -> None:
    gateway = gateways.own(Setup(environment=(("AIBRIDGE_LIMITS_MAX_CONCURRENCY", "8"),))).start()
    conversation = text()
    gateway.provider.always(conversation.reply(stream=True))

    for _ in range(60):
        gateway.post(REQUEST).read_until(b"message_stop").reset()

    with gateway.post(REQUEST) as answer:
        assert answer.read().status == 200
    eventually(lambda: {row["status"] for row in gateway.rows("interceptions")} <= {"completed", "cancelled"})


def test_busy_connections_keep_no_stream_from_its_end(gateways: Gateways, worker_class: str) -> None:
    if worker_class == "gevent":
        pytest.skip("connections hold no threads there")
    gateway = gateways.own(Setup(environment=(("AIBRIDGE_SERVER_THREADS", "4"), *RELAYED))).start()
    conversation = text()
    first, second = gateway.provider.hold(), gateway.provider.hold()
    for hold in (first, first, first, first, second):
        gateway.provider.reply(Reply.sse((*conversation.events[:-1], hold, conversation.events[-1])))

    def opened() -> tuple[HTTPConnection, HTTPResponse]:
        connection = HTTPConnection("127.0.0.1", gateway.port, timeout=DEADLINE)
        connection.request("POST", MESSAGES, REQUEST, {"content-type": "application/json", "x-api-key": "sk-x"})
        return connection, connection.getresponse()

    def go_on(connection: HTTPConnection, stream: HTTPResponse) -> None:
        """After the stream one request follows the other."""
        stream.read()
        while not over.is_set():
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            busy.release()
        connection.close()

    busy, over = Semaphore(0), Event()
    streams = [opened() for _ in range(4)]
    with gateway.post(REQUEST) as last, ThreadPoolExecutor(4) as pool:
        last.read_until(b"text_delta")
        clients = [pool.submit(go_on, *stream) for stream in streams]
        try:
            first.set()
            assert all(busy.acquire(timeout=DEADLINE) for _ in range(100))
            second.set()
            assert last.read().ended == "clean"
        finally:
            over.set()
        assert [client.result(DEADLINE) for client in clients] == [None] * 4
