"""Settings: where they come from, what is refused and how it is said."""

import sys
from pathlib import Path

import pytest

from aibridge.settings import (
    Server,
    Settings,
    SettingsError,
    UpstreamTimeouts,
    allowance,
    effective,
    keys_of,
    threads_for_requests,
    timeouts_of,
)

SECRET = "sk-ant-very-secret-value"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(file: str = "", **environ: str) -> Settings:
    if file:
        Path("aibridge.toml").write_text(file)
    return Settings.load(environ)


def refusal(file: str = "", **environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        load(file, **environ)
    assert SECRET not in str(error.value)
    return str(error.value)


def test_defaults_serve_the_sandbox_on_loopback() -> None:
    settings = load()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert [(provider.name, provider.type) for provider in settings.providers] == [("sandbox", "sandbox")]
    assert settings.database.url == "sqlite:///var/aibridge.db"


def test_the_environment_goes_before_the_file_and_our_names_before_conventional_ones() -> None:
    file = "[server]\nport = 1\nthreads = 3\nworkers = 4"
    settings = load(file, PORT="2", AIBRIDGE_SERVER_PORT="5", AIBRIDGE_SERVER_THREADS="7")
    assert settings.server == Server(port=5, threads=7, workers=4)
    assert load(file, PORT="2").server.port == 2


def test_conventional_names() -> None:
    settings = load(HOST="127.0.0.5", WEB_CONCURRENCY="3", DATABASE_URL="postgres://u:p@h/d")
    assert (settings.server.host, settings.server.workers) == ("127.0.0.5", 3)
    assert settings.database.url == "postgresql+psycopg://u:p@h/d"
    for url in ("postgresql://h/d", "postgresql+psycopg://h/d"):
        assert load(DATABASE_URL=url).database.url == "postgresql+psycopg://h/d"


def test_conventional_providers() -> None:
    (provider,) = load(ANTHROPIC_API_KEY=SECRET).providers
    assert (provider.name, provider.type, provider.keys[0].get_secret_value()) == (
        "anthropic",
        "anthropic",
        SECRET,
    )
    (byok,) = load(ANTHROPIC_BASE_URL="http://127.0.0.1:9/").providers
    assert (byok.base_url, byok.keys) == ("http://127.0.0.1:9", ())
    configured = load('[[providers]]\nname = "a"\ntype = "anthropic"', ANTHROPIC_API_KEY=SECRET)
    assert [provider.keys for provider in configured.providers] == [()]


def test_secrets_come_from_variables_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    (tmp_path / "key").write_text("from-a-file\n")
    file = f"""
        [[providers]]
        name = "a"
        type = "anthropic"
        keys = ["env:MY_KEY", "file:{tmp_path}/key", "literal"]
    """
    settings = load(file)
    assert [key.get_secret_value() for key in settings.providers[0].keys] == [SECRET, "from-a-file", "literal"]
    assert SECRET not in repr(settings)
    assert SECRET not in repr(effective(settings))
    assert keys_of(settings.providers[0]) == (SECRET, "from-a-file", "literal")
    assert settings.without_effect() == []


def test_the_effective_configuration_hides_the_database_password() -> None:
    shown = effective(load(DATABASE_URL=f"postgres://user:{SECRET}@h/d"))
    assert shown["database"]["url"] == "postgresql+psycopg://user:**********@h/d"
    in_query = effective(load(DATABASE_URL=f"postgres://h/d?user=u&password={SECRET}&x=1"))
    assert in_query["database"]["url"] == "postgresql+psycopg://h/d?user=u&password=**********&x=1"
    provider = effective(load(ANTHROPIC_BASE_URL=f"https://u:{SECRET}@h/base"))["providers"][0]
    assert provider["base_url"] == "https://u:**********@h/base"


def test_a_provider_can_have_its_own_timeouts() -> None:
    file = '[[providers]]\nname = "a"\ntype = "anthropic"\nread_timeout = 5'
    (provider,) = load(file).providers
    general = UpstreamTimeouts(connect_timeout=1, read_timeout=2)
    assert timeouts_of(provider, general) == UpstreamTimeouts(connect_timeout=1, read_timeout=5)


def test_the_named_file_is_read_instead_of_the_default_one(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[server]\nport = 77")
    assert load("[server]\nport = 1", AIBRIDGE_CONFIG=str(tmp_path / "other.toml")).server.port == 77


REFUSALS = [
    ("[server]\nport = 70000", {}, ["server.port", "aibridge.toml"]),
    ("", {"PORT": "http"}, ["server.port", "variable PORT"]),
    ("", {"AIBRIDGE_SERVRE_PORT": "1"}, ["no such setting", "AIBRIDGE_SERVRE_PORT"]),
    ("", {"AIBRIDGE_SERVER_PORT": "-1"}, ["server.port", "variable AIBRIDGE_SERVER_PORT"]),
    ("[server]\nprot = 1", {}, ["server.prot", "aibridge.toml"]),
    ("[sever]\nport = 1", {}, ["sever", "aibridge.toml"]),
    ("[server", {}, ["aibridge.toml", "TOML"]),
    ("", {"AIBRIDGE_CONFIG": "/nowhere.toml"}, ["/nowhere.toml"]),
    ("", {"AIBRIDGE_PROVIDERS": "{not json"}, ["providers"]),
    ("", {"DATABASE_URL": f"mysql://u:{SECRET}@h/d"}, ["database.url", "DATABASE_URL"]),
    ("", {"DATABASE_URL": "here.db"}, ["database.url"]),
    ("", {"ANTHROPIC_BASE_URL": "ftp://x"}, ["providers.0.base_url", "ANTHROPIC_BASE_URL"]),
    ("", {"ANTHROPIC_API_KEY": "env:NOT_SET"}, ["providers.0.keys.0", "NOT_SET is not set"]),
    ("", {"ANTHROPIC_API_KEY": "file:/nowhere"}, ["providers.0.keys.0", "/nowhere"]),
    ("", {"ANTHROPIC_API_KEY": " "}, ["providers.0.keys.0", "is empty"]),
    ('[[providers]]\nname = "A_b"\ntype = "anthropic"', {}, ["providers.0.name"]),
    ('[[providers]]\nname = "a"\ntype = "gemini"', {}, ["providers.0.type"]),
    ('[[providers]]\nname = "healthz"\ntype = "sandbox"', {}, ["providers.0", "healthz is taken"]),
    ('[[providers]]\nname = "a"\ntype = "anthropic"\nkeys = [5]', {}, ["providers.0.keys.0"]),
    ('[[providers]]\nname="a"\ntype="sandbox"\n[[providers]]\nname="a"\ntype="sandbox"', {}, ["called a"]),
    ('[[providers]]\nname = "a"\ntype = "openai"\nkeys = ["k", "k"]', {}, ["providers.0", "given twice"]),
    ("", {"HOST": "0.0.0.0"}, ["auth.mode open", "allow_open"]),
    ('[auth]\nmode = "proxy"', {}, ["auth", "secret"]),
]


@pytest.mark.parametrize(("file", "environ", "words"), REFUSALS)
def test_a_wrong_setting_is_named_with_its_origin(file: str, environ: dict[str, str], words: list[str]) -> None:
    message = refusal(file, **environ)
    for word in words:
        assert word in message


def test_open_mode_may_listen_beyond_loopback_when_told_so() -> None:
    assert load(HOST="0.0.0.0", AIBRIDGE_AUTH_ALLOW_OPEN="true").server.host == "0.0.0.0"
    assert load(HOST="::1").server.host == "::1"


def test_settings_that_nothing_acts_on_yet_are_named() -> None:
    file = """
        [limits]
        rate = "5/minute"
        [[providers]]
        name = "p"
        type = "openai"
        dump_dir = "dumps"
        keys = ["a", "b"]
        retry = { max_retries = 3 }
        circuit_breaker = { timeout = 5 }
    """
    assert load(file).without_effect() == ["providers.dump_dir"]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("120/minute", (120, 60)),
        ("1/second", (1, 1)),
        (" 10 / 5 Seconds ", (10, 5)),
        ("1000 per hour", (1000, 3600)),
        ("100000/2days", (100_000, 172_800)),
        ("", None),
    ],
)
def test_rates(text: str, allowed: tuple[int, int] | None) -> None:
    rate = load(AIBRIDGE_LIMITS_RATE=text).limits.rate
    assert allowance(rate) == allowed
    assert allowance(load().limits.rate) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *[
            (text, "such as 120/minute")
            for text in ("120", "fast", "120/fortnight", "-1/minute", "1.5/minute", " ")
        ],
        *[(text, "1 to 100000 requests") for text in ("0/minute", "100001/day", "5/0 seconds")],
    ],
)
def test_what_is_no_rate(text: str, problem: str) -> None:
    message = refusal(AIBRIDGE_LIMITS_RATE=text)
    assert message.startswith("limits.rate: must ")
    assert problem in message
    assert "variable AIBRIDGE_LIMITS_RATE" in message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{SECRET}@h:6379/0", "redis://:**********@h:6379/0"),
        (f"rediss://user:{SECRET}@h/1", "rediss://user:**********@h/1"),
        (f"redis+unix:///run/redis.sock?password={SECRET}", "redis+unix:///run/redis.sock?password=**********"),
    ],
)
def test_redis_is_shown_without_its_password(url: str, shown: str) -> None:
    settings = load(REDIS_URL=url)
    assert settings.limits.redis_url
    assert settings.limits.redis_url.get_secret_value() == url
    assert SECRET not in repr(settings)
    assert effective(settings)["limits"]["redis_url"] == shown
    assert load("[limits]\nredis_url = 'redis://a'", REDIS_URL=url).limits == settings.limits


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"http://:{SECRET}@h", "must be a redis://"),
        (SECRET, "must be a redis://"),
        (f"redis://:{SECRET}/more@h", "%2F"),
        (f"redis://h:0/{SECRET}", "no usable port"),
    ],
)
def test_what_is_no_redis(url: str, problem: str) -> None:
    message = refusal(REDIS_URL=url)
    assert problem in message
    assert "variable REDIS_URL" in message


def test_redis_without_its_client_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    assert "needs redis, which is not installed" in refusal(REDIS_URL="redis://h", AIBRIDGE_LIMITS_RATE="1/day")
    assert load(REDIS_URL="redis://h").limits.redis_url  # some platforms set it anyhow


@pytest.mark.parametrize(
    ("worker_class", "threads", "for_requests"),
    [("gthread", 128, 120), ("gthread", 16, 14), ("gthread", 3, 1), ("gthread", 2, 1), ("gevent", 2, 0)],
)
def test_some_threads_are_kept_for_refusals_and_health(worker_class: str, threads: int, for_requests: int) -> None:
    server = load(f'[server]\nworker_class = "{worker_class}"\nthreads = {threads}\n').server
    assert threads_for_requests(server) == for_requests


BEDROCK = {
    "name": '"b"',
    "type": '"bedrock"',
    "region": '"eu-west-1"',
    "model": '"eu.anthropic.claude-sonnet-4-5-20250929-v1:0"',
    "small_fast_model": '"arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-haiku-4-5-v1:0"',
}
PAIR = {"access_key": '"AKIDEXAMPLE"', "access_key_secret": f'"{SECRET}"'}


def provider_entry(**fields: str | None) -> str:
    lines = [f"{name} = {value}" for name, value in fields.items() if value is not None]
    return "\n".join(["[[providers]]", *lines])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        PAIR,
        {**PAIR, "session_token": f'"{SECRET}"'},
        {"region": None, "base_url": '"https://bedrock.test"'},
    ],
)
def test_bedrock_needs_models_and_a_place_and_no_keys(fields: dict[str, str | None]) -> None:
    settings = load(provider_entry(**{**BEDROCK, **fields}))
    assert settings.providers[0].type == "bedrock"
    assert SECRET not in repr(settings)
    assert SECRET not in repr(effective(settings))


BEDROCK_REFUSALS: list[tuple[dict[str, str | None], str]] = [
    ({"region": None}, "providers.0: type bedrock needs region or base_url"),
    ({"model": None}, "providers.0: type bedrock needs model"),
    ({"small_fast_model": None}, "providers.0: type bedrock needs small_fast_model"),
    ({"model": '""'}, "providers.0.model"),
    ({"model": '".."'}, "providers.0.model"),
    ({"region": '"eu west"'}, "providers.0.region"),
    ({"access_key": '"AKIDEXAMPLE"'}, "access_key and access_key_secret must be given together"),
    ({"access_key_secret": f'"{SECRET}"'}, "access_key and access_key_secret must be given together"),
    ({"session_token": f'"{SECRET}"'}, "session_token needs access_key and access_key_secret"),
    ({"keys": f'["{SECRET}"]'}, "access_key and access_key_secret instead of keys"),
    ({**PAIR, "access_key_secret": '" "'}, "providers.0.access_key_secret: is empty"),
    ({"type": '"anthropic"'}, "providers.0: region is only for type bedrock"),
    ({"type": '"sandbox"', "region": None}, "providers.0: model is only for type bedrock"),
]


@pytest.mark.parametrize(("fields", "words"), BEDROCK_REFUSALS)
def test_what_bedrock_refuses(fields: dict[str, str | None], words: str) -> None:
    assert words in refusal(provider_entry(**{**BEDROCK, **fields}))


def test_bedrock_without_boto3_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "needs boto3, which is not installed" in refusal(provider_entry(**BEDROCK))
    assert load(provider_entry(name='"s"', type='"sandbox"')).providers[0].type == "sandbox"


def test_mcp_servers_that_make_sense() -> None:
    file = '[[mcp_servers]]\nname = "m"\nurl = "https://m.test/mcp/?x=1"\nallow = "^a"\n'
    (server,) = load(file).mcp_servers
    assert (server.url, server.allow) == ("https://m.test/mcp/?x=1", "^a")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('name = "m"', "an MCP server needs either url or command"),
        ('name = "m"\nurl = "https://m.test"\ncommand = ["m"]', "an MCP server needs either url or command"),
        ('name = "m"\nurl = "m.test"', "must be an http:// or https:// URL"),
        ('name = "m"\nurl = "https://m.test"\nallow = "("', "is no regular expression"),
        (
            'name = "m"\nurl = "https://m.test"\n[[mcp_servers]]\nname = "m"\nurl = "https://n.test"',
            "two MCP servers are",
        ),
    ],
)
def test_mcp_servers_that_make_no_sense(entry: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load(f"[[mcp_servers]]\n{entry}")
