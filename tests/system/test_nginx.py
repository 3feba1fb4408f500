"""gunicorn behind a real nginx with the shipped configuration; two gateways that share PostgreSQL."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text as sql

from aibridge.storage.database import Database
from tests.chaos.rolling import Plan, roll
from tests.fake_provider import Reply
from tests.fake_provider.conversations import message_start, request_bytes, text, text_block, user
from tests.postgresql import fresh_schema
from tests.system.client import Exchange, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import DEFAULT, Gateway, Setup
from tests.system.nginx import Nginx

pytestmark = pytest.mark.system

OPENING = (message_start("msg_nginx", {"input_tokens": 1234, "output_tokens": 1}), *text_block(0, "so far")[:2])
REST = text().events[-2:]
REQUEST = request_bytes(user("hi"), stream=True)

Start = Callable[..., Nginx]


@pytest.fixture
def start_nginx(nginx_program: str, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(*gateways: Gateway) -> Nginx:
            return stack.enter_context(Nginx(nginx_program, tmp_path, [gateway.port for gateway in gateways]))

        yield start


def test_a_stream_goes_through_as_it_comes(gateway: Gateway, start_nginx: Start, actor: str) -> None:
    nginx = start_nginx(gateway)
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.sse((*OPENING, hold, *REST)))

    with nginx.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])
        assert bytes(answer.body) == b"".join(OPENING)
        hold.set()
        answer.read()

    assert answer.ended == "clean"
    assert bytes(answer.body) == b"".join((*OPENING, *REST))
    assert gateway.recorded_for(actor).interception["status"] == "completed"


def test_a_client_that_leaves_is_noticed_through_nginx(gateway: Gateway, start_nginx: Start, actor: str) -> None:
    nginx = start_nginx(gateway)
    gateway.provider.reply(Reply.sse((*OPENING, gateway.provider.hold())))

    with nginx.post(REQUEST, [("X-User-ID", actor)]) as answer:
        answer.read_until(OPENING[-1])

    assert gateway.provider.request().gone.wait(5)
    assert gateway.recorded_for(actor).interception["status"] == "cancelled"


def test_a_stream_that_dies_is_cut_through_nginx(gateway: Gateway, start_nginx: Start) -> None:
    nginx = start_nginx(gateway)
    gateway.provider.reply(Reply.sse(OPENING).but(ending="cut"))

    with nginx.post(REQUEST) as answer:
        answer.read()

    assert answer.ended == "cut"
    assert b"event: error" in answer.body


def test_what_clients_send_and_who_they_are_arrives(gateway: Gateway, start_nginx: Start) -> None:
    nginx = start_nginx(gateway)
    gateway.provider.always(Reply.json({"data": []}))
    headers = [("session_id", "s-1"), ("X-Forwarded-For", "203.0.113.9")]

    with Exchange.open(nginx.url, "GET", "/anthropic/v1/models?limit=2", headers) as answer:
        assert answer.read().status == 200
    with Exchange.open(nginx.url, "GET", "/anthropic/v1/responses", [("Upgrade", "websocket")]) as answer:
        upgrade = answer.read().status

    received = gateway.provider.request()
    assert received.target == "/v1/models?limit=2"
    assert received.header("session_id") == "s-1"
    assert (received.header("x-forwarded-for") or "").startswith("203.0.113.9, 127.0.0.1")
    assert received.header("x-forwarded-host") == f"127.0.0.1:{nginx.port}"
    assert upgrade == 426


def test_the_gateway_refuses_large_bodies_in_its_own_words(gateway: Gateway, start_nginx: Start) -> None:
    """The answer comes while nginx is still sending. If the connection's end overtakes it, which is TCP's to
    decide, nginx says 502; so it is asked more than once."""
    nginx = start_nginx(gateway)

    def refusal() -> str | None:
        with nginx.post(b'{"x": "' + b"x" * 33 * 1024 * 1024 + b'"}') as answer:
            return answer.error()[0] if answer.read().status == 413 else None

    assert eventually(refusal) == "request_too_large"


# --- two gateways ------------------------------------------------------------------------------------------------


@pytest.fixture
def database(postgresql: str) -> Iterator[str]:
    with fresh_schema(postgresql) as url:
        yield url


@pytest.fixture
def pair(gateways: Gateways, database: str) -> tuple[Gateway, Gateway]:
    """Started at the same moment on an empty database: one of them migrates it."""
    setup = Setup(environment=(*DEFAULT.environment, ("DATABASE_URL", database)))
    both = gateways.own(setup), gateways.own(setup)
    for gateway in both:
        gateway.launch()
    for gateway in both:
        gateway.wait_until_ready()
    return both


def statuses(url: str) -> list[str]:
    database = Database(url)
    try:
        with database.reading() as connection:
            return list(connection.scalars(sql("SELECT status FROM aibridge_interceptions")))
    finally:
        database.dispose()


def begun(nginx: Nginx, count: int) -> list[Exchange]:
    streams = [nginx.post(REQUEST) for _ in range(count)]
    for stream in streams:
        stream.read_until(OPENING[-1])
    return streams


def test_rolling_restarts_behind_nginx_cut_nothing(
    pair: tuple[Gateway, Gateway], database: str, start_nginx: Start
) -> None:
    """`make rolling` does it with more of everything."""
    assert roll(Plan(), pair, start_nginx(*pair), database) == []


def test_one_gateway_stops_while_the_other_serves(
    pair: tuple[Gateway, Gateway], database: str, start_nginx: Start
) -> None:
    nginx = start_nginx(*pair)
    first, second = pair
    hold = first.provider.hold()
    for gateway in pair:
        gateway.provider.always(Reply.sse((*OPENING, hold, *REST)))
    streams = begun(nginx, 10)

    first.signal(signal.SIGTERM)
    eventually(lambda: not first.is_ready())
    while_it_drains = begun(nginx, 6)
    hold.set()
    assert [stream.read().ended for stream in (*streams, *while_it_drains)] == ["clean"] * 16
    assert first.wait() == 0
    without_it = begun(nginx, 6)
    assert [stream.read().ended for stream in without_it] == ["clean"] * 6

    assert len(second.provider.received) >= 12
    assert statuses(database) == ["completed"] * 22
