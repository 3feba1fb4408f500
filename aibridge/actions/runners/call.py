"""What every kind of run needs to know of a call."""

from dataclasses import dataclass

from aibridge.actions.interpolation import Arguments
from aibridge.actions.runners.time_limit import TimeLimit
from aibridge.actions.secrets import Secrets


@dataclass(frozen=True, slots=True)
class Call:
    """`arguments` has the declared inputs only; `secrets` gathers those that the run reads."""

    arguments: Arguments
    secrets: Secrets
    limit: TimeLimit
    max_output_bytes: int
