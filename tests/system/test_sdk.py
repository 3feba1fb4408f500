"""The official Anthropic SDK as the client: it must not notice that there is a gateway (behaviour.md 1)."""

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import MessageParam, ToolUseBlock
from anthropic.types.beta import BetaMessageParam

from tests.fake_provider import Reply
from tests.fake_provider.conversations import (
    BIG,
    Conversation,
    cache,
    message_start,
    odd_sse,
    parallel_tools,
    text,
    text_block,
    thinking,
    tool,
    web_search,
)
from tests.system.gateway import CENTRAL_KEY, Gateway

pytestmark = pytest.mark.system

QUESTION: list[MessageParam] = [{"role": "user", "content": "Grüezi?"}]
MODEL = "claude-sonnet-5"


@pytest.fixture
def sdk(gateway: Gateway) -> Anthropic:
    return Anthropic(base_url=f"{gateway.url}/anthropic", api_key="sk-ant-of-the-user", max_retries=0)


@pytest.fixture
def direct(gateway: Gateway) -> Anthropic:
    """The same client without a gateway between."""
    return Anthropic(base_url=gateway.provider.url, api_key="sk-ant-of-the-user", max_retries=0)


understood = pytest.mark.parametrize(
    "conversation", [text(), thinking(), cache(), tool(), parallel_tools(), web_search(), odd_sse()], ids=str
)


@understood
def test_create(gateway: Gateway, sdk: Anthropic, direct: Anthropic, conversation: Conversation) -> None:
    gateway.provider.always(conversation.reply(stream=False))

    message = sdk.messages.create(model=MODEL, max_tokens=64, messages=QUESTION)

    assert message == direct.messages.create(model=MODEL, max_tokens=64, messages=QUESTION)
    assert message.id == conversation.message_id


@understood
def test_stream(gateway: Gateway, sdk: Anthropic, direct: Anthropic, conversation: Conversation) -> None:
    gateway.provider.always(conversation.reply(stream=True))

    with sdk.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as stream:
        message = stream.get_final_message()

    with direct.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as stream:
        assert message == stream.get_final_message()
    assert message.id == conversation.message_id
    assert message.usage.output_tokens == conversation.tokens.output


def test_the_request_is_the_sdks_own(gateway: Gateway, sdk: Anthropic, direct: Anthropic) -> None:
    """Body and headers reach the provider as they would without a gateway."""
    gateway.provider.always(text().reply(stream=False))
    for client in (sdk, direct):
        client.messages.create(model=MODEL, max_tokens=64, messages=QUESTION, extra_body={"x_new": {"π": 3}})

    through, straight = gateway.provider.whole_request(1), gateway.provider.whole_request(2)
    assert bytes(through.body) == bytes(straight.body)
    ours = {"host", "connection", "accept-encoding", "content-length"}
    assert through.names() - ours == straight.names() - ours
    for name in straight.names() - ours:
        assert through.header(name) == straight.header(name)


def test_tool_arguments(gateway: Gateway, sdk: Anthropic) -> None:
    gateway.provider.reply(tool().reply(stream=True))

    with sdk.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as stream:
        block = stream.get_final_message().content[1]

    assert isinstance(block, ToolUseBlock)
    assert isinstance(block.input, dict)
    assert block.input["offset"] == BIG


def test_text_arrives_in_pieces(gateway: Gateway, sdk: Anthropic) -> None:
    gateway.provider.reply(text().reply(stream=True).in_single_bytes())

    with sdk.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as stream:
        pieces = list(stream.text_stream)

    assert pieces == ["Grüezi! ", 'Es\nregnet "sehr" ', "\\ 🌧️ 雨 \u2028 Ende."]


def test_the_beta_client(gateway: Gateway, sdk: Anthropic) -> None:
    gateway.provider.reply(text().reply(stream=False))
    question: list[BetaMessageParam] = [{"role": "user", "content": "Grüezi?"}]

    message = sdk.beta.messages.create(model=MODEL, max_tokens=64, messages=question, betas=["x-2099-01-01"])

    assert message.id == "msg_text"
    assert "x-2099-01-01" in (gateway.provider.whole_request().header("anthropic-beta") or "")


def test_count_tokens_and_models(gateway: Gateway, sdk: Anthropic) -> None:
    gateway.provider.reply(
        Reply.json({"input_tokens": 42}),
        Reply.json(
            {"data": [{"id": "m-1", "type": "model"}], "has_more": False, "first_id": "m-1", "last_id": "m-1"}
        ),
    )

    assert sdk.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens == 42
    assert [model.id for model in sdk.models.list()] == ["m-1"]


def test_the_providers_errors(gateway: Gateway, sdk: Anthropic) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    gateway.provider.reply(Reply.json(error, 429, (("retry-after", "9"), ("request-id", "req_77"))))

    with pytest.raises(anthropic.RateLimitError) as caught:
        sdk.messages.create(model=MODEL, max_tokens=64, messages=QUESTION)

    assert caught.value.body == error
    assert caught.value.request_id == "req_77"
    assert caught.value.response.headers["retry-after"] == "9"


def test_a_half_answer_is_an_error(gateway: Gateway, sdk: Anthropic) -> None:
    """The SDK must not take it for a whole one."""
    opening = (message_start("msg_half", {"input_tokens": 1, "output_tokens": 1}), *text_block(0, "half")[:2])
    gateway.provider.reply(Reply.sse(opening))

    with (
        pytest.raises(anthropic.APIError),
        sdk.messages.stream(model=MODEL, max_tokens=64, messages=QUESTION) as stream,
    ):
        stream.get_final_message()


def test_our_errors(gateway: Gateway, sdk: Anthropic) -> None:
    gateway.provider.always(Reply.nothing("reset"))

    with pytest.raises(anthropic.InternalServerError) as caught:
        sdk.messages.create(model=MODEL, max_tokens=64, messages=QUESTION)

    assert caught.value.status_code == 502


def test_its_own_retries_work(gateway: Gateway) -> None:
    overloaded = Reply.json({"type": "error", "error": {"type": "overloaded_error", "message": "later"}}, 529)
    gateway.provider.reply(overloaded.but(headers=(*overloaded.headers, ("retry-after-ms", "5"))))
    gateway.provider.always(text().reply(stream=False))
    patient = Anthropic(base_url=f"{gateway.url}/anthropic", api_key="k", max_retries=2)

    assert patient.messages.create(model=MODEL, max_tokens=64, messages=QUESTION).id == "msg_text"
    assert gateway.provider.whole_request(2).header("x-stainless-retry-count") == "1"


def test_no_own_key(gateway: Gateway) -> None:
    """With an empty key the gateway's central one pays."""
    gateway.provider.reply(text().reply(stream=False))
    keyless = Anthropic(base_url=f"{gateway.url}/anthropic", api_key="", max_retries=0)

    keyless.messages.create(
        model=MODEL,
        max_tokens=64,
        messages=QUESTION,
        extra_headers={"Authorization": anthropic.Omit()},
    )

    assert gateway.provider.whole_request().header("x-api-key") == CENTRAL_KEY
