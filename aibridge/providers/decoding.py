"""Undoing a content encoding that a provider used although it was asked for none.

It happens below the SDKs, so that the bodies of error answers, which they read themselves, are plain too.
"""

import zlib
from collections.abc import Iterator
from socket import socket

import httpx2

from aibridge.errors import UpstreamError
from aibridge.upstream.call import IDLE, UpstreamBody

_DECODABLE = {b"gzip", b"x-gzip", b"deflate"}
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
PIECE = 256 * 1024  # bytes of text at a time: a few packed ones may hold very many

RawHeaders = list[tuple[bytes, bytes]]


class ProviderBody(httpx2.SyncByteStream, UpstreamBody):
    """A body that httpx2 takes for one of its own, too."""


class _Inflated(ProviderBody):
    """A body, inflated as it arrives. Raises UpstreamError when it is not what its header says."""

    def __init__(self, body: ProviderBody) -> None:
        self._body = body
        self._more = False  # there may be more text in what has come

    def __iter__(self) -> Iterator[bytes]:
        inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            for chunk in self._body:
                packed, self._more, silent = chunk, bool(chunk), True
                while self._more:
                    if inflate.eof:  # a gzip body may have several members (RFC 1952)
                        inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
                    plain = inflate.decompress(packed, PIECE)
                    packed = inflate.unused_data or inflate.unconsumed_tail
                    self._more = bool(packed) or (len(plain) == PIECE and not inflate.eof)
                    if plain:
                        silent = False
                        yield plain
                if silent:
                    yield IDLE  # and not the next step at once, which may not be a read
        except zlib.error as error:
            raise UpstreamError("the provider's answer is not the gzip it claims to be") from error
        if not inflate.eof:
            raise UpstreamError("the provider's gzip answer ended early")

    def close(self) -> None:
        self._body.close()

    @property
    def source(self) -> socket | None:
        return None if self._more else self._body.source


def decoded(headers: RawHeaders, body: ProviderBody) -> tuple[RawHeaders, ProviderBody]:
    """The answer without gzip or deflate; other encodings are left, with their header."""
    encoding = b",".join(value for name, value in headers if name == b"content-encoding")
    if encoding.strip().lower() not in _DECODABLE:
        return headers, body
    gone = (b"content-encoding", b"content-length")
    return [pair for pair in headers if pair[0] not in gone], _Inflated(body)
