"""Which program asked, in which session, following which turn (behaviour.md 6.4, 8; go-aibridge-2026.md d)."""

import dataclasses
import json

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import (
    Conversation,
    compact,
    message_end,
    message_start,
    request_bytes,
    text,
    tool,
    tool_block,
    user,
)
from tests.system.gateway import Gateway, Row

pytestmark = pytest.mark.system

CLAUDE = "claude-cli/2.1.197 (external, sdk-cli)"

CLIENTS: list[tuple[dict[str, str], str, str | None]] = [
    ({"User-Agent": "mux/1.0", "X-Mux-Workspace-Id": " ws-1 "}, "Xum", "ws-1"),
    ({"User-Agent": "Xum/2.0"}, "Xum", None),
    ({"User-Agent": CLAUDE, "X-Claude-Code-Session-Id": "cc-1"}, "Claude Code", "cc-1"),
    ({"User-Agent": "CLAUDE-CLI/3"}, "Claude Code", None),
    ({"User-Agent": "codex_cli_rs/0.169.0", "session-id": "cx-1", "session_id": "cx-0"}, "Codex", "cx-1"),
    ({"User-Agent": "codex_cli_rs/0.50.0", "session_id": "cx-0"}, "Codex", "cx-0"),
    ({"User-Agent": "Zed/0.200", "session-id": "not-ours"}, "Zed", None),
    ({"User-Agent": "GitHubCopilotChat/0.30", "x-interaction-id": "vs-1"}, "GitHub Copilot (VS Code)", "vs-1"),
    ({"User-Agent": "copilot/1.0", "X-Client-Session-Id": "gh-1"}, "GitHub Copilot (CLI)", "gh-1"),
    ({"User-Agent": "Kilo-Code/4", "X-KILOCODE-TASKID": "kilo-1"}, "Kilo Code", "kilo-1"),
    ({"User-Agent": "node", "originator": "kilo-code", "X-KILOCODE-TASKID": "kilo-2"}, "Kilo Code", "kilo-2"),
    ({"User-Agent": "roo-code/3"}, "Roo Code", None),
    ({"User-Agent": "node", "originator": "roo-code"}, "Roo Code", None),
    ({"User-Agent": "node", "originator": "Roo-Code"}, "Unknown", None),
    ({"User-Agent": "coder-agents/1", "X-Coder-Chat-Id": "chat-1"}, "Coder Agents", "chat-1"),
    ({"User-Agent": "Charm Crush/0.9"}, "Charm Crush", None),
    ({"User-Agent": "charm-crush/1.0"}, "Charm Crush", None),
    ({"User-Agent": "undici", "x-cursor-client-version": "1.7"}, "Cursor", None),
    ({"User-Agent": "undici", "x-cursor-client-version": ""}, "Unknown", None),
    (
        {"User-Agent": "opencode/1.18", "X-OpenCode-Session": "oc-1", "x-session-affinity": "oc-0"},
        "OpenCode",
        "oc-1",
    ),
    ({"User-Agent": "opencode/1.18", "x-session-affinity": "oc-0"}, "OpenCode", "oc-0"),
    ({"User-Agent": "opencode/1.18", "x-session-id": "oc-2"}, "OpenCode", "oc-2"),
    ({"User-Agent": "junie:1.0"}, "Junie", None),
    ({"User-Agent": "Anthropic/Python 2.10.0"}, "Unknown", None),
    ({"User-Agent": "not-claude-cli/2.1"}, "Unknown", None),
    ({"User-Agent": CLAUDE, "X-Claude-Code-Session-Id": "   "}, "Claude Code", None),
]


def asked(gateway: Gateway, headers: dict[str, str], body: bytes, conversation: Conversation | None = None) -> Row:
    """The interception row of one request."""
    gateway.provider.reply((conversation or text()).reply(stream=False))
    with gateway.post(body, list(headers.items())) as answer:
        assert answer.read().status == 200
    return gateway.recorded(answer.interception_id).interception


@pytest.mark.parametrize(("headers", "client", "session"), CLIENTS)
def test_clients_and_their_sessions(
    gateway: Gateway, headers: dict[str, str], client: str, session: str | None
) -> None:
    row = asked(gateway, headers, request_bytes(user("hi"), stream=False))

    assert (row["client"], row["client_session_id"]) == (client, session)
    assert row["session_id"] == (session or row["id"])
    assert row["user_agent"] == headers["User-Agent"]


USER_IDS: list[tuple[object, str | None]] = [
    (compact({"device_id": "d", "account_uuid": "", "session_id": "json-1"}), "json-1"),
    (compact({"device_id": "d", "session_id": "  "}), None),
    (compact({"device_id": "d", "session_id": 7}), None),
    ("user_abc_account__session_0f5e-11", "0f5e-11"),
    ("user_abc_session_", None),
    ("user_abc", None),
    ("", None),
    ({"session_id": "not a string"}, None),
    (None, None),
    (17, None),
]


@pytest.mark.parametrize(("user_id", "session"), USER_IDS)
def test_claude_codes_session_in_the_body(gateway: Gateway, user_id: object, session: str | None) -> None:
    body = compact({"model": "m", "messages": [], "metadata": {"user_id": user_id}}).encode()

    row = asked(gateway, {"User-Agent": CLAUDE}, body)

    assert row["client_session_id"] == session
    assert bytes(gateway.provider.whole_request().body) == body


def test_the_session_header_wins_over_the_body(gateway: Gateway) -> None:
    body = compact({"model": "m", "metadata": {"user_id": "user_a_session_body"}}).encode()

    row = asked(gateway, {"User-Agent": CLAUDE, "X-Claude-Code-Session-Id": "header"}, body)

    assert row["client_session_id"] == "header"


def test_other_clients_bodies_hold_no_session(gateway: Gateway) -> None:
    body = compact({"model": "m", "metadata": {"user_id": "user_a_session_body"}}).encode()

    assert asked(gateway, {"User-Agent": "zed/1"}, body)["client_session_id"] is None


def test_session_ids_are_bounded(gateway: Gateway) -> None:
    row = asked(
        gateway,
        {"User-Agent": CLAUDE, "X-Claude-Code-Session-Id": "s" * 5000},
        request_bytes(user("hi"), stream=False),
    )

    assert len(row["client_session_id"]) <= 256


@pytest.mark.parametrize(
    "header", ["x-claude-code-agent-id", "x-codex-parent-thread-id", "x-openai-subagent", "x-parent-session-id"]
)
def test_subagents_are_marked(gateway: Gateway, header: str) -> None:
    row = asked(gateway, {"User-Agent": CLAUDE, header: "agent-77"}, request_bytes(user("hi"), stream=False))

    assert "agent-77" in json.dumps(json.loads(row["metadata"]))
    assert gateway.provider.whole_request().header(header) == "agent-77"


# --- threads -----------------------------------------------------------------------------------------------------


def turn_with_results(*call_ids: str) -> bytes:
    results = [{"type": "tool_result", "tool_use_id": call_id, "content": "ok"} for call_id in call_ids]
    return request_bytes(compact([{"role": "user", "content": results}]), stream=False)


def calling(call_id: str) -> Conversation:
    """An answer that calls a tool with this id."""
    original = tool()
    return dataclasses.replace(original, body=original.body.replace(b"toolu_read", call_id.encode()))


def test_a_tool_result_continues_its_thread(gateway: Gateway, actor: str) -> None:
    one, two = f"toolu_1_{actor}", f"toolu_2_{actor}"

    first = asked(gateway, {}, request_bytes(user("hi"), stream=False), calling(one))
    second = asked(gateway, {}, turn_with_results(one), calling(two))
    third = asked(gateway, {}, turn_with_results("toolu_elsewhere", two))

    assert (first["thread_parent_id"], first["correlating_tool_call_id"]) == (None, None)
    assert (second["thread_parent_id"], second["correlating_tool_call_id"]) == (first["id"], one)
    assert (third["thread_parent_id"], third["correlating_tool_call_id"]) == (second["id"], two)
    assert (second["thread_root_id"], third["thread_root_id"]) == (first["id"], first["id"])
    assert {row["session_id"] for row in (first, second, third)} == {first["id"]}


def test_a_streamed_call_begins_a_thread(gateway: Gateway, actor: str) -> None:
    call_id = f"toolu_s_{actor}"
    events = [
        message_start("msg_thread", {"input_tokens": 1, "output_tokens": 1}),
        *tool_block(0, call_id, "Read", "{}"),
        *message_end("tool_use", {"output_tokens": 2}),
    ]
    gateway.provider.reply(Reply.sse(events))
    with gateway.post(request_bytes(user("hi"), stream=True)) as answer:
        answer.read()

    row = asked(gateway, {"User-Agent": CLAUDE, "X-Claude-Code-Session-Id": "mine"}, turn_with_results(call_id))

    assert (row["thread_parent_id"], row["thread_root_id"]) == (answer.interception_id, answer.interception_id)
    assert row["session_id"] == "mine"


def test_an_unknown_result_begins_anew(gateway: Gateway) -> None:
    row = asked(gateway, {}, turn_with_results("toolu_never_seen"))

    assert (row["thread_parent_id"], row["correlating_tool_call_id"]) == (None, "toolu_never_seen")
    assert row["session_id"] == row["id"]
