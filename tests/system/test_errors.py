"""Errors: ours in the provider's shape, the provider's own as they are (behaviour.md 2, 4.5; product.md 4.2)."""

import json
import re
from typing import Any

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import PING, event, message_start, request_bytes, text, text_block, user
from tests.fake_provider.server import endless
from tests.system.client import Exchange, HeaderList
from tests.system.conftest import Gateways
from tests.system.gateway import MESSAGES, QUICK_PINGS, SEVERAL, STRICT, Gateway

pytestmark = pytest.mark.system

streaming = pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])

REQUEST = request_bytes(user("hi"), stream=True)
MIB = 1024 * 1024


def is_our_error(answer: Exchange, status: int, kind: str) -> None:
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    found, message = answer.error()
    assert found == kind
    assert message
    assert "Traceback" not in message
    assert answer.ended == "clean"


def ask(gateway: Gateway, reply: Reply, *, stream: bool = True, headers: HeaderList = ()) -> Exchange:
    gateway.provider.reply(reply)
    with gateway.post(request_bytes(user("hi"), stream=stream), headers) as answer:
        return answer.read()


# --- refused before a provider is asked --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b'"text"', b"null", b"3", b'{"model": ', b'{"a": 1} trailing', b'{"a": "\xff\xfe"}'],
)
def test_a_body_that_is_no_json_object(gateway: Gateway, actor: str, body: bytes) -> None:
    with gateway.post(body, [("X-User-ID", actor)]) as answer:
        is_our_error(answer.read(), 400, "invalid_request_error")

    assert answer.header("x-should-retry") == "false"
    assert gateway.provider.received == []
    assert [row for row in gateway.rows("interceptions", initiator_id=actor) if not row["ended_at"]] == []


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_over_the_limit(gateways: Gateways, chunked: bool) -> None:
    gateway = gateways(STRICT)
    body = request_bytes(user("x" * 2000), stream=True)
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    with gateway.post(body, [("Transfer-Encoding", "chunked")] if chunked else []) as answer:
        is_our_error(answer.read(), 413, "request_too_large")

    assert gateway.provider.received == []


def test_a_body_of_the_largest_size(gateways: Gateways) -> None:
    gateway = gateways(STRICT)
    frame = len(request_bytes(user(""), stream=False))
    body = request_bytes(user("x" * (2000 - frame)), stream=False)
    assert len(body) == 2000
    gateway.provider.reply(text().reply(stream=False))

    with gateway.post(body) as answer:
        assert answer.read().status == 200


def test_forty_megabytes(gateway: Gateway) -> None:
    """The refusal can be read although the client is still sending."""
    body = request_bytes(user("x" * (40 * MIB)), stream=True)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]

    with gateway.request("POST", MESSAGES, headers) as answer:
        answer.send_until_refused(body)
        is_our_error(answer.read(), 413, "request_too_large")

    assert gateway.provider.received == []
    assert gateway.is_ready()


@pytest.mark.parametrize(
    "target",
    ["/anthropic/v1/complete", "/anthropic/v1/messages/batches", "/anthropic/v1", "/anthropic/v1/messagesx"],
)
def test_an_unknown_route(gateway: Gateway, target: str) -> None:
    with gateway.post(REQUEST, target=target) as answer:
        is_our_error(answer.read(), 404, "not_found_error")

    assert gateway.provider.received == []


@pytest.mark.parametrize("target", ["/nobody/v1/messages", "/v1/messages", "/%00", "/anthropic%2Fv1%2Fmessages/x"])
def test_no_such_provider(gateway: Gateway, target: str) -> None:
    with gateway.post(REQUEST, target=target) as answer:
        assert answer.read().status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_wrong_method(gateway: Gateway, method: str) -> None:
    with gateway.request(method, MESSAGES, [], None if method == "GET" else REQUEST) as answer:
        is_our_error(answer.read(), 405, "invalid_request_error")

    assert "POST" in re.split(r",\s*", answer.header("allow") or "")
    assert gateway.provider.received == []


# --- the provider's own errors -----------------------------------------------------------------------------------

RELAYED: list[tuple[int, str, str]] = [
    (400, "invalid_request_error", "bad_request"),
    (401, "authentication_error", "unauthorized"),
    (403, "permission_error", "unauthorized"),
    (404, "not_found_error", "bad_request"),
    (413, "request_too_large", "bad_request"),
    (429, "rate_limit_error", "rate_limited"),
    (500, "api_error", "server_error"),
    (529, "overloaded_error", "overloaded"),
]


@pytest.mark.parametrize(("status", "kind", "category"), RELAYED)
@streaming
def test_the_providers_errors_are_relayed(
    gateway: Gateway, status: int, kind: str, category: str, stream: bool
) -> None:
    """To users with keys of their own; what becomes of the gateway's keys is told in test_reach.py."""
    error = f'{{ "error":{{"message":"nö: {kind}", "type":"{kind}","x":1.0}},"type":"error"}}'.encode()
    headers = (
        ("retry-after", "7"),
        ("retry-after-ms", "6500"),
        ("x-should-retry", "true"),
        ("request-id", "req_9"),
    )

    own = [("x-api-key", "sk-ant-own")]
    answer = ask(gateway, Reply.json(error, status, headers), stream=stream, headers=own)

    assert (answer.status, bytes(answer.body), answer.ended) == (status, error, "clean")
    assert answer.header("content-type") == "application/json"
    assert [answer.header(name) for name, _ in headers] == [value for _, value in headers]
    row = gateway.recorded(answer.interception_id).interception
    assert (row["status"], row["http_status"], row["error_type"]) == ("failed", status, category)
    assert f"nö: {kind}" in row["error_message"]
    assert len(gateway.provider.received) == 1


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b'{"error": "odd"}', b'{"error": {}}', b"[1]"])
@streaming
def test_errors_in_odd_shapes_are_relayed(gateway: Gateway, body: bytes, stream: bool) -> None:
    reply = Reply(502, (("content-type", "text/html; charset=x"),), (body,))

    answer = ask(gateway, reply, stream=stream)

    assert (answer.status, bytes(answer.body)) == (502, body)
    assert answer.header("content-type") == "text/html; charset=x"
    row = gateway.recorded(answer.interception_id).interception
    assert (row["status"], row["error_type"]) == ("failed", "server_error")


def test_long_messages_are_cut_in_the_record(gateway: Gateway) -> None:
    error = {"type": "error", "error": {"type": "api_error", "message": "ü" * 3000}}

    answer = ask(gateway, Reply.json(error, 500))

    assert answer.json() == error
    message = gateway.recorded(answer.interception_id).interception["error_message"]
    assert 1000 <= len(message.encode()) <= 1024


# --- no answer, or none that makes sense -------------------------------------------------------------------------

DOWN, IMPATIENT = "/down/v1/messages", "/impatient/v1/messages"

SENSELESS: dict[str, Reply] = {
    "reset": Reply.nothing("reset"),
    "closed": Reply.nothing("cut"),
    "garbage": Reply.garbage(),
    "half a head": Reply.garbage(b"HTTP/1.1 200 OK\r\ncontent-ty"),
    "wrong status line": Reply.garbage(b"HTTP/1.1 abc\r\n\r\n"),
}


@pytest.mark.parametrize("fault", SENSELESS)
@streaming
def test_no_sensible_answer(gateway: Gateway, fault: str, stream: bool) -> None:
    gateway.provider.always(SENSELESS[fault])

    with gateway.post(request_bytes(user("hi"), stream=stream)) as answer:
        is_our_error(answer.read(), 502, "api_error")

    is_failed(gateway, answer, 502, "server_error")


@streaming
def test_a_provider_that_is_down(gateways: Gateways, stream: bool) -> None:
    gateway = gateways(SEVERAL)

    with gateway.post(request_bytes(user("hi"), stream=stream), target=DOWN) as answer:
        is_our_error(answer.read(), 502, "api_error")

    is_failed(gateway, answer, 502, "server_error")


@streaming
def test_a_silent_provider(gateways: Gateways, stream: bool) -> None:
    gateway = gateways(SEVERAL)
    gateway.provider.always(text().reply(stream=stream).but(before=gateway.provider.hold()))

    with gateway.post(request_bytes(user("hi"), stream=stream), target=IMPATIENT) as answer:
        is_our_error(answer.read(), 504, "timeout_error")

    is_failed(gateway, answer, 504, "timeout")


@pytest.mark.parametrize("framing", ["chunked", "length", "until-close"])
def test_a_stream_without_an_event(gateway: Gateway, framing: Any) -> None:
    answer = ask(gateway, Reply.sse(()).but(framing=framing))

    is_our_error(answer, 502, "api_error")
    is_failed(gateway, answer, 502, "server_error")


@pytest.mark.parametrize("ending", ["cut", "torn", "reset"])
def test_a_blocking_answer_that_is_cut(gateway: Gateway, ending: Any) -> None:
    """Half a body must not look like a whole one."""
    half = text().body[:60]
    reply = Reply.json(half).but(framing="chunked", ending=ending)

    answer = ask(gateway, reply, stream=False)

    if answer.status == 200:
        assert answer.ended == "cut"
    else:
        is_our_error(answer, 502, "api_error")
    assert gateway.recorded(answer.interception_id).interception["status"] == "failed"


def is_failed(gateway: Gateway, answer: Exchange, status: int, category: str) -> None:
    """The interception tells of our own error, and the client's copy bears its id."""
    assert answer.json()["request_id"] == answer.interception_id
    recorded = gateway.recorded(answer.interception_id)
    row = recorded.interception
    assert (row["status"], row["http_status"], row["error_type"]) == ("failed", status, category)
    assert row["error_message"]
    assert row["ended_at"]
    assert recorded.tokens == []


# --- in the middle of a stream -----------------------------------------------------------------------------------

OPENING = (
    message_start("msg_torn", {"input_tokens": 12, "output_tokens": 1}),
    *text_block(0, "So far ", "so good")[:3],
)


def the_error_event(answer: Exchange, sent: bytes) -> dict[str, Any]:
    """The one event that was added behind what the provider sent."""
    assert bytes(answer.body[: len(sent)]) == sent
    added = bytes(answer.body[len(sent) :]).decode()
    found = re.fullmatch(r"(?:torn off in\n\n)?event: error\ndata: (\{.*\})\n\n", added)
    assert found, added
    content: dict[str, Any] = json.loads(found.group(1))
    assert content["type"] == "error"
    return content["error"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("ending", ["clean", "cut", "torn", "reset"])
def test_a_stream_that_dies(gateway: Gateway, ending: Any) -> None:
    """Also with a clean end: without message_stop it is no whole answer. ("torn" sends a few bytes more.)"""
    answer = ask(gateway, Reply.sse(OPENING).but(ending=ending))

    assert answer.status == 200
    error = the_error_event(answer, b"".join(OPENING))
    assert error["type"] == "api_error"
    assert error["message"]
    assert answer.ended == "cut"
    recorded = gateway.recorded(answer.interception_id)
    assert (recorded.interception["status"], recorded.interception["error_type"]) == ("failed", "server_error")
    assert recorded.interception["error_message"]
    assert [row["input_tokens"] for row in recorded.tokens] == [12]


def test_a_stream_that_dies_inside_an_event(gateway: Gateway) -> None:
    """The error event must not be swallowed as the rest of the half one."""
    sent = b"".join(OPENING) + b'event: content_block_delta\ndata: {"type":"content_bl'

    answer = ask(gateway, Reply.sse(sent).but(ending="cut"))

    assert bytes(answer.body).startswith(sent)
    added = bytes(answer.body[len(sent) :])
    assert added.startswith(b"\n\nevent: error\ndata: ")
    assert answer.ended == "cut"


def test_a_stream_that_falls_silent(gateways: Gateways) -> None:
    gateway = gateways(SEVERAL)
    gateway.provider.reply(Reply.sse((*OPENING, gateway.provider.hold())))

    with gateway.post(REQUEST, target=IMPATIENT) as answer:
        answer.read()

    assert the_error_event(answer, b"".join(OPENING))["type"] == "timeout_error"
    assert answer.ended == "cut"
    row = gateway.recorded(answer.interception_id).interception
    assert (row["status"], row["error_type"]) == ("failed", "timeout")
    assert gateway.provider.request().gone.wait(5)


@pytest.mark.parametrize("first", [True, False], ids=["first event", "mid-stream"])
def test_the_providers_own_error_event(gateway: Gateway, first: bool) -> None:
    error = event(
        "error", {"error": {"type": "overloaded_error", "message": "Überlastet"}, "request_id": "req_5"}, 4
    )
    events = [error] if first else [*OPENING, PING, error]

    answer = ask(gateway, Reply.sse(events))

    assert (answer.status, bytes(answer.body)) == (200, b"".join(events))
    recorded = gateway.recorded(answer.interception_id)
    assert recorded.interception["status"] == "failed"
    assert recorded.interception["error_type"]
    assert "Überlastet" in recorded.interception["error_message"]
    assert [row["input_tokens"] for row in recorded.tokens] == ([] if first else [12])


def test_an_answer_of_another_type_to_a_stream_request(gateway: Gateway) -> None:
    """A provider that ignores `stream` is still relayed, and understood."""
    conversation = text()

    answer = ask(gateway, conversation.reply(stream=False), stream=True)

    assert (answer.status, bytes(answer.body), answer.ended) == (200, conversation.body, "clean")
    assert [row["output_tokens"] for row in gateway.recorded(answer.interception_id).tokens] == [17]


def test_bytes_behind_message_stop_are_relayed(gateway: Gateway) -> None:
    conversation = text()
    sent = conversation.stream + b": and a late comment\n\n"

    answer = ask(gateway, Reply.sse(sent))

    assert (bytes(answer.body), answer.ended) == (sent, "clean")
    assert gateway.recorded(answer.interception_id).interception["status"] == "completed"


def test_an_endless_stream_of_comments_stays_a_stream(gateways: Gateways) -> None:
    """Comments are legal at any place; nothing is buffered for ever while waiting for an event."""
    gateway = gateways(QUICK_PINGS)
    gateway.provider.reply(Reply.sse(endless(b": keep-alive\n\n", 0.01)))

    with gateway.post(REQUEST) as answer:
        answer.read_until(b": keep-alive\n\n", 20)

    assert answer.status == 200


# --- malformed HTTP from the client ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [("anthropic-beta", "x" * 7000), ("X-User-ID", "a\tb"), ("Content-Type", "text/plain"), ("X-User-ID", "")],
    ids=["long", "tab", "content type", "empty actor"],
)
def test_odd_headers_are_no_bug(gateway: Gateway, header: tuple[str, str]) -> None:
    gateway.provider.always(text().reply(stream=True))

    with gateway.post(REQUEST, [header]) as answer:
        assert answer.read().status < 500

    assert "Traceback" not in gateway.log_text()


def test_an_upload_that_breaks_off(gateway: Gateway, actor: str) -> None:
    headers = [("Content-Length", "5000"), ("X-User-ID", actor)]

    with gateway.request("POST", MESSAGES, headers) as answer:
        answer.send(REQUEST)

    gateway.provider.always(text().reply(stream=True))
    with gateway.post(REQUEST) as answer:
        assert answer.read().status == 200
    assert len(gateway.provider.received) == 1
    assert gateway.rows("interceptions", initiator_id=actor) == []


def test_an_answer_in_an_encoding_that_nobody_asked_for(gateway: Gateway) -> None:
    """Relayed with its header, not understood, and no reason to fail."""
    headers = (("content-type", "text/event-stream"), ("content-encoding", "br"))
    gateway.provider.reply(Reply(200, headers, (b"\x1b\x03\x00", b"\xf8data"), "chunked"))
    with gateway.post(REQUEST) as answer:
        assert bytes(answer.read().body) == b"\x1b\x03\x00\xf8data"
    assert (answer.status, answer.header("content-encoding")) == (200, "br")
    recorded = gateway.recorded(answer.interception_id)
    assert recorded.interception["status"] == "completed"
    assert recorded.metadata["notes"]


@pytest.mark.parametrize("target", ["/anthropic/v1/messages", "/anthropic/v1/messages/count_tokens"])
def test_a_body_with_broken_chunks(gateway: Gateway, target: str) -> None:
    with gateway.request("POST", target, [("Transfer-Encoding", "chunked")], b"ZZ\r\n{}\r\n") as answer:
        is_our_error(answer.read(), 400, "invalid_request_error")


@pytest.mark.parametrize("target", ["/anthropic/v1//messages", "/anthropic//v1/messages"])
def test_doubled_slashes_are_no_route(gateway: Gateway, target: str) -> None:
    with gateway.post(REQUEST, target=target) as answer:
        is_our_error(answer.read(), 404, "not_found_error")


def test_options_is_a_wrong_method(gateway: Gateway) -> None:
    with gateway.request("OPTIONS", "/anthropic/v1/messages") as answer:
        assert answer.read().status == 405
    assert answer.header("allow") == "POST"
