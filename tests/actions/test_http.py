"""http actions against a real server: what is sent, what becomes of the answer, and what a call cannot do."""

import gzip
import socket
import ssl
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread, Timer
from urllib.parse import parse_qsl, unquote

import pytest
import trustme

from aibridge.actions.manifest import HttpRun
from aibridge.actions.runners.call import Call
from aibridge.actions.runners.http import HttpRunner
from aibridge.actions.runners.time_limit import TimeLimit
from aibridge.actions.secrets import Secrets
from aibridge.interception.toolbox import CallContext, ToolFailed
from tests.actions.samples import Workshop, declared, only_image
from tests.fake_provider.server import FakeProvider, Headers, Reply

SECRET = "hush-hush-4711"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def answer(body: bytes, kind: str = "text/plain", status: int = 200, more: Headers = ()) -> Reply:
    return Reply(status, (("content-type", kind), *more), (body,))


def http(server: FakeProvider, path: str = "/", more: str = "") -> str:
    return f'kind = "http"\nurl = "{server.url}{path}"\n{more}'


class TestRequest:
    def test_arguments_keep_their_types_in_json(self, workshop: Workshop, server: FakeProvider) -> None:
        server.always(answer(b"done"))
        inputs = declared("n", "integer") + declared("on", "boolean") + declared("tags", "array")
        inputs += declared("more", "object", "required = false")
        more = 'method = "POST"\n[run.json]\nfixed = 1.5\nn = "${args.n}"\ntext = "n=${args.n} on=${args.on}"\n'
        more += 'deep = { on = "${args.on}", tags = "${args.tags}", list = ["a", "${args.more}"] }\n'
        more += 'gone = "${args.more}"'
        workshop.write(http(server, "/x", more), inputs=inputs)
        assert workshop.text(n=2**60, on=False, tags=["ä", 1]) == "done"
        request = server.whole_request()
        assert (request.method, request.header("content-type")) == ("POST", "application/json")
        assert request.json() == {
            "fixed": 1.5,
            "n": 2**60,
            "text": f"n={2**60} on=false",
            "deep": {"on": False, "tags": ["ä", 1], "list": ["a"]},
        }

    def test_query(self, workshop: Workshop, server: FakeProvider) -> None:
        server.always(answer(b"done"))
        inputs = declared("q") + declared("n", "number") + declared("tags", "array")
        inputs += declared("no", more="required = false")
        more = '[run.query]\nq = "${args.q}"\nn = "${args.n}"\nt = "${args.tags}"\nno = "${args.no}"\n'
        more += 'c = "v 1"\ne = "<${args.no}>"'
        workshop.write(http(server, "/?first=${args.q}", more), inputs=inputs)
        hostile = "a&b=c d/é#\r\n"
        workshop.text(q=hostile, n=2.5, tags=["x", True])
        assert parse_qsl(server.request().query) == [
            *(
                ("first", hostile),
                ("q", hostile),
                ("n", "2.5"),
                ("t", "x"),
                ("t", "true"),
                ("c", "v 1"),
                ("e", "<>"),
            )
        ]

    @pytest.mark.parametrize(
        "hostile",
        ["../admin", "a/b", "a?b", "a#b", "%2e%2e", "%2F", "..\\", "...", " ", "é\u2028", "a\r\nX: y", "@b:1"],
    )
    def test_an_argument_stays_one_segment_of_the_path(
        self, workshop: Workshop, server: FakeProvider, hostile: str
    ) -> None:
        server.always(answer(b"done"))
        workshop.write(http(server, "/items/${args.id}/part"), inputs=declared("id"))
        workshop.text(id=hostile)
        before, items, segment, part = server.request().target.split("/")
        assert (before, items, part) == ("", "items", "part")
        assert unquote(segment) == hostile

    @pytest.mark.parametrize(
        ("path", "hostile"),
        [
            ("/items/${args.id}", "."),
            ("/items/${args.id}", ".."),
            ("/items/${args.id}/part?x=y", ".."),
            ("/items/.${args.id}/part", "."),
            ("/items/${args.id}${args.id}", "."),
            ("/items/%2e${args.id}", "."),
        ],
    )
    def test_no_argument_leads_to_another_folder(
        self, workshop: Workshop, server: FakeProvider, path: str, hostile: str
    ) -> None:
        workshop.write(http(server, path), inputs=declared("id"))
        with pytest.raises(ToolFailed, match="in a path"):
            workshop.text(id=hostile)
        assert server.received == []

    def test_body_and_headers(self, workshop: Workshop, server: FakeProvider) -> None:
        server.always(answer(b"done"))
        more = 'method = "PUT"\nbody = "<${args.a}> $${args.a}"\n'
        more += 'headers = { X-A = "${args.a}", X-B = "b ${args.a}", X-No = "${args.no}", Accept = "text/csv" }'
        workshop.write(http(server, "/", more), inputs=declared("a") + declared("no", more="required = false"))
        workshop.text(a=" é ${args.no} ")
        request = server.whole_request()
        assert request.body.decode() == "< é ${args.no} > ${args.a}"
        assert (request.header("x-a") or "").encode("latin-1").decode() == "é ${args.no}"
        assert (request.header("x-b") or "").encode("latin-1").decode() == "b  é ${args.no}"
        assert "x-no" not in request.names()
        assert request.header("accept") == "text/csv"
        assert "content-type" not in request.names()

    @pytest.mark.parametrize("hostile", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "\x00", "a\x7f"])
    def test_no_argument_makes_a_header(self, workshop: Workshop, server: FakeProvider, hostile: str) -> None:
        workshop.write(http(server, "/", 'headers = { X-A = "a ${args.a}" }'), inputs=declared("a"))
        with pytest.raises(ToolFailed, match="X-A"):
            workshop.text(a=hostile)
        assert server.received == []

    def test_arguments_that_are_not_declared_change_nothing(
        self, workshop: Workshop, server: FakeProvider
    ) -> None:
        server.always(answer(b"done"))
        workshop.write(
            http(server, "/", 'method = "POST"\njson = { channel = "fixed", a = "${args.a}" }'),
            inputs=declared("a"),
        )
        workshop.text(a="x", channel="mine", url="http://evil.example", json={}, method="DELETE")
        assert server.whole_request().json() == {"channel": "fixed", "a": "x"}

    def test_half_a_surrogate_pair_is_refused(self, workshop: Workshop, server: FakeProvider) -> None:
        workshop.write(http(server, "/", 'method = "POST"\nbody = "${args.a}"'), inputs=declared("a"))
        with pytest.raises(ToolFailed, match="Unicode"):
            workshop.text(a="\ud800")

    def test_connections_are_kept(self, workshop: Workshop, server: FakeProvider) -> None:
        server.always(answer(b"done", more=(("set-cookie", "who=alice"),)))
        workshop.write(http(server))
        for _ in range(3):
            workshop.text()
        assert len({request.connection for request in server.received}) == 1
        assert all(request.header("cookie") is None for request in server.received)
        workshop.toolbox.close()

    def test_a_netrc_file_is_not_used(
        self, workshop: Workshop, server: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("default login me password hush\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        server.always(answer(b"done"))
        workshop.write(http(server))
        workshop.text()
        assert "authorization" not in server.request().names()


class TestHosts:
    def test_a_host_that_is_not_listed_is_a_problem(self, workshop: Workshop) -> None:
        workshop.write('kind = "http"\nurl = "http://127.0.0.2/"')
        assert workshop.problems() == ["sample.md:8: run.url: the host is not in actions.allowed_hosts"]
        assert workshop.toolbox.tools() == ()

    def test_redirects_are_not_followed(self, workshop: Workshop, server: FakeProvider) -> None:
        for location, host in (("http://me:pw@evil.example/x", "evil.example"), ("/there", server.url[7:])):
            server.reply(answer(b"x" * 100, status=302, more=(("location", location),)))
            workshop.write(http(server))
            assert workshop.error() == f"HTTP status 302: a redirect to {host}, which is not followed"
        server.reply(answer(b"", status=301, more=(("location", "http://[broken"),)))
        assert "invalid URL" in workshop.error()
        assert len(server.received) == 3

    def test_the_environments_proxy_is_used(
        self, tmp_path: Path, server: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "")
        server.always(answer(b"done"))
        workshop = Workshop(tmp_path / "proxied", allowed_hosts=("*.example.test",))
        workshop.write('kind = "http"\nurl = "http://api.example.test/x"')
        assert workshop.text() == "done"
        assert server.request().target == "http://api.example.test/x"
        server.refuse()
        workshop.toolbox.close()
        with pytest.raises(ToolFailed, match=r"the proxy on the way to api\.example\.test failed"):
            workshop.text()

    def test_the_host_is_looked_at_again_when_it_is_called(self) -> None:
        context = CallContext("alice", "i-1", deadline=time.monotonic() + 10)
        call = Call({}, Secrets(), TimeLimit(context, None), 1000)
        with pytest.raises(ToolFailed, match=r"the host 127\.0\.0\.1:1 is not in actions\.allowed_hosts"):
            HttpRunner(["*.example.com"]).run(HttpRun(kind="http", url="http://127.0.0.1:1/"), call)
        with pytest.raises(ToolFailed, match="the request cannot be made: InvalidURL"):
            HttpRunner(["*.example.com"]).run(HttpRun(kind="http", url="http://.example.com/"), call)


class Encrypted:
    """A server behind TLS that answers every connection with the same pieces."""

    def __init__(self, certificate: trustme.LeafCert, pieces: list[bytes | float]) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        self._pieces = pieces
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(OSError), self._context.wrap_socket(connection, server_side=True) as wire:
                    wire.recv(65536)
                    for piece in self._pieces:
                        if isinstance(piece, bytes):
                            wire.sendall(piece)
                        else:
                            time.sleep(piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class TestTls:
    def server(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *pieces: bytes | float) -> Encrypted:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
        return Encrypted(authority.issue_cert("127.0.0.1"), [b"HTTP/1.1 200 OK\r\n\r\n", *pieces])

    def test_an_answer(self, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = self.server(monkeypatch, tmp_path, b"done")
        workshop.write(f'kind = "http"\nurl = "{server.url}"')
        assert workshop.text() == "done"
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(ToolFailed, match="the TLS connection to "):
            workshop.text()
        server.close()

    def test_the_deadline(self, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = self.server(monkeypatch, tmp_path, *(piece for _ in range(100) for piece in (b"x", 0.05)))
        workshop.write(f'kind = "http"\nurl = "{server.url}"')
        with pytest.raises(ToolFailed, match=r"timed out after 0\.\d s"):
            workshop.text(timeout=0.3)
        server.close()

    def test_a_handshake_that_never_ends(
        self, workshop: Workshop, server: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.always(Reply(raw=True, before=Event()))
        workshop.write(f'kind = "http"\nurl = "{server.url.replace("http:", "https:")}"')
        with pytest.raises(ToolFailed, match=r"timed out after 0\.\d s"):
            workshop.text(timeout=0.3)
        monkeypatch.setattr("aibridge.actions.runners.http.CONNECT_TIMEOUT", 0.1)
        with pytest.raises(ToolFailed, match="did not answer in time"):
            workshop.text()


class TestAnswer:
    def call(self, workshop: Workshop, server: FakeProvider, reply: Reply, front: str = "") -> str:
        server.reply(reply)
        workshop.write(http(server), front=front)
        return workshop.text()

    @pytest.mark.parametrize(
        ("body", "kind", "text"),
        [
            ("grün".encode(), "text/plain", "grün"),
            ("grün".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grün"),
            (b"gr\xfcn", "text/plain", "gr\ufffdn"),
            ("grün".encode(), "text/plain; charset=no-such", "grün"),
            (b"abc", "text/plain; charset=base64", "abc"),
            (b"abc", "text/plain; charset=idna", "abc"),
            (b'{"a":1}', "application/problem+json", '{"a":1}'),
            (b"plain", "application/octet-stream", "plain"),
            (b"", "text/plain", "the action returned nothing"),
            (b" \n", "text/plain", "the action returned nothing"),
            (b"%PDF\x00\x01", "application/pdf", "[application/pdf, 6 bytes, not shown]"),
            (b"\xff\xfe\xfd", "application/zip", "[application/zip, 3 bytes, not shown]"),
        ],
    )
    def test_content(self, workshop: Workshop, server: FakeProvider, body: bytes, kind: str, text: str) -> None:
        assert self.call(workshop, server, answer(body, kind)) == text

    def test_an_answer_without_a_type_is_text(self, workshop: Workshop, server: FakeProvider) -> None:
        assert self.call(workshop, server, Reply(body=(b"text",))) == "text"

    def test_gzip_chunks_and_single_bytes(self, workshop: Workshop, server: FakeProvider) -> None:
        text = "hello " * 1000
        assert self.call(workshop, server, answer(text.encode()).gzipped().but(framing="chunked")) == text
        assert self.call(workshop, server, answer(b"hello").in_single_bytes().but(framing="chunked")) == "hello"
        assert self.call(workshop, server, answer(b"hello").but(framing="until-close")) == "hello"

    @pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/gif", "image/webp"])
    def test_images(self, workshop: Workshop, server: FakeProvider, media_type: str) -> None:
        server.reply(answer(PNG, media_type))
        workshop.write(http(server))
        image = only_image(workshop.result())
        assert (image.media_type, image.data) == (media_type, b64encode(PNG).decode())

    def test_an_image_that_is_too_large_is_a_note(self, workshop: Workshop, server: FakeProvider) -> None:
        front = f"max_output_bytes = {len(PNG)}"  # in base64 it is larger
        assert (
            self.call(workshop, server, answer(PNG, "image/png"), front)
            == f"[image/png, {len(PNG)} bytes, not shown]"
        )
        front = "max_output_bytes = 10"
        assert "[image/png, at least" in self.call(workshop, server, answer(PNG, "image/png"), front)

    @pytest.mark.parametrize("limit", [7, 8, 9])
    def test_long_answers_are_cut_between_characters(
        self, workshop: Workshop, server: FakeProvider, limit: int
    ) -> None:
        text = self.call(workshop, server, answer("üöäß€€€€".encode()), f"max_output_bytes = {limit}")
        assert text == f"üöä{'ß' if limit > 7 else ''}\n[cut: the first {limit} of at least 20 bytes]"

    def test_what_fits_is_not_cut(self, workshop: Workshop, server: FakeProvider) -> None:
        assert self.call(workshop, server, answer(b"12345678"), "max_output_bytes = 8") == "12345678"

    def test_an_endless_answer_is_left(self, workshop: Workshop, server: FakeProvider) -> None:
        server.reply(Reply(body=(b"x" * 65536 for _ in range(10**6)), framing="chunked"))
        workshop.write(http(server), front="max_output_bytes = 100000")
        text = workshop.text()
        assert text.startswith("x" * 100000 + "\n[cut: the first 100000 of at least ")
        assert server.request().gone.wait(10)

    def test_a_gzip_bomb_does_not_explode(self, workshop: Workshop, server: FakeProvider) -> None:
        bomb = gzip.compress(bytes(50_000_000))
        server.reply(answer(bomb, more=(("content-encoding", "gzip"),)))
        workshop.write(http(server), front="max_output_bytes = 10")
        assert "[cut: the first 10 of at least " in workshop.text()

    @pytest.mark.parametrize("status", [304, 400, 404, 500])
    def test_other_statuses_are_errors_with_the_body(
        self, workshop: Workshop, server: FakeProvider, status: int
    ) -> None:
        server.reply(
            Reply(status, (("content-type", "text/plain"),), (b"no such thing",) if status != 304 else ())
        )
        workshop.write(http(server), front="max_output_bytes = 7")
        expected = "" if status == 304 else "\nno such\n[cut: the first 7 of at least 13 bytes]"
        assert workshop.error() == f"HTTP status {status}{expected}"

    def test_an_image_with_an_error_status_is_a_note(self, workshop: Workshop, server: FakeProvider) -> None:
        server.reply(answer(PNG, "image/png", 500))
        workshop.write(http(server))
        assert workshop.error() == f"HTTP status 500\n[image/png, {len(PNG)} bytes, not shown]"

    def test_head_has_no_body(self, workshop: Workshop, server: FakeProvider) -> None:
        server.reply(answer(b"text"))
        workshop.write(http(server, more='method = "HEAD"'))
        assert workshop.text() == "the action returned nothing"


class TestFailure:
    @pytest.mark.parametrize(
        ("reply", "reason"),
        [
            (Reply.nothing("reset"), "could not be reached, or closed"),
            (Reply.nothing("cut"), "could not be reached, or closed"),
            (Reply.garbage(), "could not be reached, or closed"),
            (answer(b"abc", more=(("content-length", "10"),)).but(ending="cut"), "broke off"),
            (answer(b"abc").but(framing="chunked", ending="torn"), "broke off"),
            (answer(b"no gzip", more=(("content-encoding", "gzip"),)), "broke off"),
        ],
    )
    def test_broken_answers(self, workshop: Workshop, server: FakeProvider, reply: Reply, reason: str) -> None:
        server.reply(reply)
        workshop.write(http(server))
        with pytest.raises(ToolFailed, match=reason):
            workshop.result()

    def test_nobody_listens(self, workshop: Workshop, server: FakeProvider) -> None:
        server.refuse()
        workshop.write(http(server, "/path?key=value"))
        with pytest.raises(ToolFailed) as caught:
            workshop.result()
        assert str(caught.value) == f"{server.url[7:]} could not be reached, or closed the connection"

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(before=Event()),
            answer(b"").but(body=[b"x", 0.1] * 1000, framing="chunked"),
            answer(b"").but(body=[b"x", 0.1] * 1000, framing="until-close"),
            answer(b"", more=(("content-length", "2000"),)).but(body=[b"x", 0.1] * 1000),
        ],
        ids=["silent", "chunked", "until-close", "length"],
    )
    def test_the_deadline_holds_against_a_server_that_drips(
        self, workshop: Workshop, server: FakeProvider, reply: Reply
    ) -> None:
        server.reply(reply)
        workshop.write(http(server), front="timeout = 0.3")
        begin = time.monotonic()
        with pytest.raises(ToolFailed, match=r"timed out after 0\.\d s|did not answer in time"):
            workshop.result()
        assert 0.25 < time.monotonic() - begin < 2
        assert server.request().gone.wait(5)

    def test_the_context_has_a_deadline_too(self, workshop: Workshop, server: FakeProvider) -> None:
        server.reply(Reply(before=Event()))
        workshop.write(http(server))
        with pytest.raises(ToolFailed, match="timed out"):
            workshop.result(timeout=0.2)
        with pytest.raises(ToolFailed, match="timed out"):
            workshop.result(timeout=-1)

    def test_a_cancelled_call_ends_and_the_server_learns_of_it(
        self, workshop: Workshop, server: FakeProvider
    ) -> None:
        server.reply(answer(b"").but(body=[b"x", 0.1] * 1000, framing="chunked"))
        workshop.write(http(server))
        cancelled = Event()
        Timer(0.2, cancelled.set).start()
        with pytest.raises(ToolFailed, match="cancelled"):
            workshop.result(cancelled=cancelled)
        assert server.request().gone.wait(5)


class TestSecrets:
    @pytest.fixture(autouse=True)
    def _secret(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("SAMPLE_TOKEN", SECRET)
        (tmp_path / "token").write_text(f"{SECRET}\n")

    @pytest.mark.parametrize(
        ("auth", "header", "value"),
        [
            ('{ env = "SAMPLE_TOKEN" }', "authorization", f"Bearer {SECRET}"),
            ('{ file = "FILE" }', "authorization", f"Bearer {SECRET}"),
            ('{ env = "SAMPLE_TOKEN", prefix = "Token " }', "authorization", f"Token {SECRET}"),
            ('{ env = "SAMPLE_TOKEN", header = "X-Api-Key" }', "x-api-key", SECRET),
        ],
    )
    def test_auth(
        self, workshop: Workshop, server: FakeProvider, tmp_path: Path, auth: str, header: str, value: str
    ) -> None:
        server.always(answer(b"done"))
        workshop.write(http(server, more=f"auth = {auth}".replace("FILE", str(tmp_path / "token"))))
        workshop.text()
        assert server.request().header(header) == value

    def test_headers_name_secrets_but_arguments_do_not(
        self, workshop: Workshop, server: FakeProvider, tmp_path: Path
    ) -> None:
        server.always(answer(b"done"))
        more = (
            f'headers = {{ X-Api-Key = "env:SAMPLE_TOKEN", X-B = "file:{tmp_path}/token", X-C = "${{args.c}}" }}'
        )
        workshop.write(http(server, more=more), inputs=declared("c"))
        workshop.text(c="env:SAMPLE_TOKEN")
        request = server.request()
        assert [request.header(name) for name in ("x-api-key", "x-b", "x-c")] == [
            SECRET,
            SECRET,
            "env:SAMPLE_TOKEN",
        ]

    def test_a_secret_is_taken_out_of_answers(self, workshop: Workshop, server: FakeProvider) -> None:
        workshop.write(http(server, more='auth = { env = "SAMPLE_TOKEN" }'))
        server.reply(answer(f"you sent {SECRET}!".encode()), answer(SECRET.encode(), status=401))
        server.reply(answer(b"", status=302, more=(("location", f"http://{SECRET}.example/"),)))
        assert workshop.text() == "you sent [secret]!"
        assert workshop.error() == "HTTP status 401\n[secret]"
        assert SECRET not in workshop.error()

    def test_a_cut_leaves_no_half_of_a_secret(self, workshop: Workshop, server: FakeProvider) -> None:
        server.always(answer(f"you sent {SECRET}, you sent {SECRET}".encode()))
        for limit in range(1, 60):
            workshop.write(
                http(server, more='auth = { env = "SAMPLE_TOKEN" }'), front=f"max_output_bytes = {limit}"
            )
            assert "hu" not in workshop.text()

    def test_a_secret_that_changes_is_read_anew(
        self, workshop: Workshop, server: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.always(answer(b"done"))
        workshop.write(http(server, more='auth = { env = "SAMPLE_TOKEN" }'))
        workshop.text()
        monkeypatch.setenv("SAMPLE_TOKEN", "another-one")
        workshop.text()
        monkeypatch.delenv("SAMPLE_TOKEN")
        with pytest.raises(ToolFailed, match="SAMPLE_TOKEN"):
            workshop.text()
        assert server.request(2).header("authorization") == "Bearer another-one"
        assert len(server.received) == 2

    def test_a_file_that_is_no_text_is_told_without_its_content(
        self, workshop: Workshop, server: FakeProvider, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_bytes(b"hush\xff")
        workshop.write(http(server, more=f'auth = {{ file = "{tmp_path}/token" }}'))
        assert workshop.problems() == [f"sample.md:9: run: the secret file:{tmp_path}/token is not UTF-8 text"]

    @pytest.mark.parametrize("value", ["", "  ", "hush\r\nX-Evil: 1"])
    def test_a_secret_that_is_not_there_or_unfit_is_a_problem_of_the_file(
        self, workshop: Workshop, server: FakeProvider, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.setenv("SAMPLE_TOKEN", value)
        workshop.write(http(server, more='auth = { env = "SAMPLE_TOKEN" }'))
        (problem,) = workshop.problems()
        assert problem.startswith("sample.md:9: run: the secret env:SAMPLE_TOKEN ")
        assert "hush" not in problem
