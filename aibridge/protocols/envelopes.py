"""The gateway's own errors in the words of each API.

Anthropic: https://docs.anthropic.com/en/api/errors; OpenAI: the `error` object of every answer.
"""

import orjson

# kind of GatewayError -> (Anthropic's type, OpenAI's type, OpenAI's code)
_KINDS: dict[str, tuple[str, str, str]] = {
    "invalid_request": ("invalid_request_error", "invalid_request_error", "invalid_json"),
    "unauthorized": ("authentication_error", "authentication_error", "invalid_api_key"),
    "forbidden": ("permission_error", "permission_error", "forbidden"),
    "not_found": ("not_found_error", "invalid_request_error", "not_found"),
    "method_not_allowed": ("invalid_request_error", "invalid_request_error", "method_not_allowed"),
    "request_too_large": ("request_too_large", "invalid_request_error", "request_too_large"),
    "unavailable": ("overloaded_error", "server_error", "service_unavailable"),
    "upstream_error": ("api_error", "api_error", "upstream_error"),
    "upstream_timeout": ("timeout_error", "api_error", "upstream_timeout"),
    "internal_error": ("api_error", "api_error", "internal_error"),
}


def anthropic_error(kind: str, message: str, request_id: str | None) -> bytes:
    error = {"type": _KINDS[kind][0], "message": message}
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def openai_error(kind: str, message: str, request_id: str | None) -> bytes:
    _, type_, code = _KINDS[kind]
    return orjson.dumps({"error": {"message": message, "type": type_, "param": None, "code": code}})
