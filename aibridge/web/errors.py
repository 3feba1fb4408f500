"""The gateway's own errors as HTTP answers, in the shape of the API that the route belongs to."""

import math

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WerkzeugMethodNotAllowed

from aibridge.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
)
from aibridge.interception.gateway import Gateway
from aibridge.protocols.interceptor import WireProtocol
from aibridge.protocols.messages import MESSAGES
from aibridge.settings import MIB

INTERCEPTION_ID = "x-aibridge-interception-id"

# Waiting does not help with these, so SDKs must not retry them.
_FINAL = {"invalid_request", "forbidden", "request_too_large", "not_found", "method_not_allowed"}

# The protocol whose error shape a provider type speaks where no single route decides it.
_SHAPES: dict[str, WireProtocol] = {"anthropic": MESSAGES, "sandbox": MESSAGES}


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
        return _SHAPES[provider.type] if provider else MESSAGES

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        return error_response(shape(), _translated(error))

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        app.logger.exception("a bug of the gateway", exc_info=error)
        return error_response(shape(), InternalError("the gateway failed"))


def _translated(error: HTTPException) -> GatewayError:
    if isinstance(error, WerkzeugMethodNotAllowed):
        allowed = tuple(sorted(set(error.valid_methods or ()) - {"OPTIONS"}))
        return MethodNotAllowed(f"{request.method} is not allowed here", allowed=allowed)
    if error.code == 404:
        return NotFound(f"no such route: {request.method} {request.path[:256]}")
    if error.code is not None and error.code < 500:
        return InvalidRequest(error.description or "the request cannot be read")
    return InternalError("the gateway failed")
