"""The bytes that the bench sends and answers with."""

import json

import pytest

from aibridge.protocols.sse import Decoder
from bench.answers import ANSWERS, END
from bench.apis import PATHS, Api, agent_request


def test_every_api_has_a_place_and_an_answer() -> None:
    assert PATHS.keys() == ANSWERS.keys()


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("size", [2_000, 20_000, 1_000_000])
def test_requests_have_the_size_that_was_asked_for(api: Api, size: int) -> None:
    body = agent_request(api, size=size, stream=True, model="mine")
    assert len(body) == pytest.approx(size, rel=0.1)
    assert json.loads(body)["model"] == "mine"
    assert json.loads(body)["stream"] is True
    assert body.count(b'"stream"') == 1  # where the provider looks for it


def content(chunked: bytes) -> bytes:
    """What a chunked body holds."""
    found = b""
    while chunked:
        length, _, rest = chunked.partition(b"\r\n")
        found, chunked = found + rest[: int(length, 16)], rest[int(length, 16) + 2 :]
    return found


@pytest.mark.parametrize("api", PATHS)
def test_answers_are_whole(api: Api) -> None:
    answer = ANSWERS[api]
    head, _, body = answer.blocking.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["usage"]

    stream = content(answer.opening + answer.event(12345) + answer.closing + END)
    events = [event.data for event in Decoder().feed(stream)]
    assert sum(b"T0000000000000012345" in data for data in events) == 1
    assert all(data == b"[DONE]" or json.loads(data) for data in events)
