"""Running one interception: the provider's answer goes through the interceptor to whoever reads."""

from collections.abc import Generator
from contextlib import closing

from aibridge.protocols.interceptor import Interceptor
from aibridge.upstream.call import IDLE, UpstreamResponse


def intercept(response: UpstreamResponse, interceptor: Interceptor) -> Generator[bytes]:
    """What the client gets, as it comes, and IDLE in silent moments. Raises what reading the body raises."""
    with closing(response.body):
        for chunk in response.body:
            yield interceptor.feed(chunk) if chunk else IDLE
        yield interceptor.finish()
