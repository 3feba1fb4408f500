"""What the kernel knows of a socket, asked without reading from it or waiting.

gevent replaces `select.poll` by one that goes through its event loop and does not know of POLLRDHUP; these
questions never wait, so they always go to the kernel's own.
"""

import select
import socket
import sys
from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def _poll_class() -> Callable[[], Any]:
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original("select", "poll") if monkey else select.poll


def _has(sock: socket.socket, events: int) -> bool:
    descriptor = sock.fileno()
    if descriptor < 0:
        return True
    poll_class = _poll_class()
    poll = poll_class()
    poll.register(descriptor, events)
    return bool(poll.poll(0))


def hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed its side. (A client that only half-closes counts too, as in nginx.)"""
    return _has(sock, select.POLLRDHUP)


def readable(sock: socket.socket) -> bool:
    """Whether bytes or an end wait to be read; an idle connection on which that is so is of no more use."""
    return _has(sock, select.POLLIN | select.POLLRDHUP)
