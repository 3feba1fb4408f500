"""The gateway, with everything on that it has to do for a company: tokens, limits, central keys with a circuit
breaker, records in SQLite. It is run from any source tree, so that two can be compared."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.apis import PATHS, Api
from bench.processes import environment, free_port, running
from bench.systems.model import ROOT, Options, Provider, Route, Running, System

PROVIDERS: dict[Api, str] = {"messages": "anthropic", "chat": "openai", "responses": "openai"}

SETTINGS = """
[auth]
mode = "token"

[limits]
per_actor_concurrency = 5000
rate = "100000/10 seconds"

[recording]
spool_dir = "{folder}/spool"

[database]
url = "sqlite:///{folder}/aibridge.db"

[actions]
dir = "{folder}/actions"
"""
GATEWAY_PROVIDER = """
[[providers]]
name = "{name}"
type = "{type}"
base_url = "{url}"
keys = ["sk-bench-0123456789"]
circuit_breaker = {{}}
"""
ACTION = """+++
name = "shout"
version = "1.0.0"

[[inputs]]
name = "text"
type = "string"
description = "what to shout"

[run]
kind = "command"
argv = ["tr", "a-z", "A-Z"]
stdin = "${args.text}"
+++
Shouts a text.
"""


@contextmanager
def gateway(
    provider: Provider, folder: Path, options: Options, *, name: str, root: Path, worker_class: str, tools: bool
) -> Iterator[Running]:
    """aibridge from the source tree `root`."""
    port = free_port()
    if tools:
        (folder / "actions").mkdir()
        (folder / "actions" / "shout.md").write_text(ACTION)
    (folder / "aibridge.toml").write_text(_settings(provider, folder))
    python = root / ".venv" / "bin" / "python"
    command = (python if python.exists() else ROOT / ".venv" / "bin" / "python", "-m", "aibridge")
    variables = environment(
        PYTHONPATH=str(root),
        PYTHONDONTWRITEBYTECODE="1",
        HOME=str(folder),
        HOST="127.0.0.1",
        PORT=str(port),
        WEB_CONCURRENCY=str(options.workers),
        AIBRIDGE_CONFIG=str(folder / "aibridge.toml"),
        AIBRIDGE_SERVER_WORKER_CLASS=worker_class,
        SSL_CERT_FILE=str(provider.certificates.authority),
    )
    if options.threads is not None:
        variables["AIBRIDGE_SERVER_THREADS"] = str(options.threads)
    token = subprocess.check_output(
        (*command, "tokens", "create", "--actor", "bench"),
        cwd=folder,
        env=variables,
        text=True,
        stderr=subprocess.DEVNULL,
    ).strip()

    def route(api: Api, tls: bool) -> Route:
        mount = f"/{PROVIDERS[api]}-tls" if tls else f"/{PROVIDERS[api]}"
        return Route(mount + PATHS[api], {"Authorization": f"Bearer {token}"})

    with running((*command, "serve"), folder, variables, f"http://127.0.0.1:{port}/readyz") as pid:
        yield Running(name, pid, port, route)


def _settings(provider: Provider, folder: Path) -> str:
    parts = [SETTINGS.format(folder=folder)]
    for tls, suffix in ((False, ""), (True, "-tls")):
        url = provider.url(tls=tls)
        parts += [
            GATEWAY_PROVIDER.format(name=f"anthropic{suffix}", type="anthropic", url=url),
            GATEWAY_PROVIDER.format(name=f"openai{suffix}", type="openai", url=f"{url}/v1"),
        ]
    return "".join(parts)


def gateways(name: str, root: Path) -> list[System]:
    """The gateway of one source tree: both worker classes, and with tools."""

    def system(suffix: str, worker_class: str, *, tools: bool = False) -> System:
        start = partial(gateway, name=name + suffix, root=root, worker_class=worker_class, tools=tools)
        return System(name + suffix, start, tools=tools, scales=not tools, threads=worker_class == "gthread")

    return [system("", "gthread"), system("-gevent", "gevent"), system("-tools", "gthread", tools=True)]
