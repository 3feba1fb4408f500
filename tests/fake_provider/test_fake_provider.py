"""The fake provider itself: the official SDK understands it, and its faults are what they claim to be."""

import json
from collections.abc import Iterator

import anthropic
import pytest
from anthropic import Anthropic

from tests.fake_provider import FakeProvider, Reply
from tests.fake_provider.conversations import Conversation, every_conversation, request_bytes, text, user
from tests.fake_provider.server import endless
from tests.system.client import Exchange

conversations = pytest.mark.parametrize("conversation", every_conversation(), ids=str)

KNOWN_TO_THE_SDK = [one for one in every_conversation() if one.name not in ("unknowns", "truncated_tool")]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


def ask(provider: FakeProvider, reply: Reply, body: bytes = b"{}") -> Exchange:
    provider.reply(reply)
    with Exchange.open(
        provider.url, "POST", "/v1/messages?x=1", [("X-Twice", "a"), ("X-Twice", "b")], body
    ) as answer:
        return answer.read()


@pytest.mark.parametrize("conversation", KNOWN_TO_THE_SDK, ids=str)
def test_the_sdk_understands_the_conversations(provider: FakeProvider, conversation: Conversation) -> None:
    sdk = Anthropic(base_url=provider.url, api_key="k", max_retries=0)
    provider.reply(conversation.reply(stream=False), conversation.reply(stream=True))

    whole = sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    with sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
        streamed = stream.get_final_message()

    assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in streamed.content]
    assert whole.usage.output_tokens == streamed.usage.output_tokens == conversation.tokens.output
    assert whole.stop_reason == streamed.stop_reason


@conversations
def test_requests_are_json_in_an_odd_spelling(conversation: Conversation) -> None:
    body = conversation.request(stream=True)

    assert json.loads(body)["stream"] is True
    assert json.dumps(json.loads(body)).encode() != body


def test_requests_are_remembered_as_they_came(provider: FakeProvider) -> None:
    ask(provider, text().reply(stream=False), b"\x00\xff")

    received = provider.whole_request()
    assert (received.method, received.path, received.query) == ("POST", "/v1/messages", "x=1")
    assert [value for name, value in received.headers if name == "X-Twice"] == ["a", "b"]
    assert bytes(received.body) == b"\x00\xff"


@pytest.mark.parametrize("framing", ["chunked", "length", "until-close"])
def test_framings(provider: FakeProvider, framing: str) -> None:
    answer = ask(provider, text().reply(stream=True).but(framing=framing).in_single_bytes())

    assert (bytes(answer.body), answer.ended) == (text().stream, "clean")


@pytest.mark.parametrize("ending", ["cut", "torn", "reset"])
def test_endings(provider: FakeProvider, ending: str) -> None:
    answer = ask(provider, text().reply(stream=True).but(ending=ending))

    assert answer.ended == "cut"


@pytest.mark.parametrize("reply", [Reply.nothing("reset"), Reply.nothing("cut"), Reply.garbage()])
def test_no_answer(provider: FakeProvider, reply: Reply) -> None:
    with pytest.raises((ConnectionError, ValueError, IndexError)):
        ask(provider, reply)


def test_it_notices_that_its_client_left(provider: FakeProvider) -> None:
    provider.reply(Reply.sse(endless(b": x\n\n")), Reply.sse((b": x\n\n", provider.hold())))
    for _ in range(2):
        with Exchange.open(provider.url, "GET", "/") as answer:
            answer.read_until(b"x")

    assert provider.request(1).gone.wait(5)
    assert provider.request(2).gone.wait(5)


def test_nobody_listens_any_more(provider: FakeProvider) -> None:
    provider.refuse()

    with pytest.raises(anthropic.APIConnectionError):
        Anthropic(base_url=provider.url, api_key="k", max_retries=0).models.list()


def test_an_unscripted_request_is_told_apart(provider: FakeProvider) -> None:
    with Exchange.open(provider.url, "POST", "/", [], request_bytes(user("hi"))) as answer:
        assert answer.read().status == 599
