"""What the transport does beyond plain HTTP: TLS, proxies, the limits of its pool."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import httpx2
import pytest
import trustme

from aibridge.app import create_app, gateway_of
from aibridge.providers import transport as transport_module
from aibridge.providers.stock_transport import StockTransport
from aibridge.providers.transport import Transport, http_client
from aibridge.settings import Settings
from tests.fake_provider.server import FakeProvider, Reply
from tests.fakes import MemoryRecorder
from tests.providers.conftest import only_our_own, only_the_stock_one
from tests.system.client import eventually


class Echo(BaseHTTPRequestHandler):
    """Answers with the request line it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.requestline.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Proxy(Echo):
    """CONNECT tunnels; anything else is answered by the proxy itself. Knows one password."""

    def do_CONNECT(self) -> None:
        import socket

        if self.headers.get("proxy-authorization") not in (None, "Basic dTpw"):
            self.send_error(407)
            return
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self._pump, args=(there, self.connection))
            back.start()
            self._pump(self.connection, there)
            back.join()
        self.close_connection = True

    @staticmethod
    def _pump(source: Any, target: Any) -> None:
        import socket

        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def served(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_port(authority: trustme.CA) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield from served(Echo, context)


@pytest.fixture
def proxy_port() -> Iterator[int]:
    yield from served(Proxy)


@pytest.fixture
def tls_proxy_port(authority: trustme.CA) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield from served(Proxy, context)


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class Get(Protocol):
    def __call__(self, url: str, tls: ssl.SSLContext | None = None) -> str: ...


@pytest.fixture
def get(transport: type[Transport | StockTransport]) -> Get:
    """What the answer to a GET request says."""

    def answer(url: str, tls: ssl.SSLContext | None = None) -> str:
        with http_client(transport(0.05, tls)) as client:
            return client.get(url).text

    return answer


def test_tls_is_verified(get: Get, tls_port: int, trusting: ssl.SSLContext) -> None:
    assert get(f"https://127.0.0.1:{tls_port}/x", trusting) == "GET /x HTTP/1.1"
    with pytest.raises(httpx2.ConnectError, match=r"(?i)certificate"):
        get(f"https://127.0.0.1:{tls_port}/x")


def test_the_environments_proxy_gets_absolute_targets(
    get: Get, proxy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert get("http://provider.test/x?y") == "GET http://provider.test/x?y HTTP/1.1"


def test_the_proxys_user_is_told_for_plain_http_too(
    get: Get, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.reply(Reply.json({}))
    monkeypatch.setenv("http_proxy", fake.url.replace("//", "//u:p@"))
    monkeypatch.delenv("no_proxy", raising=False)
    get("http://provider.test/")
    assert fake.request().header("proxy-authorization") == "Basic dTpw"


@only_our_own
def test_a_proxy_that_wants_tls_itself_is_refused_clearly(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "https://proxy.test")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(httpx2.ProxyError, match="https"):
        get("http://provider.test/")


@only_the_stock_one
def test_a_proxy_may_want_tls_itself(
    get: Get, tls_proxy_port: int, tls_port: int, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"https://u:p@127.0.0.1:{tls_proxy_port}")
    monkeypatch.setenv("no_proxy", "")
    assert get("http://provider.test/x", trusting) == "GET http://provider.test/x HTTP/1.1"
    assert get(f"https://127.0.0.1:{tls_port}/x", trusting) == "GET /x HTTP/1.1"


@only_the_stock_one
@pytest.mark.parametrize("scheme", ["gopher", "socks5"])
def test_an_impossible_proxy_is_named(get: Get, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"{scheme}://proxy.test:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(httpx2.ProxyError, match=f"(?i){scheme[:5]}"):
        get("http://provider.test/")


def test_hosts_can_be_kept_from_the_proxy(get: Get, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fake.reply(Reply.json({}))
    assert get(fake.url) == "{}"


@pytest.mark.parametrize("user", ["", "u:p@"])
def test_tls_goes_through_the_proxys_tunnel(
    get: Get, user: str, proxy_port: int, tls_port: int, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://{user}127.0.0.1:{proxy_port}")
    monkeypatch.setenv("no_proxy", "")
    assert get(f"https://127.0.0.1:{tls_port}/x", trusting) == "GET /x HTTP/1.1"


def test_a_refusing_proxy_is_named(
    get: Get, proxy_port: int, tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://u:wrong@127.0.0.1:{proxy_port}")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(httpx2.ConnectError, match="407"):
        get(f"https://127.0.0.1:{tls_port}/x")


def test_a_proxy_that_hangs_up_is_an_error(get: Get, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.reply(Reply.nothing("cut"))
    monkeypatch.setenv("https_proxy", fake.url)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(httpx2.ConnectError, match=r"proxy closed|disconnected"):
        get("https://provider.test/")


def test_connections_that_are_not_needed_any_more_are_closed(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.always(Reply.json({}))
    with http_client(Transport(0.05)) as client:
        streams = [client.send(client.build_request("GET", fake.url), stream=True) for _ in range(3)]
        for stream in streams:
            stream.read()
        transport = client._transport
        assert isinstance(transport, Transport)
        (idle,) = transport._idle.values()
        assert len(idle) == 3
        monkeypatch.setattr(transport_module, "IDLE_SECONDS", 0.0)
        client.get(fake.url)
        assert len(idle) == 1


def test_the_pool_is_bounded_and_drops_old_connections(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.always(Reply.json({}))
    with http_client(Transport(0.05)) as client:
        monkeypatch.setattr(transport_module, "IDLE_SECONDS", 0.0)
        client.get(fake.url)
        client.get(fake.url)
        monkeypatch.setattr(transport_module, "IDLE_CONNECTIONS", 0)
        client.get(fake.url)
        client.get(fake.url)
    assert [request.connection for request in fake.received] == [1, 2, 3, 4]


@only_the_stock_one
@pytest.mark.parametrize(("name", "value", "left"), [("IDLE_SECONDS", 0.0, 1), ("IDLE_CONNECTIONS", 2, 2)])
def test_the_stock_ones_are_bounded_and_not_kept_for_long_either(
    transport: type[StockTransport],
    fake: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: float,
    left: int,
) -> None:
    rest = threading.Event()
    fake.always(Reply.json({}).but(body=(b"{", rest, b"}"), framing="chunked"))
    with http_client(transport(0.05)) as client:
        streams = [client.send(client.build_request("GET", fake.url), stream=True) for _ in range(3)]
        rest.set()  # not before: whole answers give their connections back unread
        used = client._transport
        assert isinstance(used, StockTransport)
        for stream in streams:
            stream.read()
        (idle,) = used._idle.values()
        monkeypatch.setattr(f"aibridge.providers.stock_transport.{name}", value)
        client.get(fake.url)
        eventually(lambda: len(idle) == left)


def test_a_worker_makes_its_tls_context_when_it_starts_not_at_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []

    def create() -> ssl.SSLContext:
        made.append(ssl.create_default_context())
        return made[-1]

    monkeypatch.setattr(httpx2, "create_ssl_context", create)
    settings = Settings.model_validate(
        {
            "providers": [{"name": "anthropic", "type": "anthropic", "keys": ["sk-ant-x"]}],
            "database": {"url": f"sqlite:///{tmp_path}/a.db"},
            "recording": {"spool_dir": str(tmp_path / "spool")},
        }
    )
    gateway = gateway_of(create_app(settings, recorder=MemoryRecorder()))
    assert not made
    gateway.start()
    gateway.start()
    assert len(made) == 1
    gateway.close()
