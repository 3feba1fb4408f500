"""Claude on Amazon Bedrock through Anthropic's official SDK: its SigV4 signature, our bytes.

What a request becomes stands in `bedrock_adaptation.py`, what an answer becomes in `bedrock_events.py`. AWS is
paid with its own credentials: those of the settings, else those of AWS's default chain.
"""

import re
from dataclasses import replace
from typing import Any

import anthropic
import httpx2
import structlog

from aibridge import settings
from aibridge.errors import InvalidRequest, NotFound, UpstreamError
from aibridge.interception.credentials import CredentialRules
from aibridge.interception.gateway import ForwardedRequest, ForwardedResponse, Provider
from aibridge.interception.model import Credential, mask
from aibridge.providers.bedrock_adaptation import adapted_body, adapted_headers, flags, path
from aibridge.providers.bedrock_events import CONTENT_TYPE, EventStream
from aibridge.providers.sdk import client_options, default_headers, exact_request, sdk_upstream
from aibridge.upstream.call import Headers, Upstream, UpstreamRequest, UpstreamResponse

DEFAULTS = ("content-type", "user-agent")
AWS_CHAIN = "<aws chain>"  # the credential hint where no key pair is configured

# AWS's own choice for services that have no regions; what a base URL without one is signed for.
REGIONLESS = "us-east-1"

_REGION = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
_SIGNED = ("content-type",)
_SIGNED_PREFIX = "x-amz"

_log = structlog.get_logger("aibridge.bedrock")


class BedrockClient(anthropic.AnthropicBedrock):
    """The SDK's client, sending exactly what it is given, signed."""

    def _prepare_options(self, options: Any) -> Any:
        """The SDK would copy the request deeply and rewrite it; a given body is final."""
        return options if options.content is not None else super()._prepare_options(options)

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        return exact_request(self, options) or super()._build_request(options, retries_taken=retries_taken)

    def _prepare_request(self, request: httpx2.Request) -> None:
        """The SDK signs whatever headers it sees. It is shown only those that AWS wants signed, so that a proxy
        on the way, which may change the others, cannot break the signature. Raises UpstreamError."""
        headers = [
            (name, value)
            for name, value in request.headers.multi_items()
            if name in _SIGNED or name.startswith(_SIGNED_PREFIX)
        ]
        signed = httpx2.Request(request.method, request.url, headers=headers, content=request.content)
        try:
            super()._prepare_request(signed)
        except Exception as error:  # the SDK's, boto3's and those of boto3's credential providers
            _log.error("no AWS credentials", reason=str(error))
            raise UpstreamError("no AWS credentials found") from error
        request.headers.update(signed.headers)


def bedrock_client(
    provider: settings.Provider, timeouts: settings.UpstreamTimeouts, http_client: httpx2.Client
) -> BedrockClient:
    """From the environment come the credentials of AWS's default chain, if no others are configured."""
    region = provider.region or _region(provider.base_url or "")
    base_url = provider.base_url or f"https://bedrock-runtime.{region}.amazonaws.com"
    client = BedrockClient(
        **client_options(base_url, timeouts, http_client), aws_region=region, open_telemetry=False
    )
    # Without a key the constructor would take one from AWS_BEARER_TOKEN_BEDROCK; with one it takes no other.
    client.api_key = None
    client.aws_access_key = settings.revealed(provider.access_key)
    client.aws_secret_key = settings.revealed(provider.access_key_secret)
    client.aws_session_token = settings.revealed(provider.session_token)
    return client


def bedrock_upstream(call: Upstream) -> Upstream:
    """Messages through `call`, which reaches Bedrock. The request's model is the one in Bedrock's words."""

    def adapted(request: UpstreamRequest) -> UpstreamResponse:
        try:
            body = adapted_body(request.body, request.model, flags(request.headers, request.model))
        except ValueError as error:
            raise InvalidRequest(f"the request body cannot be adapted: {error}") from error
        there = path(request.model, streaming=request.streaming)
        return _answer(call(replace(request, path=there, headers=adapted_headers(request.headers), body=body)))

    return adapted


def bedrock_provider(
    provider: settings.Provider, general: settings.UpstreamTimeouts, http_client: httpx2.Client
) -> Provider:
    client = bedrock_client(provider, settings.timeouts_of(provider, general), http_client)
    model, small_fast_model = provider.model or "", provider.small_fast_model or ""

    def model_for(asked: str) -> str:
        return small_fast_model if "haiku" in asked.lower() else model

    return Provider(
        name=provider.name,
        type=provider.type,
        upstream=bedrock_upstream(sdk_upstream(client, anthropic)),
        forward=_forward,
        credentials=CredentialRules(accepted=(), central="authorization", fixed=_credential(provider)),
        defaults=default_headers(client, DEFAULTS),
        actor_headers=tuple((provider.actor_headers or {}).items()),
        model_for=model_for,
    )


def _answer(response: UpstreamResponse) -> UpstreamResponse:
    headers = _with_request_id(response.headers)
    if response.status >= 400 or not response.header("content-type").lower().startswith(CONTENT_TYPE):
        return UpstreamResponse(response.status, headers, response.body)
    kept = tuple(pair for pair in headers if pair[0] not in ("content-type", "content-length"))
    sse = ("content-type", "text/event-stream; charset=utf-8")
    return UpstreamResponse(response.status, (*kept, sse), EventStream(response.body))


def _with_request_id(headers: Headers) -> Headers:
    """Under Anthropic's name, which clients know."""
    return tuple(("request-id" if name == "x-amzn-requestid" else name, value) for name, value in headers)


def _region(base_url: str) -> str:
    match = _REGION.search(base_url)
    return match[1] if match else REGIONLESS


def _credential(provider: settings.Provider) -> Credential:
    """What is recorded. The header is only a place: the signature is made when all else of a request is known."""
    access_key = settings.revealed(provider.access_key)
    return Credential("centralized", mask(access_key) if access_key else AWS_CHAIN, ("authorization", ""))


def _forward(request: ForwardedRequest) -> ForwardedResponse:
    raise NotFound("nothing is passed through to Bedrock")
