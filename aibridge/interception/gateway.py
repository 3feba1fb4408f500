"""The parts of a running gateway, wired: what the web layer may reach of everything below it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aibridge.interception.admission import Admission
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.drain import Drain
from aibridge.interception.memory import Memory
from aibridge.interception.metering import Meter
from aibridge.interception.model import Actor
from aibridge.interception.recorder import BackgroundRecorder
from aibridge.interception.tools import Toolbelt
from aibridge.settings import Settings
from aibridge.upstream.call import Headers, Upstream, UpstreamBody
from aibridge.upstream.circuit_breaker import CircuitBreaker
from aibridge.upstream.key_pool import KeyPool


@dataclass(frozen=True, slots=True)
class ForwardedRequest:
    """A request that is only passed through. `body` is read while it is sent; `length` None: unknown. With
    `central` the provider's own key pays. `abandoned` tells whether the answer is not wanted any more; it is asked
    about once a moment while the provider is silent."""

    method: str
    path: str
    headers: Headers = field(repr=False)
    body: Any = field(repr=False)
    length: int | None
    central: bool = False
    abandoned: Callable[[], bool] = field(default=lambda: False, repr=False)


@dataclass(frozen=True, slots=True)
class ForwardedResponse:
    status: int
    headers: Headers
    body: UpstreamBody = field(repr=False)


class Forward(Protocol):
    def __call__(self, request: ForwardedRequest, /) -> ForwardedResponse:
        """Raises UpstreamError when the provider cannot be reached, and ClientGone. So does the body."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured provider. `defaults` are headers sent where the client sent none; `mount` is the part of its
    routes that its base URL has already; `model_for` tells which model is used instead of the one asked for. One
    that is not `remote` knows no limits and no bad moments: its keys are not pooled, it is not asked again.
    `upstream` and `forward` have the policies around them; `pool` and `circuits` are there to be looked at."""

    name: str
    type: str
    upstream: Upstream
    forward: Forward
    credentials: CredentialRules
    defaults: Headers = ()
    actor_headers: tuple[tuple[str, str], ...] = ()
    mount: str = ""
    meter: Meter = field(default_factory=Meter)
    model_for: Callable[[str], str] = field(default=lambda asked: asked)
    remote: bool = True
    pool: KeyPool | None = None
    circuits: CircuitBreaker | None = None


VerifyToken = Callable[[str], Actor | None]


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that outlives a request. Threads start in `start`, after the fork, and end in `close`."""

    settings: Settings
    providers: Mapping[str, Provider]
    recorder: BackgroundRecorder
    toolbelt: Toolbelt
    memory: Memory
    verify_token: VerifyToken
    problems: Callable[[], Sequence[str]]
    on_start: Sequence[Callable[[], None]] = ()
    on_close: Sequence[Callable[[], None]] = ()
    admission: Admission = field(default_factory=Admission)
    drain: Drain = field(default_factory=Drain)
    _running: threading.Event = field(default_factory=threading.Event)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Idempotent and cheap once done, so every request may ask for it."""
        if self._running.is_set():
            return
        with self._starting:
            for prepare in self.on_start:
                prepare()
            self.recorder.start()
            self.toolbelt.start()
            self._running.set()

    def close(self) -> None:
        """Write what is waiting, stop the threads and drop the connections."""
        with self._starting:
            if self._running.is_set():
                self._running.clear()
                self.toolbelt.close()
                self.recorder.close()
            for close in self.on_close:
                close()

    def unready(self) -> list[str]:
        """Why no traffic should come here now; empty when all is well."""
        if self.drain.refusing:
            return ["draining"]
        degraded = ["records wait in the spool"] if self.recorder.degraded else []
        return [*self.problems(), *degraded]
