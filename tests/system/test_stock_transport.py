"""With httpx2's own transport: the same streams and answers, clients that leave, providers that die.

The whole suite can be run with it: AIBRIDGE_UPSTREAM_TRANSPORT=httpx2 (tests/system/gateway.py).
"""

import time

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import request_bytes, text, user
from tests.system.client import PING
from tests.system.conftest import Gateways
from tests.system.gateway import PING_INTERVAL, Gateway, Setup

pytestmark = pytest.mark.system

STOCK = Setup(
    environment=(
        ("AIBRIDGE_UPSTREAM_TRANSPORT", "httpx2"),
        ("AIBRIDGE_SERVER_PING_INTERVAL", str(PING_INTERVAL)),
    )
)
STREAM = request_bytes(user("hi"), stream=True)


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    return gateways(STOCK)


def test_a_stream_with_a_silence(gateway: Gateway) -> None:
    conversation, hold = text(), gateway.provider.hold()
    gateway.provider.reply(Reply.sse((*conversation.events[:2], hold, *conversation.events[2:])))
    with gateway.post(STREAM) as answer:
        answer.read_until(PING, 2)
        hold.set()
        answer.read()
    assert answer.ended == "clean"
    assert answer.without_pings == conversation.stream.replace(PING, b"")
    assert gateway.recorded(answer.interception_id).interception["status"] == "completed"


def test_a_blocking_answer(gateway: Gateway) -> None:
    gateway.provider.reply(text().reply(stream=False))
    with gateway.post(request_bytes(user("hi"), stream=False)) as answer:
        assert bytes(answer.read().body) == text().body


@pytest.mark.parametrize("begun", [True, False], ids=["in the answer", "before it"])
def test_a_client_that_leaves_a_silent_stream(gateway: Gateway, actor: str, begun: bool) -> None:
    hold = gateway.provider.hold()
    reply = Reply.sse((text().events[0], hold))
    gateway.provider.reply(reply if begun else reply.but(before=hold))
    with gateway.post(STREAM, [("X-User-ID", actor)]) as answer:
        upstream = gateway.provider.whole_request()
        if begun:
            answer.read_until(text().events[0])
    left = time.monotonic()
    assert upstream.gone.wait(PING_INTERVAL + 1.0 - (time.monotonic() - left))
    assert gateway.recorded_for(actor).interception["status"] == "cancelled"


@pytest.mark.parametrize("ending", ["cut", "torn", "reset"])
def test_a_provider_that_dies_in_the_middle(gateway: Gateway, ending: str) -> None:
    gateway.provider.reply(Reply.sse(text().events[:3]).but(ending=ending))
    with gateway.post(STREAM) as answer:
        answer.read()
    assert b"event: error" in answer.body
    assert gateway.recorded(answer.interception_id).interception["status"] == "failed"
