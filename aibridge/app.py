"""The composition root: settings in, WSGI application out. Nothing connects and no thread starts here."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pkgutil import resolve_name

from flask import Flask

from aibridge import settings as configuration
from aibridge.interception.admission import Admission
from aibridge.interception.forwarding import forward_with_keys
from aibridge.interception.gateway import Gateway, Provider
from aibridge.interception.memory import Memory, ProcessMemory
from aibridge.interception.recorder import BackgroundRecorder
from aibridge.interception.spool import Spool
from aibridge.interception.toolbox import Toolbox
from aibridge.interception.tools import Policy, Toolbelt, allow_all
from aibridge.interception.waiting import Patience
from aibridge.providers.stock_transport import StockTransport
from aibridge.providers.transport import HttpClient, Transport, http_client
from aibridge.records import Recorder
from aibridge.settings import Retry, Settings, threads_for_requests
from aibridge.shared.rates import rate_of
from aibridge.storage.database import Database
from aibridge.storage.memory import SqlMemory
from aibridge.storage.recorder import SqlRecorder
from aibridge.storage.tokens import Tokens
from aibridge.storage.workers import Workers
from aibridge.telemetry.logging import log_records
from aibridge.toolboxes import toolboxes_of
from aibridge.upstream.circuit_breaker import CircuitBreaker, breaker
from aibridge.upstream.clock import Clock
from aibridge.upstream.key_pool import KeyPool, keys
from aibridge.upstream.retry import retry
from aibridge.web.anthropic import ANTHROPIC_ROUTES
from aibridge.web.bedrock import BEDROCK_ROUTES
from aibridge.web.copilot import COPILOT_ROUTES
from aibridge.web.errors import register_error_handlers
from aibridge.web.health import health_blueprint
from aibridge.web.limits import give_places_back
from aibridge.web.openai import OPENAI_ROUTES
from aibridge.web.received import bound_uploads
from aibridge.web.routes import Routes, provider_blueprint
from aibridge.web.sandbox import SANDBOX_ROUTES

EXTENSION = "aibridge"
CHECK_PATIENCE = 3.0  # seconds; who asks for readiness is not patient either

Build = Callable[[configuration.Provider, configuration.UpstreamTimeouts, HttpClient], Provider]

TRANSPORTS: dict[str, Callable[[float], Transport | StockTransport]] = {"own": Transport, "httpx2": StockTransport}

# What a provider's type stands for: where the function is that builds it, and which routes it has. A vendor's SDK
# takes half a second and 20 MiB, so it is imported only if there is such a provider.
PROVIDER_TYPES: dict[str, tuple[str, Routes]] = {
    "anthropic": ("aibridge.providers.anthropic:anthropic_provider", ANTHROPIC_ROUTES),
    "bedrock": ("aibridge.providers.bedrock:bedrock_provider", BEDROCK_ROUTES),
    "openai": ("aibridge.providers.openai:openai_provider", OPENAI_ROUTES),
    "copilot": ("aibridge.providers.copilot:copilot_provider", COPILOT_ROUTES),
    "sandbox": ("aibridge.providers.sandbox:sandbox_provider", SANDBOX_ROUTES),
}


def create_app(
    settings: Settings | None = None,
    *,
    recorder: Recorder | None = None,
    providers: Sequence[Provider] | None = None,
    toolboxes: Sequence[Toolbox] | None = None,
    tool_policy: Policy = allow_all,
    clock: Clock = time,
) -> Flask:
    """The gateway as a WSGI application. Raises SettingsError if no `settings` are given and the environment's
    are wrong. `recorder` replaces the database, `providers` and `toolboxes` those of the settings; `tool_policy`
    is asked before every call of a tool. `clock` is what key pools, retries and circuit breakers go by."""
    settings = settings or Settings.load()
    database = Database(settings.database.url)
    workers = Workers(database)
    durable = recorder or SqlRecorder(database, workers)
    client = http_client(TRANSPORTS[settings.upstream.transport](settings.server.moment))
    gateway = Gateway(
        settings=settings,
        providers={provider.name: provider for provider in providers or _providers(settings, client, clock)},
        recorder=BackgroundRecorder(
            durable,
            Spool(settings.recording.spool_dir),
            content=settings.recording.content,
            observers=(log_records,),
            tend=None if recorder else workers.tend,
        ),
        toolbelt=Toolbelt(toolboxes_of(settings) if toolboxes is None else toolboxes, settings.tools, tool_policy),
        memory=_memory(settings, database, recorder),
        verify_token=Tokens(database).verify,
        problems=Patience(database.check, CHECK_PATIENCE, ["the database does not answer"]),
        on_start=(client.prepare_tls,) if _has_tls(settings) else (),
        on_close=(client.close, workers.leave, database.dispose),
        admission=_admission(settings),
    )
    app = Flask("aibridge", static_folder=None)
    app.url_map.merge_slashes = False  # no redirects: a POST does not follow them
    app.extensions[EXTENSION] = gateway
    app.register_blueprint(health_blueprint(gateway))
    for provider in gateway.providers.values():
        _, routes = PROVIDER_TYPES[provider.type]
        app.register_blueprint(provider_blueprint(gateway, provider, routes))
    register_error_handlers(app, gateway)
    give_places_back(app)
    bound_uploads(app)
    return app


def _has_tls(settings: Settings) -> bool:
    """Whether a provider is reached by TLS; those without an address of their own are."""
    return any(
        (provider.base_url or "https:").startswith("https:")
        for provider in settings.providers
        if provider.type != "sandbox"
    )


def _memory(settings: Settings, database: Database, recorder: Recorder | None) -> Memory:
    """In the database, unless there is none or it may not hold what people and models said."""
    stored = recorder is None and settings.recording.content == "full"
    return SqlMemory(database) if stored else ProcessMemory()


def _admission(settings: Settings) -> Admission:
    limits = settings.limits
    return Admission(
        capacity=limits.max_concurrency,
        threads=threads_for_requests(settings.server),
        per_actor=limits.per_actor_concurrency,
        rate=rate_of(limits),
    )


def gateway_of(app: Flask) -> Gateway:
    """The gateway inside an application that `create_app` made."""
    gateway = app.extensions[EXTENSION]
    assert isinstance(gateway, Gateway)
    return gateway


def _providers(settings: Settings, client: HttpClient, clock: Clock) -> list[Provider]:
    """One HTTP client serves all of them: connections and the TLS context are the process's."""

    def built(provider: configuration.Provider) -> Provider:
        where, _ = PROVIDER_TYPES[provider.type]
        build: Build = resolve_name(where)
        return reached(build(provider, settings.upstream, client), provider, clock)

    return [built(provider) for provider in settings.providers]


def reached(provider: Provider, configured: configuration.Provider, clock: Clock) -> Provider:
    """The provider with the policies around it."""
    own_keys = provider.credentials.pool() if provider.remote else ()
    pool = KeyPool(provider.name, own_keys, clock=clock) if own_keys else None
    again = configured.retry or (Retry() if provider.remote else Retry(max_retries=0))
    limits = configured.circuit_breaker
    circuits = CircuitBreaker(provider.name, limits, clock) if limits else None
    upstream = breaker(circuits, retry(again, keys(pool, provider.upstream), provider=provider.name, clock=clock))
    forward = forward_with_keys(pool, provider.forward)
    return replace(provider, upstream=upstream, forward=forward, pool=pool, circuits=circuits)
