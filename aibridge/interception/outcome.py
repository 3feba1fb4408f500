"""How an interception ended, from what went wrong and what was observed. Pure."""

from dataclasses import dataclass

from aibridge.errors import GatewayError, RoundRefused, Unavailable, UpstreamError
from aibridge.protocols.interceptor import Observation, ProviderError
from aibridge.records import Status

# HTTP status -> what is stored as error_type; other 5xx are server errors, the rest unknown.
_BY_STATUS = {
    400: "bad_request",
    404: "bad_request",
    413: "bad_request",
    422: "bad_request",
    401: "unauthorized",
    403: "unauthorized",
    429: "rate_limited",
    408: "timeout",
}

# The error types and codes that providers name inside a stream, where there mostly is no status.
_BY_TYPE = {
    "invalid_request_error": "bad_request",
    "not_found_error": "bad_request",
    "request_too_large": "bad_request",
    "authentication_error": "unauthorized",
    "permission_error": "unauthorized",
    "rate_limit_error": "rate_limited",
    "timeout_error": "timeout",
    "overloaded_error": "overloaded",
    "api_error": "server_error",
    "server_error": "server_error",
    "rate_limit_exceeded": "rate_limited",
    "insufficient_quota": "rate_limited",
    "usage_limit_reached": "rate_limited",
    "server_is_overloaded": "overloaded",
    "context_length_exceeded": "bad_request",
    "invalid_prompt": "bad_request",
    "invalid_api_key": "unauthorized",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failure` is set where the gateway must tell the client itself that the answer is not whole."""

    status: Status
    error_type: str | None = None
    error_message: str | None = None
    failure: GatewayError | None = None


def judge(
    observation: Observation, failure: GatewayError | None, *, cancelled: bool, sent: bool = False
) -> Verdict:
    """The first of these that holds: we failed, the provider said that it did, the client left before the end, the
    answer is not whole, all is well.

    Once bytes are `sent`, what happens to either connection after the end (or after an error event, which is one)
    counts no more: providers drop theirs without ceremony, clients leave as soon as they have read it, and we may
    be stopped.
    """
    over = observation.finished or observation.error is not None
    if sent and over and isinstance(failure, UpstreamError | Unavailable):
        failure = None
    if observation.error is not None and (failure is None or isinstance(failure, RoundRefused)):
        return Verdict("failed", category(observation.error), observation.error.message, failure)
    if failure is None and cancelled and not over:
        return Verdict("cancelled", "unknown", "the client closed the connection")
    if failure is None and not over:
        failure = UpstreamError("the provider's answer ended before it was complete")
    if failure is not None:
        return Verdict("failed", failure.category, failure.message, failure)
    return Verdict("completed")


def category(error: ProviderError) -> str:
    """What is stored as error_type for an error that the provider reported."""
    if error.overloaded:
        return "overloaded"
    if error.status is None:
        return _BY_TYPE.get(error.type) or _BY_TYPE.get(error.code, "unknown")
    return _BY_STATUS.get(error.status) or ("server_error" if 500 <= error.status < 600 else "unknown")
