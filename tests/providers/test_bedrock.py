"""Claude on Bedrock: what a request becomes, the signature over what arrives, and Amazon's frames as SSE."""

import base64
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import anthropic
import httpx2
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from aibridge import settings
from aibridge.app import create_app, gateway_of
from aibridge.errors import InvalidRequest, NotFound, UpstreamError
from aibridge.interception.gateway import ForwardedRequest, Provider
from aibridge.protocols.sse import Decoder, encode
from aibridge.providers.bedrock import BedrockClient, bedrock_client, bedrock_provider, bedrock_upstream
from aibridge.providers.bedrock_adaptation import BETA_FLAGS, adapted_body, adapted_headers, flags, path
from aibridge.providers.bedrock_events import ERROR_TYPES, EventStream
from aibridge.records import InterceptionEnded, InterceptionStarted, TokenUsage
from aibridge.upstream.call import IDLE, Headers, UpstreamRequest, UpstreamResponse
from tests.conversations import Conversation, conversations
from tests.fake_provider.server import FakeProvider, Received, Reply
from tests.fakes import FakeUpstream, MemoryRecorder, ScriptedBody

Kind = TypeVar("Kind")

SECRET = "aws-secret-access-key-of-the-gateway"
MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
SMALL = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-haiku-4-5-20251001-v1:0"

OLD = "anthropic.claude-3-7-sonnet-20250219-v1:0"
OPUS_4_5 = "us.anthropic.claude-opus-4-5-20251101-v1:0"
EITHER = "global.anthropic.claude-sonnet-4-6-v1"
ADAPTIVE = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-7-v1"

EFFORT = "effort-2025-11-24"
CONTEXT = "context-management-2025-06-27"
INTERLEAVED = "interleaved-thinking-2025-05-14"


# --- the request ----------------------------------------------------------------------------------


def adapted(body: str, model: str = OLD, *flags: str) -> str:
    text = adapted_body(body.encode(), model, flags).decode()
    version = '"anthropic_version":"bedrock-2023-05-31"'
    assert version in text
    return text.replace(f",{version}", "").replace(version, "")


def test_what_is_not_named_in_the_tables_stays_byte_for_byte() -> None:
    future = '{ "x_future":{"z": 1.0e0,"a":123456789012345678901234567890}'
    text = '"t":"caf\\u00e9 é \\/"'
    assert adapted(f'{future},  "model":"m",{text},"stream":true}}') == f"{future},{text}}}"


@pytest.mark.parametrize("name", ["model", "stream", "metadata", "service_tier", "container", "inference_geo"])
def test_fields_that_bedrock_does_not_take_leave_the_body(name: str) -> None:
    assert adapted(f'{{"max_tokens":1,"{name}":{{"a":[1]}}}}', ADAPTIVE) == '{"max_tokens":1}'


def test_a_version_that_the_client_gave_stays() -> None:
    assert adapted_body(b'{"anthropic_version":"v"}', OLD, ()) == b'{"anthropic_version":"v"}'


BETA_HEADERS: list[tuple[list[str], str, tuple[str, ...]]] = [
    ([], OLD, ()),
    (["unknown-2030-01-01"], OLD, ()),
    ([f" {INTERLEAVED} ,unknown", "context-1m-2025-08-07,,"], OLD, (INTERLEAVED, "context-1m-2025-08-07")),
    ([f"{INTERLEAVED},{INTERLEAVED}"], OLD, (INTERLEAVED,)),
    ([EFFORT, CONTEXT], OPUS_4_5, (EFFORT,)),
    ([EFFORT, CONTEXT], MODEL, (CONTEXT,)),
    ([EFFORT, CONTEXT], SMALL, (CONTEXT,)),
    ([EFFORT, CONTEXT], EITHER, ()),
    ([EFFORT, CONTEXT], ADAPTIVE, ()),
]


@pytest.mark.parametrize(("values", "model", "expected"), BETA_HEADERS)
def test_beta_flags_that_a_model_takes(values: list[str], model: str, expected: tuple[str, ...]) -> None:
    headers = tuple(("anthropic-beta", value) for value in values)
    assert flags((*headers, ("x-other", INTERLEAVED)), model) == expected


@pytest.mark.parametrize("flag", sorted(set(BETA_FLAGS) - {EFFORT, CONTEXT}))
def test_the_other_flags_are_for_every_model(flag: str) -> None:
    assert flags((("anthropic-beta", flag),), "opaque-profile") == (flag,)


BETA_BODIES = [
    ("{}", (), "{}"),
    ("{}", (INTERLEAVED, "b"), f'{{"anthropic_beta":["{INTERLEAVED}","b"]}}'),
    ('{"anthropic_beta":["own","b"]}', ("b", "c"), '{"anthropic_beta":["own","b","c"]}'),
    ('{"anthropic_beta":"nonsense"}', (), '{"anthropic_beta":"nonsense"}'),
]


@pytest.mark.parametrize(("body", "given_flags", "expected"), BETA_BODIES)
def test_beta_flags_move_into_the_body(body: str, given_flags: tuple[str, ...], expected: str) -> None:
    assert json.loads(adapted_body(body.encode(), OLD, given_flags)) == {
        "anthropic_version": "bedrock-2023-05-31",
        **json.loads(expected),
    }


CONFIG = '{"output_config":{"effort":"low", "format":{"type":"json_schema"}},"context_management":{"edits":[]}}'
GATED: list[tuple[str, tuple[str, ...], str]] = [
    (OLD, (), "{}"),
    (EITHER, (), "{}"),
    (OPUS_4_5, (EFFORT,), '{"output_config":{"effort":"low", "format":{"type":"json_schema"}}}'),
    (MODEL, (CONTEXT,), '{"context_management":{"edits":[]}}'),
    (ADAPTIVE, (), '{"output_config":{"effort":"low"}}'),
]


@pytest.mark.parametrize(("model", "given_flags", "expected"), GATED)
def test_fields_that_need_a_flag_or_a_model(model: str, given_flags: tuple[str, ...], expected: str) -> None:
    result = json.loads(adapted_body(CONFIG.encode(), model, given_flags))
    result.pop("anthropic_beta", None)
    assert result == {"anthropic_version": "bedrock-2023-05-31", **json.loads(expected)}


def test_a_flag_in_the_body_counts_like_one_in_a_header() -> None:
    body = f'{{"anthropic_beta":["{EFFORT}"],"output_config":{{"effort":"low"}}}}'
    assert json.loads(adapted(body, OPUS_4_5)) == json.loads(body)


@pytest.mark.parametrize("config", ['{"effort":"low"}', '"nonsense"', "null"])
def test_an_output_config_without_format_stays_where_no_flag_is_needed(config: str) -> None:
    body = f'{{"output_config": {config}}}'
    assert adapted(body, ADAPTIVE) == body


ENABLED = '{"type":"enabled", "budget_tokens":2000,"display":"omitted"}'
THINKING = [
    # model, thinking, max_tokens, effort -> thinking
    (ADAPTIVE, ENABLED, "10000", None, '{"type":"adaptive","display":"omitted"}'),
    ("eu.anthropic.claude-opus-4-8-v1", ENABLED, "10000", None, '{"type":"adaptive","display":"omitted"}'),
    ("anthropic.claude-sonnet-5-v1:0", ENABLED, "10000", None, '{"type":"adaptive","display":"omitted"}'),
    (ADAPTIVE, '{"type": "adaptive"}', "10000", None, '{"type": "adaptive"}'),
    (ADAPTIVE, '{"type": "disabled"}', "10000", None, '{"type": "disabled"}'),
    (EITHER, ENABLED, "10000", None, ENABLED),
    (EITHER, '{"type": "adaptive"}', "10000", "low", '{"type": "adaptive"}'),
    ("anthropic.claude-opus-4-6-v1", '{"type": "adaptive"}', "10000", "low", '{"type": "adaptive"}'),
    (OLD, ENABLED, "10000", "low", ENABLED),
    (OLD, '{"type":"disabled"}', "10000", "low", '{"type":"disabled"}'),
    (OLD, '{"type":"adaptive"}', "10000", "low", '{"type":"enabled","budget_tokens":2000}'),
    (OLD, '{"type":"adaptive"}', "10000", "medium", '{"type":"enabled","budget_tokens":5000}'),
    (OLD, '{"type":"adaptive"}', "10000", "high", '{"type":"enabled","budget_tokens":8000}'),
    (OLD, '{"type":"adaptive"}', "10000", "max", '{"type":"enabled","budget_tokens":9500}'),
    (OLD, '{"type":"adaptive"}', "10000", "other", '{"type":"enabled","budget_tokens":8000}'),
    (OLD, '{"type":"adaptive"}', "10000", None, '{"type":"enabled","budget_tokens":8000}'),
    (OPUS_4_5, '{"type":"adaptive"}', "1280", None, '{"type":"enabled","budget_tokens":1024}'),
    (OPUS_4_5, '{"type":"adaptive"}', "1279", None, '{"type":"disabled"}'),
    (MODEL, '{"type":"adaptive"}', "5000", "low", '{"type":"disabled"}'),
    (OLD, '{"type":"adaptive"}', "0", None, '{"type":"adaptive"}'),
    (OLD, '{"type":"adaptive"}', "-1", None, '{"type":"adaptive"}'),
    (OLD, '{"type":"adaptive"}', "true", None, '{"type":"adaptive"}'),
    (OLD, '{"type":"adaptive"}', '"9"', None, '{"type":"adaptive"}'),
    (OLD, '"nonsense"', "10000", None, '"nonsense"'),
    (OLD, '{"type":["adaptive"]}', "10000", None, '{"type":["adaptive"]}'),
]


@pytest.mark.parametrize(("model", "thinking", "max_tokens", "effort", "expected"), THINKING)
def test_thinking(model: str, thinking: str, max_tokens: str, effort: str | None, expected: str) -> None:
    config = f',"output_config":{{"effort":"{effort}"}}' if effort else ""
    result = adapted(f'{{"thinking": {thinking},"max_tokens":{max_tokens}{config}}}', model)
    assert result.startswith(f'{{"thinking": {expected},"max_tokens":{max_tokens}')


def test_without_max_tokens_the_rest_is_still_adapted() -> None:
    body = '{"thinking":{"type":"adaptive"},"metadata":{},"output_config":{},"context_management":{},"k":1}'
    assert adapted(body) == '{"thinking":{"type":"adaptive"},"k":1}'


def test_the_path_holds_the_model_quoted() -> None:
    assert path(MODEL, streaming=False) == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"
    assert path(SMALL, streaming=True) == f"/model/{quote(SMALL, safe='')}/invoke-with-response-stream"
    assert path(SMALL, streaming=True).count("/") == 3


def test_headers_that_are_not_for_aws() -> None:
    kept = (("user-agent", "u"), ("x-app", "1"), ("x-app", "2"), ("x-amzn-bedrock-guardrailidentifier", "g"))
    dropped = ["x-api-key", "x_api_key", "authorization", "anthropic-beta", "accept"]
    dropped += ["x-amz-security-token", "x-amz-date", "x_amz_date", "x-amzn-trace-id"]
    assert adapted_headers((*kept, *((name, "v") for name in dropped))) == kept


# --- frames ---------------------------------------------------------------------------------------


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html: lengths, their CRC, headers
    of type string, payload, CRC of all of it."""
    encoded = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack("!I", zlib.crc32(message))


CHUNK = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}


def chunk_frame(event: bytes, **extra: str) -> bytes:
    return frame(CHUNK, json.dumps({"bytes": base64.b64encode(event).decode(), **extra}).encode())


def frames(stream: bytes) -> list[bytes]:
    """A conversation's stream as Bedrock sends it; the paddings hide how long a token is."""
    events = Decoder().feed(stream)
    return [chunk_frame(event.data, p="abcdefghijkl"[: number % 12]) for number, event in enumerate(events)]


def exception(kind: str, body: bytes) -> bytes:
    return frame({":exception-type": kind, ":message-type": "exception"}, body)


def sse(chunks: Iterable[bytes | Exception]) -> bytes:
    return b"".join(EventStream(ScriptedBody(chunks)))


CONVERSATIONS = [conversation for conversation in conversations("messages") if conversation.blocking is not None]
by_name = pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.name)


def plain(conversation: Conversation) -> bytes:
    return b"".join(
        encode(json.loads(event.data)["type"], event.data) for event in Decoder().feed(conversation.stream)
    )


def test_a_stream_split_anywhere_gives_the_same_events() -> None:
    stream = b"".join(
        [chunk_frame(b'{"type":"ping"}'), chunk_frame(b'{"type":"x","t":"\xc3\xa9"}'), exception("e", b"{}")]
    )
    whole = sse([stream])
    assert whole.startswith(
        b'event: ping\ndata: {"type":"ping"}\n\nevent: x\ndata: {"type":"x","t":"\xc3\xa9"}\n\n'
    )
    assert sse(stream[i : i + 1] for i in range(len(stream))) == whole
    for position in range(len(stream) + 1):
        assert sse([stream[:position], stream[position:]]) == whole


@hypothesis_settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_conversation_in_any_chunking_is_anthropics_stream(data: st.DataObject) -> None:
    conversation = data.draw(st.sampled_from(CONVERSATIONS))
    stream = b"".join(frames(conversation.stream))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    assert sse(stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])) == plain(conversation)


def test_a_frame_goes_on_as_soon_as_it_is_whole_and_idle_moments_pass() -> None:
    first, second = chunk_frame(b'{"type":"ping"}'), chunk_frame(b'{"type":"message_stop"}')
    out = list(EventStream(ScriptedBody([first, IDLE, second[:20], IDLE, second[20:]])))
    assert out == [encode("ping", b'{"type":"ping"}'), IDLE, IDLE, IDLE, out[-1]]
    assert out[-1] == encode("message_stop", b'{"type":"message_stop"}')


@pytest.mark.parametrize("position", range(1, len(chunk_frame(b'{"type":"ping"}'))))
def test_a_stream_that_ends_inside_a_frame_is_an_error(position: int) -> None:
    ping = chunk_frame(b'{"type":"ping"}')
    body = EventStream(ScriptedBody([ping, ping[:position]]))
    got = []
    with pytest.raises(UpstreamError, match="inside a frame"):
        got += list(body)
    assert sse([ping, ping]) == 2 * encode("ping", b'{"type":"ping"}')


def test_what_was_whole_before_the_break_has_been_passed_on() -> None:
    ping = chunk_frame(b'{"type":"ping"}')
    for rest in (b"\x00", corrupted(30), b"garbage " * 4):
        chunks: Iterator[bytes] = iter(EventStream(ScriptedBody([ping + rest])))
        assert next(chunks) == encode("ping", b'{"type":"ping"}')
        with pytest.raises(UpstreamError):
            next(chunks)


def corrupted(position: int) -> bytes:
    ping = bytearray(chunk_frame(b'{"type":"ping"}'))
    ping[position] ^= 0xFF
    return bytes(ping)


@pytest.mark.parametrize(
    "stream",
    [
        b"event: ping\ndata: {}\n\n",
        corrupted(3),
        corrupted(9),
        corrupted(30),
        corrupted(-1),
        frame({}, b"")[:8] + b"\x00" * 8,
        frame({"": ""}, b"").replace(b"\x07", b"\xff"),
    ],
)
def test_what_is_no_event_stream_is_an_error(stream: bytes) -> None:
    with pytest.raises(UpstreamError, match="claims"):
        sse([stream])


def test_a_header_of_unknown_type_is_an_error() -> None:
    headers = b"\x01x\x63"
    prelude = struct.pack("!II", 16 + len(headers), len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers
    with pytest.raises(UpstreamError, match="claims"):
        sse([message + struct.pack("!I", zlib.crc32(message))])


EXCEPTIONS: list[tuple[bytes, str, str]] = [
    (exception("throttlingException", b'{"message":"Too many tokens"}'), "rate_limit_error", "Too many tokens"),
    (exception("serviceUnavailableException", b'{"message":"m"}'), "overloaded_error", "m"),
    (exception("modelTimeoutException", b'{"message":"m"}'), "timeout_error", "m"),
    (exception("validationException", b'{"message":"m"}'), "invalid_request_error", "m"),
    (exception("modelStreamErrorException", b'{"message":"m","originalStatusCode":424}'), "api_error", "m"),
    (exception("internalServerException", b"not json"), "api_error", "internalServerException"),
    (exception("", b""), "api_error", "the stream failed"),
    (
        frame({":message-type": "error", ":error-code": "Internal", ":error-message": "oops"}, b""),
        "api_error",
        "oops",
    ),
]


@pytest.mark.parametrize(("stream", "kind", "message"), EXCEPTIONS)
def test_exception_frames_become_error_events(stream: bytes, kind: str, message: str) -> None:
    (event,) = Decoder().feed(sse([stream]))
    assert event.name == "error"
    assert json.loads(event.data) == {"type": "error", "error": {"type": kind, "message": message}}


def test_the_names_of_errors_are_those_of_the_sdks_service_model() -> None:
    from botocore.loaders import Loader

    shapes = Loader().load_service_model("bedrock-runtime", "service-2")["shapes"]
    known = {name[0].lower() + name[1:] for name in shapes}
    assert set(ERROR_TYPES) <= known


@pytest.mark.parametrize(
    "stream",
    [
        frame({":message-type": "event", ":event-type": "initial-response"}, b"{}"),
        frame({}, b"{}"),
        frame(CHUNK, b'{"bytes":"%%%"}'),
        frame(CHUNK, b"not json"),
        chunk_frame(b"[1]"),
        chunk_frame(b'{"no":"type"}'),
    ],
)
def test_frames_that_hold_no_event_are_left_out(stream: bytes) -> None:
    assert sse([stream]) == b""


def test_an_event_that_is_not_wrapped_or_has_line_ends_is_understood() -> None:
    assert sse([frame(CHUNK, b'{"type":"ping"}')]) == encode("ping", b'{"type":"ping"}')
    assert sse([chunk_frame(b'{\r\n"type":"ping"}')]) == encode("ping", b'{  "type":"ping"}')


def test_closing_releases_the_providers_body() -> None:
    body = ScriptedBody([])
    EventStream(body).close()
    assert body.closed == 1


# --- the provider ---------------------------------------------------------------------------------


def configured(base_url: str | None, **fields: Any) -> settings.Provider:
    given_fields = {
        "region": "eu-west-1",
        "access_key": "AKIDEXAMPLEEXAMPLE00",
        "access_key_secret": SECRET,
        **fields,
    }
    return settings.Provider(
        name="bedrock",
        type="bedrock",
        base_url=base_url,
        model=MODEL,
        small_fast_model=SMALL,
        **{name: value for name, value in given_fields.items() if value is not None},
    )


TIMEOUTS = settings.UpstreamTimeouts(connect_timeout=2, read_timeout=0.3)
BODY = b'{ "max_tokens":9,"model":"claude",  "seed": 123456789012345678901234567890, "stream":true }'
SENT = b'{ "max_tokens":9,  "seed": 123456789012345678901234567890,"anthropic_version":"bedrock-2023-05-31"}'
HEADERS: Headers = (
    ("content-type", "application/json"),
    ("user-agent", "claude-cli/2.1"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "unknown-2030-01-01"),
    ("x-latin", "caf\xe9"),
    ("x-app", "one"),
    ("x-app", "two  words"),
    ("via", "1.1 proxy"),
    ("x-amzn-bedrock-guardrailidentifier", "guard"),
    ("x-amz-security-token", "forged"),
    ("x-api-key", "sk-ant-of-the-client"),
    ("authorization", "Bearer sk-ant-of-the-client"),
)
REQUEST = UpstreamRequest("/v1/messages?beta=true", HEADERS, BODY, model=MODEL, streaming=True)
REPLY_KIND = (("content-type", "application/vnd.amazon.eventstream"), ("x-amzn-requestid", "req-aws-1"))


@pytest.fixture
def bedrock(fake: FakeProvider, http: httpx2.Client) -> Provider:
    return bedrock_provider(configured(fake.url), TIMEOUTS, http)


def read(response: UpstreamResponse) -> bytes:
    try:
        return b"".join(response.body)
    finally:
        response.body.close()


def verify(received: Received, secret: str = SECRET, region: str = "eu-west-1") -> set[str]:
    """Recompute the signature over what arrived, as AWS does; the names of the signed headers."""
    scheme, _, rest = (received.header("authorization") or "").partition(" ")
    assert scheme == "AWS4-HMAC-SHA256"
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    access_key, day, *scope = parts["Credential"].split("/")
    assert scope == [region, "bedrock", "aws4_request"]
    signed = parts["SignedHeaders"].split(";")
    request = AWSRequest(
        "POST",
        f"http://{received.header('host')}{received.target}",
        headers={name: received.header(name) for name in signed},
        data=bytes(received.body),
    )
    request.context["timestamp"] = received.header("x-amz-date")
    assert request.context["timestamp"].startswith(day)
    signer = SigV4Auth(Credentials(access_key, secret), "bedrock", region)
    canonical = signer.canonical_request(request)
    assert parts["Signature"] == signer.signature(signer.string_to_sign(request, canonical), request)
    return set(signed)


def test_the_request_is_adapted_and_signed_and_no_key_of_the_client_goes_out(
    fake: FakeProvider, bedrock: Provider
) -> None:
    fake.reply(Reply.json({"ok": True}))
    assert read(bedrock.upstream(REQUEST)) == b'{"ok": true}'
    sent = fake.whole_request()
    assert sent.target == f"/model/{quote(MODEL, safe='')}/invoke-with-response-stream"
    assert bytes(sent.body) == SENT
    assert "sk-ant" not in repr(sent.headers)
    assert "forged" not in repr(sent.headers)
    assert len([name for name in sent.headers if name[0].lower() == "authorization"]) == 1
    assert [value for name, value in sent.headers if name == "x-app"] == ["one", "two  words"]
    assert ("x-latin", "caf\xe9") in sent.headers
    assert sent.header("anthropic-beta") is None
    assert sent.header("content-length") == str(len(SENT))
    assert SECRET not in repr(sent.headers)


def test_only_what_nobody_on_the_way_changes_is_signed(fake: FakeProvider, bedrock: Provider) -> None:
    fake.reply(Reply.json({}))
    read(bedrock.upstream(REQUEST))
    signed = verify(fake.whole_request())
    assert {"host", "x-amz-date", "content-type", "x-amzn-bedrock-guardrailidentifier"} <= signed
    assert not signed & {"via", "x-app", "user-agent", "x-latin", "connection", "anthropic-version"}


@pytest.mark.parametrize("model", [MODEL, SMALL, "a/b", "plain"])
@pytest.mark.parametrize("prefix", ["", "/gateway/v1"])
def test_the_signature_holds_for_every_model_and_base_url(
    fake: FakeProvider, http: httpx2.Client, model: str, prefix: str
) -> None:
    provider = bedrock_provider(configured(fake.url + prefix, session_token="token-1"), TIMEOUTS, http)
    fake.reply(Reply.json({}))
    read(provider.upstream(UpstreamRequest("/v1/messages", (), b"{}", model=model)))
    sent = fake.whole_request()
    assert sent.target == f"{prefix}/model/{quote(model, safe='')}/invoke"
    assert "x-amz-security-token" in verify(sent)
    assert sent.header("x-amz-security-token") == "token-1"


REGIONS = [
    ("https://bedrock-runtime.ap-south-1.amazonaws.com", None, "ap-south-1"),
    ("https://vpce-1.bedrock-runtime.us-west-2.vpce.amazonaws.com", None, "us-west-2"),
    ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", None, "us-gov-west-1"),
    ("https://bedrock-runtime.ap-south-1.amazonaws.com", "eu-west-3", "eu-west-3"),
    ("http://127.0.0.1:9", None, "us-east-1"),
    (None, "eu-west-3", "eu-west-3"),
]


@pytest.mark.parametrize(("base_url", "region", "expected"), REGIONS)
def test_the_region_is_configured_or_named_by_the_base_url(
    http: httpx2.Client, base_url: str | None, region: str | None, expected: str
) -> None:
    client = bedrock_client(configured(base_url, region=region), TIMEOUTS, http)
    assert client.aws_region == expected
    assert str(client.base_url).rstrip("/") == (base_url or f"https://bedrock-runtime.{expected}.amazonaws.com")


def test_nothing_of_the_environment_influences_a_request(
    fake: FakeProvider, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "from-the-environment")
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-env: from-the-environment")
    monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", "http://127.0.0.1:9")
    provider = bedrock_provider(configured(fake.url), TIMEOUTS, http)
    fake.reply(Reply.json({}))
    read(provider.upstream(REQUEST))
    assert "from-the-environment" not in repr(fake.request().headers)
    assert "from-the-environment" not in repr(provider.defaults)
    verify(fake.request())


def test_without_a_key_pair_awss_default_chain_is_asked(
    fake: FakeProvider, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHECHAIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "chain-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "chain-token")
    chain = configured(fake.url, access_key=None, access_key_secret=None, region="chain-1")
    provider = bedrock_provider(chain, TIMEOUTS, http)
    fake.reply(Reply.json({}))
    read(provider.upstream(REQUEST))
    verify(fake.request(), "chain-secret", "chain-1")
    assert fake.request().header("x-amz-security-token") == "chain-token"


NO_CHAIN = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nowhere/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials",
}


@pytest.mark.parametrize("extra", [{}, {"AWS_PROFILE": "nobody"}])
def test_without_any_credentials_the_provider_cannot_be_reached(
    fake: FakeProvider, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, extra: dict[str, str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**NO_CHAIN, **extra}.items():
        monkeypatch.setenv(name, value)
    chain = configured(fake.url, access_key=None, access_key_secret=None, region=f"none-{len(extra)}")
    provider = bedrock_provider(chain, TIMEOUTS, http)
    with pytest.raises(UpstreamError, match="no AWS credentials found"):
        provider.upstream(REQUEST)
    assert fake.received == []


def test_which_model_answers(bedrock: Provider) -> None:
    assert bedrock.model_for("claude-sonnet-5") == MODEL
    assert bedrock.model_for("") == MODEL
    assert bedrock.model_for("claude-3-5-haiku-latest") == SMALL


def test_the_recorded_credential_is_awss(http: httpx2.Client) -> None:
    pair = bedrock_provider(configured(None), TIMEOUTS, http).credentials.fixed
    chain = bedrock_provider(configured(None, access_key=None, access_key_secret=None), TIMEOUTS, http)
    assert pair is not None
    assert (pair.kind, pair.hint) == ("centralized", "AKID...LE00")
    assert chain.credentials.fixed is not None
    assert (chain.credentials.fixed.kind, chain.credentials.fixed.hint) == ("centralized", "<aws chain>")


def test_frames_arrive_as_events_while_the_provider_thinks(fake: FakeProvider, bedrock: Provider) -> None:
    hold = fake.hold()
    first, second = chunk_frame(b'{"type":"ping"}'), chunk_frame(b'{"type":"message_stop"}')
    fake.reply(Reply(200, REPLY_KIND, (first, hold, second), "chunked"))
    response = bedrock.upstream(REQUEST)
    assert response.is_event_stream
    assert response.header("request-id") == "req-aws-1"
    assert response.header("content-length") == ""
    chunks = iter(response.body)
    assert next(chunks) == encode("ping", b'{"type":"ping"}')
    assert next(chunks) is IDLE
    hold.set()
    assert b"".join(chunks) == encode("message_stop", b'{"type":"message_stop"}')


def test_plain_answers_pass_as_they_are(fake: FakeProvider, bedrock: Provider) -> None:
    stream = encode("ping", b'{"type":  "ping"}')
    fake.reply(Reply.sse(stream), Reply.json(b'{"a" :1}', headers=(("x-amzn-requestid", "r"),)))
    response = bedrock.upstream(REQUEST)
    assert (response.is_event_stream, read(response)) == (True, stream)
    response = bedrock.upstream(REQUEST)
    assert (response.header("request-id"), read(response)) == ("r", b'{"a" :1}')


@pytest.mark.parametrize("status", [400, 403, 424, 429, 500, 503])
def test_error_answers_are_relayed_as_they_are(fake: FakeProvider, bedrock: Provider, status: int) -> None:
    fake.reply(Reply.json(b'{"message" : "no"}', status, (("x-amzn-requestid", "r"), ("retry-after", "3"))))
    response = bedrock.upstream(REQUEST)
    assert (response.status, read(response)) == (status, b'{"message" : "no"}')
    assert (response.header("request-id"), response.header("retry-after")) == ("r", "3")


def test_a_body_that_breaks_off_is_an_upstream_error(fake: FakeProvider, bedrock: Provider) -> None:
    ping = chunk_frame(b'{"type":"ping"}')
    for reply in (
        Reply(200, REPLY_KIND, (ping, ping[:9]), "chunked"),
        Reply(200, REPLY_KIND, (ping,), "chunked", "cut"),
    ):
        fake.reply(reply)
        with pytest.raises(UpstreamError):
            read(bedrock.upstream(REQUEST))


def test_a_body_too_deep_to_be_adapted_is_the_clients_mistake() -> None:
    upstream = bedrock_upstream(FakeUpstream())
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidRequest, match="deep"):
        upstream(UpstreamRequest("/v1/messages", (), deep, model=MODEL))


def test_nothing_is_passed_through(bedrock: Provider) -> None:
    with pytest.raises(NotFound):
        bedrock.forward(ForwardedRequest("GET", "/v1/models", (), None, 0))


def test_the_client_still_makes_its_own_requests(fake: FakeProvider, http: httpx2.Client) -> None:
    """Our overrides must not get in the way of the rest of the SDK."""
    client: BedrockClient = bedrock_client(configured(fake.url), TIMEOUTS, http)
    fake.reply(Reply.json(next(c.blocking for c in CONVERSATIONS if c.blocking)))
    messages: Any = [{"role": "user", "content": "hi"}]
    assert client.messages.create(model="m", max_tokens=1, messages=messages).type == "message"
    verify(fake.whole_request())


# --- the whole gateway, with the official SDK as its client ---------------------------------------


class House:
    """A gateway with one Bedrock provider, and Anthropic's SDK in front of it."""

    def __init__(self, base_url: str, tmp_path: Path) -> None:
        self.recorder = MemoryRecorder()
        self.app = create_app(
            settings.Settings(
                providers=(configured(base_url),),
                auth=settings.Auth(allow_byok=False),
                recording=settings.Recording(spool_dir=tmp_path),
            ),
            recorder=self.recorder,
        )
        transport = httpx2.WSGITransport(app=self.app)
        self.sdk = anthropic.Anthropic(
            api_key="sk-ant-of-the-client",
            base_url="http://gateway.test/bedrock",
            http_client=httpx2.Client(transport=transport),
            max_retries=0,
        )

    def one(self, kind: type[Kind]) -> Kind:
        (record,) = (record for record in self.recorder.records if isinstance(record, kind))
        return record


@pytest.fixture
def house(fake: FakeProvider, tmp_path: Path) -> Iterator[House]:
    built = House(fake.url, tmp_path)
    yield built
    gateway_of(built.app).close()


@by_name
def test_the_sdk_rebuilds_the_message_and_the_records_are_right(
    fake: FakeProvider, house: House, conversation: Conversation
) -> None:
    assert conversation.blocking is not None
    fake.reply(Reply(200, REPLY_KIND, tuple(frames(conversation.stream)), "chunked"))
    messages: Any = [{"role": "user", "content": "hi"}]
    with house.sdk.messages.stream(model="claude-haiku-4-5", max_tokens=1, messages=messages) as events:
        message = events.get_final_message().to_dict(mode="json")

    provider = json.loads(conversation.blocking)
    contents: Any = message["content"]
    assert [block["type"] for block in contents] == [block["type"] for block in provider["content"]]
    for got, sent in zip(contents, provider["content"], strict=True):
        assert {name: got[name] for name in sent} == sent
    assert message["stop_reason"] == provider["stop_reason"]

    started = house.one(InterceptionStarted)
    assert (started.provider, started.model) == ("bedrock", SMALL)
    assert (started.credential_kind, started.credential_hint) == ("centralized", "AKID...LE00")
    assert house.one(InterceptionEnded).status == "completed"
    assert house.one(TokenUsage).input_tokens == conversation.records["tokens"]["input_tokens"]

    received = fake.whole_request()
    assert "sk-ant" not in repr(received.headers)
    assert received.target == f"/model/{quote(SMALL, safe='')}/invoke-with-response-stream"
    verify(received)


@by_name
def test_a_blocking_answer_passes_as_it_is(fake: FakeProvider, house: House, conversation: Conversation) -> None:
    assert conversation.blocking is not None
    fake.reply(Reply.json(conversation.blocking, headers=(("x-amzn-requestid", "req-aws-2"),)))
    body = {"model": "claude-sonnet-5", "max_tokens": 1, "messages": []}
    answer = house.app.test_client().post("/bedrock/v1/messages?beta=true", json=body)
    assert (answer.status_code, answer.data) == (200, conversation.blocking)
    assert answer.headers["request-id"] == "req-aws-2"
    assert fake.whole_request().target == f"/model/{quote(MODEL, safe='')}/invoke"
    assert house.one(InterceptionStarted).model == MODEL


def throttled(conversation: Conversation) -> Reply:
    start = frames(conversation.stream)[:3]
    end = exception("throttlingException", b'{"message":"Too many tokens"}')
    return Reply(200, REPLY_KIND, (*start, end), "chunked")


def test_an_exception_in_the_stream_is_an_error_to_the_sdk(fake: FakeProvider, house: House) -> None:
    fake.reply(throttled(CONVERSATIONS[0]))
    messages: Any = [{"role": "user", "content": "hi"}]
    with (
        pytest.raises(anthropic.APIStatusError, match="Too many tokens"),
        house.sdk.messages.stream(model="m", max_tokens=1, messages=messages) as events,
    ):
        events.get_final_message()


def test_an_exception_in_the_stream_is_recorded(fake: FakeProvider, house: House) -> None:
    fake.reply(throttled(CONVERSATIONS[0]))
    answer = house.app.test_client().post("/bedrock/v1/messages", json={"model": "m", "stream": True})
    assert b"event: error\n" in answer.data
    ended = house.one(InterceptionEnded)
    assert (ended.status, ended.error_type) == ("failed", "rate_limited")


def test_an_error_answer_is_recorded_with_bedrocks_words(fake: FakeProvider, house: House) -> None:
    fake.reply(Reply.json(b'{"message":"The security token is invalid."}', 403))
    answer = house.app.test_client().post("/bedrock/v1/messages", json={"model": "m"})
    assert (answer.status_code, answer.data) == (403, b'{"message":"The security token is invalid."}')
    ended = house.one(InterceptionEnded)
    assert (ended.error_type, ended.error_message) == ("unauthorized", "The security token is invalid.")


@pytest.mark.parametrize("route", ["/v1/messages/count_tokens", "/v1/models", "/v1/chat/completions"])
def test_there_is_one_route(house: House, route: str) -> None:
    answer = house.app.test_client().post(f"/bedrock{route}", json={})
    assert answer.status_code == 404
    assert answer.json is not None
