"""What a system under test is, and how a running one is asked."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.apis import Api, agent_request
from bench.certificates import Certificates
from bench.driver import post

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".bench"  # where `make bench` has put what is needed


@dataclass(frozen=True)
class Provider:
    """The fake provider, as the systems see it."""

    pid: int
    port: int
    tls_port: int
    certificates: Certificates

    def url(self, *, tls: bool) -> str:
        # a name, since not everybody checks certificates of addresses
        return f"https://localhost:{self.tls_port}" if tls else f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Route:
    """How a system is asked for one API."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = ""  # "": as the API's clients would say


@dataclass(frozen=True)
class Running:
    """A system that answers."""

    name: str
    pid: int
    port: int
    route: Callable[[Api, bool], Route]  # the API, and whether the provider is to be reached over TLS

    def request(self, api: Api, *, size: int, stream: bool, tls: bool = False) -> bytes:
        route = self.route(api, tls)
        headers = {"anthropic-version": "2023-06-01", "Authorization": "Bearer sk-bench-0123456789"}
        body = agent_request(api, size=size, stream=stream, model=route.model)
        return post(self.port, route.path, headers | dict(route.headers), body)


@dataclass(frozen=True)
class Options:
    """How a system is to be started this time."""

    workers: int = 1
    threads: int | None = None  # of the gateway's gthread worker; None: as shipped


Start = Callable[[Provider, Path, Options], AbstractContextManager[Running]]


@dataclass(frozen=True)
class System:
    """`start` runs it in a folder of its own, in front of the provider."""

    name: str
    start: Start
    tools: bool = False  # it puts tools of its own into every request: only scenarios about that ask it
    tls: bool = True  # it can reach the provider over TLS
    scales: bool = True  # it can have several worker processes
    threads: bool = False  # a stream may hold one of its threads, so it may need more than shipped
    spacing: float = 0.004  # seconds between two streams that it can open without falling behind
    missing: str = ""  # why it cannot be run here
