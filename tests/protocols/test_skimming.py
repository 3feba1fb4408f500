"""Pieces of text are skimmed instead of being read like other events. Nobody must be able to tell."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.protocols import relay
from aibridge.protocols.answer import Answer
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.interceptor import Observation, Payload, WireProtocol
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.protocols.sse import Event, encode
from aibridge.records import TokenUsage, now

NEVER = now()
TEXTS = ["Hello", "", "ünïcödé 你好", 'with "quotes"', "and\nlines", "back\\slash", "{}", '","delta":"']


def named(data: dict[str, Any]) -> bytes:
    return encode(data["type"], orjson.dumps(data))


def messages(texts: list[str]) -> list[bytes]:
    start = {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}
    return [
        named({"type": "message_start", "message": start}),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
            for text in texts
        ),
        named({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}),
        named({"type": "message_stop"}),
    ]


def chunk(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return encode("", orjson.dumps({"id": "c1", "model": "m", "created": 1, "choices": [choice], **more}))


def chat(texts: list[str]) -> list[bytes]:
    usage = {"prompt_tokens": 7, "completion_tokens": 5}
    return [
        chunk({"role": "assistant", "content": ""}, service_tier="default"),
        *(chunk({"content": text}, usage=None, obfuscation="x") for text in texts),
        encode("", orjson.dumps({"id": "c1", "choices": [], "usage": usage})),
        encode("", b"[DONE]"),
    ]


def responses(texts: list[str]) -> list[bytes]:
    response = {"id": "r1", "model": "m"}
    told = {"input_tokens": 7, "output_tokens": 5}
    return [
        named({"type": "response.created", "response": response}),
        *(
            named({"type": "response.output_text.delta", "item_id": "i", "delta": text, "logprobs": []})
            for text in texts
        ),
        named({"type": "response.completed", "response": {**response, "usage": told}}),
    ]


PROTOCOLS = [(MESSAGES, messages), (CHAT_COMPLETIONS, chat), (RESPONSES, responses)]


def observed(protocol: WireProtocol, chunks: list[bytes]) -> Observation:
    """What was seen, but for the records' own ids and times."""
    interceptor = protocol.intercept(protocol.parse(b'{"messages":[]}'), "i1", 200, True)
    for each in chunks:
        assert interceptor.feed(each) is each
    seen = interceptor.observe()
    return replace(seen, records=tuple(replace(each, id="", created_at=NEVER) for each in seen.records))


@pytest.mark.parametrize(("protocol", "events"), PROTOCOLS, ids=["messages", "chat", "responses"])
@given(
    texts=st.lists(st.sampled_from(TEXTS) | st.text(max_size=20), max_size=8),
    share=st.floats(0, 1),
    size=st.integers(1, 400),
)
def test_what_is_skimmed_counts_like_what_is_read(
    protocol: WireProtocol, events: Any, texts: list[str], share: float, size: int
) -> None:
    """Events whose lines end in CRLF are never skimmed. The stream may end anywhere, and come in any pieces."""
    written = events(texts)
    written = written[: max(1, round(len(written) * share))]
    read = [each.replace(b"\n", b"\r\n") for each in written]
    whole = b"".join(written)
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    expected = observed(protocol, read)
    assert observed(protocol, written) == expected
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(relay, "KEPT_LIMIT", 100)
        assert observed(protocol, pieces) == expected


def test_a_chat_that_begins_with_a_comment_and_is_cut_is_accounted_for() -> None:
    cut = [b": processing\n\n", chunk({"content": "Hello"}), chunk({"content": "you"})]
    interceptor = CHAT_COMPLETIONS.intercept(CHAT_COMPLETIONS.parse(b'{"messages":[]}'), "i1", 200, True)
    interceptor.feed(b"".join(cut))
    (usage,) = interceptor.observe().records
    assert isinstance(usage, TokenUsage)
    assert (usage.provider_response_id, usage.output_tokens, usage.estimated) == ("c1", 2, True)


def test_an_answer_is_read_little_by_little() -> None:
    """Whatever else the reading thread carries waits meanwhile."""
    account = Measured()
    interceptor = relay.relay(lambda payload: account, overloaded_status=529)(Payload(b"", {}), "i1", 200, True)
    event = encode("", b"x" * 1000)
    for _ in range(1000):
        interceptor.feed(event)
    interceptor.observe()
    assert sum(account.sizes) == 1000 * len(event)
    assert max(account.sizes) < 100_000


class Measured:
    """An account of nothing but how much it was given at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def skim(self, written: bytes) -> bytes:
        self.sizes.append(len(written))
        return b""

    def event(self, event: Event) -> None:
        raise AssertionError

    def body(self, body: bytes) -> None:
        raise AssertionError

    def answer(self) -> Answer:
        return Answer()
