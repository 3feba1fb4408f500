"""What one intercepted request is: who asked, with which client, on whose credential, for what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aibridge.records import CredentialKind


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked. `api_key_id` is the id of the gateway token that proved it, if one did."""

    id: str
    api_key_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


ANONYMOUS = Actor("anonymous")


@dataclass(frozen=True, slots=True)
class Credential:
    """What the provider is paid with: one header. The secret stays out of the repr; `hint` may be shown."""

    kind: CredentialKind
    hint: str
    header: tuple[str, str] = field(repr=False)


def mask(secret: str) -> str:
    """Enough of a secret to tell it from another: at most four characters on either side of `...`."""
    length = len(secret)
    shown = 4 if length >= 20 else 2 if length >= 10 else 1 if length >= 5 else 0
    if not secret:
        return ""
    return f"{secret[:shown]}...{secret[length - shown :]}" if shown else "..."


@dataclass(frozen=True, slots=True)
class Client:
    """The program that asked and, if it said so, its session. `markers` tell a subagent from its parent."""

    name: str
    session_id: str | None = None
    markers: Mapping[str, str] = field(default_factory=dict)
