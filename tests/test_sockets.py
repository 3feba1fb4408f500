"""What the kernel tells of a connection."""

import socket

from aibridge.sockets import hung_up, readable


def test_a_peer_that_leaves_is_seen_and_one_that_writes_is_not_taken_for_it() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert not hung_up(here)
        assert not readable(here)
        there.sendall(b"more")
        assert not hung_up(here)
        assert readable(here)
        there.close()
        assert hung_up(here)
    assert hung_up(here)
