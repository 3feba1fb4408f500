"""Whose key pays: the user's own (BYOK) if one came with the request, else the provider's configured one."""

from dataclasses import dataclass, field
from typing import Literal

from aibridge.errors import Forbidden, Unauthorized
from aibridge.interception.model import Credential, mask
from aibridge.upstream.call import Headers
from aibridge.upstream.key_pool import Key

AuthHeader = Literal["x-api-key", "authorization"]

ONE_OF_SEVERAL = "<failover key>"  # the credential hint until one of several keys has been used


@dataclass(frozen=True, slots=True)
class CredentialRules:
    """Where a provider's clients put their key, first match first, and where the configured keys go, in the order
    of their use. With a `fixed` credential there is nothing to choose: no key of a client's is looked at."""

    accepted: tuple[AuthHeader, ...]
    central: AuthHeader
    keys: tuple[str, ...] = field(default=(), repr=False)
    fixed: Credential | None = None

    def pool(self) -> tuple[Key, ...]:
        """The configured keys as a key pool takes them."""
        return tuple(Key(mask(secret), _header(self.central, secret)) for secret in self.keys)


def resolve(received: Headers, rules: CredentialRules, *, allow_byok: bool) -> Credential:
    """The credential of this request. Raises Forbidden (BYOK is off) or Unauthorized (there is none). Of several
    configured keys the first stands for all; which one pays is not known before the provider is asked."""
    if rules.fixed is not None:
        return rules.fixed
    for name in rules.accepted:
        secret = _secret(received, name)
        if secret:
            if not allow_byok:
                raise Forbidden("this gateway does not accept your own provider key")
            return Credential("byok", mask(secret), _header(name, secret))
    if not rules.keys:
        raise Unauthorized("no provider key: send your own, or ask the administrator to configure one")
    hint = mask(rules.keys[0]) if len(rules.keys) == 1 else ONE_OF_SEVERAL
    return Credential("centralized", hint, _header(rules.central, rules.keys[0]))


def bearer(value: str) -> str:
    """The token of an `Authorization: Bearer <token>` value; "" for anything else."""
    fields = value.split()
    return fields[1] if len(fields) == 2 and fields[0].lower() == "bearer" else ""


def _secret(received: Headers, name: AuthHeader) -> str:
    value = next((value for key, value in received if key == name), "")
    return bearer(value) if name == "authorization" else value.strip()


def _header(name: AuthHeader, secret: str) -> tuple[str, str]:
    return name, f"Bearer {secret}" if name == "authorization" else secret
