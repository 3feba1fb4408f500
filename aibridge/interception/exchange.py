"""The life of one interception: its start row, the time it takes, and its end, told exactly once."""

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

import structlog

from aibridge.errors import GatewayError, RecordingError, Unavailable
from aibridge.interception.outcome import Verdict, judge
from aibridge.interception.recorder import BackgroundRecorder
from aibridge.protocols.interceptor import Observation, Observer
from aibridge.records import InterceptionEnded, InterceptionStarted, now, shortened
from aibridge.upstream.call import Upstream, UpstreamRequest, UpstreamResponse

_NOTHING = Observation((), finished=False)

_log = structlog.get_logger("aibridge.interception")


class Exchange:
    """One interception. `arrived` is when its request came, on the same monotonic `clock`, in seconds."""

    def __init__(
        self,
        started: InterceptionStarted,
        recorder: BackgroundRecorder,
        *,
        arrived: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = started.id
        self.actor = started.initiator_id
        self.observer: Observer | None = None
        self._started = started
        self._recorder = recorder
        self._clock = clock
        self._arrived = arrived
        self._called: float | None = None
        self._attempts = 0
        self._key: str | None = None  # the hint of the one that was used last
        self._first_byte: float | None = None
        self._verdict: Verdict | None = None
        self._settling = Lock()

    def begin(self) -> None:
        """Make the start durable; raises Unavailable if it cannot be, and then there is nothing to settle."""
        try:
            self._recorder.begin(self._started)
        except RecordingError as error:
            _log.error("an interception cannot be recorded", interception_id=self.id, reason=str(error))
            raise Unavailable("the interception cannot be recorded", retry_after=5) from None

    def call(self, upstream: Upstream, request: UpstreamRequest) -> UpstreamResponse:
        self._called = self._called or self._clock()
        before = self._attempts
        response = upstream(replace(request, attempted=self._attempted))
        if self._attempts == before:  # one without policies, which tells of no attempts
            self._attempts += 1
        return response

    def _attempted(self, key: str | None) -> None:
        self._attempts += 1
        self._key = key

    def first_byte(self) -> None:
        """The client is about to get the first bytes of its answer."""
        self._first_byte = self._clock()

    def settle(
        self,
        http_status: int | None,
        *,
        failure: GatewayError | None = None,
        cancelled: bool = False,
        sent: bool = False,
    ) -> Verdict:
        """Observe, record and end the interception; the records are durable when this returns.

        Only the first call counts, later ones get its verdict. `http_status` is what the client was or will
        be told, `sent` whether it already was: if not, an unfinished answer still becomes an error status.
        """
        with self._settling:
            if self._verdict is None:
                self._verdict = self._settle(http_status, failure, cancelled, sent)
            return self._verdict

    @property
    def settled(self) -> bool:
        return self._verdict is not None

    def _settle(
        self, http_status: int | None, failure: GatewayError | None, cancelled: bool, sent: bool
    ) -> Verdict:
        over = self._clock()
        observation = self._observe()
        verdict = judge(observation, failure, cancelled=cancelled, sent=sent)
        if verdict.failure is not None:
            _let_frames_go(verdict.failure)
        told = verdict.failure.status if verdict.failure and not sent else http_status
        try:
            self._recorder.settle((*observation.records, self._ended(verdict, told, observation, over)))
        except RecordingError as error:
            _log.critical("an interception is not recorded", interception_id=self.id, reason=str(error))
        return verdict

    def _observe(self) -> Observation:
        try:
            return self.observer.observe() if self.observer else _NOTHING
        except Exception:  # a bug of ours, which must neither leave the interception open nor cut the answer
            _log.exception("an answer could not be accounted for", interception_id=self.id)
            return Observation((), finished=True, notes=("the answer could not be accounted for",))

    def _ended(
        self, verdict: Verdict, http_status: int | None, observation: Observation, over: float
    ) -> InterceptionEnded:
        called = self._called
        return InterceptionEnded(
            interception_id=self.id,
            status=verdict.status,
            ended_at=now(),
            duration_ms=_milliseconds(over - self._arrived),
            gateway_ms=_milliseconds((called or over) - self._arrived),
            time_to_first_byte_ms=_milliseconds(self._first_byte - self._arrived) if self._first_byte else None,
            http_status=http_status,
            error_type=verdict.error_type,
            error_message=shortened(verdict.error_message) if verdict.error_message else None,
            rounds=observation.rounds if called else 0,
            attempts=self._attempts,
            credential_hint=self._key,
            notes=observation.notes,
            about={
                "actor": self._started.initiator_id,
                "provider": self._started.provider_name,
                "model": self._started.model,
                "client": self._started.client,
            },
        )


def _let_frames_go(failure: GatewayError) -> None:
    """The frames that it came through hold this exchange, which holds it, and the request with its body: a circle
    that would stay until the garbage collector finds it."""
    failure.__traceback__ = failure.__cause__ = failure.__context__ = None


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
