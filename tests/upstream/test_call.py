"""What every body of a provider's has in common."""

from aibridge.upstream.call import WholeBody


def test_a_body_that_is_here_waits_on_no_socket() -> None:
    body = WholeBody(b"here")
    assert body.source is None
    assert list(body) == [b"here"]
    body.close()
