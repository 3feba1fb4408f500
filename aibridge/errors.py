"""Every way in which the gateway itself refuses or fails a request.

    GatewayError                  status, kind, category; shown to the client in its protocol's shape
    |-- InvalidRequest            400  the body is not a JSON object
    |-- Unauthorized              401  nobody we know, or no credential for the provider
    |-- Forbidden                 403  known, but not allowed
    |-- NotFound                  404  no such route
    |-- MethodNotAllowed          405  the route exists, the method does not
    |-- UpgradeRequired           426  a websocket was asked for; there is only HTTP
    |-- RequestTooLarge           413  the body is over server.body_limit
    |-- RateLimited               429  too many requests of this actor, at once or in their time
    |-- KeysRateLimited           429  the provider limits every key that it has from us
    |-- KeysUnauthorized          502  the provider accepts none of them
    |-- Unavailable               503  not now: all places are taken, or the interception cannot be recorded
    |-- CircuitOpen               503  the provider has failed too often to be asked right now
    |-- NotSupported              501  what is asked for does not go together with injected tools
    |-- RoundRefused              502  the provider refused a later round when the answer had begun
    |-- ToolLoopLimit             502  the rounds are used up and there is nothing to show
    |-- UpstreamError             502  the provider could not be reached, or made no sense
    |   |-- Unreachable           502  the request has certainly had no effect there
    |   `-- UpstreamTimeout       504  the provider was silent for too long
    `-- InternalError             500  a bug of ours; the message tells nothing of it
    RecordingError                the store did not take a record
    `-- RecordRefused             and never will: it is the record that is wrong, not the store
    ClientGone                    the client hung up; there is nobody left to answer

`kind` chooses the row of the table in `protocols/envelopes.py`; `category` is what is stored in
`aibridge_interceptions.error_type`. The message is meant for the client: it never holds a secret.
"""

from typing import ClassVar


class GatewayError(Exception):
    """A refusal or failure with an HTTP status. `retry_after` is in seconds, None: do not say."""

    status: ClassVar[int]
    kind: ClassVar[str]
    category: ClassVar[str]

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidRequest(GatewayError):
    status, kind, category = 400, "invalid_request", "bad_request"


class Unauthorized(GatewayError):
    status, kind, category = 401, "unauthorized", "unauthorized"


class Forbidden(GatewayError):
    status, kind, category = 403, "forbidden", "unauthorized"


class NotFound(GatewayError):
    status, kind, category = 404, "not_found", "bad_request"


class MethodNotAllowed(GatewayError):
    status, kind, category = 405, "method_not_allowed", "bad_request"

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class UpgradeRequired(GatewayError):
    status, kind, category = 426, "upgrade_required", "bad_request"


class RequestTooLarge(GatewayError):
    status, kind, category = 413, "request_too_large", "bad_request"


class RateLimited(GatewayError):
    status, kind, category = 429, "rate_limited", "rate_limited"


class Unavailable(GatewayError):
    status, kind, category = 503, "unavailable", "server_error"


class KeysRateLimited(GatewayError):
    """`tried`: the provider was asked just now; `final`: and said that asking again does not help."""

    status, kind, category = 429, "keys_rate_limited", "rate_limited"

    def __init__(self, message: str, *, retry_after: float | None, tried: bool, final: bool) -> None:
        super().__init__(message, retry_after=retry_after)
        self.tried = tried
        self.final = final


class KeysUnauthorized(GatewayError):
    status, kind, category = 502, "keys_unauthorized", "unauthorized"


class CircuitOpen(GatewayError):
    status, kind, category = 503, "circuit_open", "server_error"


class NotSupported(GatewayError):
    status, kind, category = 501, "not_supported", "bad_request"


class RoundRefused(GatewayError):
    status, kind, category = 502, "upstream_error", "server_error"


class ToolLoopLimit(GatewayError):
    status, kind, category = 502, "tool_loop_limit", "server_error"


class UpstreamError(GatewayError):
    status, kind, category = 502, "upstream_error", "server_error"


class Unreachable(UpstreamError):
    """Asking again cannot be paid twice."""


class UpstreamTimeout(UpstreamError):
    status, kind, category = 504, "upstream_timeout", "timeout"


class InternalError(GatewayError):
    status, kind, category = 500, "internal_error", "server_error"


class RecordingError(Exception):
    """The store is unreachable, full or refused the rows; nothing of the batch was kept."""


class RecordRefused(RecordingError):
    """The store is there but does not take these rows; trying again would not help."""


class ClientGone(Exception):
    """The client closed its connection before it had the whole answer."""
