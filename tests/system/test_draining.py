"""Stopping and replacing workers: what runs ends well or is told, what comes is refused or served
(behaviour.md 10)."""

import json
import signal
import socket
import time

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import message_start, request_bytes, text, text_block, user
from tests.fake_provider.model import Call, Model, Part, Say, Wait
from tests.system.client import PING, Exchange, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import QUICK_PINGS, ROOT, ROUTES, Gateway, Setup, two_vendors

pytestmark = pytest.mark.system

OPENING = (message_start("msg_drain", {"input_tokens": 1234, "output_tokens": 1}), *text_block(0, "so far")[:2])
REST = text().events[-2:]
REQUEST = request_bytes(user("hi"), stream=True)
STOPPING = "the gateway is being stopped or restarted"

TOML = f"""{two_vendors()}
[actions]
dir = "{ROOT / "tests/system/napping"}"
"""
PROTOCOLS = tuple(ROUTES)


def allowing(seconds: float, toml: str = "", **environment: str) -> Setup:
    """A gateway whose streams get so long to finish."""
    variables = {"AIBRIDGE_SERVER_DRAIN_TIMEOUT": str(seconds), **environment}
    return Setup(toml, environment=tuple(variables.items()))


def body_for(protocol: str, *, stream: bool, **fields: object) -> bytes:
    turns = [{"role": "user", "content": "hi"}]
    body = {"model": "m", "stream": stream, "input" if protocol == "responses" else "messages": turns, **fields}
    return json.dumps(body | ({"max_tokens": 9} if protocol == "messages" else {})).encode()


def post(gateway: Gateway, protocol: str, actor: str, *, stream: bool, **fields: object) -> Exchange:
    headers = [("X-User-ID", actor)]
    return gateway.post(body_for(protocol, stream=stream, **fields), headers, ROUTES[protocol])


class KeptAlive:
    """A connection that carries several requests, as a balancer has them."""

    def __init__(self, gateway: Gateway) -> None:
        self.socket = socket.create_connection(("127.0.0.1", gateway.port), 10)

    def get(self, target: str) -> bytes:
        """The whole answer, as far as it comes at once."""
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(65536)
        return answer


# --- finishing ---------------------------------------------------------------------------------------------------


def test_open_streams_finish_when_the_gateway_stops(gateways: Gateways, actor: str) -> None:
    gateway = gateways.own(QUICK_PINGS).start()
    conversation = text()
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((conversation.events[0], hold, *conversation.events[1:])))

    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(conversation.events[0])
        gateway.signal(signal.SIGTERM)
        answer.read_until(PING, 4)
        hold.set()
        answer.read()

    assert answer.without_pings == conversation.stream.replace(PING, b"")
    assert answer.ended == "clean"
    assert gateway.wait() == 0
    assert gateway.recorded_for(actor).interception["status"] == "completed"
    assert gateway.rows("workers") == []


def test_a_blocking_request_finishes_when_the_gateway_stops(gateways: Gateways, actor: str) -> None:
    gateway = gateways.own().start()
    hold = gateway.provider.hold()
    gateway.provider.reply(text().reply(stream=False).but(before=hold))

    with post(gateway, "messages", actor, stream=False) as answer:
        gateway.provider.whole_request()
        gateway.signal(signal.SIGTERM)
        eventually(lambda: not gateway.is_ready())
        hold.set()
        answer.read()

    assert answer.status == 200
    assert gateway.wait() == 0
    assert gateway.recorded_for(actor).interception["status"] == "completed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_loses_no_record(gateways: Gateways, actor: str, number: signal.Signals) -> None:
    gateway = gateways.own().start()
    gateway.provider.always(text().reply(stream=True))
    open_answers = [gateway.post(REQUEST, [("X-User-ID", actor)]) for _ in range(20)]
    for answer in open_answers:
        answer.head()

    gateway.signal(number)

    assert [answer.read().ended for answer in open_answers] == ["clean"] * 20
    assert gateway.wait() == 0
    assert "Traceback" not in gateway.log_text()
    rows = gateway.rows("interceptions", initiator_id=actor)
    assert [row["status"] for row in rows] == ["completed"] * 20
    assert sum(len(gateway.recorded(row["id"]).tokens) for row in rows) == 20


# --- what comes meanwhile ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_news_are_refused_while_streams_finish(gateways: Gateways, workers: str) -> None:
    """A balancer sees it by /readyz, and what comes nevertheless is told to try elsewhere, in its API's words."""
    gateway = gateways.own(Setup(TOML, environment=(("WEB_CONCURRENCY", workers),))).start()
    hold = gateway.provider.hold()
    gateway.provider.always(Reply.sse((*OPENING, hold, *REST)))

    streams = [gateway.post(REQUEST) for _ in range(8)]  # some on each worker
    for stream in streams:
        stream.read_until(OPENING[-1])
    kept = KeptAlive(gateway)
    assert b" 200 " in kept.get("/healthz")
    gateway.signal(signal.SIGTERM)
    time.sleep(0.3)

    for _ in range(4):
        with gateway.get("/readyz") as readiness:
            assert readiness.read().status == 503
        assert readiness.json()["reasons"] == ["draining"]
        assert readiness.header("connection") == "close"
    for protocol in PROTOCOLS:
        with post(gateway, protocol, "new", stream=True) as answer:
            answer.read()
        assert answer.status == 503
        error = answer.json()["error"]
        assert error["type"] == ("overloaded_error" if protocol == "messages" else "server_error")
        assert error["message"] == STOPPING
        assert int(answer.header("retry-after") or 0) >= 1
    with gateway.get("/anthropic/v1/models") as passed:
        assert passed.read().status == 503
    assert passed.error() == ("overloaded_error", STOPPING)
    refused = kept.get("/readyz")
    assert b" 503 " in refused
    assert b"Connection: close" in refused

    hold.set()
    assert [stream.read().ended for stream in streams] == ["clean"] * 8
    assert gateway.wait() == 0
    assert gateway.rows("interceptions", initiator_id="new") == []


def test_connections_on_which_nothing_happens_hold_nothing(gateways: Gateways) -> None:
    gateway = gateways.own().start()
    idle = [KeptAlive(gateway) for _ in range(3)]
    for connection in idle:
        connection.get("/healthz")

    gateway.signal(signal.SIGTERM)

    assert gateway.wait(10) == 0


# --- the deadline ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_that_does_not_end_is_told_and_cut(gateways: Gateways, actor: str, protocol: str) -> None:
    gateway = gateways.own(allowing(1, TOML)).start()
    gateway.provider.always(Model(protocol, [[Say("so far"), Wait(gateway.provider.hold()), Say("more")]]))

    with post(gateway, protocol, actor, stream=True) as answer:
        answer.read_until(b"far")
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        answer.read()

    assert 0.5 < time.monotonic() - began < 6
    assert answer.ended == "cut"
    last = json.loads(bytes(answer.body).rstrip().rpartition(b"data: ")[2])
    assert STOPPING in json.dumps(last)
    assert b"[DONE]" not in answer.body
    assert last.get("type", "error") == "error"
    assert gateway.wait() == 0
    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "failed"
    assert (recorded.interception["error_type"], recorded.interception["error_message"]) == (
        "server_error",
        STOPPING,
    )
    assert [row["estimated"] for row in recorded.tokens] == [1]
    assert gateway.provider.request().gone.wait(5)


def test_a_stream_that_is_never_silent_is_cut_as_well(gateways: Gateways, actor: str) -> None:
    gateway = gateways.own(allowing(1)).start()
    steps = [step for _ in range(900) for step in (text_block(0, "word")[1], 0.02)]
    gateway.provider.reply(Reply.sse((*OPENING, *steps)))

    with gateway.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])
        gateway.signal(signal.SIGTERM)
        answer.read()

    assert answer.ended == "cut"
    assert bytes(answer.body).rpartition(b"event: error")[2].count(STOPPING.encode()) == 1
    assert gateway.wait() == 0
    recorded = gateway.recorded_for(actor)
    assert recorded.interception["status"] == "failed"
    assert [row["input_tokens"] for row in recorded.tokens] == [1234]


def test_a_blocking_request_that_does_not_end_is_refused(gateways: Gateways, actor: str) -> None:
    gateway = gateways.own(allowing(1, TOML)).start()
    gateway.provider.reply(Reply.json({}).but(before=gateway.provider.hold()))

    with post(gateway, "chat_completions", actor, stream=False) as answer:
        gateway.provider.whole_request()
        gateway.signal(signal.SIGTERM)
        answer.read()

    assert answer.status == 503
    assert answer.json()["error"]["message"] == STOPPING
    assert int(answer.header("retry-after") or 0) >= 1
    assert gateway.wait() == 0
    recorded = gateway.recorded_for(actor)
    assert (recorded.interception["status"], recorded.interception["http_status"]) == ("failed", 503)
    assert recorded.tokens == []


@pytest.mark.parametrize(("protocol", "stream"), [("responses", False), ("messages", True)])
def test_tools_that_do_not_end_are_abandoned_and_recorded(
    gateways: Gateways, actor: str, protocol: str, stream: bool
) -> None:
    gateway = gateways.own(allowing(1, TOML)).start()
    calls: list[Part] = [Say("one moment"), Call("call_1", "bact_nap")]
    gateway.provider.always(Model(protocol, [calls, [Say("never said")]]))

    with post(gateway, protocol, actor, stream=stream) as answer:
        if stream:
            answer.read_until(b"oment")
        gateway.provider.whole_request()
        time.sleep(0.5)  # the tool is running
        gateway.signal(signal.SIGTERM)
        answer.read()

    assert (answer.status, answer.ended) == ((200, "cut") if stream else (503, "clean"))
    assert STOPPING in bytes(answer.body).decode()
    assert gateway.wait(40) == 0
    recorded = gateway.recorded_for(actor)
    assert (recorded.interception["status"], recorded.interception["rounds"]) == ("failed", 1)
    (call,) = recorded.tools
    assert (call["injected"], call["invocation_error"]) == (1, STOPPING)
    assert len(recorded.tokens) == 1


def test_passed_through_answers_that_do_not_end_are_cut_and_those_not_begun_refused(gateways: Gateways) -> None:
    """Also where the provider is silent, so that nothing comes that could be cut."""
    gateway = gateways.own(allowing(1)).start()
    provider, hold = gateway.provider, gateway.provider.hold()
    busy = Reply(body=tuple(step for _ in range(900) for step in (b"more ", 0.02)))
    silent = Reply(body=(b"more", hold), framing="chunked")
    answers = []
    for number, reply in enumerate((busy, silent, silent.but(before=hold)), 1):
        provider.reply(reply)
        answers.append(gateway.get("/anthropic/v1/models"))
        provider.whole_request(number)
    for answer in answers[:2]:
        answer.read_until(b"more")

    gateway.signal(signal.SIGTERM)

    assert [answer.read().ended for answer in answers] == ["cut", "cut", "clean"]
    assert answers[2].status == 503
    assert answers[2].error() == ("overloaded_error", STOPPING)
    assert all(provider.request(number).gone.wait(2) for number in (1, 2, 3))
    assert gateway.wait() == 0
