"""Portkey's gateway; who the provider is, it learns from every request."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.apis import PATHS, Api
from bench.processes import environment, free_port, running
from bench.systems.model import INSTALLED, Options, Provider, Route, Running

PROGRAM = INSTALLED / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"


@contextmanager
def portkey(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """One process, as it comes."""
    port = free_port()
    variables = environment(
        HOME=str(folder),
        NODE_ENV="production",
        TRUSTED_CUSTOM_HOSTS="127.0.0.1,localhost",
        NODE_EXTRA_CA_CERTS=str(provider.certificates.authority),
    )

    def route(api: Api, tls: bool) -> Route:
        vendor = "anthropic" if api == "messages" else "openai"
        headers = {"x-portkey-provider": vendor, "x-portkey-custom-host": provider.url(tls=tls) + "/v1"}
        return Route(PATHS[api], headers | {"x-api-key": "sk-bench"})

    command = (shutil.which("node") or "node", PROGRAM, f"--port={port}", "--headless")
    with running(command, folder, variables, f"http://127.0.0.1:{port}/") as pid:
        yield Running("portkey", pid, port, route)
