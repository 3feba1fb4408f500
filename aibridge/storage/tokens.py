"""The gateway's own tokens: who holds one is its actor.

Only the SHA-256 is stored. A token is 256 random bits, so a slow password hash would protect nothing more
and would cost every request.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, insert, select, update

from aibridge.errors import Unavailable
from aibridge.interception.model import Actor, mask
from aibridge.records import new_id, now
from aibridge.storage import tables
from aibridge.storage.database import Database, StorageError

PREFIX = "aib_"
SECRET_BYTES = 32
BELIEVED = 0.5  # seconds for which a token that was found is not looked up again
MOST_BELIEVED = 10_000  # tokens

_TOKENS = tables.tokens.c
_SELECT_ACTOR = select(_TOKENS.actor, _TOKENS.id).where(
    _TOKENS.token_sha256 == bindparam("sha256"), _TOKENS.revoked_at.is_(None)
)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it may be shown. `hint` is its masked form; `revoked_at` None: it is valid."""

    id: str
    actor: str
    description: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None


class Tokens:
    """The tokens in one database. All methods raise StorageError, except `verify`."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._believed: dict[str, tuple[float, Actor]] = {}  # by hash: until when, and whose it is

    def create(self, actor: str, description: str = "") -> tuple[str, str]:
        """A new token of `actor`: its id, and the secret, which nothing can show again."""
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        token_id = new_id()
        row = {
            "id": token_id,
            "actor": actor,
            "description": description,
            "token_sha256": _sha256(secret),
            "hint": mask(secret),
            "created_at": now(),
        }
        with self._database.writing() as connection:
            connection.execute(insert(tables.tokens), row)
        return token_id, secret

    def list(self) -> list[Token]:
        """All tokens, the revoked ones too, oldest first."""
        columns = (
            _TOKENS.id,
            _TOKENS.actor,
            _TOKENS.description,
            _TOKENS.hint,
            _TOKENS.created_at,
            _TOKENS.revoked_at,
        )
        with self._database.reading() as connection:
            found = connection.execute(select(*columns).order_by(_TOKENS.created_at, _TOKENS.id))
            return [Token(*row) for row in found]

    def revoke(self, token_id: str) -> bool:
        """Make a token invalid for ever; False if there is none with this id. Other processes hear of it within
        BELIEVED seconds. Revoking it again leaves the first time in place.
        """
        with self._database.writing() as connection:
            known = connection.execute(select(_TOKENS.id).where(_TOKENS.id == token_id)).first()
            connection.execute(
                update(tables.tokens)
                .where(_TOKENS.id == token_id, _TOKENS.revoked_at.is_(None))
                .values(revoked_at=now())
            )
        self._believed.clear()
        return known is not None

    def verify(self, secret: str) -> Actor | None:
        """Whom `secret` belongs to; None if it is no token of ours, or revoked.

        Found tokens are believed for a moment: agents ask in bursts, and a lookup costs a tenth of a request.
        Raises Unavailable if the database cannot tell.
        """
        if not secret.startswith(PREFIX):
            return None
        sha256, now = _sha256(secret), self._clock()
        until, actor = self._believed.get(sha256, (0.0, None))
        if actor is not None and now < until:
            return actor
        actor = self._found(sha256)
        if actor is not None:
            if len(self._believed) >= MOST_BELIEVED:
                self._believed.clear()
            self._believed[sha256] = now + BELIEVED, actor
        return actor

    def _found(self, sha256: str) -> Actor | None:
        try:
            with self._database.reading() as connection:
                found = connection.execute(_SELECT_ACTOR, {"sha256": sha256}).first()
        except StorageError as error:
            raise Unavailable("the gateway cannot check its tokens now", retry_after=1) from error
        return Actor(found.actor, api_key_id=found.id) if found else None


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
