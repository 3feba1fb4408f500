"""Small real objects that stand at the rim in pure tests: a store in memory, a scripted provider, a clock."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event, Lock
from typing import Any

from aibridge.errors import RecordRefused
from aibridge.interception.toolbox import CallContext
from aibridge.protocols.tools import Text, Tool, ToolResult
from aibridge.records import Record
from aibridge.upstream.call import Headers, UpstreamBody, UpstreamRequest, UpstreamResponse

NOON = 1767355200.0  # 2026-01-02 12:00 UTC


class MemoryRecorder:
    """Keeps records in a list. While `down` it takes none; while `held` it waits."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.groups: list[int] = []
        self.down: Exception | None = None
        self.refuses: str | None = None
        self.taken = Event()
        self.open = Event()
        self.open.set()
        self._lock = Lock()

    def record(self, records: Sequence[Record]) -> None:
        self.open.wait(10)
        with self._lock:
            if self.down is not None:
                raise self.down
            for record in records:
                if self.refuses and self.refuses in repr(record):
                    raise RecordRefused("refused")
            self.records += records
            self.groups.append(len(records))
            self.taken.set()

    def of(self, kind: type[Record]) -> list[Record]:
        return [record for record in self.records if isinstance(record, kind)]


class ScriptedBody(UpstreamBody):
    """Chunks as given; an exception among them is raised in its place."""

    def __init__(self, chunks: Iterable[bytes | Exception]) -> None:
        self._chunks = list(chunks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def close(self) -> None:
        self.closed += 1


class FakeUpstream:
    """Answers every call alike, or raises, and remembers what it was asked."""

    def __init__(
        self, *chunks: bytes | Exception, status: int = 200, headers: Headers = (), fails: Exception | None = None
    ) -> None:
        self._chunks = chunks
        self._status = status
        self._headers = headers
        self._fails = fails
        self.requests: list[UpstreamRequest] = []
        self.bodies: list[ScriptedBody] = []

    def __call__(self, request: UpstreamRequest) -> UpstreamResponse:
        self.requests.append(request)
        if self._fails is not None:
            raise self._fails
        self.bodies.append(ScriptedBody(self._chunks))
        return UpstreamResponse(self._status, self._headers, self.bodies[-1])


class FakeClock:
    """Seconds that pass only when told to, or while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return NOON + self.now

    def sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeToolbox:
    """Tools that are functions of their arguments and the context."""

    def __init__(self, **functions: Callable[[Mapping[str, Any], CallContext], ToolResult]) -> None:
        self.functions = functions
        self.schemas: dict[str, Mapping[str, Any]] = {}
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.running = False

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False

    def wait_until_settled(self, seconds: float) -> bool:
        return True

    def tools(self) -> list[Tool]:
        return [
            Tool(
                f"bmcp_fake_{name}",
                name,
                f"Does {name}.",
                self.schemas.get(name, ANYTHING),
                "http://fake.test/mcp",
            )
            for name in self.functions
        ]

    def call(self, tool: Tool, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        self.calls.append((tool.name, arguments))
        return self.functions[tool.name](arguments, context)

    def status(self) -> Mapping[str, Any]:
        return {"fake": {"tools": len(self.functions)}}


ANYTHING = {"type": "object"}


def text_result(text: str, *, is_error: bool = False) -> ToolResult:
    return ToolResult((Text(text),), is_error=is_error)
