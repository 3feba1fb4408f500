"""Who is refused when there is too much, and that nobody's place is lost (behaviour.md 2.1)."""

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import message_start, request_bytes, text, text_block, user
from tests.redis_server import RedisServer
from tests.system.client import PING, Exchange, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import Gateway, Setup

pytestmark = pytest.mark.system

AT_ONCE = 1.0  # seconds within which a refusal or a sign of health must be there
REQUEST = request_bytes(user("hi"), stream=True)
BLOCKING = request_bytes(user("hi"), stream=False)
MODELS = "/anthropic/v1/models"
OPENING = (message_start("msg_open", {"input_tokens": 3, "output_tokens": 1}), *text_block(0, "so far "))
ENDING = text().events[-2:]


def limits(**variables: object) -> Setup:
    return Setup(environment=tuple((f"AIBRIDGE_{name}", str(value)) for name, value in variables.items()))


# Two places: of four threads two are kept for refusals and health.
TWO_PLACES = limits(SERVER_THREADS=4, LIMITS_MAX_CONCURRENCY=2, SERVER_PING_INTERVAL=0.3)
ONE_EACH = limits(LIMITS_PER_ACTOR_CONCURRENCY=1, SERVER_PING_INTERVAL=0.3)


def opened(gateway: Gateway, actor: str = "somebody") -> Exchange:
    """A stream that is under way. It does not end by itself."""
    gateway.provider.reply(Reply.sse((*OPENING, gateway.provider.hold())))
    return gateway.post(REQUEST, [("X-User-ID", actor)]).read_until(OPENING[-1])


def refusal(
    gateway: Gateway, status: int, actor: str = "somebody", target: str = "/anthropic/v1/messages"
) -> Exchange:
    """A request that is refused at once, in the API's shape, without the provider's knowing."""
    known = len(gateway.provider.received)
    started = time.monotonic()
    with gateway.post(REQUEST, [("X-User-ID", actor)], target) as answer:
        answer.read()
    assert time.monotonic() - started < AT_ONCE
    assert (answer.status, answer.ended) == (status, "clean")
    assert answer.error()[0] == {503: "overloaded_error", 429: "rate_limit_error"}[status]
    assert int(answer.header("retry-after") or 0) >= 1
    assert answer.header("x-should-retry") is None
    assert answer.header("x-aibridge-interception-id") is None
    assert len(gateway.provider.received) == known
    return answer


def is_served(gateway: Gateway, actor: str = "somebody") -> bool:
    """Whether there is a place now."""
    gateway.provider.always(text().reply(stream=True))
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        return answer.read().status == 200


def is_healthy(gateway: Gateway) -> None:
    for target in ("/healthz", "/readyz", "/"):
        started = time.monotonic()
        with gateway.get(target) as answer:
            assert answer.read().status == 200
        assert time.monotonic() - started < AT_ONCE


# --- all of them -------------------------------------------------------------------------------------------------


def test_a_full_gateway_refuses_at_once_and_stays_healthy(gateways: Gateways, actor: str) -> None:
    gateway = gateways(TWO_PLACES)
    with opened(gateway), opened(gateway) as second:
        for target in ("/anthropic/v1/messages", MODELS, "/anthropic/v1/messages/count_tokens"):
            refusal(gateway, 503, actor, target)
        is_healthy(gateway)
        second.close()
        eventually(lambda: is_served(gateway))
    assert gateway.rows("interceptions", initiator_id=actor) == []


def test_streams_take_no_more_threads_than_leave_it_healthy(gateways: Gateways, worker_class: str) -> None:
    """Without any limit set and without the relay: as many streams are asked for as there are threads."""
    gateway = gateways(limits(SERVER_THREADS=8, SERVER_PING_INTERVAL=0.3, SERVER_RELAY=False))
    gateway.provider.always(lambda _: Reply.sse((*OPENING, gateway.provider.hold())))
    with ExitStack() as stack:
        asked = [stack.enter_context(gateway.post(REQUEST)) for _ in range(8)]
        statuses = [answer.head().status for answer in asked]
        is_healthy(gateway)
    refused = 2 if worker_class == "gthread" else 0
    assert (statuses.count(200), statuses.count(503)) == (8 - refused, refused)
    eventually(lambda: is_served(gateway))


def test_streams_that_have_begun_hold_no_thread(gateways: Gateways) -> None:
    relayed = {"SERVER_RELAY": True, "UPSTREAM_TRANSPORT": "own"}
    gateway = gateways(limits(SERVER_THREADS=4, SERVER_PING_INTERVAL=0.3, **relayed))
    hold = gateway.provider.hold()
    gateway.provider.always(lambda _: Reply.sse((*OPENING, hold, *ENDING)))
    with ExitStack() as stack:
        streams = [stack.enter_context(gateway.post(REQUEST).read_until(OPENING[-1])) for _ in range(40)]
        is_healthy(gateway)
        for stream in streams:
            stream.read_until(PING)
        hold.set()
        assert [stream.read().ended for stream in streams] == ["clean"] * 40
    ended = {row["status"] for row in gateway.rows("interceptions")}
    assert ended == {"completed"}


def test_connections_without_a_request_hold_nobody_up(gateways: Gateways) -> None:
    """More of each kind than there are threads."""
    gateway = gateways(TWO_PLACES)
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        is_healthy(gateway)
        for target in ("/nowhere", "/anthropic/v1/messages"):  # of the latter all but two are refused
            for _ in range(6):
                stack.enter_context(Exchange.open(gateway.url, "POST", target, [], b"{", length=1000))
            is_healthy(gateway)
    eventually(lambda: is_served(gateway))


def test_a_head_that_does_not_end_is_not_waited_for(gateways: Gateways, worker_class: str) -> None:
    if worker_class == "gevent":
        pytest.skip("it holds no thread there, and gunicorn's own time limit is the one of connections kept alive")
    gateway = gateways(TWO_PLACES)
    with ExitStack() as stack:
        begun = [stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 20)) for _ in range(4)]
        for connection in begun:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        assert {connection.recv(1) for connection in begun} == {b""}
        is_healthy(gateway)


@pytest.mark.parametrize("ending", ["asked", "cut"])
def test_clients_that_keep_what_was_closed_hold_nobody_up(gateways: Gateways, ending: str) -> None:
    gateway = gateways(TWO_PLACES)
    with ExitStack() as stack:
        for _ in range(4):
            if ending == "asked":
                answer = gateway.get("/healthz", [("Connection", "close")])
            else:
                gateway.provider.reply(Reply.sse(OPENING).but(ending="cut"))
                answer = gateway.post(REQUEST)
            started = time.monotonic()
            stack.enter_context(answer).read()
            assert time.monotonic() - started < AT_ONCE
        is_healthy(gateway)


def test_more_connections_than_files_may_be_open_end_no_stream(gateways: Gateways, actor: str) -> None:
    serve = f"ulimit -n 128; exec {sys.executable} -m aibridge serve"
    gateway = gateways.own(Setup(command=("bash", "-c", serve))).start()
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((*OPENING, hold, *ENDING)))
    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])
        with ExitStack() as stack:
            for _ in range(150):
                stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            eventually(lambda: "Too many open files" in gateway.log_text())
        eventually(gateway.is_ready)
        hold.set()
        assert answer.read().ended == "clean"
    assert gateway.recorded_for(actor).interception["status"] == "completed"


def test_a_flood_is_refused_and_hardly_logged(gateways: Gateways) -> None:
    gateway = gateways(TWO_PLACES)
    with opened(gateway), opened(gateway):
        before = gateway.log_text().count("request refused")
        with ExitStack() as stack:
            flood = [stack.enter_context(gateway.post(REQUEST)) for _ in range(200)]
            assert {answer.read().status for answer in flood} == {503}
            is_healthy(gateway)
        assert gateway.log_text().count("request refused") - before <= 10


# --- one actor ---------------------------------------------------------------------------------------------------


def test_an_actor_has_so_many_requests_at_once(gateways: Gateways, actor: str) -> None:
    gateway = gateways(ONE_EACH)
    with opened(gateway, actor):
        refusal(gateway, 429, actor)
        refusal(gateway, 429, actor, MODELS)
        assert is_served(gateway, f"another-{actor}")
    eventually(lambda: is_served(gateway, actor))
    lines = [json.loads(line) for line in gateway.log_text().splitlines() if actor in line and "refused" in line]
    assert lines[0]["reason"] == "too many requests of the actor at once"
    assert lines[0]["actor"] == actor


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "blocking"])
def test_one_after_the_other_is_never_refused(gateways: Gateways, actor: str, stream: bool) -> None:
    """The place is free when the client has the whole answer, not a moment later."""
    gateway = gateways(ONE_EACH)
    gateway.provider.always(text().reply(stream=stream))
    for _ in range(100):
        with gateway.post(REQUEST if stream else BLOCKING, [("X-User-ID", actor)]) as answer:
            assert answer.read().status == 200


def test_a_rate(gateways: Gateways, actor: str) -> None:
    gateway = gateways(limits(LIMITS_RATE="3/2 seconds"))
    started = time.monotonic()
    for _ in range(3):
        assert is_served(gateway, actor)
    refused = refusal(gateway, 429, actor)
    assert time.monotonic() - started < 2, "too slow to tell"
    assert refused.header("retry-after") in ("1", "2")
    refusal(gateway, 429, actor, MODELS)
    assert is_served(gateway, f"another-{actor}")
    time.sleep(int(refused.header("retry-after") or 0))
    assert is_served(gateway, actor)


# --- places come back --------------------------------------------------------------------------------------------


def replies(gateway: Gateway) -> Iterator[tuple[str, Reply]]:
    """Answers of every kind; the client leaves those that would not end."""
    yield "whole", text().reply(stream=True)
    yield "left", Reply.sse((*OPENING, gateway.provider.hold()))
    yield "cut", Reply.sse(OPENING).but(ending="cut")
    yield "torn", Reply.sse(OPENING).but(ending="torn")
    yield "reset", Reply.sse(OPENING).but(ending="reset")
    yield "nothing", Reply.nothing("reset")
    yield "garbage", Reply.garbage()
    yield "empty", Reply.sse(())
    yield "error", Reply.json(b'{"type":"error","error":{"type":"api_error","message":"no"}}', 500)
    yield "left before", text().reply(stream=True).but(before=gateway.provider.hold())


def test_every_ending_gives_the_place_back(gateways: Gateways, actor: str) -> None:
    gateway = gateways(ONE_EACH)
    for _ in range(3):
        for kind, reply in replies(gateway):
            gateway.provider.reset()
            gateway.provider.reply(reply)
            with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
                if kind == "left":
                    answer.read_until(OPENING[-1])
                elif kind == "left before":
                    gateway.provider.whole_request()
                else:
                    answer.read()
            gateway.provider.reset()
            eventually(lambda: is_served(gateway, actor))


def test_a_client_that_leaves_its_upload_gives_the_place_back(gateways: Gateways) -> None:
    gateway = gateways(TWO_PLACES)
    uploads: list[Exchange] = []

    def is_full() -> bool:
        """Whoever comes while the question itself has a place may be refused, so there may have to be more."""
        begun = Exchange.open(gateway.url, "POST", "/anthropic/v1/messages", [], b'{"model":', length=1000)
        uploads.append(begun)
        return not is_served(gateway)

    eventually(is_full)
    for upload in uploads:
        upload.close()
    eventually(lambda: is_served(gateway))


# --- several gateways --------------------------------------------------------------------------------------------


def test_two_gateways_count_together_in_redis_and_do_without(
    gateways: Gateways, redis_server: RedisServer, actor: str
) -> None:
    together = Setup(environment=(("REDIS_URL", redis_server.url), ("AIBRIDGE_LIMITS_RATE", "4/hour")))
    one, other = gateways.own(together).start(), gateways.own(together).start()
    for gateway in (one, other, one, other):
        assert is_served(gateway, actor)
    for gateway in (one, other):
        wait = int(refusal(gateway, 429, actor).header("retry-after") or 0)
        assert 3500 < wait <= 3600

    redis_server.stop()

    for gateway in (one, other):
        for _ in range(4):
            assert is_served(gateway, actor)
        refusal(gateway, 429, actor)
        assert gateway.log_text().count("shared rate limits fail") == 1
        is_healthy(gateway)
