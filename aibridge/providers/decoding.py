"""Undoing a content encoding that a provider used although it was asked for none."""

import zlib
from collections.abc import Iterator

from aibridge.errors import UpstreamError
from aibridge.upstream.call import IDLE, Headers, UpstreamBody, UpstreamResponse

_DECODABLE = {"gzip", "x-gzip", "deflate"}
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class _Inflated:
    """A body, inflated as it arrives. Raises UpstreamError when it is not what its header says."""

    def __init__(self, body: UpstreamBody) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            for chunk in self._body:
                plain = inflate.decompress(chunk) if chunk else IDLE
                if plain or not chunk:
                    yield plain
        except zlib.error as error:
            raise UpstreamError("the provider's answer is not the gzip it claims to be") from error
        if not inflate.eof:
            raise UpstreamError("the provider's gzip answer ended early")

    def close(self) -> None:
        self._body.close()


def decoded(response: UpstreamResponse) -> UpstreamResponse:
    """The response without gzip or deflate; other encodings are left, with their header."""
    if response.header("content-encoding").strip().lower() not in _DECODABLE:
        return response
    headers: Headers = tuple(pair for pair in response.headers if pair[0] != "content-encoding")
    return UpstreamResponse(response.status, headers, _Inflated(response.body))
