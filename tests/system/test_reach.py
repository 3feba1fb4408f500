"""Keys, retries and the breaker in a running gateway. Each test has a provider of its own, since keys remember."""

import json
import time
from itertools import count
from typing import Any

import pytest

from tests.fake_provider import Received, Reply
from tests.fake_provider.model import Call, Json, Model, Say
from tests.system.client import Exchange, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import ROOT, Gateway, Setup

pytestmark = pytest.mark.system

KEYS = ("sk-first-0123456789abcdef", "sk-second-0123456789abcdef")
HINTS = ("sk-f...cdef", "sk-s...cdef")
BREAKER = "circuit_breaker = { failure_threshold = 2, timeout = 0.6, max_requests = 1 }"
ENTRY = """
[[providers]]
name = "{name}"
type = "{type}"
base_url = "{{url}}{mount}"
keys = {keys}
retry = {{ max_retries = 2, base_delay = 0.05 }}
{more}
"""


def entry(name: str, type_: str = "anthropic", *, keys: int = 2, more: str = "") -> str:
    mount = "/v1" if type_ == "openai" else ""
    return ENTRY.format(name=name, type=type_, mount=mount, keys=json.dumps(KEYS[:keys]), more=more)


SPARE = 20  # providers of each kind: no fewer than there are tests, with their parameters, that use one
TOML = "".join(
    [entry(f"anthropic-{number}") for number in range(SPARE)]
    + [entry(f"openai-{number}", "openai") for number in range(SPARE)]
    + [entry(f"breaker-{number}", keys=1, more=BREAKER) for number in range(2)]
    + [f'\n[actions]\ndir = "{ROOT / "tests/system/actions"}"\n']
)
ENVIRONMENT = {"AIBRIDGE_SERVER_PING_INTERVAL": "0.2", "AIBRIDGE_TOOLS_SKIP_MODELS": '["plain"]'}
SETUP = Setup(TOML, environment=tuple(ENVIRONMENT.items()))
DEAD = Setup(entry("anthropic", keys=1).replace("{url}", "http://127.0.0.1:1"))

_numbers: dict[tuple[int, str], Any] = {}

PATHS = {
    "messages": ("anthropic", "/v1/messages"),
    "chat_completions": ("openai", "/v1/chat/completions"),
    "responses": ("openai", "/v1/responses"),
}
protocols = pytest.mark.parametrize("protocol", list(PATHS))
streaming = pytest.mark.parametrize("stream", [False, True], ids=["blocking", "streaming"])


@pytest.fixture
def gateway(gateways: Gateways) -> Gateway:
    return gateways(SETUP)


def fresh(gateway: Gateway, kind: str) -> str:
    """The name of a provider that no other test has used."""
    return f"{kind}-{next(_numbers.setdefault((id(gateway), kind), count()))}"


def post(
    gateway: Gateway, provider: str, protocol: str = "messages", *, stream: bool = False, **fields: Any
) -> Exchange:
    asked = [{"role": "user", "content": "What now?"}]
    body: Json = {"model": "plain", "stream": stream, "max_tokens": 9, **fields}
    body |= {"input": asked} if protocol == "responses" else {"messages": asked}
    headers = [("X-User-ID", provider)]
    return gateway.post(json.dumps(body).encode(), headers, target=f"/{provider}{PATHS[protocol][1]}")


def says(status: int, **headers: str) -> Reply:
    told = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    error = {"type": "error", "error": {"type": "its_own", "message": f"it says {status}"}}
    return Reply.json(error, status, told)


def keys_seen(gateway: Gateway) -> list[int]:
    def used(request: Received) -> str:
        return request.header("x-api-key") or (request.header("authorization") or "").removeprefix("Bearer ")

    return [KEYS.index(used(request)) for request in gateway.provider.received]


@protocols
@streaming
def test_the_second_key_takes_over(gateway: Gateway, protocol: str, stream: bool) -> None:
    provider = fresh(gateway, PATHS[protocol][0])
    gateway.provider.always(Model(protocol, [[Say("Done.")]]))
    gateway.provider.reply(says(429, retry_after="60"))
    for _ in range(2):
        with post(gateway, provider, protocol, stream=stream) as answer:
            assert (answer.read().status, answer.ended) == (200, "clean")
    assert keys_seen(gateway) == [0, 1, 1]
    rows = gateway.rows("interceptions", initiator_id=provider)
    assert [(row["status"], row["credential_hint"]) for row in rows] == [("completed", HINTS[1])] * 2
    assert sorted(row["attempts"] for row in rows) == [1, 2]


@streaming
def test_no_key_is_left(gateway: Gateway, stream: bool) -> None:
    provider = fresh(gateway, "anthropic")
    gateway.provider.reply(says(429, retry_after="70"), says(429, retry_after="65"))
    for _ in range(2):
        with post(gateway, provider, stream=stream) as answer:
            assert answer.read().status == 429
        assert 60 < int(answer.header("retry-after") or 0) <= 65
        assert answer.error()[0] == "rate_limit_error"
    assert keys_seen(gateway) == [0, 1]
    with gateway.get(f"/{provider}/v1/models") as answer:
        assert answer.read().status == 429


def test_no_key_is_accepted(gateway: Gateway) -> None:
    provider = fresh(gateway, "anthropic")
    gateway.provider.always(says(401))
    with post(gateway, provider) as answer:
        assert (answer.read().status, answer.error()[0], answer.header("retry-after")) == (502, "api_error", None)
    row = gateway.recorded_for(provider).interception
    assert (row["error_type"], row["credential_hint"], row["attempts"]) == ("unauthorized", HINTS[1], 2)


def test_passed_through_routes_share_the_keys(gateway: Gateway) -> None:
    provider = fresh(gateway, "anthropic")
    gateway.provider.reply(says(429, retry_after="60"), Reply.json({"data": []}), Reply.json({"input_tokens": 3}))
    with gateway.get(f"/{provider}/v1/models") as answer:
        assert answer.read().status == 200
    with gateway.post(b'{"model": "m"}', target=f"/{provider}/v1/messages/count_tokens") as answer:
        assert answer.read().json() == {"input_tokens": 3}
    assert keys_seen(gateway) == [0, 1, 1]
    assert bytes(gateway.provider.received[2].body) == b'{"model": "m"}'


@streaming
def test_a_bad_moment_passes(gateway: Gateway, stream: bool) -> None:
    provider = fresh(gateway, "anthropic")
    gateway.provider.always(Model("messages", [[Say("Done.")]]))
    gateway.provider.reply(says(529), says(500))
    with post(gateway, provider, stream=stream) as answer:
        assert answer.read().status == 200
    assert gateway.recorded_for(provider).interception["attempts"] == 3
    assert len({request.connection for request in gateway.provider.received}) == 1


@streaming
def test_a_bad_moment_that_does_not_pass(gateway: Gateway, stream: bool) -> None:
    provider = fresh(gateway, "anthropic")
    last = says(529, request_id="req_3", retry_after="2")
    gateway.provider.reply(says(503), says(503), last)
    with post(gateway, provider, stream=stream) as answer:
        answer.read()
    assert (answer.status, bytes(answer.body)) == (529, last.content())
    assert (answer.header("request-id"), answer.header("retry-after")) == ("req_3", "2")
    row = gateway.recorded_for(provider).interception
    assert (row["status"], row["error_type"], row["attempts"]) == ("failed", "overloaded", 3)


def test_a_connection_that_had_ended_is_no_matter(gateway: Gateway) -> None:
    provider = fresh(gateway, "anthropic")
    model = Model("messages", [[Say("Done.")]])
    gateway.provider.always(model)
    post(gateway, provider).read().close()
    gateway.provider.reply(Reply.nothing("reset"))
    with post(gateway, provider) as answer:
        assert answer.read().status == 200
    assert sorted(row["attempts"] for row in gateway.rows("interceptions", initiator_id=provider)) == [1, 2]


def test_a_provider_that_is_down_is_asked_again(gateways: Gateways) -> None:
    gateway = gateways(DEAD)
    with post(gateway, "anthropic") as answer:
        assert (answer.read().status, answer.error()[0]) == (502, "api_error")
    assert gateway.recorded(answer.interception_id).interception["attempts"] == 3


@streaming
def test_a_client_that_leaves_while_we_wait(gateway: Gateway, stream: bool) -> None:
    provider = fresh(gateway, "anthropic")
    gateway.provider.always(says(503, retry_after="30"))
    left = time.monotonic()
    with post(gateway, provider, stream=stream):
        gateway.provider.request().answered.wait(5)
        time.sleep(0.1)
    row = gateway.recorded_for(provider).interception
    assert (row["status"], row["attempts"]) == ("cancelled", 1)
    assert time.monotonic() - left < 5


def test_pings_go_on_while_a_later_round_is_waited_for(gateway: Gateway) -> None:
    provider = fresh(gateway, "anthropic")
    model = Model("messages", [[Say("I look."), Call("a", "bact_shout", '{"text": "x"}')], [Say("Done.")]])
    waits = [says(529, retry_after="1")]
    gateway.provider.always(lambda received: waits.pop() if model.requests and waits else model(received))
    with post(gateway, provider, stream=True, model="with tools") as answer:
        answer.read()
    assert (answer.ended, answer.body.count(b"event: message_start")) == ("clean", 1)
    before, _, after = bytes(answer.body).rpartition(b"event: ping\n")
    assert before.count(b"event: ping\n") >= 2
    assert b"message_stop" in after
    row = gateway.recorded_for(provider).interception
    assert (row["status"], row["rounds"], row["attempts"]) == ("completed", 2, 3)


@streaming
def test_the_circuit_opens_and_closes(gateway: Gateway, stream: bool) -> None:
    provider = fresh(gateway, "breaker")
    gateway.provider.always(says(503, x_should_retry="false"))
    statuses = [post(gateway, provider, stream=stream).read() for _ in range(3)]
    assert [answer.status for answer in statuses] == [503, 503, 503]
    assert (statuses[2].error()[0], statuses[2].header("retry-after")) == ("overloaded_error", "1")
    assert len(gateway.provider.received) == 2
    gateway.provider.always(Model("messages", [[Say("Done.")]]))

    def recovered() -> bool:
        with post(gateway, provider, stream=stream) as answer:
            return answer.read().status == 200

    assert eventually(recovered)
