"""Who asked: the three modes of `auth.mode`.

What identified the actor to us is taken out of the headers before anything else looks at them, so that it
can neither be mistaken for the user's own provider key nor reach a provider.
"""

import hmac

from aibridge.errors import Unauthorized
from aibridge.interception.credentials import bearer
from aibridge.interception.gateway import VerifyToken
from aibridge.interception.model import ANONYMOUS, Actor
from aibridge.settings import Auth
from aibridge.upstream.call import Headers

TOKEN_PREFIX = "aib_"
USER_HEADER = "x-user-id"  # mode open
LONGEST_ACTOR = 256


def authenticate(received: Headers, auth: Auth, verify_token: VerifyToken) -> tuple[Actor, Headers]:
    """The actor and the headers that remain. Raises Unauthorized."""
    token, remaining = _without_gateway_token(received)
    match auth.mode:
        case "token":
            actor = verify_token(token) if token else None
            if actor is None:
                raise Unauthorized("a gateway token is required" if not token else "unknown gateway token")
            return actor, remaining
        case "proxy":
            return _vouched_for(remaining, auth)
        case _:
            name = _single(remaining, USER_HEADER).strip()[:LONGEST_ACTOR]
            return (Actor(name) if name else ANONYMOUS), _without(remaining, {USER_HEADER})


def _without_gateway_token(received: Headers) -> tuple[str, Headers]:
    """The token, from its own header or from where the client keeps its API key, and the other headers."""
    found = {name: value for name, value in reversed(received) if _gateway_token(name, value)}
    token = next(
        (
            _gateway_token(name, found[name])
            for name in ("x-aibridge-token", "authorization", "x-api-key")
            if name in found
        ),
        "",
    )
    return token, tuple((name, value) for name, value in received if not _gateway_token(name, value))


def _gateway_token(name: str, value: str) -> str:
    match name:
        case "x-aibridge-token":
            return value.strip()
        case "authorization":
            secret = bearer(value)
        case "x-api-key":
            secret = value.strip()
        case _:
            return ""
    return secret if secret.startswith(TOKEN_PREFIX) else ""


def _vouched_for(received: Headers, auth: Auth) -> tuple[Actor, Headers]:
    assert auth.secret is not None
    assert auth.secret_header is not None
    secret = _single(received, auth.secret_header.lower())
    if not hmac.compare_digest(secret.encode(), auth.secret.get_secret_value().encode()):
        raise Unauthorized("this gateway is reached through its proxy only")
    name = _single(received, auth.header.lower()).strip()[:LONGEST_ACTOR]
    if not name:
        raise Unauthorized(f"the proxy did not say who asks ({auth.header})")
    return Actor(name), _without(received, {auth.header.lower(), auth.secret_header.lower()})


def _without(received: Headers, names: set[str]) -> Headers:
    """Spelled with hyphens or underscores: servers behind us may take one for the other."""
    gone = {name.replace("_", "-") for name in names}
    return tuple((name, value) for name, value in received if name.replace("_", "-") not in gone)


def _single(received: Headers, name: str) -> str:
    """The header's value if it was sent exactly once: of two, one may be the client's own invention."""
    values = [value for key, value in received if key == name]
    return values[0] if len(values) == 1 else ""
