"""The three APIs as the bench uses them: where they are, and a coding agent's request in each."""

import json
from collections.abc import Callable
from typing import Any, Literal

Api = Literal["messages", "chat", "responses"]

PATHS: dict[Api, str] = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
}
MODELS: dict[Api, str] = {"messages": "claude-sonnet-4-5", "chat": "gpt-5", "responses": "gpt-5"}

WORDS = (
    "The quick coding agent reads the repository, edits files and runs the test-suite. "
    'Be concise; do not add comments that were not asked for. "quoted" éü '
)
SYSTEM = "@@"  # replaced by as much text as makes the wanted size
TASK = f"Fix the failing test in src/app.py please. {WORDS}"
THOUGHT = "I will look at the file."
EDIT = {"path": "/src/app.py", "content": "x = 1\n" * 20}
FILE = "def f():\n    return 1\n" * 20
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["path", "content"],
    "properties": {
        "path": {"type": "string", "description": "Absolute path of the file, must be inside the workspace"},
        "content": {"type": "string", "description": "The complete new content of the file"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 2000, "description": "Maximum number of lines"},
        "mode": {"type": "string", "enum": ["read", "write", "append"]},
    },
}
TOOLS = 12
TURNS = 4

Json = dict[str, Any]


def agent_request(api: Api, *, size: int, stream: bool, model: str = "") -> bytes:
    """A body of about `size` bytes: system prompt, tools with schemas, turns with tool calls. Small sizes have
    fewer tools and turns."""
    tools, turns = (TOOLS, TURNS) if size >= 12_000 else (1, 0)
    payload = _PAYLOADS[api](tools, turns)
    payload |= {"model": model or MODELS[api], "stream": stream}
    if api == "chat" and stream:
        payload["stream_options"] = {"include_usage": True}
    text = json.dumps(payload)
    missing = max(1, size - len(text))
    return text.replace(SYSTEM, json.dumps((WORDS * (missing // len(WORDS) + 1))[:missing])[1:-1]).encode()


def _messages(tools: int, turns: int) -> Json:
    history: list[Json] = [{"role": "user", "content": TASK}]
    for turn in range(turns):
        call = {"type": "tool_use", "id": f"toolu_{turn:02}", "name": "tool_1", "input": EDIT}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{turn:02}", "content": FILE}
        history += [
            {"role": "assistant", "content": [{"type": "text", "text": THOUGHT}, call]},
            {"role": "user", "content": [result]},
        ]
    return {
        "max_tokens": 4096,
        "system": [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
        "tools": [
            {"name": f"tool_{number}", "description": WORDS * 2, "input_schema": SCHEMA} for number in range(tools)
        ],
        "messages": history,
    }


def _chat(tools: int, turns: int) -> Json:
    history: list[Json] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": TASK}]
    for turn in range(turns):
        function = {"name": "tool_1", "arguments": json.dumps(EDIT)}
        call = {"id": f"call_{turn:02}", "type": "function", "function": function}
        history += [
            {"role": "assistant", "content": THOUGHT, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{turn:02}", "content": FILE},
        ]
    functions = [
        {"name": f"tool_{number}", "description": WORDS * 2, "parameters": SCHEMA} for number in range(tools)
    ]
    return {
        "max_completion_tokens": 4096,
        "tools": [{"type": "function", "function": function} for function in functions],
        "messages": history,
    }


def _responses(tools: int, turns: int) -> Json:
    history: list[Json] = [{"role": "user", "content": TASK}]
    for turn in range(turns):
        call = {"call_id": f"call_{turn:02}", "name": "tool_1", "arguments": json.dumps(EDIT)}
        history += [
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": f"call_{turn:02}", "output": FILE},
        ]
    return {
        "max_output_tokens": 4096,
        "instructions": SYSTEM,
        "tools": [
            {"type": "function", "name": f"tool_{number}", "description": WORDS * 2, "parameters": SCHEMA}
            for number in range(tools)
        ],
        "input": history,
    }


_PAYLOADS: dict[Api, Callable[[int, int], Json]] = {"messages": _messages, "chat": _chat, "responses": _responses}
