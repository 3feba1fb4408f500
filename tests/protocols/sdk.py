"""What the official SDKs' accumulators make of a stream of bytes."""

from typing import Any

import anthropic
import httpx2
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState


def _client(stream: bytes) -> httpx2.Client:
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))


def anthropic_message(stream: bytes) -> dict[str, Any]:
    client = anthropic.Anthropic(api_key="k", base_url="http://provider.test", http_client=_client(stream))
    messages: Any = [{"role": "user", "content": "hi"}]
    with client.messages.stream(model="claude-sonnet-5", max_tokens=1, messages=messages) as events:
        return events.get_final_message().to_dict(mode="json")


def _openai(stream: bytes) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url="http://provider.test", http_client=_client(stream))


def chat_completion(stream: bytes) -> dict[str, Any]:
    state: Any = ChatCompletionStreamState()
    question: Any = [{"role": "user", "content": "hi"}]
    for chunk in _openai(stream).chat.completions.create(model="m", messages=question, stream=True):
        state.handle_chunk(chunk)
    completion: dict[str, Any] = state.get_final_completion().to_dict(mode="json")
    return completion


def response(stream: bytes) -> dict[str, Any]:
    """The response of the terminal event."""
    final: Any = None
    for event in _openai(stream).responses.create(model="m", input="hi", stream=True):
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            final = event.response
    found: dict[str, Any] = final.to_dict(mode="json")
    return found
