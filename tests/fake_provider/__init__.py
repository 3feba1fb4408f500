"""A provider of our own on loopback: scripted answers, real sockets, every fault that a network can have."""

from tests.fake_provider.server import FakeProvider, Received, Reply, Step

__all__ = ["FakeProvider", "Received", "Reply", "Step"]
