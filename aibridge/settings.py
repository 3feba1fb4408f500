"""Every setting of the gateway, named once, with its default and its bounds.

Read once at start. Later sources win: defaults, the TOML file (`AIBRIDGE_CONFIG`, else `./aibridge.toml` if it
exists), the environment (`AIBRIDGE_<SECTION>_<FIELD>`, or a conventional name such as `PORT`). Secrets may be
given as `env:NAME` or `file:/path`; once read they are SecretStr, so no repr or dump shows them.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

MIB = 1024 * 1024

# Names that hosting platforms and the SDKs' users set by habit -> the setting they stand for.
CONVENTIONAL: dict[str, tuple[str, str]] = {
    "HOST": ("server", "host"),
    "PORT": ("server", "port"),
    "WEB_CONCURRENCY": ("server", "workers"),
    "DATABASE_URL": ("database", "url"),
    "REDIS_URL": ("limits", "redis_url"),
}

# Providers that exist without any [[providers]] entry: name -> (key variable, base URL variable).
CONVENTIONAL_PROVIDERS = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
}

# First parts of the gateway's own routes.
RESERVED_NAMES = ("api", "healthz", "metrics", "readyz", "ui")

# Fields of a provider that mean something to one type only.
BEDROCK_ONLY = ("region", "model", "small_fast_model", "access_key", "access_key_secret", "session_token")


class SettingsError(Exception):
    """A setting is wrong. The message names it, what is wrong and where it came from; never a secret's value."""


def secret(value: object) -> object:
    """The secret that `env:NAME` or `file:/path` refers to; any other text is the secret itself."""
    if not isinstance(value, str):
        return value
    kind, _, reference = value.partition(":")
    if kind == "env":
        if not os.environ.get(reference):
            raise ValueError(f"the environment variable {reference} is not set")
        return os.environ[reference]
    if kind == "file":
        try:
            return Path(reference).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"cannot read the file {reference}: {error.strerror}") from None
    return value


def _not_blank(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("is empty")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
        raise ValueError("must be an http:// or https:// URL without a query")
    return value.rstrip("/")


def _database_url(value: str) -> str:
    """SQLAlchemy's spelling: psycopg 3 for PostgreSQL, whichever of its schemes was used."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        raise ValueError("must be a database URL such as sqlite:///var/aibridge.db")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if scheme not in ("sqlite", "postgresql+psycopg"):
        raise ValueError("must be a sqlite:// or postgresql:// URL")
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("redis", "rediss", "redis+unix"):
        raise ValueError("must be a redis://, rediss:// or redis+unix:// URL")
    try:
        assert parts.port is None or parts.port
    except (AssertionError, ValueError):  # whose message may show a part of the password
        raise ValueError(
            "has no usable port (in a password, / ? # and @ must be written as %2F %3F %23 %40)"
        ) from None
    return value


_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
LARGEST_COUNT = 100_000


def allowance(rate: str | None) -> tuple[int, int] | None:
    """So many requests in so many seconds, as a text like 120/minute or 10/5 seconds says; None if it is empty.
    Raises ValueError."""
    if not rate:
        return None
    found = re.fullmatch(r"\s*(\d+)\s*(?:/|per\b)\s*(\d*)\s*(second|minute|hour|day)s?\s*", rate, re.IGNORECASE)
    if not found:
        raise ValueError(
            "must be requests in a time (second, minute, hour or day), such as 120/minute or 10/5 seconds"
        )
    count, units = int(found[1]), int(found[2] or 1)
    if not 1 <= count <= LARGEST_COUNT or not units:
        raise ValueError(f"must allow 1 to {LARGEST_COUNT} requests in at least 1 second")
    return count, units * _UNITS[found[3].lower()]


def _rate(value: str) -> str:
    allowance(value)
    return value


def _mcp_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+\S*", value):
        raise ValueError("must be an http:// or https:// URL")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


Secret = Annotated[SecretStr, BeforeValidator(secret), AfterValidator(_not_blank)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
RedisUrl = Annotated[Secret, AfterValidator(_redis_url)]
Rate = Annotated[str, AfterValidator(_rate)]
McpUrl = Annotated[str, AfterValidator(_mcp_url)]
Pattern = Annotated[str, AfterValidator(_pattern)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Seconds = Annotated[float, Field(gt=0)]
BedrockModel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on")
    workers: int = Field(1, ge=1, description="worker processes")
    threads: int = Field(128, ge=2, description="threads of a gthread worker; a request holds one")
    worker_class: Literal["gthread", "gevent"] = Field("gthread", description="how a worker waits")
    relay: bool = Field(True, description="in a gthread worker one thread carries all streams")
    cpu_affinity: bool = Field(True, description="a gthread worker keeps its threads on one core")
    body_limit: int = Field(32 * MIB, ge=1, description="largest request body, in bytes")
    ping_interval: Seconds = Field(10, description="seconds of silence after which a stream gets a ping")
    drain_timeout: Seconds = Field(60, description="seconds that open streams get to finish at shutdown")

    @property
    def moment(self) -> float:
        """The longest time, in seconds, between two looks at whatever is silent."""
        return min(1.0, self.ping_interval / 4)


class Database(Section):
    url: Annotated[str, AfterValidator(_database_url)] = Field(
        "sqlite:///var/aibridge.db", description="SQLite file or PostgreSQL server"
    )


class Auth(Section):
    mode: Literal["open", "token", "proxy"] = Field("open", description="how the actor is known")
    allow_open: bool = Field(False, description="let mode open listen beyond loopback")
    allow_byok: bool = Field(True, description="let users bring their own provider key")
    header: HeaderName = Field("X-Forwarded-User", description="mode proxy: header with the actor's id")
    secret_header: HeaderName | None = Field(None, description="mode proxy: header with the shared secret")
    secret: Secret | None = Field(None, description="mode proxy: the shared secret")

    @model_validator(mode="after")
    def _proxy_needs_a_secret(self) -> Self:
        if self.mode == "proxy" and not (self.secret and self.secret_header):
            raise ValueError("mode proxy needs secret_header and secret")
        return self


class UpstreamTimeouts(Section):
    connect_timeout: Seconds = Field(10, description="seconds to connect to a provider, TLS included")
    read_timeout: Seconds = Field(600, description="seconds of silence allowed to a provider")


class Upstream(UpstreamTimeouts):
    transport: Literal["own", "httpx2"] = Field("own", description="what carries the SDKs' requests")


class Recording(Section):
    content: Literal["full", "redacted", "none"] = Field("full", description="what is kept of the texts")
    retention_days: int = Field(60, ge=0, description="age at which `aibridge db purge` deletes; 0: never")
    spool_dir: Path = Field(Path("var/spool"), description="where records wait while the database is down")


class Limits(Section):
    max_concurrency: int = Field(0, ge=0, description="requests at once per process; 0: as the threads allow")
    per_actor_concurrency: int = Field(0, ge=0, description="requests at once per actor and process; 0: no limit")
    rate: Rate | None = Field(None, description="requests of an actor in a time, such as 120/minute")
    redis_url: RedisUrl | None = Field(None, description="Redis in which all processes count the rate together")

    @model_validator(mode="after")
    def _redis_needs_its_client(self) -> Self:
        if self.rate and self.redis_url and find_spec("redis") is None:
            raise ValueError("redis_url needs redis, which is not installed (pip install redis)")
        return self


class Tools(Section):
    max_rounds: int = Field(10, ge=1, description="provider calls per request")
    call_timeout: Seconds = Field(60, description="seconds a tool call may take")
    loop_timeout: Seconds = Field(600, description="seconds a whole tool loop may take")
    parallel: bool = Field(True, description="let the model make several calls in one turn")
    max_parallel_calls: int = Field(8, ge=1, description="calls of one turn that run at once; the others wait")
    max_result_bytes: int = Field(MIB, ge=1, description="largest tool result, in bytes; the rest is cut off")
    skip_models: tuple[str, ...] = Field(
        ("haiku",), description="models whose name contains one of these get no tools"
    )
    skip_tool_choice_none: bool = Field(True, description="no tools for requests with tool_choice none")
    skip_continued: bool = Field(True, description="no tools for requests with a Messages `thread`")


class Retry(Section):
    max_retries: int = Field(2, ge=0, description="further attempts after the first")
    base_delay: Seconds = Field(0.5, description="seconds before the first retry; doubles")


class CircuitBreaker(Section):
    failure_threshold: int = Field(5, ge=1, description="consecutive failures that open it")
    interval: Seconds = Field(10, description="seconds after which the count starts anew")
    timeout: Seconds = Field(30, description="seconds it stays open")
    max_requests: int = Field(3, ge=1, description="requests let through while half open")


class Provider(Section):
    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="first part of its routes")
    type: Literal["anthropic", "bedrock", "openai", "copilot", "sandbox"] = Field(
        description="which API it speaks"
    )
    base_url: HttpUrl | None = Field(None, description="where it is; the type's own default if absent")
    keys: tuple[Secret, ...] = Field((), description="its keys, in order of use; none: users bring their own")
    connect_timeout: Seconds | None = Field(None, description="instead of upstream.connect_timeout")
    read_timeout: Seconds | None = Field(None, description="instead of upstream.read_timeout")
    request_usage: bool = Field(True, description="ask for the usage of streamed chats, and hide the answer")
    retry: Retry | None = Field(None, description="when to ask again; absent: twice, after 0.5 s and 1 s")
    circuit_breaker: CircuitBreaker | None = Field(None, description="when to stop asking; absent: never")
    actor_headers: dict[Literal["id"], HeaderName] | None = Field(
        None, description="headers that tell the provider who asked; absent: none"
    )
    dump_dir: str = Field("", description="where its conversations are dumped; empty: nowhere")
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = Field(None, description="bedrock: AWS region")
    model: BedrockModel | None = Field(None, description="bedrock: the model that answers")
    small_fast_model: BedrockModel | None = Field(None, description="bedrock: the one that answers for haiku")
    access_key: Secret | None = Field(None, description="bedrock: access key id; absent: AWS's default chain")
    access_key_secret: Secret | None = Field(None, description="bedrock: secret access key")
    session_token: Secret | None = Field(None, description="bedrock: session token of temporary keys")

    @model_validator(mode="after")
    def _name_is_free(self) -> Self:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"the name {self.name} is taken by a route of the gateway")
        return self

    @model_validator(mode="after")
    def _keys_are_distinct(self) -> Self:
        if len(set(self.keys)) < len(self.keys):
            raise ValueError("the same key is given twice")
        return self

    @model_validator(mode="after")
    def _only_bedrock_has_bedrocks_fields(self) -> Self:
        given = next((name for name in BEDROCK_ONLY if getattr(self, name) is not None), None)
        if given and self.type != "bedrock":
            raise ValueError(f"{given} is only for type bedrock")
        return self

    @model_validator(mode="after")
    def _bedrock_is_complete(self) -> Self:
        pair = (self.access_key is not None, self.access_key_secret is not None)
        problems = {
            "type bedrock needs region or base_url": not (self.region or self.base_url),
            "type bedrock needs model": self.model is None,
            "type bedrock needs small_fast_model": self.small_fast_model is None,
            "type bedrock has access_key and access_key_secret instead of keys": bool(self.keys),
            "access_key and access_key_secret must be given together": pair[0] != pair[1],
            "session_token needs access_key and access_key_secret": self.session_token and not any(pair),
            "type bedrock needs boto3, which is not installed (pip install boto3)": find_spec("boto3") is None,
        }
        problem = next((problem for problem, holds in problems.items() if holds), None)
        if problem and self.type == "bedrock":
            raise ValueError(problem)
        return self


class McpServer(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="part of its tools' names")
    url: McpUrl | None = Field(None, description="its endpoint")
    transport: Literal["streamable-http", "sse"] = Field("streamable-http", description="how the endpoint speaks")
    command: tuple[str, ...] = Field((), description="the program to start instead, for stdio, and its arguments")
    env: dict[str, Secret] = Field({}, description="environment variables of that program")
    headers: dict[HeaderName, Secret] = Field({}, description="headers sent to the endpoint")
    allow: Pattern = Field("", description="regular expression of the tools to offer; empty: all")
    deny: Pattern = Field("", description="regular expression of the tools to leave out; wins")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.url is None) == (not self.command):
            raise ValueError("an MCP server needs either url or command")
        return self


class Actions(Section):
    dir: str = Field("actions", description="folder of action files")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="hosts that http actions may call, such as api.example.com or *.example.com"
    )
    python: tuple[str, ...] = Field((), description="functions that python actions may call, as module:function")


class Settings(BaseSettings):
    """The whole configuration. `Settings.load()` reads file and environment; the constructor takes values."""

    model_config = SettingsConfigDict(
        env_prefix="AIBRIDGE_", env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    server: Server = Server()
    database: Database = Database()
    auth: Auth = Auth()
    upstream: Upstream = Upstream()
    recording: Recording = Recording()
    limits: Limits = Limits()
    tools: Tools = Tools()
    providers: tuple[Provider, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    actions: Actions = Actions()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller passes: `load` decides which environment and which file count."""
        return (init_settings,)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings of this process. Raises SettingsError."""
        environ = os.environ if environ is None else environ
        path = config_file(environ)
        file = _read_toml(path) if path else {}
        values = _merged(file, _from_environment(cls, environ))
        if not values.get("providers"):
            values["providers"] = _conventional_providers(environ)
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(_explained(error, environ, path, file)) from None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for kind, entries in (("providers", self.providers), ("MCP servers", self.mcp_servers)):
            names = [entry.name for entry in entries]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"two {kind} are called {name}")
        return self

    @model_validator(mode="after")
    def _open_means_loopback(self) -> Self:
        loopback = self.server.host in ("localhost", "::1") or self.server.host.startswith("127.")
        if self.auth.mode == "open" and not loopback and not self.auth.allow_open:
            raise ValueError(
                f"auth.mode open does not listen on {self.server.host}: anyone could use your keys. "
                "Set auth.mode to token or proxy, or auth.allow_open to true"
            )
        return self

    def without_effect(self) -> list[str]:
        """Settings that were given but that nothing in this version acts on; the start warns of each."""
        return [name for name, given in self._later() if given]

    def _later(self) -> list[tuple[str, bool]]:
        providers = self.providers
        return [
            ("providers.dump_dir", any(provider.dump_dir for provider in providers)),
            ("keys of a copilot provider", any(p.keys for p in providers if p.type == "copilot")),
        ]


def config_file(environ: Mapping[str, str]) -> Path | None:
    """The TOML file to read: the one `AIBRIDGE_CONFIG` names, else ./aibridge.toml if there is one."""
    named = environ.get("AIBRIDGE_CONFIG")
    if named:
        return Path(named)
    default = Path("aibridge.toml")
    return default if default.is_file() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not valid TOML: {error}") from None


def _from_environment(settings_class: type[BaseSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (section, field) in CONVENTIONAL.items():
        if environ.get(name):
            values.setdefault(section, {})[field] = environ[name]
    for name in environ:
        if name.startswith("AIBRIDGE_") and not _is_setting(name, settings_class):
            raise SettingsError(f"there is no such setting (environment variable {name})")
    source = EnvSettingsSource(settings_class)
    source.env_vars = {name.lower(): value for name, value in environ.items()}
    try:
        return _merged(values, source())
    except Exception as error:  # pydantic-settings' own: JSON was expected in a variable
        raise SettingsError(f"the environment: {error}") from None


def _is_setting(variable: str, settings_class: type[BaseSettings]) -> bool:
    """Whether the variable names the file or a section; its field is checked with the values."""
    name = variable.removeprefix("AIBRIDGE_").lower()
    return name == "config" or any(f"{name}_".startswith(f"{section}_") for section in settings_class.model_fields)


def _conventional_providers(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    providers = []
    for name, (key, base_url) in CONVENTIONAL_PROVIDERS.items():
        if environ.get(key) or environ.get(base_url):
            entry: dict[str, Any] = {"name": name, "type": name}
            if environ.get(key):
                entry["keys"] = [environ[key]]
            if environ.get(base_url):
                entry["base_url"] = environ[base_url]
            providers.append(entry)
    return providers or [{"name": "sandbox", "type": "sandbox"}]


def _merged(lower: dict[str, Any], higher: dict[str, Any]) -> dict[str, Any]:
    """Both, section by section; where both name a field the higher one's value counts."""
    merged = dict(lower)
    for name, value in higher.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def _explained(error: ValidationError, environ: Mapping[str, str], path: Path | None, file: dict[str, Any]) -> str:
    """One line per problem: setting, what is wrong, where it was set. Input values are left out."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        location = tuple(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        origin = _origin(location, environ, path, file)
        lines.append(f"{'.'.join(location)}: {reason}{origin}" if location else f"{reason}{origin}")
    return "\n".join(lines)


def _origin(location: tuple[str, ...], environ: Mapping[str, str], path: Path | None, file: dict[str, Any]) -> str:
    section = location[0] if location else ""
    field = location[1] if len(location) > 1 else ""
    candidates = [f"AIBRIDGE_{section}_{field}".upper().rstrip("_")]
    candidates += [name for name, target in CONVENTIONAL.items() if target == (section, field)]
    if section == "providers" and "providers" not in file:
        candidates += [name for pair in CONVENTIONAL_PROVIDERS.values() for name in pair]
    for name in candidates:
        if environ.get(name):
            return f" (environment variable {name})"
    return f" ({path})" if path and section in file else ""


def effective(settings: Settings) -> dict[str, Any]:
    """The configuration as plain data, every secret masked, also the password in a database URL."""
    dumped = settings.model_dump(mode="json")
    dumped["database"]["url"] = _masked_url(settings.database.url)
    if settings.limits.redis_url:
        dumped["limits"]["redis_url"] = _masked_url(settings.limits.redis_url.get_secret_value())
    for entry in (*dumped["providers"], *dumped["mcp_servers"]):
        for name in ("base_url", "url"):
            if entry.get(name):
                entry[name] = _masked_url(entry[name])
    return dumped


def _masked_url(url: str) -> str:
    """Without the password, whether it stands before the host or in the query."""
    url = re.sub(r"(://[^:/@?]*):[^/@?]*@", r"\1:**********@", url)
    return re.sub(r"([?&]\w*(?:password|secret|token|key)\w*=)[^&]*", r"\1**********", url)


def threads_for_requests(server: Server) -> int:
    """How many threads of one process bridged requests may hold at once; 0: any number. Some of a gthread worker's
    are kept for refusals and for the health routes."""
    if server.worker_class != "gthread":
        return 0
    spare = min(max(2, server.threads // 16), server.threads - 1)
    return server.threads - spare


def timeouts_of(provider: Provider, general: UpstreamTimeouts) -> UpstreamTimeouts:
    """The provider's own timeouts, the general ones where it has none."""
    return UpstreamTimeouts(
        connect_timeout=provider.connect_timeout or general.connect_timeout,
        read_timeout=provider.read_timeout or general.read_timeout,
    )


def revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def keys_of(provider: Provider) -> tuple[str, ...]:
    """The configured keys, in the order of their use."""
    return tuple(key.get_secret_value() for key in provider.keys)
