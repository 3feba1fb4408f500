"""Small real objects that stand at the rim in pure tests: a store in memory, a scripted provider, a clock."""

from collections.abc import Iterable, Iterator, Sequence
from threading import Event, Lock

from aibridge.errors import RecordRefused
from aibridge.records import Record
from aibridge.upstream.call import Headers, UpstreamRequest, UpstreamResponse


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


class ScriptedBody:
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
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
