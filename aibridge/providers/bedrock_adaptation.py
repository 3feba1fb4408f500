"""What a Messages request becomes for Claude on Amazon Bedrock. Pure; which model takes what are the tables here.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html: the model
and whether to stream are in the URL, the version and the beta flags in the body, and a field or a flag that
Bedrock does not know is an error. A model is known by a part of its name, so region prefixes
(`eu.anthropic...`) and ARNs of inference profiles work.
"""

from collections.abc import Iterable
from urllib.parse import quote

import orjson

from aibridge.protocols.editing import ObjectText
from aibridge.protocols.reading import mapping, parse, parsed_object, sequence, text
from aibridge.upstream.call import Headers

API_VERSION = "bedrock-2023-05-31"

# Members that Bedrock takes elsewhere or not at all.
REMOVED = frozenset({"model", "stream", "metadata", "service_tier", "container", "inference_geo"})

EFFORT = "effort-2025-11-24"
CONTEXT_MANAGEMENT = "context-management-2025-06-27"

_EVERY_MODEL = ("",)

# Beta flag -> the models that take it; any other flag is an error to Bedrock.
BETA_FLAGS: dict[str, tuple[str, ...]] = {
    "computer-use-2025-01-24": _EVERY_MODEL,
    "token-efficient-tools-2025-02-19": _EVERY_MODEL,
    "interleaved-thinking-2025-05-14": _EVERY_MODEL,
    "output-128k-2025-02-19": _EVERY_MODEL,
    "dev-full-thinking-2025-05-14": _EVERY_MODEL,
    "context-1m-2025-08-07": _EVERY_MODEL,
    CONTEXT_MANAGEMENT: ("anthropic.claude-sonnet-4-5", "anthropic.claude-haiku-4-5"),
    EFFORT: ("anthropic.claude-opus-4-5",),
    "tool-search-tool-2025-10-19": _EVERY_MODEL,
    "tool-examples-2025-10-29": _EVERY_MODEL,
}

# Models that take `thinking.type` both adaptive and enabled, and those that take adaptive only. Others: enabled.
EITHER_THINKING = ("anthropic.claude-opus-4-6", "anthropic.claude-sonnet-4-6")
ADAPTIVE_ONLY = ("anthropic.claude-opus-4-7", "anthropic.claude-opus-4-8", "anthropic.claude-sonnet-5")

# Effort -> the share of max_tokens, in percent, that becomes the thinking budget; any other effort: high.
BUDGET_PERCENT = {"low": 20, "medium": 50, "high": 80, "max": 95}
LEAST_BUDGET = 1024

# Headers that mean Anthropic, or that say how its API is to answer, and what only our own signature may set.
_NOT_FOR_AWS = {"x-api-key", "authorization", "anthropic-beta", "accept"}
_AWS_PREFIXES = ("x-amz-", "x-amzn-")
_BEDROCK_PREFIX = "x-amzn-bedrock-"  # guardrails and the like are the client's to choose


def path(model: str, *, streaming: bool) -> str:
    """Where Bedrock takes a request for this model."""
    action = "invoke-with-response-stream" if streaming else "invoke"
    return f"/model/{quote(model, safe='')}/{action}"


def adapted_headers(headers: Headers) -> Headers:
    """What of the upstream headers goes to AWS: no credential of Anthropic's, and no beta flag."""
    return tuple((name, value) for name, value in headers if _is_for_aws(name.replace("_", "-")))


def flags(headers: Headers, model: str) -> tuple[str, ...]:
    """The beta flags of the headers that this model takes on Bedrock, each once, in their order."""
    asked = [
        flag.strip()
        for name, value in headers
        if name.replace("_", "-") == "anthropic-beta"
        for flag in value.split(",")
    ]
    return tuple(flag for flag in dict.fromkeys(asked) if _is(model, BETA_FLAGS.get(flag, ())))


def adapted_body(body: bytes, model: str, flags: Iterable[str]) -> bytes:
    """The request as Bedrock takes it; `flags` are those that have survived. What is not listed here stays byte
    for byte. Raises ValueError if `body` is no JSON object."""
    request = ObjectText(body)
    put: dict[str, bytes] = {}
    remove = set(REMOVED)
    if request.value("anthropic_version") is None:
        put["anthropic_version"] = orjson.dumps(API_VERSION)
    betas = _betas(request, flags)
    if betas:
        put["anthropic_beta"] = orjson.dumps(betas)
    thinking = _thinking(request, model)
    if thinking is not None:
        put["thinking"] = thinking
    if CONTEXT_MANAGEMENT not in betas:
        remove.add("context_management")
    if _is(model, ADAPTIVE_ONLY):
        put |= _without_format(request)
    elif EFFORT not in betas:
        remove.add("output_config")
    return request.edited(put=put, remove=remove)


def _is_for_aws(name: str) -> bool:
    return name.startswith(_BEDROCK_PREFIX) or not (name in _NOT_FOR_AWS or name.startswith(_AWS_PREFIXES))


def _is(model: str, parts: Iterable[str]) -> bool:
    return any(part in model for part in parts)


def _betas(request: ObjectText, flags: Iterable[str]) -> list[str]:
    """Flags that the body brought itself were meant for Bedrock; those of the headers follow them."""
    own = [flag for flag in sequence(_parsed(request, "anthropic_beta")) if isinstance(flag, str)]
    return list(dict.fromkeys([*own, *flags]))


def _thinking(request: ObjectText, model: str) -> bytes | None:
    """What `thinking` must be instead; None: it stays."""
    written = request.value("thinking")
    thinking = parsed_object(written) if written is not None else None
    if written is None or thinking is None:
        return None
    match text(thinking.get("type")):
        case "enabled" if _is(model, ADAPTIVE_ONLY):
            return ObjectText(written).edited(put={"type": b'"adaptive"'}, remove={"budget_tokens"})
        case "adaptive" if not _is(model, EITHER_THINKING + ADAPTIVE_ONLY):
            return _budgeted(request)
        case _:
            return None


def _budgeted(request: ObjectText) -> bytes | None:
    """Adaptive thinking for a model that wants a budget: its share of max_tokens by the effort asked for. Nothing
    else of it is kept, as such a model knows nothing else. Without max_tokens the provider may judge."""
    limit = _parsed(request, "max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
        return None
    effort = text(mapping(_parsed(request, "output_config")).get("effort"))
    budget = limit * BUDGET_PERCENT.get(effort, BUDGET_PERCENT["high"]) // 100
    if budget < LEAST_BUDGET:
        return b'{"type":"disabled"}'
    return b'{"type":"enabled","budget_tokens":%d}' % budget


def _without_format(request: ObjectText) -> dict[str, bytes]:
    """Models that think adaptively take `output_config` without a flag, but not its `format`."""
    written = request.value("output_config")
    config = parsed_object(written) if written is not None else None
    if written is None or config is None or "format" not in config:
        return {}
    return {"output_config": ObjectText(written).edited(remove={"format"})}


def _parsed(request: ObjectText, name: str) -> object:
    written = request.value(name)
    return None if written is None else parse(written)
