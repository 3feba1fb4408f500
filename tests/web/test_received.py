"""The request as it was sent: targets below a provider's prefix."""

import gzip
import socket
import zlib
from typing import Any

import pytest
from flask import Flask, Request
from flask import request as current
from werkzeug.test import EnvironBuilder, run_wsgi_app

from aibridge.errors import InvalidRequest
from aibridge.web.received import bound_uploads, climbs, inflated, read, received_headers, target_below


def request(path: str, raw: str | None, query: str = "") -> Request:
    environ: dict[str, Any] = EnvironBuilder(path=path, query_string=query).get_environ()
    environ.pop("RAW_URI", None)
    if raw is not None:
        environ["RAW_URI"] = raw
    return Request(environ)


TARGETS = [
    ("/openai/v1/models/a/b", "/openai/v1/models/a%2Fb?x=%7e", "x=%7e", "/models/a%2Fb?x=%7e"),
    ("/openai/v1/models", "/openai/v1/models", "", "/models"),
    ("/openai/v1/models", None, "", "/models"),
    ("/openai/v1/models/\u00e9 x", None, "", "/models/%C3%A9%20x"),
    # spelled so that the prefix is found in the query only
    (
        "/openai/v1/models",
        "/%6fpenai/v1/models?x=/openai/v1/../files",
        "x=/openai/v1/../files",
        "/models?x=/openai/v1/../files",
    ),
    ("/openai/v1/models", "http://host/openai/v1/models", "", "/models"),
]


@pytest.mark.parametrize(("path", "raw", "query", "target"), TARGETS)
def test_the_target_is_what_stands_behind_the_prefix(path: str, raw: str | None, query: str, target: str) -> None:
    assert target_below(request(path, raw, query), "/openai/v1") == target


@pytest.mark.parametrize(
    "path", ["/models/../files", "/models/%2e%2E/files", "/models/./x", "/models/..\\\\files", "/.."]
)
def test_dot_segments_climb_however_they_are_spelled(path: str) -> None:
    assert climbs(path)


@pytest.mark.parametrize("path", ["/models/a..b", "/.well-known/x", "/models/...", "/"])
def test_other_dots_do_not(path: str) -> None:
    assert not climbs(path)


def test_without_the_lines_the_folded_headers_count() -> None:
    environ = EnvironBuilder(headers=[("X-One", "1")], content_type="text/plain", data=b"x").get_environ()
    received = dict(received_headers(environ))
    assert (received["x-one"], received["content-type"], received["content-length"]) == ("1", "text/plain", "1")


def test_compressed_bodies_are_read_where_they_can_be() -> None:
    body = b'{"model":"m"}'
    assert inflated(gzip.compress(body), "gzip", 100) == body
    assert inflated(zlib.compress(body), "deflate", 100) == body
    assert inflated(gzip.compress(b"x" * 101), "gzip", 100) is None
    assert inflated(body, "gzip", 100) is None
    assert inflated(body, "zstd", 100) is None


def test_an_upload_that_stops_coming_breaks_off_and_answers_are_not_bounded() -> None:
    app = Flask("uploads")

    @app.post("/")
    def view() -> str:
        try:
            return read(current.stream, 10).decode()
        except InvalidRequest as error:
            return error.message

    bound_uploads(app, patience=0.02)
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as body:
        theirs.sendall(b"half of")
        environ: dict[str, Any] = EnvironBuilder(path="/", method="POST").get_environ()
        environ |= {"gunicorn.socket": ours, "wsgi.input": body, "CONTENT_LENGTH": "10"}
        answer, status, _ = run_wsgi_app(app.wsgi_app, environ)
        assert (status, b"".join(answer)) == ("200 OK", b"the request body cannot be read")
        assert ours.gettimeout() is None
