"""Who asked, in each mode, and what remains of the headers."""

import pytest

from aibridge.errors import Unauthorized
from aibridge.interception.model import Actor
from aibridge.settings import Auth
from aibridge.web.auth import authenticate

ALICE = Actor("alice", api_key_id="token-1")
TOKEN = "aib_alice"
PROXY = Auth(mode="proxy", header="X-Forwarded-User", secret_header="X-Proxy-Secret", secret="hush")


def verify(secret: str) -> Actor | None:
    return ALICE if secret == TOKEN else None


CARRIERS = [
    (("x-aibridge-token", TOKEN), ()),
    (("authorization", f"Bearer {TOKEN}"), ()),
    (("x-api-key", TOKEN), ()),
    (("x-aibridge-token", f" {TOKEN} "), (("authorization", "Bearer sk-own"),)),
    (("authorization", f"bearer {TOKEN}"), (("x-api-key", "sk-own"),)),
]


@pytest.mark.parametrize(("carrier", "rest"), CARRIERS)
def test_a_token_is_taken_from_where_it_is_and_removed(
    carrier: tuple[str, str], rest: tuple[tuple[str, str], ...]
) -> None:
    headers = (carrier, *rest, ("user-agent", "x"))
    assert authenticate(headers, Auth(mode="token"), verify) == (ALICE, (*rest, ("user-agent", "x")))


@pytest.mark.parametrize("headers", [(), (("x-api-key", "sk-own"),), (("x-api-key", "aib_mallory"),)])
def test_no_token_or_a_wrong_one_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Unauthorized):
        authenticate(headers, Auth(mode="token"), verify)


def test_the_tokens_own_header_goes_before_the_others() -> None:
    headers = (("x-api-key", "aib_other"), ("x-aibridge-token", TOKEN))
    assert authenticate(headers, Auth(mode="token"), verify) == (ALICE, ())


def test_open_mode_believes_what_it_is_told_but_forwards_no_token() -> None:
    assert authenticate((("x-user-id", "bob"),), Auth(), verify) == (Actor("bob"), ())
    assert authenticate((("x-user-id", " "),), Auth(), verify)[0].id == "anonymous"
    actor, remaining = authenticate((("x-api-key", TOKEN), ("accept", "*/*")), Auth(), verify)
    assert (actor.id, remaining) == ("anonymous", (("accept", "*/*"),))


def test_the_proxy_vouches_with_its_secret() -> None:
    headers = (("x-forwarded-user", "carol"), ("x-proxy-secret", "hush"))
    kept = ("accept", "*/*")
    spoofed = ("x_forwarded_user", "mallory")
    assert authenticate((*headers, kept, spoofed), PROXY, verify) == (Actor("carol"), (kept,))


def test_a_secret_in_the_providers_own_header_is_not_taken_for_a_key() -> None:
    auth = Auth(mode="proxy", header="X_User", secret_header="Authorization", secret="hush")
    headers = (("x_user", "carol"), ("authorization", "hush"), ("x-api-key", "sk-own"))
    assert authenticate(headers, auth, verify) == (Actor("carol"), (("x-api-key", "sk-own"),))


@pytest.mark.parametrize(
    "headers",
    [
        (("x-forwarded-user", "carol"),),
        (("x-forwarded-user", "carol"), ("x-proxy-secret", "wrong")),
        (("x-forwarded-user", "carol"), ("x-proxy-secret", "h\xfcsh")),
        (("x-proxy-secret", "hush"),),
        (("x-forwarded-user", "mallory"), ("x-forwarded-user", "carol"), ("x-proxy-secret", "hush")),
    ],
)
def test_whoever_comes_past_the_proxy_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Unauthorized):
        authenticate(headers, PROXY, verify)
