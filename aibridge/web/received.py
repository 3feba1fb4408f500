"""A request as it was sent: header lines one by one, the body, and the target before anyone decoded it.

WSGI folds repeated headers into one and cannot tell `session_id` from `session-id`. Under our gunicorn
configuration the lines as they came hang on the input stream, where no client can put anything.
"""

import zlib
from collections.abc import Callable, Iterable
from typing import IO, Any
from urllib.parse import quote, unquote

from flask import Flask, Request

from aibridge.errors import InvalidRequest
from aibridge.upstream.call import Headers

RAW_HEADERS = "aibridge_headers"
UPLOAD_PATIENCE = 60.0  # seconds of silence in the middle of a request, which then breaks off


def received_headers(environ: dict[str, Any]) -> Headers:
    """(name in lower case, value) pairs in the order they came."""
    raw: Headers | None = getattr(environ.get("wsgi.input"), RAW_HEADERS, None)
    return tuple(_folded(environ)) if raw is None else raw


def _folded(environ: dict[str, Any]) -> list[tuple[str, str]]:
    named = [(key[5:], value) for key, value in environ.items() if key.startswith("HTTP_")]
    named += [(key, environ[key]) for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key)]
    return [(name.replace("_", "-").lower(), value) for name, value in named]


def read(stream: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes of a request's body. Raises InvalidRequest if it cannot be read."""
    try:
        return stream.read(size)
    except Exception as error:  # of the server's own kinds: broken chunks, a broken connection
        raise InvalidRequest("the request body cannot be read") from error


def bound_uploads(app: Flask, patience: float = UPLOAD_PATIENCE) -> None:
    """Around the whole application: until its answer begins, the client's socket is not waited for without end. Of
    a client that vanished in the middle of its request nothing else would ever tell."""
    serve = app.wsgi_app

    def serving(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        sock = environ.get("gunicorn.socket")
        if sock is None:
            return serve(environ, start_response)

        def started(*head: Any) -> Any:
            sock.settimeout(None)
            return start_response(*head)

        sock.settimeout(patience)
        return serve(environ, started)

    app.wsgi_app = serving  # type: ignore[method-assign]


def inflated(body: bytes, encoding: str, limit: int) -> bytes | None:
    """A compressed body's text; None for an encoding that we do not know, for more than `limit` bytes, and for
    what is not what it says: the provider will know what to make of it."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        text = inflate.decompress(body, limit)
    except zlib.error:
        return None
    return text if inflate.eof else None


def target_below(request: Request, prefix: str) -> str:
    """Path and query after `prefix`, which the routed path begins with. They are spelled as the client did, unless
    it spelled the prefix itself in another way: then its path is spelled anew."""
    query = request.query_string.decode("latin-1")
    raw_path = str(request.environ.get("RAW_URI") or "").partition("?")[0]
    if raw_path.startswith(f"{prefix}/"):
        path = raw_path.removeprefix(prefix)
    else:
        path = quote(request.path.removeprefix(prefix))
    return f"{path}?{query}" if query else path


def climbs(path: str) -> bool:
    """Whether a path has dot segments, with which it could leave the routes that are passed through."""
    return any(segment in (".", "..") for segment in unquote(path).replace("\\", "/").split("/"))
