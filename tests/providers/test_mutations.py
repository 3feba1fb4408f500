"""Whatever a provider sends as HTTP, as gzip or in Amazon's frames: it is read, or it is an UpstreamError."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.errors import UpstreamError
from aibridge.providers.bedrock_events import EventStream
from aibridge.providers.decoding import ProviderBody, decoded
from aibridge.providers.transport import _Message
from tests.conversations import conversations
from tests.fakes import ScriptedBody
from tests.mutations import mutated, pieces
from tests.providers.test_bedrock import frames

pytestmark = pytest.mark.fuzz

STREAMS = [conversation.stream for conversation in conversations("messages")]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Twice: a\r\nX-Twice: b\r\n"


def in_chunks(body: bytes) -> bytes:
    parts = [body[at : at + 700] for at in range(0, len(body), 700)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


MESSAGES = [
    *(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + in_chunks(stream) for stream in STREAMS),
    *(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(stream), stream) for stream in STREAMS),
    HEAD + b"\r\nuntil the end",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
]


class Arriving(ScriptedBody, ProviderBody):
    """A provider's body that comes in these pieces."""


def told(arriving: list[bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool] | None:
    """What the transport makes of an HTTP message; None if it is none."""
    message = _Message()
    try:
        for piece in arriving:
            message.feed(piece)
    except UpstreamError:
        return None
    return message.status, message.headers, b"".join(message.pieces), message.complete


def outcome(read: Callable[[], Iterator[bytes]]) -> tuple[bytes, bool]:
    """The bytes that were given, and whether that was the whole."""
    given = b""
    try:
        for piece in read():
            given += piece
    except UpstreamError:
        return given, False
    return given, True


@given(st.data())
def test_an_http_message_is_the_same_however_it_comes(data: st.DataObject) -> None:
    written = data.draw(mutated(MESSAGES))
    assert told(data.draw(pieces(written))) == told([written])


@given(st.data())
def test_a_compressed_body_is_the_same_however_it_comes(data: st.DataObject) -> None:
    plain = data.draw(st.sampled_from(STREAMS))
    packed = [gzip.compress(plain), gzip.compress(plain) + gzip.compress(b"more"), zlib.compress(plain)]
    written = data.draw(mutated(packed))

    def inflated(arriving: list[bytes]) -> tuple[bytes, bool]:
        _, body = decoded([(b"content-encoding", b"gzip")], Arriving(arriving))
        return outcome(lambda: iter(body))

    whole, cut = inflated([written]), inflated(data.draw(pieces(written)))
    assert whole == cut if whole[1] else cut[0].startswith(whole[0])


@given(st.data())
def test_amazons_frames_are_the_same_however_they_come(data: st.DataObject) -> None:
    written = data.draw(mutated([b"".join(frames(stream)) for stream in STREAMS]))
    whole = outcome(lambda: iter(EventStream(ScriptedBody([written]))))
    cut = outcome(lambda: chain(EventStream(ScriptedBody(data.draw(pieces(written))))))
    assert whole == cut
