"""Which hosts http actions may call: the operator's list, compared with the host that an action names."""

from collections.abc import Iterable
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def allowed(url: str, hosts: Iterable[str]) -> bool:
    """Whether one of `hosts` is the URL's: `api.example.com`, or `*.example.com` (any name below it, not itself),
    each with an optional `:port`; without one, every port will do."""
    target = urlsplit(url)
    name = target.hostname or ""
    port = target.port or _PORTS[target.scheme]
    return any(_matches(name, port, host) for host in hosts)


def _matches(name: str, port: int, host: str) -> bool:
    try:
        pattern = urlsplit(f"//{host.strip()}")
        wanted, wanted_port = pattern.hostname or "", pattern.port
    except ValueError:  # not a host at all, so it allows none
        return False
    if wanted_port not in (None, port):
        return False
    if wanted.startswith("*."):
        return name.endswith(wanted[1:]) and name != wanted[1:]
    return name == wanted
