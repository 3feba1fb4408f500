"""The provider's own keys on routes that are only passed through."""

import io

import pytest

from aibridge.errors import InvalidRequest, KeysRateLimited, KeysUnauthorized, UpstreamError
from aibridge.interception.forwarding import LARGEST_HELD, forward_with_keys
from aibridge.interception.gateway import ForwardedRequest, ForwardedResponse
from aibridge.upstream.call import Headers
from aibridge.upstream.key_pool import Key, KeyPool
from tests.fakes import FakeClock, ScriptedBody
from tests.upstream.scripted import FIRST, SECOND


class Provider:
    """Answers with the statuses in order and keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.sent: list[tuple[str, bytes]] = []
        self.answers: list[ScriptedBody] = []

    def __call__(self, request: ForwardedRequest) -> ForwardedResponse:
        self.sent.append((dict(request.headers)["x-api-key"], request.body.read()))
        status = self._statuses.pop(0)
        self.answers.append(ScriptedBody([b"%d" % status]))
        headers: Headers = (("content-length", "3"),)
        return ForwardedResponse(status, (*headers, ("retry-after", "9")), self.answers[-1])


def request(body: bytes = b"", *, length: int | None = -1, central: bool = True) -> ForwardedRequest:
    headers: Headers = (("x-api-key", "user"),)
    told = len(body) if length == -1 else length
    return ForwardedRequest("POST", "/v1/x", headers, io.BytesIO(body), told, central)


def pool(*keys: Key) -> KeyPool:
    return KeyPool("acme", keys or (FIRST, SECOND), clock=FakeClock())


def test_users_keys_and_providers_without_keys_are_left_alone() -> None:
    provider = Provider(429, 429)
    assert forward_with_keys(pool(), provider)(request(central=False)).status == 429
    assert forward_with_keys(None, provider)(request()).status == 429
    assert [key for key, _ in provider.sent] == ["user", "user"]


@pytest.mark.parametrize("status", [429, 401])
@pytest.mark.parametrize("body", [b"", b"small"])
def test_another_key_is_tried_with_the_same_body(status: int, body: bytes) -> None:
    provider = Provider(status, 200)
    keys = pool()
    assert forward_with_keys(keys, provider)(request(body)).status == 200
    assert provider.sent == [("secret-1", body), ("secret-2", body)]
    assert [answer.closed for answer in provider.answers] == [1, 0]
    assert sum(keys.transitions.values()) == 1


def test_no_key_is_left() -> None:
    with pytest.raises(KeysRateLimited) as raised:
        forward_with_keys(pool(), Provider(429, 429))(request())
    assert raised.value.retry_after == 9.0
    with pytest.raises(KeysUnauthorized):
        forward_with_keys(pool(), Provider(401, 401))(request())


def test_an_upload_is_not_held() -> None:
    """It goes out as it comes in, once; the next request takes the other key."""
    large = b"x" * (LARGEST_HELD + 1)
    for body, length in ((large, -1), (b"small", None)):
        provider, keys = Provider(429, 200), pool()
        forward = forward_with_keys(keys, provider)
        assert forward(request(body, length=length)).status == 429
        assert forward(request(body, length=length)).status == 200
        assert provider.sent == [("secret-1", body), ("secret-2", body)]
    with pytest.raises(UpstreamError):
        forward_with_keys(pool(), Provider(401))(request(large))


def test_the_only_key_needs_no_held_body() -> None:
    provider = Provider(429)
    assert forward_with_keys(pool(FIRST), provider)(request(b"small")).status == 429


def test_a_body_that_breaks_off_is_not_sent() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise InvalidRequest("the request body broke off")

    provider = Provider()
    broken = ForwardedRequest("POST", "/v1/x", (("x-api-key", ""),), Broken(), 5, central=True)
    with pytest.raises(InvalidRequest):
        forward_with_keys(pool(), provider)(broken)
    short = request(b"abc", length=5)
    forward_with_keys(pool(), provider := Provider(200))(short)
    assert provider.sent == [("secret-1", b"abc")]
