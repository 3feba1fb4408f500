"""Bytes that went wrong on their way, and how they arrive: for tests of machines that must survive anything.

`make fuzz` runs these tests with far more examples (`FUZZ` in `tests/conftest.py`).
"""

from collections.abc import Sequence

from hypothesis import strategies as st

# What machines like ours have stumbled over.
SPICES = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\n\r\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xff", b"\x00", b"\xc3"),
    *(b"data: ", b"data:\n", b"event: ", b"event: error\n", b": ", b"data: [DONE]\n\n", b"data: {}\n\n"),
    *(b"null", b"true", b"{}", b"[]", b'""', b"-1", b"1e999", b"NaN", b"9" * 30, b"[" * 3000, b'{"a":' * 300),
    *(b'"', b"\\", b"\\ud800", b"\\u0000", b",", b":", b"}", b"]", b'"index":7,', b'"id":"",', b'"type":"error",'),
    *(b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n"),
)


@st.composite
def mutated(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """One of the originals, with up to four places in it replaced, removed or doubled."""
    text = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 60)))
        inserted = draw(st.sampled_from(SPICES) | st.binary(max_size=6) | st.just(text[at:end] * 2))
        text = text[:at] + inserted + text[end:]
    return text


@st.composite
def pieces(draw: st.DrawFn, text: bytes) -> list[bytes]:
    """The text as a network may bring it."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
