"""What a protocol must offer to the gateway. Each protocol folder fills in one WireProtocol.

Everything here is pure: bytes and records in, bytes and records out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aibridge.protocols.reading import text
from aibridge.protocols.rounds import HiddenTurn, ToolRequest
from aibridge.protocols.tools import Tool
from aibridge.records import ModelThought, PromptUsage, TokenUsage, ToolUsage

Observed = TokenUsage | PromptUsage | ToolUsage | ModelThought


@dataclass(frozen=True, slots=True)
class ProviderError:
    """An error that the provider reported itself, in a body or inside a stream, where it rarely has a `status`.
    `overloaded`: the status is the one by which this API says that it is."""

    message: str
    type: str = ""
    code: str = ""
    status: int | None = None
    overloaded: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What the answer told. `finished`: it reached the protocol's own end, so nothing is missing from it.
    `rounds`: how often the provider was asked for it."""

    records: tuple[Observed, ...]
    finished: bool
    error: ProviderError | None = None
    notes: tuple[str, ...] = ()
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Payload:
    """A client's request: the bytes that go onward and what they say."""

    body: bytes
    data: Mapping[str, Any]
    prompt: str | None = None
    correlating_tool_call_id: str | None = None

    @property
    def model(self) -> str:
        return text(self.data.get("model"))

    @property
    def streaming(self) -> bool:
        return self.data.get("stream") is True


class Observer(Protocol):
    """Has seen an answer go by."""

    def observe(self) -> Observation:
        """What has been seen so far. Costs as much as the answer is long: called once, at the end."""


class Interceptor(Observer, Protocol):
    """Follows one answer from the first byte to the last."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what the provider sent; return what the client gets instead (mostly the same object)."""

    def finish(self) -> bytes:
        """The provider's answer has come to a clean end; return what was held back and still belongs to it."""


Intercept = Callable[[Payload, str, int, bool], Interceptor]


@dataclass(frozen=True, slots=True)
class Metering:
    """How to learn the usage of an answer whose client did not ask for it: `ask` gives the body that does (None:
    no need), `hide` wraps the interceptor so that the client does not see what it did not ask for."""

    ask: Callable[[Payload], bytes | None]
    hide: Callable[[Interceptor], Interceptor]


# Why a request gets no tools: it says that no tool may be called; the provider holds the conversation that it
# goes on with; it asks for several answers at once.
Declined = Literal["tool_choice_none", "continued", "several_answers"]


@dataclass(frozen=True, slots=True)
class Tooling:
    """One protocol's way with injected tools.

    `client_tools`: the names of the tools that the client brought itself. `declined` tells by which rule a
    request gets no tools (None: it may), `unsupported` why it must be refused rather than get them. `keys`: of
    the answers in the request's history. `request(payload, tools, recalled, parallel)` puts the tools in; raises
    ValueError if the body cannot be edited. `most_tools` is how many tools the provider takes, None: there is no
    known limit.
    """

    client_tools: Callable[[Payload], frozenset[str]]
    declined: Callable[[Payload], Declined | None]
    unsupported: Callable[[Payload], str | None]
    keys: Callable[[Payload], tuple[str, ...]]
    request: Callable[[Payload, Sequence[Tool], Mapping[str, HiddenTurn], bool], ToolRequest]
    most_tools: int | None = None


@dataclass(frozen=True, slots=True)
class WireProtocol:
    """One provider API as the gateway sees it.

    `parse` raises InvalidRequest. `intercept(payload, interception_id, status, event_stream)` starts the machine
    for an answer. `error_body(kind, message, request_id)` and `error_event(...)` are the gateway's own words
    in the API's shape; `ping` is what keeps a silent stream alive. `tooling` is how our tools get in;
    `metering`: None where usage always comes.
    """

    name: str
    parse: Callable[[bytes], Payload]
    intercept: Intercept
    error_body: Callable[[str, str, str | None], bytes]
    error_event: Callable[[str, str, str | None], bytes]
    ping: bytes
    tooling: Tooling
    metering: Metering | None = None
