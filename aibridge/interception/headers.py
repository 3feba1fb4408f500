"""Which headers of a client travel to the provider, and which of a provider's come back."""

from collections.abc import Iterable

from aibridge.interception.model import Actor, Credential
from aibridge.upstream.call import Headers

# RFC 9110, section 7.6.1, and what belongs to the one connection or the one hop.
_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
_OURS = {"host", "content-length", "accept-encoding", "authorization", "x-api-key", "cookie", "forwarded"}
_NOT_FOR_PROVIDERS = {"anthropic-workspace-id"}
_DROPPED = _HOP_BY_HOP | _OURS | _NOT_FOR_PROVIDERS
_DROPPED_PREFIXES = ("x-aibridge-", "x-ai-bridge-actor", "x-forwarded-", "proxy-", "x-coder-")

_RETURNED = {"content-type", "request-id", "x-request-id", "retry-after", "retry-after-ms", "x-should-retry"}
_RETURNED_PREFIXES = ("anthropic-ratelimit-", "x-ratelimit-", "openai-")

LONGEST_ACTOR_VALUE = 256


def upstream_headers(
    received: Headers,
    credential: Credential,
    *,
    defaults: Headers = (),
    actor: Actor,
    actor_headers: Iterable[tuple[str, str]] = (),
) -> Headers:
    """The client's headers (names in lower case) as the provider gets them.

    `defaults` are added where the client sent none. `actor_headers` are (attribute, header name) pairs; the
    client's own values for those names never pass.
    """
    actor_pairs = [(name.lower(), _actor_value(actor, attribute)) for attribute, name in actor_headers]
    named = {name for name, _ in actor_pairs} | _named_in_connection(received)
    dropped = _DROPPED | {name.replace("_", "-") for name in named}
    kept = [(name, value) for name, value in received if not _is_dropped(name, dropped)]
    present = {name for name, _ in kept}
    kept += [(name, value) for name, value in defaults if name not in present]
    kept.append(("accept-encoding", "identity"))
    kept.append(credential.header)
    return (*kept, *((name, value) for name, value in actor_pairs if value))


def returned_headers(received: Headers) -> Headers:
    """The provider's headers that the client of a bridged route gets."""
    return tuple(
        (name, value)
        for name, value in received
        if name in _RETURNED or name == "content-encoding" or name.startswith(_RETURNED_PREFIXES)
    )


def end_to_end(received: Headers) -> Headers:
    """The provider's headers without those of the connection and without cookies, for a passed-through answer."""
    dropped = _HOP_BY_HOP | {"set-cookie"} | _named_in_connection(received)
    return tuple((name, value) for name, value in received if name not in dropped)


def _is_dropped(name: str, dropped: set[str]) -> bool:
    """Underscores count as hyphens here: servers behind us may take one for the other."""
    name = name.replace("_", "-")
    return name in dropped or name.startswith(_DROPPED_PREFIXES)


def _named_in_connection(received: Headers) -> set[str]:
    return {
        option.strip().lower() for name, value in received if name == "connection" for option in value.split(",")
    }


def _actor_value(actor: Actor, attribute: str) -> str:
    """A value fit for a header: visible ASCII and not long; anything else is left out."""
    value = actor.id if attribute == "id" else ""
    fit = len(value) <= LONGEST_ACTOR_VALUE and all("!" <= character <= "~" for character in value)
    return value if fit else ""
