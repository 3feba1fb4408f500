"""The load driver: a closed loop over keep-alive connections that costs little itself.

A raw asyncio protocol on uvloop, with llhttp for the framing. It measures how long an answer takes, how long its
first byte takes, and for streams how long every single event was on its way (bench/answers.py).
"""

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

SENT = re.compile(rb"T(\d{19})")
LONGEST_EVENT = 400  # bytes that may stand before the time in an event that comes in two pieces
FAILURES = 200  # after which a load is given up


@dataclass(frozen=True)
class Load:
    """`connections` send `request` again and again for `seconds`; what has begun by then is finished. They are all
    connected first, or opened `spacing` seconds apart, with one request each."""

    port: int
    request: bytes
    connections: int
    seconds: float
    events: int = 0  # in a whole stream; 0: blocking
    spacing: float = 0.0
    patience: float = 30.0  # seconds that what has begun may take


@dataclass
class Outcome:
    """Times are in nanoseconds."""

    answered: int = 0
    failed: int = 0
    cut: int = 0  # streams that had not all events
    events: int = 0
    seconds: float = 0.0
    first_byte: list[int] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)  # of events
    problem: str = ""  # the last one

    def fail(self, problem: str) -> None:
        self.failed += 1
        self.problem = problem


def post(port: int, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """A request on the wire."""
    lines = {
        "Host": f"127.0.0.1:{port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "User-Agent": "bench",
        "Accept": "*/*",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def drive(load: Load) -> Outcome:
    outcome: Outcome = uvloop.run(driven(load))
    return outcome


async def driven(load: Load) -> Outcome:
    return await _Driver(load).run()


class _Driver:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.outcome = Outcome()
        self._open = 0
        self._over = asyncio.get_running_loop().create_future()
        self._deadline = 0.0

    async def run(self) -> Outcome:
        load, began = self.load, time.monotonic()
        self._deadline = began + load.seconds + load.spacing * load.connections
        if load.spacing:
            await self._open_one_by_one()
        else:
            clients = await asyncio.gather(*(self._connected() for _ in range(load.connections)))
            began = time.monotonic()
            self._deadline = began + load.seconds
            for client in clients:
                client.ask()
        limit = self._deadline - time.monotonic() + load.patience
        try:
            await asyncio.wait_for(self._over, limit)
        except TimeoutError:
            for _ in range(self._open):
                self.outcome.fail("no end in time")
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _open_one_by_one(self) -> None:
        for _ in range(self.load.connections):
            (await self._connected()).ask()
            await asyncio.sleep(self.load.spacing)

    async def _connected(self) -> "_Client":
        self._open += 1
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _Client(self), "127.0.0.1", self.load.port)
        return client

    def wants_more(self) -> bool:
        return time.monotonic() < self._deadline and self.outcome.failed < FAILURES and not self.load.spacing

    def closed(self) -> None:
        """A connection ended; another takes its place while there is something to ask."""
        self._open -= 1
        if self.wants_more():
            self._replacement = asyncio.ensure_future(self._replace())
        elif not self._open and not self._over.done():
            self._over.set_result(None)

    async def _replace(self) -> None:
        try:
            (await self._connected()).ask()
        except OSError as error:
            self.outcome.fail(str(error))
            self.closed()


class _Client(asyncio.Protocol):
    """One connection; the names of the methods from `on_headers_complete` on are httptools'."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._outcome = driver.outcome
        self._streams = driver.load.events > 0
        self._waiting = False
        self._complete = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._asked = time.monotonic_ns()
        self._first = 0
        self._rest = b""
        self._events = 0
        self._status = 0
        self._keep = False
        self._waiting, self._complete = True, False
        self._transport.write(self._driver.load.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._outcome.fail(repr(error))
            self._waiting = False
            self._transport.close()
            return
        if self._complete:
            self._complete = False
            if self._keep and self._driver.wants_more():
                self.ask()
            else:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._outcome.fail(f"the connection was lost: {exc}")
        self._driver.closed()

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self._first:
            self._first = time.monotonic_ns()
        if self._streams:
            self._find_events(body)

    def _find_events(self, body: bytes) -> None:
        now = time.monotonic_ns()
        data, end = self._rest + body, 0
        for found in SENT.finditer(data):
            self._outcome.delays.append(now - int(found[1]))
            self._events += 1
            end = found.end()
        self._rest = data[end:][-LONGEST_EVENT:]

    def on_message_complete(self) -> None:
        outcome, load = self._outcome, self._driver.load
        self._keep = self._parser.should_keep_alive()  # llhttp forgets this once the callback returns
        self._waiting, self._complete = False, True
        if self._status != 200:
            outcome.fail(f"status {self._status}")
            return
        now = time.monotonic_ns()
        outcome.answered += 1
        outcome.events += self._events
        outcome.first_byte.append((self._first or now) - self._asked)
        outcome.whole.append(now - self._asked)
        outcome.cut += self._streams and self._events != load.events
