"""Allow-listed routes are relayed untouched and unheld (behaviour.md 3, product.md 4.1)."""

import posixpath
from urllib.parse import unquote

import pytest

from tests.fake_provider import Reply
from tests.fake_provider.conversations import BIG, text
from tests.fake_provider.server import spaced
from tests.system.client import Exchange, eventually
from tests.system.conftest import Gateways
from tests.system.gateway import CENTRAL_KEY, SEVERAL, STRICT, Gateway, Setup
from tests.system.test_limits import ONE_EACH

pytestmark = pytest.mark.system

MIB = 1024 * 1024
NOTICED_WITHIN = 3.0  # seconds: a moment of the gateway's, and the machine
BODY = f'{{ "x":  [{BIG}], "n": "\\u00fc ü" }}'.encode()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models?limit=2&after_id=a%2Fb&beta=true"),
        ("GET", "/v1/models/claude-sonnet-5?x=1+2%20&x=3"),
        ("GET", "/v1/models/arn%3Aaws%2Fclaude%20x"),
        ("DELETE", "/v1/models/tuned"),
        ("POST", "/v1/messages/count_tokens?beta=true"),
        ("POST", "/api/event_logging/batch"),
        ("PUT", "/api/event_logging/v2/batch"),
        ("PATCH", "/v1/models/tuned"),
    ],
)
@pytest.mark.parametrize("status", [200, 404])
def test_requests_and_answers_are_relayed(gateway: Gateway, method: str, target: str, status: int) -> None:
    gateway.provider.reply(Reply.json(BODY, status, (("request-id", "req_1"), ("x-custom", "a"))))

    with gateway.request(method, f"/anthropic{target}", [], None if method == "GET" else BODY) as answer:
        answer.read()

    upstream = gateway.provider.whole_request()
    assert (upstream.method, upstream.target) == (method, target)
    assert bytes(upstream.body) == (b"" if method == "GET" else BODY)
    assert (answer.status, bytes(answer.body), answer.ended) == (status, BODY, "clean")
    assert answer.header("content-type") == "application/json"
    assert answer.header("request-id") == "req_1"


def test_head(gateway: Gateway) -> None:
    gateway.provider.reply(Reply.json(BODY))

    with gateway.request("HEAD", "/anthropic/v1/models") as answer:
        answer.read()

    assert (answer.status, bytes(answer.body)) == (200, b"")
    assert gateway.provider.whole_request().method == "HEAD"


def test_nothing_is_recorded(gateway: Gateway, actor: str) -> None:
    gateway.provider.reply(Reply.json(BODY))

    with gateway.request("POST", "/anthropic/v1/messages/count_tokens", [("X-User-ID", actor)], BODY) as answer:
        answer.read()

    assert gateway.rows("interceptions", initiator_id=actor) == []


def test_headers_to_the_provider(gateway: Gateway) -> None:
    gateway.provider.reply(Reply.json(BODY))
    sent = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("anthropic-beta", "one"),
        ("anthropic-beta", "two"),
        ("anthropic-version", "2023-06-01"),
        ("User-Agent", "my-agent/1"),
        ("Connection", "keep-alive, X-Private"),
        ("X-Private", "1"),
        ("X-AI-Bridge-Actor-ID", "root"),
        ("X-AIBridge-Anything", "ours"),
        ("Cookie", "a=b"),
        ("Anthropic-Workspace-Id", "w"),
    ]

    with gateway.get("/anthropic/v1/models", sent) as answer:
        answer.read()

    upstream = gateway.provider.whole_request()
    assert upstream.header("x-api-key") == CENTRAL_KEY
    assert (upstream.header("x-forwarded-for") or "").endswith("127.0.0.1")
    assert upstream.header("x-forwarded-host") == f"127.0.0.1:{gateway.port}"
    assert upstream.header("x-forwarded-proto") == "http"
    assert (upstream.header("anthropic-beta") or "").replace(" ", "") == "one,two"
    assert upstream.header("anthropic-version") == "2023-06-01"
    assert upstream.header("user-agent") == "my-agent/1"
    dropped = {"x-private", "x-ai-bridge-actor-id", "x-aibridge-anything", "cookie", "anthropic-workspace-id"}
    assert upstream.names() & dropped == set()
    assert upstream.header("host") == gateway.provider.url.removeprefix("http://")


@pytest.mark.parametrize("header", [("x-api-key", "sk-own"), ("authorization", "Bearer sk-own")])
def test_own_keys(gateway: Gateway, header: tuple[str, str]) -> None:
    gateway.provider.reply(Reply.json(BODY))

    with gateway.get("/anthropic/v1/models", [header]) as answer:
        answer.read()

    upstream = gateway.provider.whole_request()
    assert upstream.header(header[0]) == header[1]
    assert CENTRAL_KEY not in repr(upstream.headers)


def test_no_key_at_all(gateways: Gateways) -> None:
    gateway = gateways(Setup(central=False))

    with gateway.get("/anthropic/v1/models") as answer:
        assert answer.read().status == 401

    assert answer.error()[0] == "authentication_error"
    assert gateway.provider.received == []


def test_a_base_url_with_a_path(gateways: Gateways) -> None:
    gateway = gateways(SEVERAL)
    gateway.provider.reply(Reply.json(BODY), text().reply(stream=True))

    with gateway.get("/acme/v1/models?x=1") as answer:
        answer.read()
    with gateway.post(text().request(stream=True), target="/acme/v1/messages?beta=true") as bridged:
        assert bytes(bridged.read().body) == text().stream

    assert gateway.provider.whole_request(1).target == "/tenant/a/v1/models?x=1"
    assert gateway.provider.whole_request(2).target == "/tenant/a/v1/messages?beta=true"
    row = gateway.recorded(bridged.interception_id).interception
    assert (row["provider"], row["provider_name"]) == ("anthropic", "acme")


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/../../admin/keys",
        "/v1/models/%2e%2e/%2e%2e/admin",
        "/v1/models/..%2f..%2fadmin",
        "/v1/models/../messages",
    ],
)
def test_paths_do_not_climb_out_of_the_list(gateway: Gateway, target: str) -> None:
    gateway.provider.always(Reply.json(BODY))

    with gateway.get(f"/anthropic{target}") as answer:
        answer.read()

    for received in gateway.provider.received:
        assert posixpath.normpath(unquote(received.path)).startswith("/v1/models")


@pytest.mark.parametrize(
    "target",
    ["/v1/modelsx", "/v1/files", "/api/event_loggingx/y", "/api/organizations", "/v1/messages/count_tokensx"],
)
def test_other_routes_are_unknown(gateway: Gateway, target: str) -> None:
    with gateway.get(f"/anthropic{target}") as answer:
        assert answer.read().status == 404

    assert answer.error()[0] == "not_found_error"
    assert gateway.provider.received == []


# --- faults ------------------------------------------------------------------------------------------------------


def test_a_provider_that_is_down(gateways: Gateways) -> None:
    with gateways(SEVERAL).get("/down/v1/models") as answer:
        is_bad_gateway(answer.read())


@pytest.mark.parametrize("reply", [Reply.nothing("reset"), Reply.nothing("cut"), Reply.garbage()])
def test_a_provider_that_makes_no_sense(gateway: Gateway, reply: Reply) -> None:
    gateway.provider.always(reply)

    with gateway.get("/anthropic/v1/models") as answer:
        is_bad_gateway(answer.read())


@pytest.mark.parametrize("ending", ["torn", "reset", "cut"])
def test_an_answer_that_is_cut_stays_cut(gateway: Gateway, ending: str) -> None:
    gateway.provider.reply(Reply.json(BODY).but(framing="chunked", ending=ending))

    with gateway.get("/anthropic/v1/models") as answer:
        answer.read()

    if answer.status == 200:
        assert answer.ended == "cut"
    else:
        is_bad_gateway(answer)


def is_bad_gateway(answer: Exchange) -> None:
    assert answer.status == 502
    assert answer.error()[0] == "api_error"


def test_a_client_that_leaves(gateway: Gateway) -> None:
    gateway.provider.reply(Reply.sse(spaced([b"x" * 1000] * 500, 0.02)))

    with gateway.get("/anthropic/v1/models") as answer:
        answer.read_bytes(1000)

    assert gateway.provider.request().gone.wait(5)


@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_leaves_a_silent_provider(gateways: Gateways, actor: str, begun: bool) -> None:
    """Its one place is free again, and the provider's connection closed, long before the read timeout."""
    gateway = gateways(ONE_EACH)
    hold = gateway.provider.hold()
    silent = Reply.json(b"").but(body=(b"first", hold), framing="chunked")
    gateway.provider.reply(silent if begun else silent.but(before=hold))

    def asked() -> Exchange:
        return gateway.get("/anthropic/v1/models", [("X-User-ID", actor)])

    def is_served() -> bool:
        with asked() as answer:
            return answer.read().status == 200

    with asked() as answer:
        gateway.provider.whole_request()
        if begun:
            answer.read_until(b"first")

    assert gateway.provider.request().gone.wait(NOTICED_WITHIN)
    gateway.provider.always(Reply.json(BODY))
    eventually(is_served)


def test_a_body_over_the_limit(gateways: Gateways) -> None:
    gateway = gateways(STRICT)
    gateway.provider.always(Reply.json(BODY))

    with gateway.request("POST", "/anthropic/v1/messages/count_tokens", [], b"x" * 3000) as answer:
        assert answer.read().status == 413

    assert answer.error()[0] == "request_too_large"


# --- streaming ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["chunked", "until-close"])
def test_an_answer_streams(gateway: Gateway, framing: str) -> None:
    hold = gateway.provider.hold()
    gateway.provider.reply(Reply.json(b"").but(body=(b"first", hold, b"second"), framing=framing))

    with gateway.get("/anthropic/v1/models") as answer:
        answer.read_until(b"first")
        hold.set()
        assert bytes(answer.read().body) == b"firstsecond"


def test_an_upload_streams(gateway: Gateway) -> None:
    """The provider has the first part before the client has sent the second."""
    part = b"x" * MIB
    headers = [("Content-Type", "application/json"), ("Content-Length", str(8 * MIB))]
    gateway.provider.reply(Reply.json(BODY))

    with gateway.request("POST", "/anthropic/api/event_logging/batch", headers) as answer:
        received = gateway.provider
        answer.send(part)
        received.request().wait_for_body(MIB // 2)
        for _ in range(7):
            answer.send(part)
        assert answer.read().status == 200

    assert len(gateway.provider.whole_request().body) == 8 * MIB


def test_large_bodies_are_not_held(gateway: Gateway) -> None:
    upload, download = b"u" * (30 * MIB), [b"d" * MIB] * 100
    gateway.provider.always(Reply.json(b"").but(body=download, framing="chunked"))
    with gateway.get("/anthropic/v1/models") as answer:  # everything is loaded
        answer.read_bytes(MIB)
    before = gateway.memory()

    with gateway.request("POST", "/anthropic/api/event_logging/batch", [], upload) as answer:
        answer.read()

    assert len(answer.body) == 100 * MIB
    assert len(gateway.provider.whole_request(2).body) == 30 * MIB
    assert gateway.memory() - before < 25 * MIB
