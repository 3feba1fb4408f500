"""Passed-through routes on the provider's own keys, which they share with the bridged ones.

Another key is tried while the request can be sent once more: if it has no body, or a small one, which is held.
Larger uploads go out as they come in, with the first valid key, and get whatever that answers.
"""

import io
from dataclasses import replace

from aibridge.interception.gateway import Forward, ForwardedRequest, ForwardedResponse
from aibridge.upstream.key_pool import Key, KeyPool

LARGEST_HELD = 1024 * 1024  # bytes of a body that is kept for a second key


def forward_with_keys(pool: KeyPool | None, forward: Forward) -> Forward:
    """Raises what `KeyPool.ask` raises beside what `forward` does."""

    def call(request: ForwardedRequest) -> ForwardedResponse:
        if pool is None or not request.central:
            return forward(request)
        held = _held(request) if len(pool) > 1 else None

        def send(key: Key) -> ForwardedResponse:
            body = request.body if held is None else io.BytesIO(held)
            return forward(replace(request, headers=key.sign(request.headers), body=body))

        return pool.ask(send, once=held is None)

    return call


def _held(request: ForwardedRequest) -> bytes | None:
    """The body, if it is small; what reading it raises is raised."""
    if request.length is None or request.length > LARGEST_HELD:
        return None
    content = bytearray()
    while len(content) < request.length and (piece := request.body.read(request.length - len(content))):
        content += piece
    return bytes(content)
