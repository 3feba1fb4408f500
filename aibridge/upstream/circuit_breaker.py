"""Not asking a provider that keeps failing: it gets time to recover, and clients an answer at once.

States of a circuit, of which there is one for each endpoint and model:

    closed     -- failure_threshold failures in a row, within `interval` of the first --> open
    open       -- `timeout` seconds later, seen by the next call --> half open
    half open  -- max_requests successes --> closed; one failure --> open

Half open it lets max_requests calls through at a time. Failures are 503, 504, 529 and an answer that did not come;
any other answer is a success, 429 included, since limits belong to keys. What did not reach the provider, or ended
because the client left, says nothing. A call counts once, however often it was retried.
"""

import time
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any

import structlog

from aibridge import settings
from aibridge.errors import CircuitOpen, UpstreamError
from aibridge.upstream.call import Upstream, UpstreamRequest, UpstreamResponse
from aibridge.upstream.clock import Clock

FAILURES = (503, 504, 529)
MOST_CIRCUITS = 256  # models are named by clients; those beyond share one circuit
LONGEST_NAME = 256
SHORTEST_ADVICE = 1.0  # seconds; a half open circuit has no time to name

_log = structlog.get_logger("aibridge.circuit_breaker")

# Endpoint and model.
Name = tuple[str, str]

SHARED: Name = ("*", "*")


class State(Enum):
    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Outcome(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class Circuit:
    """One circuit. It is told the time in seconds, and does no locking of its own."""

    def __init__(self, policy: settings.CircuitBreaker) -> None:
        self.state = State.CLOSED
        self.failures = 0
        self._policy = policy
        self._since = 0.0  # of the first failure in a row, or of being open
        self._phase = 0  # outcomes of calls that were admitted in an earlier one do not count
        self._admitted = 0  # half open: calls on their way
        self._successes = 0

    @property
    def idle(self) -> bool:
        """Whether it holds nothing that a new one would not."""
        return self.state is State.CLOSED and not self.failures

    def admit(self, now: float) -> int | None:
        """Let a call through: the phase to `settle` it with; None if it must not be made."""
        if self.state is State.OPEN and self.remaining(now) <= 0:
            self._enter(State.HALF_OPEN, now)
        if self.state is State.OPEN or (
            self.state is State.HALF_OPEN and self._admitted + self._successes >= self._policy.max_requests
        ):
            return None
        self._admitted += 1
        return self._phase

    def settle(self, phase: int, outcome: Outcome, now: float) -> bool:
        """Whether this opened the circuit."""
        if phase != self._phase:
            return False
        self._admitted -= 1
        if outcome is Outcome.SUCCESS:
            self._succeeded(now)
        elif outcome is Outcome.FAILURE:
            self._failed(now)
        return self.state is State.OPEN

    def remaining(self, now: float) -> float:
        """Seconds for which an open circuit stays open, 0 in other states."""
        return max(0.0, self._since + self._policy.timeout - now) if self.state is State.OPEN else 0.0

    def _succeeded(self, now: float) -> None:
        self.failures = 0
        self._successes += 1
        if self.state is State.HALF_OPEN and self._successes >= self._policy.max_requests:
            self._enter(State.CLOSED, now)

    def _failed(self, now: float) -> None:
        if not self.failures or now - self._since > self._policy.interval:
            self.failures, self._since = 0, now
        self.failures += 1
        if self.state is State.HALF_OPEN or self.failures >= self._policy.failure_threshold:
            self._enter(State.OPEN, now)

    def _enter(self, state: State, now: float) -> None:
        self.state, self._since = state, now
        self.failures = self._admitted = self._successes = 0
        self._phase += 1


@dataclass(frozen=True, slots=True)
class Ticket:
    """A call that was let through."""

    name: Name
    circuit: Circuit
    phase: int


class CircuitBreaker:
    """The circuits of one provider, for all threads. `trips` and `rejections` count what happened."""

    def __init__(self, provider: str, policy: settings.CircuitBreaker, clock: Clock = time) -> None:
        self.trips = 0
        self.rejections = 0
        self._provider = provider
        self._policy = policy
        self._clock = clock
        self._circuits: dict[Name, Circuit] = {}
        self._lock = Lock()

    def admit(self, endpoint: str, model: str) -> Ticket:
        """For a call that is going to be settled, whatever happens. Raises CircuitOpen."""
        now = self._clock.monotonic()
        with self._lock:
            name, circuit = self._circuit((endpoint, model[:LONGEST_NAME]))
            phase = circuit.admit(now)
            if phase is not None:
                return Ticket(name, circuit, phase)
            self.rejections += 1
            remaining = circuit.remaining(now)
        message = "the provider has failed repeatedly and is not asked for a while"
        raise CircuitOpen(message, retry_after=max(remaining, SHORTEST_ADVICE))

    def settle(self, ticket: Ticket, outcome: Outcome) -> None:
        with self._lock:
            opened = ticket.circuit.settle(ticket.phase, outcome, self._clock.monotonic())
            self.trips += opened
        if opened:
            endpoint, model = ticket.name
            _log.warning("a circuit opens", provider=self._provider, endpoint=endpoint, model=model)

    def status(self) -> list[dict[str, Any]]:
        """The circuits that are not idle, as plain values."""
        with self._lock:
            now = self._clock.monotonic()
            return [
                {
                    "endpoint": endpoint,
                    "model": model,
                    "state": circuit.state.value,
                    "failures": circuit.failures,
                    "seconds": round(circuit.remaining(now), 3),
                }
                for (endpoint, model), circuit in self._circuits.items()
                if not circuit.idle
            ]

    def _circuit(self, name: Name) -> tuple[Name, Circuit]:
        if name not in self._circuits and len(self._circuits) >= MOST_CIRCUITS:
            self._circuits = {each: circuit for each, circuit in self._circuits.items() if not circuit.idle}
            if len(self._circuits) >= MOST_CIRCUITS:
                name = SHARED
        return name, self._circuits.setdefault(name, Circuit(self._policy))


def breaker(circuits: CircuitBreaker | None, upstream: Upstream) -> Upstream:
    """An upstream that is not asked while its circuit is open."""
    if circuits is None:
        return upstream

    def call(request: UpstreamRequest) -> UpstreamResponse:
        ticket = circuits.admit(request.path.partition("?")[0], request.model)
        outcome = Outcome.UNKNOWN
        try:
            response = upstream(request)
            outcome = Outcome.FAILURE if response.status in FAILURES else Outcome.SUCCESS
            return response
        except UpstreamError:
            outcome = Outcome.FAILURE
            raise
        finally:
            circuits.settle(ticket, outcome)

    return call
