"""Recording off the request's thread: group commit, and the spool behind it.

A request waits twice: for its start row, and at its end for everything else. Between the two nothing of
recording happens on its thread; at the end it makes the records of what was observed, since it could do nothing
but wait. One thread commits: it takes whatever is waiting, at once when idle, and writes all of it in one
transaction; under load the groups grow by themselves.
"""

import queue
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Event, Lock, Thread
from typing import Any

import structlog

from aibridge.errors import RecordingError, RecordRefused
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
MOST_WAITING = 20_000  # jobs; a store that hangs for long must not gather all that was given up meanwhile
COMMIT_TIMEOUT = 10.0  # seconds that a request waits for the store before it goes on without it
REPLAY_INTERVAL = 2.0  # seconds between attempts to empty the spool
REPLAY_SLICE = 0.1  # seconds of it at a time; between them is written what requests wait for
TEND_INTERVAL = 5.0  # seconds between two of the store's own chores

Observer = Callable[[Sequence[Record]], None]

_log = structlog.get_logger("aibridge.recorder")


# Which fields of a record are texts of somebody's. Providers and tools quote requests in their errors.
_TEXTS: dict[type[Record], tuple[str, ...]] = {
    PromptUsage: ("prompt",),
    ModelThought: ("content",),
    ToolUsage: ("input", "invocation_error"),
    InterceptionEnded: ("error_message",),
}


def without_content(record: Record, content: str) -> Record | None:
    """`record` under a `recording.content` policy: texts are dropped ("none") or replaced by their length
    ("redacted") before anything is written anywhere."""
    names = _TEXTS.get(type(record), ()) if content != "full" else ()
    texts = {name: getattr(record, name) for name in names if getattr(record, name) is not None}
    if content == "none" and isinstance(record, PromptUsage | ModelThought):
        return None
    changes: dict[str, Any] = {name: _without_text(record, text, content) for name, text in texts.items()}
    return replace(record, **changes) if changes else record


def _without_text(record: Record, text: str, content: str) -> str | None:
    if content == "redacted":
        return f"[redacted: {len(text)} characters]"
    # That a call failed stays known.
    return "" if isinstance(record, ToolUsage) else None


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


class _Job:
    """Records to be kept together. `keep`: in the spool if the store does not take them."""

    __slots__ = ("_error", "_over", "_waited_for", "keep", "records")

    def __init__(self, records: Sequence[Record], *, keep: bool) -> None:
        self.records = records
        self.keep = keep
        self._over = False
        self._error: RecordingError | None = None
        # Held until it is over. Every request waits for two of these, and a lock costs a tenth of a Future.
        self._waited_for = Lock()
        self._waited_for.acquire()

    def end(self, error: RecordingError | None = None) -> None:
        """They are durable, or never will be. The first word counts."""
        if not self._over:
            self._over, self._error = True, error
            self._waited_for.release()

    def wait(self) -> None:
        """Until they are durable. Raises RecordingError, and TimeoutError after COMMIT_TIMEOUT."""
        if not self._waited_for.acquire(timeout=COMMIT_TIMEOUT):
            raise TimeoutError
        if self._error is not None:
            raise self._error


class BackgroundRecorder:
    """Puts threads between the requests and a Recorder; they start with `start()`, after the fork.

    `observers` (logs, metrics) see the records of each interception once, whether or not they could be kept.
    `tend` does what the store wants done every few seconds, on the thread that commits.
    """

    def __init__(
        self,
        recorder: Recorder,
        spool: Spool,
        *,
        content: str = "full",
        observers: Sequence[Observer] = (),
        tend: Callable[[], None] | None = None,
    ) -> None:
        self._recorder = recorder
        self._spool = spool
        self._content = content
        self._observers = observers
        self._tend = tend
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._committer: Thread | None = None
        self._starting = Lock()
        self._degraded = Event()
        self._next_replay = 0.0
        self._next_tending = 0.0

    def start(self) -> None:
        with self._starting:
            if self._committer is None:
                self._committer = Thread(target=self._run, name="recorder", daemon=True)
                self._committer.start()

    def close(self) -> None:
        """Write what is waiting and stop."""
        with self._starting:
            committer, self._committer = self._committer, None
        if committer is not None:
            self._jobs.put(None)
            committer.join()

    @property
    def degraded(self) -> bool:
        """Whether records wait in the spool because the store did not take them."""
        return self._degraded.is_set()

    def begin(self, started: InterceptionStarted) -> None:
        """Make the start row durable. Raises RecordingError: then the provider must not be called."""
        if self._jobs.qsize() >= MOST_WAITING:
            raise RecordingError("too much waits for the store")
        job = _Job((started,), keep=False)
        self._jobs.put(job)
        try:
            job.wait()
        except TimeoutError:
            self._jobs.put(_Job((_never_called(started),), keep=True))
            raise RecordingError("the store is too slow") from None

    def settle(self, records: Sequence[Record]) -> None:
        """Make the records of an interception's end durable, in the store or in the spool.

        A store that hangs does not hold the client's answer for ever: after COMMIT_TIMEOUT the records go into
        the spool from here, and do no harm if the store takes them later after all. Raises RecordingError only
        if neither took them.
        """
        job = _Job(self._permitted(records), keep=True)
        if self._committer is None:
            self._into_spool(job.records, "the recorder is closed")
            self._observe(job.records)
            return
        self._jobs.put(job)
        try:
            job.wait()
        except TimeoutError:
            self._into_spool(job.records, "the store is too slow")

    def _permitted(self, records: Sequence[Record]) -> list[Record]:
        permitted = (without_content(record, self._content) for record in records)
        return [record for record in permitted if record is not None]

    def _observe(self, records: Sequence[Record]) -> None:
        for observe in self._observers:
            with suppress(Exception):  # a full disk under the log, say, must not cost a record
                observe(records)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._do_chores()
            group, closing = self._next_group()
            try:
                if group:
                    self._commit(group)
            except Exception as error:  # a recorder of somebody else's, or a log that cannot be written
                for job in group:
                    job.end(RecordingError(f"the recorder failed: {error!r}"))
            for job in group:
                self._observe(job.records)

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Whatever is waiting, as soon as anything is; nothing when the time for a replay has come."""
        group: list[_Job] = []
        closing = False
        try:
            job = self._jobs.get(timeout=max(0.0, self._next_replay - time.monotonic()))
            while True:
                if job is None:
                    closing = True  # once what was put in at the same moment is written, too
                else:
                    group.append(job)
                if len(group) >= GROUP_LIMIT and not closing:
                    break
                job = self._jobs.get_nowait()
        except queue.Empty:
            pass
        return group, closing

    def _commit(self, group: list[_Job]) -> None:
        try:
            self._write([record for job in group for record in job.records])
        except RecordRefused:
            for job in group:
                self._commit_alone(job)
        except RecordingError as error:
            for job in group:
                self._keep(job, error)
        else:
            for job in group:
                job.end()

    def _write(self, records: Sequence[Record]) -> None:
        """Raises RecordingError, whatever the recorder raises."""
        try:
            self._recorder.record(records)
        except RecordingError:
            raise
        except Exception as error:
            raise RecordingError(f"the recorder failed: {error!r}") from error

    def _commit_alone(self, job: _Job) -> None:
        """After a group with a bad row in it: one job must not take others with it, nor one row its job."""
        try:
            if job.keep:
                self._spool.write_all(job.records, self._write)
            else:
                self._write(job.records)
        except RecordingError as error:
            self._keep(job, error)
        else:
            job.end()

    def _keep(self, job: _Job, reason: RecordingError) -> None:
        if not job.keep:
            job.end(reason)
            return
        try:
            self._into_spool(job.records, str(reason))
        except RecordingError as error:
            job.end(error)
        else:
            job.end()

    def _into_spool(self, records: Sequence[Record], reason: str) -> None:
        try:
            self._spool.append(records)
        except RecordingError as error:
            _log.critical("records are lost", reason=reason, spool=str(error), count=len(records))
            raise
        self._degraded.set()
        _log.warning("the store did not take records; they wait in the spool", reason=reason)

    def _do_chores(self) -> None:
        """The spool goes first: it tells how interceptions ended that look abandoned otherwise. (Of a long one a
        slice; what it tells later still replaces what was assumed.)"""
        try:
            self._replay_if_due()
            if self._tend is not None and time.monotonic() >= self._next_tending:
                self._next_tending = time.monotonic() + TEND_INTERVAL
                self._tend()
        except Exception:  # a bug, which must not stop the recording
            with suppress(Exception):
                _log.exception("the recorder's chores failed")

    def _replay_if_due(self) -> None:
        if time.monotonic() < self._next_replay:
            return
        self._next_replay = time.monotonic() + REPLAY_INTERVAL
        try:
            if self._spool.waiting():
                if not self._spool.replay(self._write, REPLAY_SLICE):
                    self._next_replay = 0.0
                    return
                _log.info("the spool has been replayed")
            self._degraded.clear()
        except (RecordingError, OSError) as error:
            self._degraded.set()
            _log.warning("the spool cannot be replayed yet", reason=str(error))
