"""A token proves its actor until it is revoked, and cannot be read back."""

import re

import pytest
from sqlalchemy import text

from aibridge.errors import Unavailable
from aibridge.interception.model import Actor
from aibridge.storage import tokens as tokens_module
from aibridge.storage.database import Database
from aibridge.storage.tokens import Tokens
from tests.fakes import FakeClock


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return Tokens(database)


def test_a_token_proves_its_actor(tokens: Tokens) -> None:
    token_id, secret = tokens.create("alice", "laptop")
    other_id, other = tokens.create("bob")
    assert re.fullmatch(r"aib_[A-Za-z0-9_-]{43}", secret)
    assert tokens.verify(secret) == Actor("alice", api_key_id=token_id)
    assert tokens.verify(other) == Actor("bob", api_key_id=other_id)


@pytest.mark.parametrize("wrong", ["", "aib_", "aib_" + "x" * 43, "sk-ant-api03-x", "aib_\udcff", "aib_' OR 1=1"])
def test_anything_else_proves_nothing(tokens: Tokens, wrong: str) -> None:
    tokens.create("alice")
    assert tokens.verify(wrong) is None


def test_a_revoked_token_is_worth_nothing_at_once(tokens: Tokens) -> None:
    token_id, secret = tokens.create("alice")
    _, kept = tokens.create("alice")
    assert tokens.verify(secret)
    assert tokens.revoke(token_id)
    assert tokens.verify(secret) is None
    assert tokens.verify(kept)
    revoked_at = tokens.list()[0].revoked_at
    assert tokens.revoke(token_id)
    assert tokens.list()[0].revoked_at == revoked_at
    assert not tokens.revoke("no such id")


def test_other_processes_hear_of_a_revocation_within_a_moment(database: Database) -> None:
    clock = FakeClock()
    here, there = Tokens(database), Tokens(database, clock=clock)
    token_id, secret = here.create("alice")
    assert there.verify(secret)
    here.revoke(token_id)
    clock.advance(tokens_module.BELIEVED)
    assert there.verify(secret) is None


def test_no_more_tokens_are_kept_in_mind_than_there_is_room_for(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "MOST_BELIEVED", 2)
    secrets = [tokens.create(f"actor{number}")[1] for number in range(5)]
    assert all(tokens.verify(secret) for secret in secrets)
    assert len(tokens._believed) <= 2


def test_the_list_shows_no_secret(tokens: Tokens, database: Database) -> None:
    token_id, secret = tokens.create("alice", "laptop")
    tokens.create("bob")
    first, second = tokens.list()
    assert (first.id, first.actor, first.description, first.revoked_at) == (token_id, "alice", "laptop", None)
    assert first.hint == f"aib_...{secret[-4:]}"
    assert first.created_at <= second.created_at
    with database.reading() as connection:
        stored = connection.execute(text("SELECT * FROM aibridge_tokens")).all()
    assert secret.removeprefix("aib_") not in str(stored)


def test_a_database_that_cannot_tell_is_not_a_wrong_token(empty_database: Database) -> None:
    empty_database.upgrade()
    with empty_database.writing() as connection:
        connection.execute(text("DROP TABLE aibridge_tokens"))
    with pytest.raises(Unavailable):
        Tokens(empty_database).verify("aib_secret")


def test_only_what_looks_like_a_token_costs_a_query() -> None:
    unreachable = Database("postgresql+psycopg://user@127.0.0.1:1/db")
    assert Tokens(unreachable).verify("sk-ant-api03-x") is None
    with pytest.raises(Unavailable):
        Tokens(unreachable).verify("aib_x")
