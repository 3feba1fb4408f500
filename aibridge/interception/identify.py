"""Which client asked and in which of its sessions: tables over headers and payload."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aibridge.interception.model import Client
from aibridge.protocols.reading import mapping, parsed_object, text

Received = Mapping[str, str]

LONGEST_SESSION_ID = 256
LONGEST_MARKER = 256

# Headers by which agents tell a subagent's requests from its parent's.
SUBAGENT_MARKERS = (
    "x-claude-code-agent-id",
    "x-codex-parent-thread-id",
    "x-openai-subagent",
    "x-parent-session-id",
)


@dataclass(frozen=True, slots=True)
class _Signature:
    """How a client is known: start of its User-Agent, or its `originator`, or a header only it sends."""

    name: str
    agents: tuple[str, ...] = ()
    originator: str = ""
    header: str = ""
    session_headers: tuple[str, ...] = ()

    def matches(self, received: Received) -> bool:
        agent = received.get("user-agent", "").lower()
        return (
            (bool(self.agents) and agent.startswith(self.agents))
            or (bool(self.originator) and received.get("originator") == self.originator)
            or (bool(self.header) and bool(received.get(self.header)))
        )


_CLAUDE_CODE = "Claude Code"

# First match wins.
_SIGNATURES = (
    _Signature("Xum", ("xum/", "mux/"), session_headers=("x-mux-workspace-id",)),
    _Signature(_CLAUDE_CODE, ("claude",), session_headers=("x-claude-code-session-id",)),
    _Signature("Codex", ("codex",), session_headers=("session-id", "session_id")),
    _Signature("Zed", ("zed/",)),
    _Signature("GitHub Copilot (VS Code)", ("githubcopilotchat/",), session_headers=("x-interaction-id",)),
    _Signature("GitHub Copilot (CLI)", ("copilot/",), session_headers=("x-client-session-id",)),
    _Signature("Kilo Code", ("kilo-code/",), "kilo-code", session_headers=("x-kilocode-taskid",)),
    _Signature("Roo Code", ("roo-code/",), "roo-code"),
    _Signature("Coder Agents", ("coder-agents/",), session_headers=("x-coder-chat-id",)),
    _Signature("Charm Crush", ("charm crush/", "charm-crush/")),
    _Signature("Cursor", header="x-cursor-client-version"),
    _Signature(
        "OpenCode",
        ("opencode/",),
        session_headers=("x-opencode-session", "x-session-affinity", "x-session-id"),
    ),
    _Signature("Junie", ("junie:",)),
)
_UNKNOWN = _Signature("Unknown")


def identify_client(received: Received, payload: Mapping[str, Any]) -> Client:
    """The client and its session, from headers (names in lower case) and the request's JSON."""
    signature = next((known for known in _SIGNATURES if known.matches(received)), _UNKNOWN)
    session = _first(received, signature.session_headers)
    if not session and signature.name == _CLAUDE_CODE:
        session = _claude_code_session(payload)
    markers = {name: received[name][:LONGEST_MARKER] for name in SUBAGENT_MARKERS if received.get(name)}
    return Client(signature.name, session[:LONGEST_SESSION_ID] or None, markers)


def _first(received: Received, names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := received.get(name, "").strip())), "")


def _claude_code_session(payload: Mapping[str, Any]) -> str:
    """Older versions put it into `metadata.user_id`: as JSON, or behind `_session_`."""
    user_id = text(mapping(payload.get("metadata")).get("user_id"))
    structured = parsed_object(user_id.encode()) if user_id.startswith("{") else None
    if structured is not None and "session_id" in structured:
        return text(structured["session_id"]).strip()
    return user_id.partition("_session_")[2].strip()
