"""The fake provider as a process of its own, and the way to it without any system between."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.apis import PATHS
from bench.certificates import Certificates
from bench.processes import environment, free_port, running
from bench.systems.model import ROOT, Options, Provider, Route, Running


@contextmanager
def provider(folder: Path, certificates: Certificates) -> Iterator[Provider]:
    """Listening on two ports, one of them with TLS."""
    port, tls_port = free_port(), free_port()
    command = (sys.executable, "-m", "bench.provider", str(port), str(tls_port), certificates.provider)
    variables = environment(PYTHONPATH=str(ROOT))
    with running(command, folder, variables, f"http://127.0.0.1:{port}/seen") as pid:
        yield Provider(pid, port, tls_port, certificates)


@contextmanager
def direct(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """No system at all: what the driver and the provider cost and take by themselves."""
    yield Running("direct", provider.pid, provider.port, lambda api, tls: Route(PATHS[api]))
