"""Whose key pays: the user's own (BYOK) if one came with the request, else the provider's configured one."""

from dataclasses import dataclass, field
from typing import Literal

from aibridge.errors import Forbidden, Unauthorized
from aibridge.interception.model import Credential, mask
from aibridge.upstream.call import Headers

AuthHeader = Literal["x-api-key", "authorization"]


@dataclass(frozen=True, slots=True)
class CredentialRules:
    """Where a provider's clients put their key, first match first, and where the configured key goes. With a
    `fixed` credential there is nothing to choose: no key of a client's is looked at."""

    accepted: tuple[AuthHeader, ...]
    central: AuthHeader
    key: str | None = field(default=None, repr=False)
    fixed: Credential | None = None


def resolve(received: Headers, rules: CredentialRules, *, allow_byok: bool) -> Credential:
    """The credential of this request. Raises Forbidden (BYOK is off) or Unauthorized (there is none)."""
    if rules.fixed is not None:
        return rules.fixed
    for name in rules.accepted:
        secret = _secret(received, name)
        if secret:
            if not allow_byok:
                raise Forbidden("this gateway does not accept your own provider key")
            return _credential(name, secret, centralized=False)
    if rules.key is None:
        raise Unauthorized("no provider key: send your own, or ask the administrator to configure one")
    return _credential(rules.central, rules.key, centralized=True)


def bearer(value: str) -> str:
    """The token of an `Authorization: Bearer <token>` value; "" for anything else."""
    fields = value.split()
    return fields[1] if len(fields) == 2 and fields[0].lower() == "bearer" else ""


def _secret(received: Headers, name: AuthHeader) -> str:
    value = next((value for key, value in received if key == name), "")
    return bearer(value) if name == "authorization" else value.strip()


def _credential(name: AuthHeader, secret: str, *, centralized: bool) -> Credential:
    value = f"Bearer {secret}" if name == "authorization" else secret
    return Credential("centralized" if centralized else "byok", mask(secret), (name, value))
