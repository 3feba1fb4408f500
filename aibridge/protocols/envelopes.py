"""The gateway's own errors in the words of each API.

Anthropic: https://docs.anthropic.com/en/api/errors; OpenAI: the `error` object of every answer.
"""

from typing import Any

import orjson

from aibridge.protocols.sse import encode

# kind of GatewayError -> (Anthropic's type, OpenAI's type, OpenAI's code)
_KINDS: dict[str, tuple[str, str, str]] = {
    "invalid_request": ("invalid_request_error", "invalid_request_error", "invalid_json"),
    "unauthorized": ("authentication_error", "authentication_error", "invalid_api_key"),
    "forbidden": ("permission_error", "permission_error", "forbidden"),
    "not_found": ("not_found_error", "invalid_request_error", "not_found"),
    "method_not_allowed": ("invalid_request_error", "invalid_request_error", "method_not_allowed"),
    "upgrade_required": ("invalid_request_error", "invalid_request_error", "upgrade_required"),
    "request_too_large": ("request_too_large", "invalid_request_error", "request_too_large"),
    "rate_limited": ("rate_limit_error", "rate_limit_error", "rate_limit_exceeded"),
    "keys_rate_limited": ("rate_limit_error", "rate_limit_error", "rate_limit_exceeded"),
    "keys_unauthorized": ("api_error", "api_error", "server_error"),
    "circuit_open": ("overloaded_error", "server_error", "service_unavailable"),
    "unavailable": ("overloaded_error", "server_error", "service_unavailable"),
    "not_supported": ("invalid_request_error", "invalid_request_error", "not_supported"),
    "tool_loop_limit": ("api_error", "api_error", "tool_loop_limit"),
    "upstream_error": ("api_error", "api_error", "upstream_error"),
    "upstream_timeout": ("timeout_error", "api_error", "upstream_timeout"),
    "internal_error": ("api_error", "api_error", "internal_error"),
}


def anthropic_error(kind: str, message: str, request_id: str | None) -> bytes:
    error = {"type": _KINDS[kind][0], "message": message}
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def openai_error(kind: str, message: str, request_id: str | None) -> bytes:
    return orjson.dumps({"error": _openai(kind, message)})


def responses_error_event(kind: str, message: str, request_id: str | None) -> bytes:
    """An `error` event has its fields at the top, but the SDKs raise for those under `error`; it has both."""
    error = _openai(kind, message)
    flat = {"type": "error", "code": error["code"], "message": message, "param": None, "sequence_number": 0}
    return encode("error", orjson.dumps(flat | {"error": error}))


def _openai(kind: str, message: str) -> dict[str, Any]:
    _, type_, code = _KINDS[kind]
    return {"message": message, "type": type_, "param": None, "code": code}
