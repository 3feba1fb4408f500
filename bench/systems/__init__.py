"""The systems that are measured, each with one worker process unless told otherwise."""

from collections.abc import Mapping
from pathlib import Path

from bench.systems import litellm, nginx, portkey
from bench.systems.fake_provider import direct
from bench.systems.gateway import gateways
from bench.systems.model import ROOT, System

NOT_INSTALLED = "it could not be installed"


def systems(checkouts: Mapping[str, Path]) -> list[System]:
    """All that could be measured; `checkouts` are further source trees of the gateway, by name."""
    return [
        System("direct", direct, tls=False, scales=False),
        System("nginx", nginx.nginx, missing="" if nginx.program() else "nginx is not installed"),
        *gateways("ours", ROOT),
        *(system for name, root in checkouts.items() for system in gateways(name, root)),
        System(
            "litellm", litellm.litellm, spacing=0.02, missing="" if litellm.PROGRAM.exists() else NOT_INSTALLED
        ),
        System(
            "portkey",
            portkey.portkey,
            scales=False,
            spacing=0.008,
            missing="" if portkey.PROGRAM.exists() else NOT_INSTALLED,
        ),
    ]
