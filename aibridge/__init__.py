"""aibridge: an open gateway between AI clients and AI providers.

`create_app` is loaded on first use: reading the settings must not import the web stack, because under gevent
the standard library has to be patched before anything imports sockets, TLS or threads.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aibridge.app import create_app
    from aibridge.settings import Settings

__all__ = ["Settings", "create_app"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from aibridge.app import create_app  # noqa: PLC0415

        return create_app
    if name == "Settings":
        from aibridge.settings import Settings  # noqa: PLC0415

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
