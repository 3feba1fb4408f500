"""Learning the usage of streams whose clients did not ask for it.

The gateway asks on its own account and hides the answer. A provider that refuses the question is not asked again
by this process.
"""

from collections.abc import Callable
from dataclasses import replace
from threading import Event

import structlog

from aibridge.protocols.interceptor import Intercept, Interceptor, Metering, Payload, WireProtocol
from aibridge.upstream.call import UpstreamRequest, UpstreamResponse, WholeBody

_log = structlog.get_logger("aibridge.metering")

Call = Callable[[UpstreamRequest], UpstreamResponse]

_REFUSALS = (400, 422)
_QUESTION = b"stream_options"


class Meter:
    """Whether one provider is to be asked."""

    def __init__(self, *, wanted: bool = True) -> None:
        self._refused = Event()
        if not wanted:
            self._refused.set()

    def call(
        self, call: Call, request: UpstreamRequest, payload: Payload, protocol: WireProtocol
    ) -> tuple[UpstreamResponse, Intercept]:
        """The provider's answer, and the `intercept` that goes with what it was asked."""
        metering = protocol.metering
        body = None if metering is None or self._refused.is_set() else metering.ask(payload)
        if metering is None or body is None:
            return call(request), protocol.intercept
        response = call(replace(request, body=body))
        if response.status not in _REFUSALS:
            return response, _hiding(metering, protocol)
        reason = b"".join(response.body)
        if _QUESTION not in reason:
            return replace(response, body=WholeBody(reason)), protocol.intercept
        again = call(request)
        if again.status < 400:  # it was the question that it refused, not the client's own request
            self._refused.set()
            _log.warning("a provider is not asked for the usage of streams any more", model=request.model)
        return again, protocol.intercept


def _hiding(metering: Metering, protocol: WireProtocol) -> Intercept:
    def intercept(payload: Payload, interception_id: str, status: int, event_stream: bool) -> Interceptor:
        plain = protocol.intercept(payload, interception_id, status, event_stream)
        return metering.hide(plain) if event_stream else plain

    return intercept
