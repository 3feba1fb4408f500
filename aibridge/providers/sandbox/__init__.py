"""The sandbox: a provider without a network, for trying the gateway and for its tests and demos."""

from aibridge.providers.sandbox.provider import sandbox_provider

__all__ = ["sandbox_provider"]
