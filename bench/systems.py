"""The systems that are measured, each with one worker process: how they are started, and how they are asked.

Each is a function that starts it in front of the fake provider and gives a `Running`. The gateway has everything
on that it has to do for a company: tokens, limits, a central key with a circuit breaker, records in SQLite. The
others do as little as they can be told to.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.apis import MODELS, PATHS, Api, agent_request
from bench.certificates import Certificates
from bench.driver import post
from bench.processes import environment, free_port, running

ROOT = Path(__file__).resolve().parent.parent
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
    threads: int | None = None  # of a gthread worker; None: as shipped


Start = Callable[[Provider, Path, Options], AbstractContextManager[Running]]


@dataclass(frozen=True)
class System:
    """`tools`: tools of the system's own are put into every request, so only scenarios about that ask it."""

    name: str
    start: Start
    tools: bool = False
    missing: str = ""  # why it cannot be run here


# --- the provider itself ---------------------------------------------------------------------------------------------


@contextmanager
def provider(folder: Path, certificates: Certificates) -> Iterator[Provider]:
    port, tls_port = free_port(), free_port()
    command = (sys.executable, "-m", "bench.provider", str(port), str(tls_port), certificates.provider)
    variables = environment(PYTHONPATH=str(ROOT))
    with running(command, folder, variables, f"http://127.0.0.1:{port}/seen") as pid:
        yield Provider(pid, port, tls_port, certificates)


@contextmanager
def direct(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """No system at all: what the driver and the provider cost and take by themselves."""
    yield Running("direct", provider.pid, provider.port, lambda api, tls: Route(PATHS[api]))


# --- nginx -----------------------------------------------------------------------------------------------------------

NGINX = """
daemon off;
user root;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 100000000;
    client_max_body_size 64m;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_read_timeout 600s;
    proxy_ssl_trusted_certificate {authority};
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    proxy_ssl_server_name on;
    upstream plain {{ server 127.0.0.1:{plain}; keepalive 256; keepalive_requests 100000000; }}
    upstream encrypted {{ server 127.0.0.1:{encrypted}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://plain; }}
        location /tls/ {{ proxy_pass https://encrypted/; }}
    }}
}}
"""


def nginx_program() -> str | None:
    """The path of nginx; a package manager may have put it where only root looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """A plain reverse proxy that does nothing else: the practical limit."""
    port = free_port()
    configuration = NGINX.format(
        folder=folder,
        workers=options.workers,
        authority=provider.certificates.authority,
        plain=provider.port,
        encrypted=provider.tls_port,
        port=port,
    )
    (folder / "nginx.conf").write_text(configuration)
    command = (nginx_program() or "nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log")
    with running(command, folder, environment(), f"http://127.0.0.1:{port}/") as pid:
        yield Running("nginx", pid, port, lambda api, tls: Route(f"/tls{PATHS[api]}" if tls else PATHS[api]))


# --- the gateway -----------------------------------------------------------------------------------------------------

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
    (folder / "actions").mkdir()
    if tools:
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
    start = partial(gateway, root=root)
    return [
        System(name, partial(start, name=name, worker_class="gthread", tools=False)),
        System(f"{name}-gevent", partial(start, name=f"{name}-gevent", worker_class="gevent", tools=False)),
        System(
            f"{name}-tools", partial(start, name=f"{name}-tools", worker_class="gthread", tools=True), tools=True
        ),
    ]


# --- other gateways --------------------------------------------------------------------------------------------------


@contextmanager
def litellm(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """LiteLLM's proxy without database, tokens and callbacks."""
    port = free_port()
    models = [
        {
            "model_name": f"{model}{suffix}",
            "litellm_params": {
                "model": f"{vendor}/{model}",
                "api_base": provider.url(tls=tls) + base,
                "api_key": "sk-bench",
            },
        }
        for tls, suffix in ((False, ""), (True, "-tls"))
        for vendor, model, base in (("anthropic", MODELS["messages"], ""), ("openai", MODELS["chat"], "/v1"))
    ]
    settings = {"drop_params": True, "telemetry": False, "num_retries": 0}
    configuration = folder / "litellm.yaml"  # JSON is YAML
    configuration.write_text(json.dumps({"model_list": models, "litellm_settings": settings}))
    variables = environment(
        HOME=str(folder),
        # without it, it does not start without a key
        LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOG="ERROR",
        LITELLM_MODE="PRODUCTION",
        SSL_CERT_FILE=str(provider.certificates.authority),
    )
    command = (INSTALLED / "litellm/bin/litellm", "--config", configuration, "--host", "127.0.0.1")
    more = ("--port", str(port), "--num_workers", str(options.workers), "--telemetry", "False")
    ready = f"http://127.0.0.1:{port}/health/liveliness"
    with running((*command, *more), folder, variables, ready) as pid:
        yield Running(
            "litellm",
            pid,
            port,
            lambda api, tls: Route(PATHS[api], model=MODELS[api] + ("-tls" if tls else "")),
        )


@contextmanager
def portkey(provider: Provider, folder: Path, options: Options) -> Iterator[Running]:
    """Portkey's gateway; who the provider is, it learns from every request."""
    port = free_port()
    program = INSTALLED / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
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

    command = (shutil.which("node") or "node", program, f"--port={port}", "--headless")
    with running(command, folder, variables, f"http://127.0.0.1:{port}/") as pid:
        yield Running("portkey", pid, port, route)


def systems(checkouts: Mapping[str, Path]) -> list[System]:
    """All that could be measured; `checkouts` are further source trees of the gateway, by name."""
    no_nginx = "" if nginx_program() else "nginx is not installed"
    no_litellm = "" if (INSTALLED / "litellm/bin/litellm").exists() else "it could not be installed"
    no_portkey = "" if (INSTALLED / "portkey/node_modules/@portkey-ai").exists() else "it could not be installed"
    return [
        System("direct", direct),
        System("nginx", nginx, missing=no_nginx),
        *gateways("ours", ROOT),
        *(system for name, root in checkouts.items() for system in gateways(name, root)),
        System("litellm", litellm, missing=no_litellm),
        System("portkey", portkey, missing=no_portkey),
    ]
