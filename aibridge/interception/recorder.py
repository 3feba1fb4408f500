"""Recording off the request's thread: group commit, and the spool behind it.

A request waits twice: for its start row, and at its end for everything else. Between the two nothing of
recording happens on its thread. The committing thread takes whatever is waiting, at once when idle, and writes
all of it in one transaction; under load the groups grow by themselves.
"""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from threading import Event, Lock, Thread

import structlog

from aibridge.errors import RecordingError
from aibridge.interception.spool import Spool
from aibridge.records import (
    InterceptionEnded,
    InterceptionStarted,
    ModelThought,
    PromptUsage,
    Record,
    Recorder,
    ToolUsage,
    now,
)

GROUP_LIMIT = 256
COMMIT_TIMEOUT = 10.0  # seconds that a request waits for the store before it goes on without it
REPLAY_INTERVAL = 2.0  # seconds between attempts to empty the spool

_log = structlog.get_logger("aibridge.recorder")


class Recorders:
    """A durable recorder and observers (logs, metrics) that see what is recorded, whether or not it was kept."""

    def __init__(self, durable: Recorder, *observers: Callable[[Sequence[Record]], None]) -> None:
        self._durable = durable
        self._observers = observers

    def record(self, records: Sequence[Record]) -> None:
        for observe in self._observers:
            observe(records)
        self._durable.record(records)


def without_content(record: Record, content: str) -> Record | None:
    """`record` under a `recording.content` policy: texts are dropped ("none") or replaced by their length
    ("redacted") before anything is written anywhere."""
    match content, record:
        case "none", PromptUsage() | ModelThought():
            return None
        case "none", ToolUsage():
            return replaced(record, input="")
        case "redacted", PromptUsage():
            return replaced(record, prompt=_redacted(record.prompt))
        case "redacted", ModelThought():
            return replaced(record, content=_redacted(record.content))
        case "redacted", ToolUsage():
            return replaced(record, input=_redacted(record.input))
    return record


def _redacted(text: str) -> str:
    return f"[redacted: {len(text)} characters]"


def _never_called(started: InterceptionStarted) -> InterceptionEnded:
    """The end of an interception whose start row came too late for its request."""
    return InterceptionEnded(
        interception_id=started.id,
        status="failed",
        ended_at=now(),
        duration_ms=COMMIT_TIMEOUT * 1000,
        gateway_ms=COMMIT_TIMEOUT * 1000,
        http_status=503,
        error_type="server_error",
        error_message="the store was too slow to take the start of the interception",
        rounds=0,
        attempts=0,
    )


@dataclass(slots=True)
class _Job:
    """Records to be made and kept together. `keep`: into the spool if the store does not take them."""

    make: Callable[[], Sequence[Record]]
    keep: bool
    done: "Future[None]" = field(default_factory=Future)
    _made: list[Record] | None = None
    _making: Lock = field(default_factory=Lock)

    def records(self) -> list[Record]:
        """Made once, whoever asks first: written twice, they still have the same ids."""
        with self._making:
            if self._made is None:
                self._made = list(self.make())
            return self._made


class BackgroundRecorder:
    """Puts one thread between the requests and a Recorder. Threads start with `start()`, after the fork."""

    def __init__(self, recorder: Recorder, spool: Spool, *, content: str = "full") -> None:
        self._recorder = recorder
        self._spool = spool
        self._content = content
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: Thread | None = None
        self._starting = Lock()
        self._degraded = Event()

    def start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what is waiting and stop."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    @property
    def degraded(self) -> bool:
        """Whether records wait in the spool because the store did not take them."""
        return self._degraded.is_set()

    def begin(self, started: InterceptionStarted) -> None:
        """Make the start row durable. Raises RecordingError: then the provider must not be called."""
        job = _Job(lambda: (started,), keep=False)
        self._jobs.put(job)
        try:
            job.done.result(COMMIT_TIMEOUT)
        except TimeoutError:
            self._jobs.put(_Job(lambda: (_never_called(started),), keep=False))
            raise RecordingError("the store is too slow") from None

    def settle(self, make: Callable[[], Sequence[Record]]) -> None:
        """Run `make` on the recorder's thread and make its records durable, in the store or in the spool.

        A store that hangs does not hold the client's answer for ever: after COMMIT_TIMEOUT the records go into
        the spool from here, and do no harm if the store takes them later after all. Raises RecordingError only
        if neither took them.
        """
        job = _Job(lambda: self._permitted(make()), keep=True)
        self._jobs.put(job)
        try:
            job.done.result(COMMIT_TIMEOUT)
        except TimeoutError:
            self._into_spool(job.records(), "the store is too slow")

    def _permitted(self, records: Sequence[Record]) -> list[Record]:
        permitted = (without_content(record, self._content) for record in records)
        return [record for record in permitted if record is not None]

    def _run(self) -> None:
        while True:
            group, closing = self._next_group()
            if group:
                self._commit(group)
            if self._degraded.is_set() or not group:
                self._replay()
            if closing:
                return

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Whatever is waiting, as soon as anything is; nothing when the time for a replay has come."""
        group: list[_Job] = []
        try:
            job = self._jobs.get(timeout=REPLAY_INTERVAL)
            while job is not None:
                group.append(job)
                if len(group) >= GROUP_LIMIT:
                    return group, False
                job = self._jobs.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def _commit(self, group: list[_Job]) -> None:
        ready = [job for job in group if self._makes_records(job)]
        try:
            self._recorder.record([record for job in ready for record in job.records()])
        except RecordingError as error:
            self._separately(ready, error)
        else:
            for job in ready:
                job.done.set_result(None)

    @staticmethod
    def _makes_records(job: _Job) -> bool:
        try:
            job.records()
        except Exception as error:
            _log.exception("records could not be made")
            job.done.set_exception(RecordingError(str(error)))
            return False
        return True

    def _separately(self, jobs: list[_Job], error: RecordingError) -> None:
        """After a failed group, each job by itself, so that one bad row does not take others with it. Once a
        second one fails the store is taken to be down."""
        failures = 0
        for job in jobs:
            try:
                if failures > 1 or len(jobs) == 1:
                    raise error
                self._recorder.record(job.records())
            except RecordingError as reason:
                failures += 1
                self._keep(job, reason)
            else:
                job.done.set_result(None)

    def _keep(self, job: _Job, reason: RecordingError) -> None:
        if not job.keep:
            job.done.set_exception(reason)
            return
        try:
            self._into_spool(job.records(), str(reason))
        except RecordingError as error:
            job.done.set_exception(error)
        else:
            job.done.set_result(None)

    def _into_spool(self, records: Sequence[Record], reason: str) -> None:
        try:
            self._spool.append(records)
        except RecordingError as error:
            _log.critical("records are lost", reason=reason, spool=str(error), count=len(records))
            raise
        _log.warning("the store did not take records; they wait in the spool", reason=reason)
        self._degraded.set()

    def _replay(self) -> None:
        try:
            if self._spool.waiting():
                self._spool.replay(self._recorder.record)
                _log.info("the spool has been replayed")
            self._degraded.clear()
        except (RecordingError, OSError) as error:
            self._degraded.set()
            _log.warning("the spool cannot be replayed yet", reason=str(error))
