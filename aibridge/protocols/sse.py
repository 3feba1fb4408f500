"""Server-sent events: incremental decoding, encoding, and event borders in raw bytes.

Follows the WHATWG HTML standard, section 9.2.6: lines end in LF, CRLF or CR; a blank line dispatches; lines
that start with a colon are comments; one blank after the colon is dropped; several `data` lines are joined
by LF; an event without its blank line at the end of the stream does not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

EVENT_LIMIT = 16 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n")
_PLAIN = re.compile(rb"(?:event: ([^\r\n]*)\n)?data: ([^\r\n]*)\n\n")  # a Decoder takes three times as long
_BOM = b"\xef\xbb\xbf"
_FIELD = re.compile(rb"(?:\A|[\r\n])(?:\xef\xbb\xbf)?(?:event|data|id|retry)[:\r\n]")


@dataclass(frozen=True, slots=True)
class Event:
    """A dispatched event; `name` is "" where the stream named none."""

    name: str
    data: bytes


class Decoder:
    """Bytes in pieces of any size in, whole events out.

    An event over `limit` bytes is skipped up to its blank line and counted in `oversized`, so a hostile
    stream costs at most that much memory.
    """

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self.oversized = 0
        self._limit = limit
        self._line = bytearray()  # what has come of the current line
        self._searched = 0  # no line end before this index of it
        self._after_cr = False  # a LF that follows belongs to that line end
        self._at_start = True
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0  # of the event's data so far
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        for line in self._lines(chunk):
            event = self._take(line)
            if event is not None:
                yield event

    def _lines(self, chunk: bytes) -> list[bytes]:
        if not chunk:
            return []
        buffer = self._line
        buffer += chunk.removeprefix(b"\n") if self._after_cr else chunk
        self._after_cr = chunk.endswith(b"\r")
        lines, start = [], 0
        for first, end in [match.span() for match in _LINE_END.finditer(buffer, self._searched)]:
            lines.append(bytes(buffer[start:first]))
            start = end
        del buffer[:start]
        if len(buffer) > self._limit:
            self._skipping = True
            buffer[:] = b":"  # whatever else comes of this line is as good as a comment
        self._searched = len(buffer)
        return lines

    def _take(self, line: bytes) -> Event | None:
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        if field == b"data":
            self._size += len(value) + 1  # its line end counts, or empty lines without end would cost nothing
            if self._size > self._limit:
                self._skipping = True
                self._data.clear()
            else:
                self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Event | None:
        name, data, skipping = self._name, self._data, self._skipping
        self._forget()
        if skipping:
            self.oversized += 1
            return None
        return Event(name, b"\n".join(data)) if data else None

    def _forget(self) -> None:
        self._name = ""
        self._data = []
        self._size = 0
        self._skipping = False


class Splitter:
    """Bytes in pieces of any size in, whole events out as they were written, line ends and all.

    What has come of an event is held until it is whole. Once it is longer than `limit` it is given out in pieces,
    so that what cannot be understood is at least not held up.
    """

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._held = bytearray()
        self._searched = 0  # no event ends before this index of it

    def feed(self, chunk: bytes) -> list[bytes]:
        held, start = self._held, 0
        if not held and 0 <= chunk.find(b"\n\n") == len(chunk) - 2 and b"\r" not in chunk:
            return [chunk]  # one event, as most chunks are
        events: list[bytes] = []
        held += chunk
        whole = chunk if len(held) == len(chunk) else held  # slices of the chunk are copied once, or not at all
        for end in [match.end() for match in _EVENT_END.finditer(whole, self._searched)]:
            events.append(bytes(whole[start:end]))
            start = end
        del held[:start]
        if len(held) > self._limit:
            # All but line ends, which may be the first half of the event's end.
            size = len(held.rstrip(b"\r\n"))
            events.append(bytes(held[:size]))
            del held[:size]
        self._searched = max(0, len(held) - 3)
        return events

    def rest(self) -> bytes:
        """What is held when the stream is over."""
        held, self._held, self._searched = bytes(self._held), bytearray(), 0
        return held


def event_in(written: bytes) -> Event | None:
    """The event that was written so; None for comments, and for anything that is no whole event."""
    plain = _PLAIN.fullmatch(written)
    if plain is not None:
        return Event((plain[1] or b"").decode("utf-8", "replace"), plain[2])
    return next(Decoder().feed(written), None)


def encode(name: str, data: bytes) -> bytes:
    """One event on the wire; without a name there is no `event` line."""
    lines = data.replace(b"\n", b"\ndata: ")
    return b"event: %b\ndata: %b\n\n" % (name.encode(), lines) if name else b"data: %b\n\n" % lines


def usual(pattern: re.Pattern[bytes], written: bytes) -> re.Match[bytes] | None:
    """The match of an event with the pattern of a very common one, whose JSON need not be read then."""
    found = pattern.fullmatch(written)
    if found is not None:
        try:
            written.decode()
        except UnicodeDecodeError:  # it is no JSON
            return None
    return found


def skimmed(pattern: re.Pattern[bytes], written: bytes) -> tuple[bytes, int]:
    """What `pattern` does not match, and how many characters its one group holds: JSON texts without escapes.

    It takes the blank line before an event but only sees the one behind it, which the next match takes.
    """
    parts = pattern.split(written)
    return b"".join(parts[::2]), sum(map(_characters, parts[1::2]))


def _characters(text: bytes) -> int:
    return len(text) if text.isascii() else len(text.decode("utf-8", "replace"))


def has_event(start: bytes) -> bool:
    """Whether these first bytes of a stream hold more than comments, blank lines and garbage."""
    return _FIELD.search(start) is not None


class Border:
    """Knows whether the bytes sent so far end between two events, by looking at their last three only."""

    def __init__(self) -> None:
        self._tail = b"\n\n"

    def sent(self, chunk: bytes) -> None:
        self._tail = chunk[-3:] if len(chunk) >= 3 else (self._tail + chunk)[-3:]

    @property
    def reached(self) -> bool:
        return self._tail.endswith((b"\n\n", b"\n\r\n", b"\r\r", b"\r\r\n"))

    def closing(self) -> bytes:
        """What must be sent to end a half-sent event."""
        if self.reached:
            return b""
        return b"\n" if self._tail.endswith(b"\n") else b"\n\n"
