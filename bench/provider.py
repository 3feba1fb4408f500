"""The fake provider: Messages, Chat Completions and Responses, blocking and streamed, as cheap as Python can.

A process of its own: `python -m bench.provider PORT [TLS_PORT CERTIFICATE]`, the certificate with its key in one
file. Any path that ends like an API's is that API. Two more:

    /control?events=200&pace=0.01   how streams go from now on: so many events, so many seconds apart (0: all at
                                    once); forgets what was seen before
    /seen                           what has been asked since, and when clients left in the middle of a stream
"""

import asyncio
import json
import re
import ssl
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import httptools
import uvloop

from bench.answers import ANSWERS, END, STREAM_HEAD, Answer, whole
from bench.apis import PATHS

STREAM = b'"stream"'  # found fast, even in a megabyte; no text of bench/apis.py has it
WANTED = re.compile(rb"\s*:\s*true")
ENDINGS = {path.removeprefix("/v1").encode(): ANSWERS[api] for api, path in PATHS.items()}
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Seen:
    """What clients did. `left`: monotonic nanoseconds at which one closed in the middle of a stream."""

    requests: int = 0
    streams: int = 0
    open: int = 0  # streams that have not ended now
    left: list[int] = field(default_factory=list)


class Pace:
    """How streams go, and what was seen; one for the whole process."""

    def __init__(self) -> None:
        self.events = 20
        self.seconds = 0.0
        self.seen = Seen()

    def control(self, query: dict[str, str]) -> None:
        self.events = int(query["events"])
        self.seconds = float(query["pace"])
        self.seen = Seen(open=self.seen.open)


class Stream:
    """One streamed answer on its way."""

    def __init__(self, transport: asyncio.Transport, answer: Answer, pace: Pace) -> None:
        self._transport = transport
        self._answer = answer
        self._pace = pace
        self._left = pace.events
        self._seconds = pace.seconds
        self._loop = asyncio.get_running_loop()
        pace.seen.open += 1
        transport.write(STREAM_HEAD + answer.opening)
        self._timer = self._loop.call_later(self._seconds, self._next)

    def _next(self) -> None:
        self._left -= 1
        self._transport.write(self._answer.event(time.monotonic_ns()))
        if self._left:
            self._timer = self._loop.call_later(self._seconds, self._next)
        else:
            self._transport.write(self._answer.closing + END)
            self._pace.seen.open -= 1

    def client_left(self) -> None:
        if self._left:
            self._timer.cancel()
            self._pace.seen.open -= 1
            self._pace.seen.left.append(time.monotonic_ns())


class Connection(asyncio.Protocol):
    """One client; the names of the methods from `on_url` on are httptools'."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._stream: Stream | None = None
        self._url = b""
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.client_left()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        url, body = self._url, b"".join(self._body)
        self._url, self._body = b"", []
        path = url.partition(b"?")[0]
        answer = next((answer for ending, answer in ENDINGS.items() if path.endswith(ending)), None)
        if answer is not None:
            self._answer(answer, body)
        elif path == b"/control":
            self._pace.control(dict(parse_qsl(urlsplit(url.decode()).query)))
            self._transport.write(whole({}))
        elif path == b"/seen":
            self._transport.write(whole(asdict(self._pace.seen)))
        else:
            self._transport.write(NOT_FOUND)

    def _answer(self, answer: Answer, body: bytes) -> None:
        pace = self._pace
        pace.seen.requests += 1
        place = body.find(STREAM)
        if place < 0 or not WANTED.match(body, place + len(STREAM)):
            self._transport.write(answer.blocking)
            return
        pace.seen.streams += 1
        if pace.seconds:
            self._stream = Stream(self._transport, answer, pace)
        else:
            now = time.monotonic_ns
            events = b"".join(answer.event(now()) for _ in range(pace.events))
            self._transport.write(b"".join((STREAM_HEAD, answer.opening, events, answer.closing, END)))


async def serve(port: int, tls_port: int | None = None, certificate: str = "") -> None:
    pace = Pace()
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Connection(pace), "127.0.0.1", port, backlog=4096)]
    if tls_port is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        servers.append(
            await loop.create_server(lambda: Connection(pace), "127.0.0.1", tls_port, ssl=context, backlog=4096)
        )
    await asyncio.gather(*(server.serve_forever() for server in servers))


def control(port: int, *, events: int, pace: float) -> None:
    """Tell the provider at `port` how its streams go from now on."""
    _asked(port, f"/control?events={events}&pace={pace}")


def seen(port: int) -> Seen:
    """What the provider at `port` has seen since the last `control`."""
    return Seen(**json.loads(_asked(port, "/seen")))


def _asked(port: int, target: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{target}", timeout=30) as answer:
        content: bytes = answer.read()
        return content


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case [port]:
            uvloop.run(serve(int(port)))
        case [port, tls_port, certificate]:
            uvloop.run(serve(int(port), int(tls_port), certificate))
        case _:
            sys.exit("usage: python -m bench.provider PORT [TLS_PORT CERTIFICATE]")


if __name__ == "__main__":
    main(sys.argv[1:])
