"""Who asks and whose key pays (product.md 6); secrets stay secret (behaviour.md 11)."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.fake_provider import Received, Reply
from tests.fake_provider.conversations import request_bytes, text, user
from tests.system.client import Exchange, HeaderList
from tests.system.conftest import Gateways
from tests.system.gateway import CENTRAL_KEY, DEFAULT, STRICT, Gateway, Row, Setup

pytestmark = pytest.mark.system

USER_KEY = "sk-ant-api03-users-own-key-abcdefgh"
REQUEST = request_bytes(user("hi"), stream=False)

PROXY_SECRET = "proxy-shared-secret-0123456789"
NO_KEY = Setup(central=False)
TOKENS = Setup(environment=(("AIBRIDGE_AUTH_MODE", "token"),))
PROXY = Setup(
    f"""
[auth]
mode = "proxy"
header = "X-Forwarded-User"
secret_header = "X-Proxy-Secret"
secret = "{PROXY_SECRET}"
"""
)


def accepted(gateway: Gateway, headers: HeaderList) -> tuple[Received, Row]:
    """What the provider got and what was recorded of a request that must succeed."""
    conversation = text()
    gateway.provider.reply(conversation.reply(stream=False))
    with gateway.post(REQUEST, headers) as answer:
        assert answer.read().status == 200, bytes(answer.body)
    return gateway.provider.whole_request(), gateway.recorded(answer.interception_id).interception


def refused(gateway: Gateway, headers: HeaderList, status: int, kind: str, body: bytes = REQUEST) -> Exchange:
    """A request that must be refused without the provider's knowing."""
    with gateway.post(body, headers) as answer:
        assert answer.read().status == status
    assert answer.error()[0] == kind
    assert gateway.provider.received == []
    return answer


# --- whose key pays ----------------------------------------------------------------------------------------------


def test_a_central_key(gateway: Gateway) -> None:
    upstream, row = accepted(gateway, [])

    assert (upstream.header("x-api-key"), upstream.header("authorization")) == (CENTRAL_KEY, None)
    assert (row["credential_kind"], row["credential_hint"]) == ("centralized", "sk-a...cdef")
    assert row["initiator_id"] == "anonymous"


def test_a_users_own_api_key(gateway: Gateway) -> None:
    upstream, row = accepted(gateway, [("x-api-key", USER_KEY)])

    assert (upstream.header("x-api-key"), upstream.header("authorization")) == (USER_KEY, None)
    assert (row["credential_kind"], row["credential_hint"]) == ("byok", "sk-a...efgh")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_users_own_bearer(gateway: Gateway, scheme: str) -> None:
    upstream, row = accepted(gateway, [("Authorization", f"{scheme}  {USER_KEY}")])

    assert upstream.header("x-api-key") is None
    assert (upstream.header("authorization") or "").split() == ["Bearer", USER_KEY]
    assert (row["credential_kind"], row["credential_hint"]) == ("byok", "sk-a...efgh")


def test_an_api_key_wins_over_a_bearer(gateway: Gateway) -> None:
    upstream, _ = accepted(gateway, [("Authorization", "Bearer other"), ("X-Api-Key", USER_KEY)])

    assert (upstream.header("x-api-key"), upstream.header("authorization")) == (USER_KEY, None)


@pytest.mark.parametrize("value", ["", "Basic eDp5", "Bearer", "Bearer a b", "token"])
def test_other_authorization_is_no_key(gateway: Gateway, value: str) -> None:
    upstream, row = accepted(gateway, [("Authorization", value), ("x-api-key", "")])

    assert (upstream.header("x-api-key"), upstream.header("authorization")) == (CENTRAL_KEY, None)
    assert row["credential_kind"] == "centralized"


@pytest.mark.parametrize(
    ("key", "hint"), [("abcd", "..."), ("short", "s...t"), ("veryshort", "v...t"), ("user-api-key", "us...ey")]
)
def test_hints_of_short_keys(gateway: Gateway, key: str, hint: str) -> None:
    _, row = accepted(gateway, [("x-api-key", key)])

    assert row["credential_hint"] == hint


def test_no_key_at_all(gateways: Gateways) -> None:
    gateway = gateways(NO_KEY)

    refused(gateway, [], 401, "authentication_error")
    refused(gateway, [], 401, "authentication_error", b"decided before the body is parsed")
    upstream, _ = accepted(gateway, [("x-api-key", USER_KEY)])
    assert upstream.header("x-api-key") == USER_KEY


@pytest.mark.parametrize("header", [("x-api-key", USER_KEY), ("Authorization", f"Bearer {USER_KEY}")])
def test_own_keys_can_be_forbidden(gateways: Gateways, header: tuple[str, str]) -> None:
    gateway = gateways(STRICT)

    answer = refused(gateway, [header], 403, "permission_error")

    assert answer.header("x-should-retry") == "false"
    refused(gateway, [header], 403, "permission_error", b"decided before the body is parsed")


def test_the_central_key_still_works_where_own_keys_are_forbidden(gateways: Gateways) -> None:
    upstream, row = accepted(gateways(STRICT), [])

    assert upstream.header("x-api-key") == CENTRAL_KEY
    assert row["credential_kind"] == "centralized"


def test_own_keys_are_forbidden_on_passthrough_too(gateways: Gateways) -> None:
    gateway = gateways(STRICT)

    with gateway.get("/anthropic/v1/models", [("x-api-key", USER_KEY)]) as answer:
        assert answer.read().status == 403
    assert gateway.provider.received == []


# --- mode open ---------------------------------------------------------------------------------------------------


def test_the_header_names_the_actor(gateway: Gateway, actor: str) -> None:
    _, row = accepted(gateway, [("X-User-ID", actor)])

    assert row["initiator_id"] == actor


def test_a_name_with_underscores_shadows_nobody(gateway: Gateway, actor: str) -> None:
    """`session_id` may pass, but X_User_ID is not X-User-ID."""
    _, row = accepted(gateway, [("X_User_ID", "mallory"), ("X-User-ID", actor), ("X_User-ID", "mallory")])

    assert row["initiator_id"] == actor


# --- mode token --------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(gateways: Gateways) -> Gateway:
    return gateways(TOKENS)


@pytest.fixture
def token(tokens: Gateway, actor: str) -> str:
    made = tokens.run("tokens", "create", "--actor", actor)
    assert made.returncode == 0, made.stderr
    found: str
    (found,) = set(re.findall(r"aib_[A-Za-z0-9_-]+", made.stdout))
    return found


def ways_to_send(token: str) -> Iterator[list[tuple[str, str]]]:
    yield [("X-AIBridge-Token", token)]
    yield [("Authorization", f"Bearer {token}")]
    yield [("x-api-key", token)]


def test_a_gateway_token_names_the_actor(tokens: Gateway, token: str, actor: str) -> None:
    for headers in ways_to_send(token):
        tokens.provider.reset()
        upstream, row = accepted(tokens, headers)

        assert (row["initiator_id"], row["credential_kind"]) == (actor, "centralized")
        assert row["api_key_id"]
        assert upstream.header("x-api-key") == CENTRAL_KEY
        assert token not in repr(upstream.headers)


def test_a_gateway_token_beside_an_own_key(tokens: Gateway, token: str, actor: str) -> None:
    own_key, own_bearer = ("x-api-key", USER_KEY), ("Authorization", f"Bearer {USER_KEY}")
    pairs = [
        ([("X-AIBridge-Token", token), own_key], "x-api-key"),
        ([("X-AIBridge-Token", token), own_bearer], "authorization"),
        ([("Authorization", f"Bearer {token}"), own_key], "x-api-key"),
        ([("x-api-key", token), own_bearer], "authorization"),
    ]
    for headers, used in pairs:
        tokens.provider.reset()
        upstream, row = accepted(tokens, headers)

        assert (row["initiator_id"], row["credential_kind"]) == (actor, "byok")
        assert (upstream.header(used) or "").removeprefix("Bearer ") == USER_KEY
        assert token not in repr(upstream.headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-User-ID", "alice")],
        [("x-api-key", USER_KEY)],
        [("X-AIBridge-Token", "aib_unknown0123456789")],
        [("X-AIBridge-Token", "")],
        [("Authorization", "Bearer aib_unknown0123456789")],
        [("x-api-key", "aib_é")],
        [("X_AIBridge_Token", "aib_unknown0123456789")],
    ],
)
def test_nobody_without_a_good_token(tokens: Gateway, headers: list[tuple[str, str]]) -> None:
    refused(tokens, headers, 401, "authentication_error")
    refused(tokens, headers, 401, "authentication_error", b"decided before the body is parsed")


@pytest.mark.parametrize("target", ["/anthropic/v1/models", "/anthropic/v1/models/x"])
def test_passthrough_wants_a_token_too(tokens: Gateway, token: str, target: str) -> None:
    """Otherwise anybody could use the central key there."""
    with tokens.get(target) as answer:
        assert answer.read().status == 401
    assert tokens.provider.received == []

    for headers in ways_to_send(token):
        tokens.provider.reset()
        tokens.provider.reply(Reply.json({"data": []}))
        with tokens.get(target, headers) as answer:
            assert answer.read().status == 200
        upstream = tokens.provider.whole_request()
        assert upstream.header("x-api-key") == CENTRAL_KEY
        assert token not in repr(upstream.headers)


def test_revoking_a_token(tokens: Gateway, token: str, actor: str) -> None:
    accepted(tokens, [("X-AIBridge-Token", token)])
    tokens.provider.reset()
    listed = tokens.run("tokens", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert token not in listed.stdout
    (mine,) = [row for row in json.loads(listed.stdout) if actor in row.values()]

    revoked = tokens.run("tokens", "revoke", mine["id"])

    assert revoked.returncode == 0, revoked.stderr
    for headers in ways_to_send(token):
        refused(tokens, headers, 401, "authentication_error")


def test_a_token_is_not_stored(tokens: Gateway, token: str) -> None:
    accepted(tokens, [("X-AIBridge-Token", token)])

    assert_nowhere(tokens, token)


# --- mode proxy --------------------------------------------------------------------------------------------------

VOUCHED = ("X-Proxy-Secret", PROXY_SECRET)


def test_the_proxy_vouches_for_the_actor(gateways: Gateways, actor: str) -> None:
    gateway = gateways(PROXY)

    upstream, row = accepted(gateway, [("X-Forwarded-User", actor), VOUCHED])

    assert row["initiator_id"] == actor
    assert PROXY_SECRET not in repr(upstream.headers)
    assert upstream.header("x-forwarded-user") is None


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Forwarded-User", "alice")],
        [("X-Forwarded-User", "alice"), ("X-Proxy-Secret", "wrong")],
        [("X-Forwarded-User", "alice"), ("X-Proxy-Secret", "")],
        [("X-Forwarded-User", "alice"), ("X_Proxy_Secret", PROXY_SECRET)],
        [VOUCHED],
        [VOUCHED, ("X-Forwarded-User", "")],
        [VOUCHED, ("X_Forwarded_User", "alice")],
    ],
)
def test_nobody_without_the_proxy(gateways: Gateways, headers: list[tuple[str, str]]) -> None:
    refused(gateways(PROXY), headers, 401, "authentication_error")


def test_a_client_behind_the_proxy_shadows_nobody(gateways: Gateways, actor: str) -> None:
    sent = [("X_Forwarded_User", "mallory"), ("X-Forwarded-User", actor), VOUCHED, ("X_Proxy_Secret", "wrong")]

    _, row = accepted(gateways(PROXY), sent)

    assert row["initiator_id"] == actor


# --- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "secret"), [(DEFAULT, CENTRAL_KEY), (DEFAULT, USER_KEY), (PROXY, PROXY_SECRET)], ids=lambda value: ""
)
def test_secrets_are_kept_nowhere(gateways: Gateways, setup: Setup, secret: str) -> None:
    """Neither in the log nor in the database, also when requests fail."""
    gateway = gateways(setup)
    gateway.provider.always(Reply.nothing("reset"))
    for headers in ([], [("x-api-key", USER_KEY)], [VOUCHED, ("X-Forwarded-User", "alice")]):
        with gateway.post(REQUEST, headers) as answer:
            answer.read()
        with gateway.get("/anthropic/v1/models", headers) as answer:
            answer.read()
        assert secret.encode() not in answer.body

    assert_nowhere(gateway, secret)


def test_check_config_shows_no_secret(gateways: Gateways) -> None:
    shown = gateways(PROXY).run("check-config")

    assert shown.returncode == 0
    for secret in (CENTRAL_KEY, PROXY_SECRET):
        assert secret not in shown.stdout + shown.stderr


def assert_nowhere(gateway: Gateway, secret: str) -> None:
    """In no file that the gateway wrote."""
    written = [path for path in gateway.folder.rglob("*") if path.is_file() and path.name != "aibridge.toml"]
    assert [path.name for path in written if secret.encode() in path.read_bytes()] == []
