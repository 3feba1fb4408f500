"""The rounds that make one answer when the model calls our tools.

A round is one call of the provider. What it said and what our tools answered is a `Round`; with the client's
request and the rounds so far, the next request is determined: a `ToolRequest` is that function. A `Composer`
makes one answer of all the rounds. Both are pure.

The client never sees our calls, so its next request lacks them. A `HiddenTurn` is what has to be put back; it is
found again by a key that can be made both of the answer and of what the client makes of it in its history.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aibridge.protocols.tools import ToolCall, ToolResult

KEY_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Round:
    """`said` is the JSON of what the provider produced, `results` that of what our tools answered, in the order of
    the calls; both as the protocol's requests carry them."""

    said: bytes
    results: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HiddenTurn:
    """The rounds of an answer that the client did not see whole. `mixed`: the last of them is the end of the
    answer, where the model called the client's tools beside ours; else the answer went on after the last.
    `response_id` is the provider's id of the answer's last response."""

    rounds: tuple[Round, ...]
    mixed: bool = False
    response_id: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model wants, once a round has come to its end. `calls` are ours, in order; `mixed`: there are the
    client's too; `cut`: the provider stopped the model (at max_tokens, say), so that nothing of it may be run."""

    calls: tuple[ToolCall, ...] = ()
    mixed: bool = False
    cut: bool = False


class Composer(Protocol):
    """One answer from the bytes of one or more rounds: one start, one end, nothing of our tools in between."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what the provider sent; return what the client gets of it now."""

    def turn(self) -> Turn:
        """The round's bytes have all come."""

    def round(self, results: Sequence[tuple[ToolCall, ToolResult]]) -> Round:
        """The round with the results of all of its calls. The next `feed` begins another one."""

    def finish(self) -> bytes:
        """There is no further round: what was held back and still belongs to the answer."""

    def keys(self) -> tuple[str, ...]:
        """What this answer will be found by in the client's next request."""

    @property
    def response_id(self) -> str:
        """The provider's id of the round's response."""

    @property
    def ended(self) -> bool:
        """Whether the client has been given the answer's end."""

    @property
    def empty(self) -> bool:
        """Whether there has been nothing to show to the client so far."""


class ToolRequest(Protocol):
    """A client's request with our tools in it."""

    def body(self, past: Sequence[Round] = (), *, last: bool = False) -> bytes:
        """The body of the next round. The same arguments give the same bytes. In the `last` round the model cannot
        call our tools. Raises ValueError if the client's body cannot be edited."""

    def compose(self, *, event_stream: bool) -> Composer: ...


@dataclass(frozen=True, slots=True)
class Trail:
    """What was said in a conversation so far, as a digest.

    It is made of what the client sends back unchanged whatever else it does to its history (cache breakpoints,
    thinking, context before a prompt): what the user typed, the ids of results, what answers said and called.
    """

    digest: str = ""

    def followed_by(self, role: str, said: str, ids: Sequence[str] = ()) -> "Trail":
        words = (self.digest, role, said.strip(), *ids)
        joined = KEY_SEPARATOR.join(words).encode("utf-8", "surrogatepass")
        return Trail(hashlib.sha256(joined).hexdigest())

    def answered(self, said: str, call_ids: Sequence[str]) -> "Trail":
        """Followed by an answer. Of its calls the first one tells enough: clients may drop some, or answer each
        before they repeat the next."""
        return self.followed_by("assistant", said, [next(filter(None, call_ids), "")])


def answer_key(protocol: str, before: Trail, said: str, call_ids: Sequence[str]) -> str | None:
    """The key of the answer that says and calls this; None: it would be nobody's in particular."""
    if not said.strip() and not any(call_ids):
        return None
    return f"{protocol}:{before.answered(said, call_ids).digest}"


def summed(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several usage objects as one: numbers are added, objects too, of anything else the last one counts."""
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            known = total.get(name)
            if isinstance(value, dict):
                total[name] = summed([known, value]) if isinstance(known, dict) else dict(value)
            elif _is_number(value):
                total[name] = known + value if _is_number(known) else value
            elif value is not None or name not in total:
                total[name] = value
    return total


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
