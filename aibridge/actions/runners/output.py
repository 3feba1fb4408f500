"""What a run gave, and how it becomes a result: without secrets, of bounded size, never empty."""

import codecs
from dataclasses import dataclass

from aibridge.actions.secrets import Secrets
from aibridge.protocols.tools import Image, Text, ToolResult

NOTHING = "the action returned nothing"

# Bytes by which a result may be longer than max_output_bytes: our own words before and after the output.
OWN_WORDS = 256


class Head:
    """Keeps the first `limit` bytes of what it is fed and counts the rest. `size`: bytes fed so far."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.size = 0

    def feed(self, data: bytes) -> None:
        self._kept += data[: self._limit - len(self._kept)]
        self.size += len(data)

    @property
    def is_cut(self) -> bool:
        return self.size > self._limit

    def content(self) -> bytes:
        return bytes(self._kept)

    def text(self, charset: str = "utf-8") -> str:
        """What was kept, malformed bytes replaced; a character that the cut has split is left out."""
        return _decoded(self.content(), charset, final=not self.is_cut)


class Tail:
    """Keeps the last `limit` bytes of what it is fed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._is_cut = False

    def feed(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > self._limit:
            del self._kept[: -self._limit]
            self._is_cut = True

    def text(self, secrets: Secrets) -> str:
        text = self._kept.decode("utf-8", "replace")
        return secrets.redacted(text, cut_before=self._is_cut).strip()


def _decoded(data: bytes, charset: str, *, final: bool) -> str:
    try:
        b" ".decode(charset, "replace")  # unlike the decoders, it does not take base64 for a charset
        return codecs.getincrementaldecoder(charset)("replace").decode(data, final)
    except (LookupError, ValueError):
        return codecs.getincrementaldecoder("utf-8")("replace").decode(data, final)


@dataclass(frozen=True, slots=True)
class Output:
    """`size` is of the whole output as far as it was read, in bytes, of which `text` may be only the beginning.
    `introduction` is ours, such as an HTTP status; it is never cut."""

    text: str = ""
    size: int = 0
    is_cut: bool = False
    introduction: str = ""
    image: Image | None = None
    is_error: bool = False


def result(output: Output, secrets: Secrets, limit: int) -> ToolResult:
    """The result for the model; `limit` in bytes of UTF-8."""
    if output.image:
        return ToolResult((output.image,), output.is_error)
    # First the secrets: a cut in the middle of one would leave half of it unrecognised.
    text = _cut(secrets.redacted(output.text, cut_after=output.is_cut), output, limit)
    parts = [part for part in (secrets.redacted(output.introduction), text) if part.strip()]
    return ToolResult((Text("\n".join(parts) or NOTHING),), output.is_error)


def _cut(text: str, output: Output, limit: int) -> str:
    data = text.encode("utf-8", "replace")
    if not output.is_cut and len(data) <= limit:
        return data.decode()
    kept = data[:limit]
    size = max(output.size, len(data))
    return f"{kept.decode('utf-8', 'ignore')}\n[cut: the first {limit} of at least {size} bytes]"
