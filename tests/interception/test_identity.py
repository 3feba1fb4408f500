"""Clients, sessions, credentials and headers: the tables, row by row."""

import json

import pytest

from aibridge.errors import Forbidden, Unauthorized
from aibridge.interception.credentials import CredentialRules, resolve
from aibridge.interception.headers import end_to_end, returned_headers, upstream_headers
from aibridge.interception.identify import identify_client
from aibridge.interception.model import ANONYMOUS, Actor, Credential, mask

CLIENTS = [
    ("XUM/1.0", "Xum", "x-mux-workspace-id"),
    ("mux/1.0", "Xum", "x-mux-workspace-id"),
    ("claude-cli/2.1 (external, cli)", "Claude Code", "x-claude-code-session-id"),
    ("codex_cli_rs/0.169", "Codex", "session-id"),
    ("codex_cli_rs/0.100", "Codex", "session_id"),
    ("Zed/1", "Zed", None),
    ("GitHubCopilotChat/0.1", "GitHub Copilot (VS Code)", "x-interaction-id"),
    ("copilot/1.0", "GitHub Copilot (CLI)", "x-client-session-id"),
    ("kilo-code/4", "Kilo Code", "x-kilocode-taskid"),
    ("roo-code/3", "Roo Code", None),
    ("coder-agents/1", "Coder Agents", "x-coder-chat-id"),
    ("Charm Crush/1", "Charm Crush", None),
    ("charm-crush/1", "Charm Crush", None),
    ("opencode/1.18", "OpenCode", "x-opencode-session"),
    ("opencode/1.18", "OpenCode", "x-session-affinity"),
    ("opencode/1.18", "OpenCode", "x-session-id"),
    ("junie:1", "Junie", None),
    ("ccclaude-cli/1", "Unknown", None),
    ("curl/8", "Unknown", None),
]


@pytest.mark.parametrize(("agent", "name", "header"), CLIENTS)
def test_clients_and_their_session_headers(agent: str, name: str, header: str | None) -> None:
    session = {header: f" s-{header} "} if header else {}
    client = identify_client({"user-agent": agent, **session}, {})
    assert (client.name, client.session_id) == (name, f"s-{header}" if header else None)


def test_clients_known_by_other_headers() -> None:
    assert identify_client({"originator": "kilo-code"}, {}).name == "Kilo Code"
    assert identify_client({"originator": "roo-code"}, {}).name == "Roo Code"
    assert identify_client({"originator": "Roo-Code"}, {}).name == "Unknown"
    assert identify_client({"x-cursor-client-version": "1"}, {}).name == "Cursor"
    assert identify_client({"x-cursor-client-version": ""}, {}).name == "Unknown"


USER_IDS = [
    (json.dumps({"device_id": "d", "session_id": "abc"}), "abc"),
    (json.dumps({"session_id": "  "}), None),
    (json.dumps({"session_id": 5}), None),
    ("user_1_account_2_session_9f-8", "9f-8"),
    ("user_1", None),
    ("{broken_session_x", "x"),
    (7, None),
]


@pytest.mark.parametrize(("user_id", "session"), USER_IDS)
def test_claude_codes_session_is_found_in_the_body(user_id: object, session: str | None) -> None:
    client = identify_client({"user-agent": "claude-cli/1"}, {"metadata": {"user_id": user_id}})
    assert client.session_id == session


def test_claude_codes_header_goes_before_the_body_and_other_clients_have_no_body_session() -> None:
    body = {"metadata": {"user_id": "x_session_body"}}
    header = {"user-agent": "claude-cli/1", "x-claude-code-session-id": "header"}
    assert identify_client(header, body).session_id == "header"
    assert identify_client({"user-agent": "curl"}, body).session_id is None


def test_subagents_are_marked_and_everything_from_clients_is_bounded() -> None:
    client = identify_client({"user-agent": "claude", "x-claude-code-agent-id": "a" * 999}, {})
    assert client.markers == {"x-claude-code-agent-id": "a" * 256}
    long = identify_client({"user-agent": "claude", "x-claude-code-session-id": "s" * 999}, {})
    assert long.session_id == "s" * 256


MASKS = [
    ("", ""),
    ("x", "..."),
    ("abcd", "..."),
    ("short", "s...t"),
    ("test-key", "t...y"),
    ("user-api-key", "us...ey"),
    ("sk-ant-api03-abcdefgh", "sk-a...efgh"),
    ("hélloworld🌍!", "hé...🌍!"),
]


@pytest.mark.parametrize(("secret", "masked"), MASKS)
def test_masks_count_characters(secret: str, masked: str) -> None:
    assert mask(secret) == masked


RULES = CredentialRules(("x-api-key", "authorization"), "x-api-key", ("central-key-of-the-company",))

CREDENTIALS = [
    ((("x-api-key", " mine-own-key "),), "byok", ("x-api-key", "mine-own-key")),
    ((("authorization", "bearer mine-own-key"),), "byok", ("authorization", "Bearer mine-own-key")),
    ((("authorization", "Bearer aaaaa"), ("x-api-key", "zzzzz")), "byok", ("x-api-key", "zzzzz")),
    ((("authorization", "Basic eA=="),), "centralized", ("x-api-key", "central-key-of-the-company")),
    ((("authorization", "Bearer a b"), ("x-api-key", "")), "centralized", ("x-api-key", RULES.keys[0])),
    ((), "centralized", ("x-api-key", "central-key-of-the-company")),
]


@pytest.mark.parametrize(("received", "kind", "header"), CREDENTIALS)
def test_whose_key_pays(received: tuple[tuple[str, str], ...], kind: str, header: tuple[str, str]) -> None:
    credential = resolve(received, RULES, allow_byok=True)
    assert (credential.kind, credential.header) == (kind, header)
    assert credential.hint == mask(header[1].removeprefix("Bearer "))
    assert header[1] not in repr(credential)
    assert "central-key" not in repr(RULES)


def test_of_several_keys_none_is_named_before_it_is_used() -> None:
    rules = CredentialRules(("authorization",), "authorization", ("first-key", "second-key"))
    assert resolve((), rules, allow_byok=True).hint == "<failover key>"
    assert [(key.hint, key.header[1]) for key in rules.pool()] == [
        ("f...y", "Bearer first-key"),
        ("se...ey", "Bearer second-key"),
    ]
    assert "first-key" not in repr(rules.pool())


def test_no_key_and_unwanted_keys_are_refused() -> None:
    with pytest.raises(Unauthorized):
        resolve((), CredentialRules(("x-api-key",), "x-api-key"), allow_byok=True)
    with pytest.raises(Forbidden):
        resolve((("x-api-key", "mine"),), RULES, allow_byok=False)


KEY = Credential("centralized", "", ("x-api-key", "KEY"))

DROPPED = (
    ("host", "gateway"),
    ("connection", "keep-alive, X-Secret-Hop"),
    ("x-secret-hop", "1"),
    ("keep-alive", "5"),
    ("te", "trailers"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "h2c"),
    ("content-length", "5"),
    ("accept-encoding", "br"),
    ("authorization", "Bearer x"),
    ("x-api-key", "x"),
    ("x_api_key", "x"),
    ("x-aibridge-token", "aib_x"),
    ("x-ai-bridge-actor-id", "mallory"),
    ("x-ai-bridge-actor-metadata-username", "mallory"),
    ("x-forwarded-for", "1.1.1.1"),
    ("x_forwarded_for", "1.1.1.1"),
    ("forwarded", "for=1.1.1.1"),
    ("cookie", "a=b"),
    ("proxy-authorization", "x"),
    ("anthropic-workspace-id", "w"),
    ("x-coder-token", "t"),
    ("x-who", "mallory"),
    ("x_who", "mallory"),
)
KEPT = (
    ("anthropic-beta", "a"),
    ("anthropic-beta", "b"),
    ("session_id", "s"),
    ("x-stainless-lang", "js"),
    ("user-agent", "me"),
)


def test_headers_to_the_provider() -> None:
    sent = upstream_headers(
        (*DROPPED, *KEPT),
        KEY,
        defaults=(("user-agent", "sdk"), ("anthropic-version", "2023-06-01")),
        actor=Actor("alice"),
        actor_headers=(("id", "X-Who"),),
    )
    assert sent == (
        *KEPT,
        ("anthropic-version", "2023-06-01"),
        ("accept-encoding", "identity"),
        ("x-api-key", "KEY"),
        ("x-who", "alice"),
    )


@pytest.mark.parametrize("name", ["two words", "line\nbreak", "ümlaut", "x" * 257, ""])
def test_actor_values_that_are_unfit_for_a_header_are_left_out(name: str) -> None:
    sent = upstream_headers((), KEY, actor=Actor(name), actor_headers=(("id", "x-who"), ("mood", "x-mood")))
    assert not any(header in ("x-who", "x-mood") for header, _ in sent)


def test_headers_from_the_provider() -> None:
    received = (
        ("content-type", "application/json"),
        ("request-id", "req_1"),
        ("retry-after", "3"),
        ("anthropic-ratelimit-tokens-remaining", "5"),
        ("openai-processing-ms", "5"),
        ("set-cookie", "a=b"),
        ("server", "nginx"),
        ("transfer-encoding", "chunked"),
    )
    assert returned_headers(received) == received[:5]
    assert end_to_end(received) == (*received[:5], ("server", "nginx"))
    assert ANONYMOUS.id == "anonymous"
