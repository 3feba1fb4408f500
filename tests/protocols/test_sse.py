"""Server-sent events: every line end, every split, and borders."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.protocols.sse import Border, Decoder, Event, Splitter, encode, event_in, has_event, usual

STREAMS = [
    (b"event: a\ndata: 1\n\ndata: 2\n\n", [Event("a", b"1"), Event("", b"2")]),
    (b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", [Event("a", b"1"), Event("", b"2")]),
    (b"event: a\rdata: 1\r\rdata: 2\r\r", [Event("a", b"1"), Event("", b"2")]),
    (b"data: 1\ndata:2\ndata:  3\n\n", [Event("", b"1\n2\n 3")]),
    (b": comment\n\n:\n\nevent: empty\n\ndata: x\n\n", [Event("", b"x")]),
    (b"\xef\xbb\xbfdata: bom\n\n", [Event("", b"bom")]),
    (b"data\n\nid: 4\nretry: 5\nunknown: 6\ndata: y\n\n", [Event("", b""), Event("", b"y")]),
    (b"data: unfinished", []),
    (b"data: no blank line\n", []),
    ("event: ü\ndata: 🌉\n\n".encode(), [Event("ü", "🌉".encode())]),
    (b"", []),
]


@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_events_come_out_whole_whatever_the_chunks(stream: bytes, events: list[Event]) -> None:
    assert list(Decoder().feed(stream)) == events
    decoder = Decoder()
    assert [event for byte in stream for event in decoder.feed(bytes([byte]))] == events
    for cut in range(len(stream)):
        decoder = Decoder()
        assert [*decoder.feed(stream[:cut]), *decoder.feed(stream[cut:])] == events


@given(
    events=st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=5),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_what_is_encoded_is_decoded(events: list[str], sizes: list[int]) -> None:
    stream = b"".join(encode("e", data.encode()) for data in events)
    decoder, got, at, turn = Decoder(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        got += list(decoder.feed(stream[at : at + size]))
        at, turn = at + size, turn + 1
    assert got == [Event("e", data.encode()) for data in events]


@pytest.mark.parametrize(
    "huge",
    [
        b"data: " + b"x" * 50 + b"\n\n",
        b"data: 12345678\n" * 5 + b"\n",
        b"data:\n" * 21 + b"\n",
        b"data: x\n: " + b"c" * 50 + b"\n\n",
    ],
)
def test_an_oversized_event_is_skipped_to_its_blank_line_in_pieces_of_any_size(huge: bytes) -> None:
    stream = b"data: a\n\n" + huge + b"data: b\n\n"
    for size in (1, 5, len(stream)):
        decoder = Decoder(limit=20)
        got = [event for i in range(0, len(stream), size) for event in decoder.feed(stream[i : i + size])]
        assert [event.data for event in got if event.data != b"x"] == [b"a", b"b"]
        assert decoder.oversized <= 1


def test_an_event_without_a_name_has_no_event_line() -> None:
    assert encode("", b"{}") == b"data: {}\n\n"


@pytest.mark.parametrize(
    ("sent", "reached", "closing"),
    [
        (b"", True, b""),
        (b"data: x\n\n", True, b""),
        (b"data: x\r\n\r\n", True, b""),
        (b"data: x\r\r", True, b""),
        (b"data: x\n", False, b"\n"),
        (b"data: x\r\n", False, b"\n"),
        (b"data: x\r", False, b"\n\n"),
        (b"data: x", False, b"\n\n"),
    ],
)
def test_a_border_is_known_from_the_last_bytes_however_they_came(
    sent: bytes, reached: bool, closing: bytes
) -> None:
    for size in (1, 2, 100):
        border = Border()
        for i in range(0, len(sent), size):
            border.sent(sent[i : i + size])
        assert (border.reached, border.closing()) == (reached, closing)
        decoder = Decoder()
        whole = sent + closing + encode("error", b"{}")
        assert [event.name for event in decoder.feed(whole)][-1] == "error"


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (b"event: x", True),
        (b"data:", True),
        (b": ping\n\ndata: x", True),
        (b"\xef\xbb\xbfevent: x", True),
        (b": data: in a comment\n", False),
        (b"<html>data: 5", False),
        (b"eve", False),
        (b"", False),
    ],
)
def test_comments_and_garbage_are_no_event(start: bytes, found: bool) -> None:
    assert has_event(start) is found


WRITTEN = [
    b"event: a\ndata: {}\n\n",
    b": comment\r\n\r\n",
    b"data: \xc3\xa9\r\r",
    b"data: x\ndata: y\n\n",
    b"\n\n",
]


def test_the_splitter_gives_whole_events_however_they_come() -> None:
    whole = b"".join(WRITTEN) + b"data: half"
    for at in range(len(whole) + 1):
        for end in range(at, min(len(whole), at + 9) + 1):
            splitter = Splitter()
            pieces = (whole[:at], whole[at:end], whole[end:])
            assert [event for piece in pieces for event in splitter.feed(piece)] == WRITTEN
            assert (splitter.rest(), splitter.rest()) == (b"data: half", b"")


def test_the_splitter_does_not_hold_up_what_is_too_long() -> None:
    splitter = Splitter(limit=10)
    assert splitter.feed(b"data: 0123456789\n") == [b"data: 0123456789"]
    assert splitter.feed(b"\ndata: y\n\n") == [b"\n\n", b"data: y\n\n"]


@pytest.mark.parametrize(
    "written",
    [
        b"event: a\ndata: {}\n\n",
        b"data: x\n\n",
        b"data: \n\n",
        b"event:a\ndata:x\n\n",
        b"event: a\r\ndata: x\r\n\r\n",
        b"event: a\rdata: x\r\r",
        b"event: \xff\ndata: x\n\n",
        b"event: a\n\n",
        b"data: a\ndata: b\n\n",
        b"id: 1\ndata: x\n\n",
        b": c\ndata: x\n\n",
        b"\xef\xbb\xbfdata: x\n\n",
        b"data: x\n",
        b"\n\n",
        b"",
    ],
)
def test_an_event_is_read_alike_however_it_is_written(written: bytes) -> None:
    assert event_in(written) == next(Decoder().feed(written), None)
    assert b"".join(Splitter().feed(written)) == (
        written if written.endswith((b"\n\n", b"\r\n", b"\r\r")) else b""
    )


def test_the_splitter_takes_a_long_event_in_small_pieces_without_going_over_it_again_and_again() -> None:
    splitter, piece = Splitter(), b"x" * 100
    began = time.monotonic()
    for _ in range(40_000):
        assert not splitter.feed(piece)
    assert splitter.feed(b"\n\n") == [piece * 40_000 + b"\n\n"]
    assert time.monotonic() - began < 3.0  # it takes 0.05 s; copying what is there with every piece, over 10 s


def test_an_event_is_read_back_from_how_it_was_written() -> None:
    assert event_in(encode("a", b"{\n}")) == Event("a", b"{\n}")
    assert event_in(encode("", b"x")) == Event("", b"x")
    assert event_in(b": comment\n\n") is None
    assert event_in(b"data: half") is None


def test_a_common_event_is_known_by_its_bytes_unless_they_are_no_text() -> None:
    pattern = re.compile(rb'data: "([^"]*)"\n\n')
    found = usual(pattern, b'data: "\xc3\xbc"\n\n')
    assert found is not None
    assert found[1].decode() == "ü"
    assert usual(pattern, b"data: 1\n\n") is None
    assert usual(pattern, b'data: "\xc3"\n\n') is None
