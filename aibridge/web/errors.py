"""The gateway's own errors as HTTP answers, in the shape of the API that the route belongs to."""

import math
from typing import Any

from flask import Flask, Response, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed

from aibridge.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    UpgradeRequired,
)
from aibridge.interception.gateway import Gateway
from aibridge.protocols.chat_completions import CHAT_COMPLETIONS
from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.messages import MESSAGES
from aibridge.protocols.responses import RESPONSES
from aibridge.settings import MIB

INTERCEPTION_ID = "x-aibridge-interception-id"
NOBODY_LISTENS = 499  # nginx's status for a client that closed the connection; nobody ever sees it

_WITHOUT_BODY = (204, 304)  # and so without its length

# Waiting does not help with these, so SDKs must not retry them.
_FINAL = {
    "invalid_request",
    "forbidden",
    "request_too_large",
    "not_found",
    "method_not_allowed",
    "upgrade_required",
}

# The protocol whose error shape is understood where no route of a provider has decided it: by the path, else by
# the provider's type.
_BY_PATH = (("/messages", MESSAGES), ("/chat/completions", CHAT_COMPLETIONS), ("/responses", RESPONSES))
_BY_TYPE = {"openai": CHAT_COMPLETIONS, "copilot": CHAT_COMPLETIONS}


def shape_for(path: str, provider_type: str) -> WireProtocol:
    named = (protocol for part, protocol in _BY_PATH if part in path)
    return next(named, _BY_TYPE.get(provider_type, MESSAGES))


class AsSent(Response):
    """A response with the provider's headers only: Flask adds a content type where there is none, and werkzeug
    copies all headers to look for what it may correct."""

    default_mimetype = None

    def get_wsgi_headers(self, environ: dict[str, Any]) -> Headers:
        return super().get_wsgi_headers(environ) if self.status_code in _WITHOUT_BODY else self.headers


def error_response(protocol: WireProtocol, error: GatewayError, interception_id: str | None = None) -> Response:
    body = protocol.error_body(error.kind, error.message, interception_id)
    response = Response(body, error.status, content_type="application/json")
    if error.retry_after is not None:
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.kind in _FINAL:
        response.headers["x-should-retry"] = "false"
    if isinstance(error, MethodNotAllowed):
        response.headers["allow"] = ", ".join(error.allowed)
    if interception_id is not None:
        response.headers[INTERCEPTION_ID] = interception_id
    return response


def too_large(limit: int) -> RequestTooLarge:
    """The refusal of a body over `limit` bytes."""
    shown = f"{limit // MIB} MiB" if limit >= MIB else f"{limit} bytes"
    return RequestTooLarge(f"the request body is larger than {shown}")


def register_error_handlers(app: Flask, gateway: Gateway) -> None:
    """What Flask itself refuses (unknown route, wrong method, a body that breaks off) and our own bugs."""

    def shape() -> WireProtocol:
        provider = gateway.providers.get(request.path.split("/")[1])
        return shape_for(request.path, provider.type if provider else "")

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        return error_response(shape(), _translated(error))

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        app.logger.exception("a bug of the gateway", exc_info=error)
        return error_response(shape(), InternalError("the gateway failed"))


def _translated(error: HTTPException) -> GatewayError:
    # werkzeug routes a websocket handshake to no route of ours. Codex tries one first and turns to HTTP at once
    # only after this status; after a 404 or 405 it tries seven times.
    wants_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
    if wants_websocket and request.path.rstrip("/").endswith("/responses"):
        return UpgradeRequired("this gateway speaks HTTP only")
    if isinstance(error, WerkzeugMethodNotAllowed):
        allowed = tuple(sorted(set(error.valid_methods or ()) - {"OPTIONS"}))
        return MethodNotAllowed(f"{request.method} is not allowed here", allowed=allowed)
    if error.code == 404:
        return NotFound(f"no such route: {request.method} {request.path[:256]}")
    if error.code is not None and error.code < 500:
        return InvalidRequest(error.description or "the request cannot be read")
    return InternalError("the gateway failed")
